//! Accepts connections up to a bound; one beyond it is closed at once.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::{Connected, TcpConnectInfo};

use crate::Metrics;
use crate::metrics::OpenConnection;

/// A connection that counts as open for as long as it lives.
pub(crate) struct Counted {
    stream: TcpStream,
    _permit: OwnedSemaphorePermit,
    _open: OpenConnection,
}

/// The stream of accepted connections; it ends when it is dropped.
pub(crate) fn accept(
    listener: TcpListener,
    max: usize,
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
            let counted = Counted { stream, _permit: permit, _open: metrics.connection() };
            if send.send(Ok(counted)).await.is_err() {
                return;
            }
        }
    });
    ReceiverStream::new(accepted)
}

impl Connected for Counted {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.stream.connect_info()
    }
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
