//! The body of an answer, watched for its end.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, response};
use http_body::{Body as _, Frame, SizeHint};
use tonic::body::Body;
use tonic::{Code, Status};

use super::work::Unfinished;

/// A body that tells when it ends, and with what status.
pub(super) struct ObservedBody {
    inner: Body,
    unfinished: Option<Unfinished>,
}

impl ObservedBody {
    /// Watches a body, unless the head says already how the request ended.
    pub(super) fn of(head: &response::Parts, inner: Body, unfinished: Unfinished) -> Body {
        if let Some(code) = code_of(&head.headers) {
            unfinished.finish(code);
            return inner;
        }
        if inner.is_end_stream() {
            // No status, neither here nor in trailers to come: nothing that speaks gRPC.
            unfinished.finish(Code::Unknown);
            return inner;
        }
        Body::new(Self { inner, unfinished: Some(unfinished) })
    }

    fn finish(&mut self, code: Code) {
        if let Some(unfinished) = self.unfinished.take() {
            unfinished.finish(code);
        }
    }
}

impl http_body::Body for ObservedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = std::task::ready!(Pin::new(&mut self.inner).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(trailers) = frame.trailers_ref() {
                    self.finish(code_of(trailers).unwrap_or(Code::Unknown));
                }
            }
            Some(Err(status)) => self.finish(status.code()),
            None => self.finish(Code::Unknown),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

fn code_of(headers: &HeaderMap) -> Option<Code> {
    headers.get("grpc-status").map(|status| Code::from_bytes(status.as_bytes()))
}
