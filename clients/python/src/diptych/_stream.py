"""One stream of records to store, the same for both clients.

Owns what has been sent and answered. Deliberately absent: where records come from, which differs between the clients.

Both clients use gRPC's blocking channel here: that of asyncio forgets why a server ended a stream when a record was
just being sent, and says "Internal error from Core" instead.
"""

from __future__ import annotations

import queue

import grpc

from . import _results
from ._errors import from_rpc, stream_ended_early
from ._proto.diptych.v1 import retrieval_pb2 as pb
from ._proto.diptych.v1.retrieval_pb2_grpc import RetrievalServiceStub
from ._records import Item, Window, WriteMode
from ._results import IngestResult


class IngestStream:
    """A stream that sends while its window is open and answers in order.

    Until `finished`: while `wants_more`, `send`; then `answer`. In the end `close`.
    """

    def __init__(
        self,
        channel: grpc.Channel,
        *,
        collection: str,
        mode: WriteMode,
        in_flight: int,
        timeout: float | None,
        metadata: tuple[tuple[str, str], ...],
    ) -> None:
        self._collection = collection
        self._mode = mode
        self._window = Window(in_flight)
        self._more = True
        self.finished = False
        """Whether everything is sent and answered, and the server has ended the stream well."""
        self._to_send: queue.SimpleQueue[pb.IngestRequest | None] = queue.SimpleQueue()
        requests = iter(self._to_send.get, None)
        self._answers = RetrievalServiceStub(channel).Ingest(requests, timeout=timeout, metadata=metadata)

    @property
    def wants_more(self) -> bool:
        """Whether another record may be sent, or the end of them told."""
        return self._more and self._window.open

    def send(self, item: Item | None) -> None:
        """Sends a record, or that there are no more. Reads its images; raises OSError when one cannot be read."""
        request = None if item is None else item.to_wire(self._collection, self._mode)
        if request is None:
            self._more = False
        else:
            self._window.sent(request)
        self._to_send.put(request)

    def answer(self) -> IngestResult | None:
        """Waits for the next answer; None at the end. Raises DiptychError when the stream is broken."""
        try:
            answer = next(self._answers, None)
        except grpc.RpcError as error:
            raise from_rpc(error) from None
        if answer is not None:
            self._window.answered()
            return _results.ingest_result(answer)
        if self._more or len(self._window):
            raise stream_ended_early(len(self._window))
        self.finished = True
        return None

    def close(self) -> None:
        """Cancels what is under way, and ends the thread that sends."""
        self._answers.cancel()
        self._to_send.put(None)
