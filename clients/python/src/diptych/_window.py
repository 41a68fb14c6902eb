"""How much of a stream is under way at once.

Owns the bound. Deliberately absent: the stream itself.
"""

from __future__ import annotations

from collections import deque

from google.protobuf.message import Message

IN_FLIGHT_MAX = 256
"""Past this, answers that nobody reads could stop the stream."""
_BYTES_IN_FLIGHT = 64 << 20


class Window:
    """What has been sent and not answered: at most so many requests, and about 64 MiB."""

    def __init__(self, in_flight: int) -> None:
        if not 1 <= in_flight <= IN_FLIGHT_MAX:
            raise ValueError(f"in_flight is 1 to {IN_FLIGHT_MAX}, not {in_flight}")
        self._limit = in_flight
        self._sizes: deque[int] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._sizes)

    @property
    def open(self) -> bool:
        """Whether another request may be sent."""
        return len(self._sizes) < self._limit and self._bytes < _BYTES_IN_FLIGHT

    def sent(self, request: Message) -> None:
        """Takes a request in."""
        size = request.ByteSize()
        self._sizes.append(size)
        self._bytes += size

    def answered(self) -> None:
        """Lets the oldest out: answers come in order."""
        self._bytes -= self._sizes.popleft()
