"""What can go wrong: one hierarchy, a class per gRPC code.

Owns the mapping of codes to classes and what an error says of when to try again. Deliberately absent: mistakes that
are seen before anything is sent, which are ValueError and TypeError.
"""

from __future__ import annotations

from typing import Any

import grpc
from google.protobuf.message import DecodeError

from ._proto.diptych.client.v1 import standard_pb2 as standard

_DETAILS = "grpc-status-details-bin"


class DiptychError(Exception):
    """What the server answered instead of a result; its text is the server's, which says what to do next."""

    def __init__(self, message: str, code: grpc.StatusCode, retry_delay: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.retry_delay = retry_delay
        """Seconds after which the server wants the next attempt; None when it does not say."""


class Cancelled(DiptychError):
    """The call was cancelled."""


class InvalidArgument(DiptychError):
    """The request cannot work as it is."""


class DeadlineExceeded(DiptychError):
    """There was no answer within the timeout."""


class NotFound(DiptychError):
    """There is no such collection, record or part."""


class AlreadyExists(DiptychError):
    """The key holds other content, and the write was an insert."""


class PermissionDenied(DiptychError):
    """The API key may not do this."""


class ResourceExhausted(DiptychError):
    """Too many requests, or the disk is full: try again later."""


class FailedPrecondition(DiptychError):
    """The collection is not in a state for this, such as that of another model."""


class Unimplemented(DiptychError):
    """The server does not know this call."""


class Internal(DiptychError):
    """The server failed."""


class Unavailable(DiptychError):
    """The server cannot be reached, or cannot work now."""


class DataLoss(DiptychError):
    """A stored file failed its checksum."""


class Unauthenticated(DiptychError):
    """The API key is missing or not accepted."""


_CLASSES: dict[grpc.StatusCode, type[DiptychError]] = {
    grpc.StatusCode.CANCELLED: Cancelled,
    grpc.StatusCode.INVALID_ARGUMENT: InvalidArgument,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.ALREADY_EXISTS: AlreadyExists,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDenied,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ResourceExhausted,
    grpc.StatusCode.FAILED_PRECONDITION: FailedPrecondition,
    grpc.StatusCode.UNIMPLEMENTED: Unimplemented,
    grpc.StatusCode.INTERNAL: Internal,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.DATA_LOSS: DataLoss,
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
}

_BY_NUMBER: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}


def from_rpc(error: Any) -> DiptychError:
    """The error of a call that failed: a grpc.RpcError, of either kind of channel."""
    code: grpc.StatusCode = error.code()
    message: str = error.details() or f"the call failed with {code.name} and without a word"
    kind = _CLASSES.get(code, DiptychError)
    return kind(message, code, _retry_delay(error.trailing_metadata() or ()))


def from_code(code: int, message: str) -> DiptychError:
    """The error of one item of a stream, from its canonical code."""
    status = _BY_NUMBER.get(code, grpc.StatusCode.UNKNOWN)
    return _CLASSES.get(status, DiptychError)(message, status)


def stream_ended_early(unanswered: int, what: str) -> DiptychError:
    """The error of a stream that the server ended before it had answered everything."""
    message = f"the server ended the stream with {unanswered} {what} unanswered; send these again"
    return Unavailable(message, grpc.StatusCode.UNAVAILABLE)


def still_running(operation: str) -> DiptychError:
    """The error of a wait that was longer than its timeout."""
    message = f"{operation} has not ended in time; wait again, it goes on"
    return DeadlineExceeded(message, grpc.StatusCode.DEADLINE_EXCEEDED)


def _retry_delay(metadata: Any) -> float | None:
    for key, value in metadata:
        if key != _DETAILS:
            continue
        try:
            status = standard.ErrorStatus.FromString(value)
            for detail in status.details:
                if detail.type_url.endswith("/google.rpc.RetryInfo"):
                    delay = standard.RetryInfo.FromString(detail.value).retry_delay
                    return max(0.0, delay.seconds + delay.nanos / 1e9)
        except DecodeError:
            # Details are an extra: what cannot be read says nothing.
            return None
    return None
