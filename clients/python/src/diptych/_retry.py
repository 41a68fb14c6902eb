"""When a call that failed is tried again.

Owns the decision. Deliberately absent: the waiting and the call, which differ between the clients, and whether a call
may be repeated at all, which they know.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from ._errors import DiptychError, ResourceExhausted, Unavailable


@dataclass(frozen=True)
class RetryPolicy:
    """How calls that change nothing are repeated while the server is unavailable or has too much to do.

    Before attempt n + 1 the client waits between 0 and `first_delay * 2**(n - 1)` seconds, evenly drawn ("full
    jitter"), at most `max_delay`. Where the server names a delay, it waits that long and up to a quarter longer, so
    that clients refused together do not come back together. A wait that would end after the timeout is not begun.
    """

    attempts: int = 4
    """Attempts in all; 1 for no repetition."""
    first_delay: float = 0.1
    """Seconds, the most before the second attempt."""
    max_delay: float = 5.0
    """Seconds, the most before any attempt, unless the server names a longer delay."""

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ValueError(f"a call has at least 1 attempt, not {self.attempts}")
        if not (0 <= self.first_delay and 0 <= self.max_delay):
            raise ValueError("delays between attempts are 0 seconds or more")

    def delay(self, error: DiptychError, attempts_made: int, time_left: float | None) -> float | None:
        """Seconds to wait before the next attempt; None when the error is to be raised.

        `time_left` is what remains of the call's timeout, None for no timeout.
        """
        if attempts_made >= self.attempts or not isinstance(error, (Unavailable, ResourceExhausted)):
            return None
        if error.retry_delay is not None:
            delay = error.retry_delay * (1 + random.random() / 4)
        else:
            # The exponent is bounded, since a float is.
            delay = random.random() * min(self.max_delay, self.first_delay * 2.0 ** min(attempts_made - 1, 62))
        if time_left is not None and delay >= time_left:
            return None
        return delay
