//! What can go wrong with a call.
//!
//! Owns: one error type, and what a status of gRPC says. Deliberately absent: whether a call may be repeated, which
//! the call knows.

use std::error::Error as _;
use std::time::Duration;

use diptych_proto::convert::WireError;
use tonic::{Code, Status, TimeoutExpired};
use tonic_types::StatusExt;

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// The server refused or failed, or it cannot be reached.
    #[error("{message} ({code:?})")]
    Status {
        /// The canonical code.
        code: Code,
        /// What is wrong and what to do next, in the server's words.
        message: String,
        /// The id by which the server's logs name the request; absent where no request was made.
        request_id: Option<String>,
        /// When the server wants to be asked again, where it says so.
        retry_after: Option<Duration>,
    },
    /// Nothing was sent, since it could not have worked.
    #[error("{reason}")]
    Request {
        /// What is wrong and what would be right.
        reason: String,
    },
    /// An answer that is none.
    #[error(
        "the server's answer cannot be read: {reason}; its version and the client's may be too far apart"
    )]
    Answer {
        /// What is missing or odd.
        reason: String,
    },
}

impl Error {
    /// The canonical code; of what was not sent `InvalidArgument`, of what cannot be read `Internal`.
    pub fn code(&self) -> Code {
        match self {
            Self::Status { code, .. } => *code,
            Self::Request { .. } => Code::InvalidArgument,
            Self::Answer { .. } => Code::Internal,
        }
    }

    /// What is wrong and what to do next.
    pub fn message(&self) -> &str {
        match self {
            Self::Status { message, .. } => message,
            Self::Request { reason } | Self::Answer { reason } => reason,
        }
    }

    /// The id by which the server's logs name the request.
    pub fn request_id(&self) -> Option<&str> {
        match self {
            Self::Status { request_id, .. } => request_id.as_deref(),
            Self::Request { .. } | Self::Answer { .. } => None,
        }
    }

    /// When the server wants to be asked again, where it says so.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            Self::Request { .. } | Self::Answer { .. } => None,
        }
    }

    /// Whether the same request may succeed later: the server cannot be reached, or has too much to do.
    pub fn is_retryable(&self) -> bool {
        matches!(self.code(), Code::Unavailable | Code::ResourceExhausted)
    }

    pub(crate) fn request(reason: impl ToString) -> Self {
        Self::Request { reason: reason.to_string() }
    }

    pub(crate) fn answer(reason: impl ToString) -> Self {
        Self::Answer { reason: reason.to_string() }
    }

    /// An answer that lacks what it must have.
    pub(crate) fn lacks(what: &str) -> Self {
        Self::answer(format_args!("it has no {what}"))
    }

    pub(crate) fn unavailable(message: impl ToString) -> Self {
        Self::of(Code::Unavailable, message.to_string())
    }

    /// An error of one item of a stream.
    pub(crate) fn of_item(code: i32, message: String) -> Self {
        Self::of(Code::from(code), message)
    }

    pub(crate) fn late(timeout: Duration, request_id: &str) -> Self {
        let message = format!("there was no answer within {timeout:?}; allow more time, or ask for less");
        Self::of(Code::DeadlineExceeded, message).with_request_id(request_id)
    }

    pub(crate) fn with_request_id(mut self, id: &str) -> Self {
        if let Self::Status { request_id, .. } = &mut self {
            *request_id = Some(id.to_owned());
        }
        self
    }

    fn of(code: Code, message: String) -> Self {
        Self::Status { code, message, request_id: None, retry_after: None }
    }
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        let (code, message) = match cause(&status) {
            None => (status.code(), status.message().to_owned()),
            Some(Cause::Time) => (Code::DeadlineExceeded, "there was no answer in time".to_owned()),
            Some(Cause::Connection(said)) => (Code::Unavailable, format!("the connection failed: {said}")),
        };
        let retry_after = status.get_details_retry_info().and_then(|info| info.retry_delay);
        Self::Status { code, message, request_id: None, retry_after }
    }
}

impl From<WireError> for Error {
    fn from(error: WireError) -> Self {
        Self::answer(error)
    }
}

/// Why there is no answer at all.
enum Cause {
    Time,
    Connection(String),
}

/// What the transport says of a status that no server has sent; such a status has a source.
fn cause(status: &Status) -> Option<Cause> {
    let mut source = Some(status.source()?);
    let local = matches!(status.code(), Code::Unknown | Code::Internal | Code::Cancelled | Code::Unavailable);
    let mut said = String::new();
    while let Some(error) = source.filter(|_| local) {
        if error.is::<TimeoutExpired>() {
            return Some(Cause::Time);
        }
        let text = error.to_string();
        if !said.contains(&text) {
            said = if said.is_empty() { text } else { format!("{said}: {text}") };
        }
        source = error.source();
    }
    local.then_some(Cause::Connection(said))
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn what_the_server_says_is_kept_and_a_broken_connection_is_unavailable() {
        let refused = Error::from(Status::not_found("there is no record 'a'")).with_request_id("7");
        assert_eq!((refused.code(), refused.request_id()), (Code::NotFound, Some("7")));
        assert_eq!(refused.to_string(), "there is no record 'a' (NotFound)");
        assert!(!refused.is_retryable());
        // The server's own words are never taken for the transport's.
        assert_eq!(Error::from(Status::internal("a bug")).code(), Code::Internal);
        let broken = io::Error::new(io::ErrorKind::ConnectionReset, "reset by peer");
        let broken = Error::from(Status::from_error(Box::new(broken)));
        assert!(broken.is_retryable() && broken.message().contains("reset by peer"), "{broken}");
        let late = Status::from_error(Box::new(TimeoutExpired(())));
        assert_eq!(Error::from(late).code(), Code::DeadlineExceeded);
    }
}
