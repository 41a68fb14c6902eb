"""The client for programs without asyncio.

Owns the calls of `Client`. Deliberately absent: what requests and answers are made of (`_requests`, `_results`), and
the same calls for asyncio (`_aio`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

import grpc

from . import _requests, _results
from ._connection import Pem, connection, open_channel
from ._errors import from_rpc
from ._filter import FilterLike
from ._images import ImageSource
from ._proto.diptych.client.v1 import standard_pb2 as standard
from ._proto.diptych.v1 import retrieval_pb2 as pb
from ._proto.diptych.v1.retrieval_pb2_grpc import RetrievalServiceStub
from ._query import QueryLike
from ._records import Item, WriteMode
from ._results import Embeddings, IngestResult, Record, RecordPage, SearchResult, Stats
from ._retry import RetryPolicy
from ._stream import IngestStream

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

T = TypeVar("T")


class Client:
    """A connection to a Diptych server; usable from several threads, closed by `close` or a `with` block.

    `address` is HOST:PORT or a URL; `timeout` is in seconds, of each call as a whole with its repetitions, and not of
    `ingest`; `retry` says how calls that change nothing are repeated. Errors of the server are DiptychError.
    """

    def __init__(
        self,
        address: str = "127.0.0.1:7700",
        *,
        collection: str = "default",
        api_key: str | None = None,
        root_certificates: Pem | None = None,
        client_certificate: Pem | None = None,
        client_key: Pem | None = None,
        timeout: float | None = 30.0,
        retry: RetryPolicy = RetryPolicy(),
    ) -> None:
        to = connection(address, api_key, root_certificates, client_certificate, client_key)
        self._channel = open_channel(to)
        self._metadata = to.metadata
        self._stub = RetrievalServiceStub(self._channel)
        self._check = self._channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=standard.HealthCheckRequest.SerializeToString,
            response_deserializer=standard.HealthCheckResponse.FromString,
        )
        self._collection = collection
        self._timeout = timeout
        self._retry = retry

    def search(
        self,
        query: QueryLike,
        *,
        collection: str | None = None,
        timeout: float | None = None,
        **options: Unpack[_requests.SearchOptions],
    ) -> SearchResult:
        """Finds the records nearest to a query; see SearchOptions."""
        request = _requests.search_request(collection or self._collection, query, **options)
        return _results.search_result(self._call(self._stub.Search, request, timeout))

    def search_pages(
        self,
        query: QueryLike,
        *,
        collection: str | None = None,
        timeout: float | None = None,
        **options: Unpack[_requests.SearchOptions],
    ) -> Iterator[SearchResult]:
        """The same, page by page of `k` hits; `timeout` is that of a page."""
        request = _requests.search_request(collection or self._collection, query, **options)
        while True:
            page = _results.search_result(self._call(self._stub.Search, request, timeout))
            yield page
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    def ingest(
        self,
        items: Iterable[Item],
        *,
        mode: WriteMode = "upsert",
        collection: str | None = None,
        in_flight: int = 64,
        timeout: float | None = None,
    ) -> Iterator[IngestResult]:
        """Stores records, and says of each in its order what became of it; nothing happens before the first `next`.

        At most `in_flight` records, 1 to 256, and about 64 MiB are under way: a slow server makes the source wait. The
        source is read in the caller's thread, until so many are under way before the first answer is; a source that
        waits for answers needs an `in_flight` of 1. A record that is refused is answered with its error and the stream
        goes on; when the stream itself breaks, records without an answer may or may not have been stored, and can be
        sent again. Closed before its end, it cancels what is under way.
        """
        source: Iterator[Item | None] = iter(items)
        stream = IngestStream(
            self._channel,
            collection=collection or self._collection,
            mode=mode,
            in_flight=in_flight,
            timeout=timeout,
            metadata=self._metadata,
        )
        try:
            while not stream.finished:
                while stream.wants_more:
                    stream.send(next(source, None))
                result = stream.answer()
                if result is not None:
                    yield result
        finally:
            stream.close()

    def get(self, key: str, *, collection: str | None = None, timeout: float | None = None) -> Record:
        """Reads a record; raises NotFound when there is none."""
        request = pb.GetRecordRequest(collection=collection or self._collection, key=key)
        return _results.record(self._call(self._stub.GetRecord, request, timeout).record)

    def list(
        self,
        *,
        filter: FilterLike | None = None,
        page_size: int = 100,
        collection: str | None = None,
        timeout: float | None = None,
    ) -> Iterator[RecordPage]:
        """Reads all records, or those that meet a condition, in the order of their keys, at most 1000 on a page.

        With a condition a page may hold fewer than asked for, or none, and still not be the last.
        """
        request = _requests.list_request(collection or self._collection, filter, page_size)
        while True:
            page = _results.record_page(self._call(self._stub.ListRecords, request, timeout))
            yield page
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    def delete(self, key: str, *, collection: str | None = None, timeout: float | None = None) -> None:
        """Deletes a record; raises NotFound when there is none. Never repeated: the second attempt would find none."""
        request = pb.DeleteRecordRequest(collection=collection or self._collection, key=key)
        self._call(self._stub.DeleteRecord, request, timeout, repeat=False)

    def embed(
        self, *, images: Sequence[ImageSource] = (), texts: Sequence[str] = (), timeout: float | None = None
    ) -> Embeddings:
        """Embeds images and texts without storing them, in as many calls as needed; `timeout` is that of each."""
        requests = _requests.embed_requests(images, texts)
        return _results.embeddings([self._call(self._stub.Embed, request, timeout) for request in requests])

    def stats(self, *, timeout: float | None = None) -> Stats:
        """Says what the server holds."""
        return _results.stats(self._call(self._stub.Stats, pb.StatsRequest(), timeout))

    def health(self, *, timeout: float | None = None) -> bool:
        """Whether the server answers and its model has just worked; raises Unavailable when it cannot be reached."""
        return self._call(self._check, standard.HealthCheckRequest(), timeout).status == 1

    def close(self) -> None:
        """Closes the connection; calls under way are cancelled."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _call(self, method: Callable[..., T], request: Any, timeout: float | None, repeat: bool = True) -> T:
        timeout = self._timeout if timeout is None else timeout
        end = None if timeout is None else time.monotonic() + timeout
        made = 0
        while True:
            left = None if end is None else end - time.monotonic()
            try:
                return method(request, timeout=left, metadata=self._metadata)
            except grpc.RpcError as failure:
                error, made = from_rpc(failure), made + 1
            left = None if end is None else end - time.monotonic()
            delay = self._retry.delay(error, made, left) if repeat else None
            if delay is None:
                raise error
            time.sleep(delay)
