//! Engine errors to gRPC codes, and the names of those: one exhaustive match, no wildcard, so that a new error must choose.

use diptych_core::EncodeError;
use diptych_engine::EngineError;
use diptych_store::StoreError;
use tonic::{Code, Status};

use crate::access::Caller;

/// The status a client gets for an error. The message is the error's own, which says what to do.
pub(crate) fn from_engine(error: &EngineError) -> Status {
    let code = code(error);
    if matches!(code, Code::Internal | Code::DataLoss | Code::Unavailable) {
        tracing::error!(%error, "a request failed");
    }
    Status::new(code, message(error))
}

/// The error's own message, less the names of collections that the caller's key is not for.
fn message(error: &EngineError) -> String {
    match (error, Caller::current()) {
        (EngineError::CollectionNotFound { name, existing }, Ok(caller)) => {
            let existing = existing.iter().filter(|name| caller.sees(name)).cloned().collect();
            EngineError::CollectionNotFound { name: name.clone(), existing }.to_string()
        }
        _ => error.to_string(),
    }
}

fn code(error: &EngineError) -> Code {
    match error {
        EngineError::Encode(error) => match error {
            EncodeError::Image { .. }
            | EncodeError::ImageTooLarge { .. }
            | EncodeError::EmptyText
            | EncodeError::TextTooLong { .. } => Code::InvalidArgument,
            EncodeError::Model { .. } => Code::Internal,
        },
        EngineError::Query(_)
        | EngineError::Filter(_)
        | EngineError::Embedding(_)
        | EngineError::Record(_)
        | EngineError::Name(_)
        | EngineError::Schema(_)
        | EngineError::RequestReused { .. }
        | EngineError::Source { .. }
        | EngineError::Cancelled
        | EngineError::Labels { .. }
        | EngineError::Dimension { .. } => Code::InvalidArgument,
        EngineError::NotCalibrated { .. } => Code::FailedPrecondition,
        EngineError::CollectionNotFound { .. }
        | EngineError::CollectionDeleted { .. }
        | EngineError::RecordNotFound { .. }
        | EngineError::PartNotFound { .. } => Code::NotFound,
        EngineError::AlreadyExists { .. } | EngineError::CollectionExists { .. } => Code::AlreadyExists,
        EngineError::Vectors { .. } => Code::InvalidArgument,
        EngineError::ForeignVectors { .. } => Code::FailedPrecondition,
        EngineError::Overloaded { .. } | EngineError::BackupRunning => Code::ResourceExhausted,
        EngineError::Closed => Code::Unavailable,
        // Vectors are checked before they reach the index, so what is left is the server's fault.
        EngineError::Index(_) => Code::Internal,
        EngineError::Lexical(error) if error.is_of_query() => Code::InvalidArgument,
        EngineError::Lexical(_) => Code::Unavailable,
        EngineError::Store(error) => match error {
            StoreError::ModelMismatch { .. } | StoreError::Version { .. } => Code::FailedPrecondition,
            StoreError::InUse { .. } | StoreError::Missing { .. } | StoreError::NotAStore { .. } => {
                Code::FailedPrecondition
            }
            StoreError::Full { .. } => Code::ResourceExhausted,
            StoreError::Io { .. } | StoreError::Halted => Code::Unavailable,
            StoreError::Corrupt { .. } => Code::DataLoss,
            StoreError::TooMuch { .. } => Code::InvalidArgument,
            StoreError::UnknownCollection { .. }
            | StoreError::Dimension { .. }
            | StoreError::InvalidMutation { .. } => Code::Internal,
        },
    }
}

/// A code by its canonical name.
pub(crate) fn name_of(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
