//! Accepts connections up to a bound, with TLS or without; one beyond it is closed at once.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::{Connected, TcpConnectInfo};

use crate::Metrics;
use crate::access::Tls;
use crate::metrics::OpenConnection;

/// How long a client may take to agree on a cipher: others do not wait, but it counts as open.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);

/// A connection that counts as open for as long as it lives.
pub(crate) struct Counted {
    stream: Wire,
    peer: TcpConnectInfo,
    _permit: OwnedSemaphorePermit,
    _open: OpenConnection,
}

/// What bytes go over.
enum Wire {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// The stream of accepted connections; it ends when it is dropped.
pub(crate) fn accept(
    listener: TcpListener,
    max: usize,
    tls: Option<Arc<Tls>>,
    metrics: Metrics,
) -> ReceiverStream<io::Result<Counted>> {
    let (send, accepted) = mpsc::channel(1);
    let open = Arc::new(Semaphore::new(max));
    tokio::spawn(async move {
        loop {
            let next = tokio::select! {
                next = listener.accept() => next,
                () = send.closed() => return,
            };
            let stream = match next {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Such as no file descriptor being left: the listener itself is fine.
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::task::yield_now().await;
                    continue;
                }
            };
            let Ok(permit) = Arc::clone(&open).try_acquire_owned() else {
                tracing::warn!(max, "connection refused: too many are open");
                metrics.connection_refused();
                continue;
            };
            // Small answers should not wait for more to fill a packet.
            let _ = stream.set_nodelay(true);
            let peer = stream.connect_info();
            let counts = metrics.connection();
            let Some(tls) = &tls else {
                let counted = Counted { stream: Wire::Plain(stream), peer, _permit: permit, _open: counts };
                if send.send(Ok(counted)).await.is_err() {
                    return;
                }
                continue;
            };
            let acceptor = TlsAcceptor::from(tls.current(Instant::now()));
            let send = send.clone();
            tokio::spawn(async move {
                match timeout(HANDSHAKE_MAX, acceptor.accept(stream)).await {
                    Ok(Ok(stream)) => {
                        let stream = Wire::Tls(Box::new(stream));
                        // Nobody takes it when the server is stopping.
                        let counted = Counted { stream, peer, _permit: permit, _open: counts };
                        let _ = send.send(Ok(counted)).await;
                    }
                    Ok(Err(error)) => tracing::debug!(%error, peer = ?peer.remote_addr(), "no TLS"),
                    Err(_) => tracing::debug!(peer = ?peer.remote_addr(), "no TLS in time"),
                }
            });
        }
    });
    ReceiverStream::new(accepted)
}

impl Connected for Counted {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.peer.clone()
    }
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Wire::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Wire::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Wire::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Wire::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Wire::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Wire::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Wire::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Wire::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
