"""Streams of records to store and of searches, the same for both clients.

Owns what has been sent and answered, and how a source is read. Deliberately absent: what requests and answers are made
of.

Both clients use gRPC's blocking channel here: that of asyncio forgets why a server ended a stream when a request was
just being sent, and says "Internal error from Core" instead.
"""

from __future__ import annotations

import asyncio
import functools
import queue
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Generic, TypeVar

import grpc
from google.protobuf.message import Message

from . import _requests, _results
from ._errors import DiptychError, from_rpc, stream_ended_early
from ._proto.diptych.v1 import retrieval_pb2 as pb
from ._proto.diptych.v1.retrieval_pb2_grpc import RetrievalServiceStub
from ._records import Item, WriteMode, write_mode
from ._requests import SearchLike, SearchOptions
from ._results import IngestResult, SearchResult
from ._window import Window

Given = TypeVar("Given")
Answer = TypeVar("Answer")


class Stream(Generic[Given, Answer]):
    """A stream that sends while its window is open and answers in order.

    Until `finished`: while `wants_more`, `send` or `end`; then `answer`. In the end `close`.
    """

    def __init__(
        self,
        call: Callable[[Iterator[Any]], Any],
        to_wire: Callable[[Given], Message],
        from_wire: Callable[[Any], Answer],
        in_flight: int,
        what: str,
    ) -> None:
        self._to_wire = to_wire
        self._from_wire = from_wire
        self._window = Window(in_flight)
        self._what = what
        self._more = True
        self.finished = False
        """Whether everything is sent and answered, and the server has ended the stream well."""
        self._to_send: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self._answers = call(iter(self._to_send.get, None))

    @property
    def wants_more(self) -> bool:
        """Whether another request may be sent, or the end of them told."""
        return self._more and self._window.open

    def send(self, given: Given) -> None:
        """Sends a request. Reads its images; raises OSError when one cannot be read."""
        request = self._to_wire(given)
        self._window.sent(request)
        self._to_send.put(request)

    def end(self) -> None:
        """Says that there are no more."""
        self._more = False
        self._to_send.put(None)

    def answer(self) -> list[Answer]:
        """Waits for the next answer; none at the end. Raises DiptychError when the stream is broken."""
        try:
            answer = next(self._answers, None)
        except grpc.RpcError as error:
            raise from_rpc(error) from None
        if answer is not None:
            self._window.answered()
            return [self._from_wire(answer)]
        if self._more or len(self._window):
            raise stream_ended_early(len(self._window), self._what)
        self.finished = True
        return []

    def close(self) -> None:
        """Cancels what is under way, and ends the thread that sends."""
        self._answers.cancel()
        self._to_send.put(None)


def ingest_stream(
    channel: grpc.Channel,
    *,
    collection: str,
    mode: WriteMode,
    in_flight: int,
    timeout: float | None,
    metadata: tuple[tuple[str, str], ...],
) -> Stream[Item, IngestResult]:
    """A stream of records to store."""
    write_mode(mode)
    call = functools.partial(RetrievalServiceStub(channel).Ingest, timeout=timeout, metadata=metadata)
    return Stream(call, lambda item: item.to_wire(collection, mode), _results.ingest_result, in_flight, "records")


def search_stream(
    channel: grpc.Channel,
    *,
    collection: str,
    common: SearchOptions,
    in_flight: int,
    timeout: float | None,
    metadata: tuple[tuple[str, str], ...],
) -> Stream[SearchLike, SearchResult | DiptychError]:
    """A stream of searches with some options in common."""

    def to_wire(item: SearchLike) -> pb.BatchSearchRequest:
        return pb.BatchSearchRequest(search=_requests.item_request(collection, item, common))

    call = functools.partial(RetrievalServiceStub(channel).BatchSearch, timeout=timeout, metadata=metadata)
    return Stream(call, to_wire, _results.batch_result, in_flight, "searches")


def run(opened: Callable[[], Stream[Given, Answer]], given: Iterable[Given]) -> Iterator[Answer]:
    """Opens a stream, reads its source in the caller's thread, gives its answers, and closes it."""
    stream = opened()
    try:
        source = iter(given)
        while not stream.finished:
            while stream.wants_more:
                try:
                    one = next(source)
                except StopIteration:
                    stream.end()
                else:
                    stream.send(one)
            yield from stream.answer()
    finally:
        stream.close()


async def run_async(
    opened: Callable[[], Stream[Given, Answer]], given: Iterable[Given] | AsyncIterable[Given]
) -> AsyncIterator[Answer]:
    """Opens a stream, reads its source in the event loop, gives its answers, and closes it."""
    stream = opened()
    # A thread of its own waits for the server and reads files, which would hold up everything else.
    worker = ThreadPoolExecutor(1, thread_name_prefix="diptych-stream")
    on_worker = functools.partial(asyncio.get_running_loop().run_in_executor, worker)
    try:
        source = aiter(_iterate(given))
        while not stream.finished:
            while stream.wants_more:
                try:
                    one = await anext(source)
                except StopAsyncIteration:
                    await on_worker(stream.end)
                else:
                    await on_worker(stream.send, one)
            for answer in await on_worker(stream.answer):
                yield answer
    finally:
        stream.close()
        worker.shutdown(wait=False)


async def _iterate(given: Iterable[Given] | AsyncIterable[Given]) -> AsyncIterator[Given]:
    if isinstance(given, AsyncIterable):
        async for one in given:
            yield one
    else:
        for one in given:
            yield one
