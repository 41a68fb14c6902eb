//! The body of an answer, followed to its end.
//!
//! Deliberately absent: what is done at the end, which whoever follows says.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as _, Frame, SizeHint};
use tonic::body::Body;
use tonic::{Code, Status};

/// Tells `at_end` with what status an answer ends: at once where its head says so, else when its body does. Given up
/// before its end, the body drops `at_end` uncalled.
pub(crate) fn follow(
    head: &HeaderMap,
    body: Body,
    at_end: impl FnOnce(Code) + Send + Unpin + 'static,
) -> Body {
    if let Some(code) = code_of(head) {
        at_end(code);
        return body;
    }
    if body.is_end_stream() {
        // No status, neither here nor in trailers to come: nothing that speaks gRPC.
        at_end(Code::Unknown);
        return body;
    }
    Body::new(Followed { body, at_end: Some(at_end) })
}

/// The status that headers or trailers say, if they do.
pub(crate) fn code_of(headers: &HeaderMap) -> Option<Code> {
    headers.get(Status::GRPC_STATUS).map(|status| Code::from_bytes(status.as_bytes()))
}

struct Followed<F> {
    body: Body,
    at_end: Option<F>,
}

impl<F: FnOnce(Code)> Followed<F> {
    fn ended(&mut self, code: Code) {
        if let Some(at_end) = self.at_end.take() {
            at_end(code);
        }
    }
}

impl<F: FnOnce(Code) + Unpin> http_body::Body for Followed<F> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(trailers) = frame.trailers_ref() {
                    self.ended(code_of(trailers).unwrap_or(Code::Unknown));
                }
            }
            Some(Err(status)) => self.ended(status.code()),
            None => self.ended(Code::Unknown),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
