"""The client for asyncio.

Owns the calls of `AsyncClient`, which are those of `Client`. Deliberately absent: what requests and answers are made of
(`_requests`, `_results`).
"""

from __future__ import annotations

import asyncio
import builtins
import time
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

import grpc
from numpy.typing import ArrayLike

from . import _cases, _collections, _errors, _labels, _requests, _results, _stream
from ._attributes import AttributeInput
from ._cases import CaseOptions, Draft, SimilarCase
from ._collections import AttributeType, Collection, Count, Deletion, Operation
from ._connection import Pem, connection, open_async_channel, open_channel
from ._errors import DiptychError, from_rpc
from ._facets import FacetLike
from ._filter import FilterLike
from ._images import ImageSource
from ._labels import Classification, LabelLike
from ._proto.diptych.client.v1 import standard_pb2 as standard
from ._proto.diptych.v1 import collections_pb2 as cpb
from ._proto.diptych.v1 import operations_pb2 as opb
from ._proto.diptych.v1 import retrieval_pb2 as pb
from ._proto.diptych.v1.cases_pb2_grpc import CaseServiceStub
from ._proto.diptych.v1.collections_pb2_grpc import CollectionServiceStub
from ._proto.diptych.v1.operations_pb2_grpc import OperationServiceStub
from ._proto.diptych.v1.retrieval_pb2_grpc import RetrievalServiceStub
from ._query import Key, QueryLike
from ._records import Item, WriteMode
from ._requests import SearchLike
from ._results import Embeddings, IngestResult, Outcome, Receipt, Record, RecordPage, Replay, SearchResult, Stats
from ._retry import RetryPolicy

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

T = TypeVar("T")


class AsyncClient:
    """A connection to a Diptych server; of one event loop, closed by `close` or an `async with` block.

    `address` is HOST:PORT or a URL; `timeout` is in seconds, of each call as a whole with its repetitions, and not of
    `ingest` and `search_many`, which have one only when it is given to them; `retry` says how calls are repeated that
    change nothing or carry a request id. Errors of the server are DiptychError.
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
        self._connection = to
        self._channel = open_async_channel(to)
        # Opened by the first stream; `_stream` says why there is one.
        self._stream_channel: grpc.Channel | None = None
        self._metadata = to.metadata
        self._stub = RetrievalServiceStub(self._channel)
        self._cases_stub = CaseServiceStub(self._channel)
        self._collections_stub = CollectionServiceStub(self._channel)
        self._operations_stub = OperationServiceStub(self._channel)
        self._check = self._channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=standard.HealthCheckRequest.SerializeToString,
            response_deserializer=standard.HealthCheckResponse.FromString,
        )
        self._collection = collection
        self._timeout = timeout
        self._retry = retry

    async def search(
        self,
        query: QueryLike | None = None,
        *,
        collection: str | None = None,
        timeout: float | None = None,
        **options: Unpack[_requests.SearchOptions],
    ) -> SearchResult:
        """Finds the records nearest to a query, or with its words; see SearchOptions."""
        request = _requests.search_request(collection or self._collection, query, **options)
        return _results.search_result(await self._call(self._stub.Search, request, timeout))

    async def search_pages(
        self,
        query: QueryLike | None = None,
        *,
        collection: str | None = None,
        timeout: float | None = None,
        **options: Unpack[_requests.SearchOptions],
    ) -> AsyncIterator[SearchResult]:
        """The same, page by page of `k` hits; `timeout` is that of a page."""
        request = _requests.search_request(collection or self._collection, query, **options)
        while True:
            page = _results.search_result(await self._call(self._stub.Search, request, timeout))
            yield page
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    def search_many(
        self,
        queries: Iterable[SearchLike] | AsyncIterable[SearchLike],
        *,
        in_flight: int = 64,
        collection: str | None = None,
        timeout: float | None = None,
        **options: Unpack[_requests.SearchOptions],
    ) -> AsyncIterator[SearchResult | DiptychError]:
        """Answers many searches over one stream, in their order; nothing happens before the first `next`.

        A search is a query or a dict, `{"query": ..., "k": 5}`, of what `search` takes; `options` are for all of them
        where they do not say otherwise. One that the server refuses is answered with its error, and the stream goes on.
        The source is read as that of `ingest` is. When the stream itself breaks, searches without an answer can be
        asked again.
        """
        return _stream.run_async(
            lambda: _stream.search_stream(
                self._streams(),
                collection=collection or self._collection,
                common=options,
                in_flight=in_flight,
                timeout=timeout,
                metadata=self._metadata,
            ),
            queries,
        )

    async def replay(
        self,
        receipt: Receipt,
        query: QueryLike | None = None,
        *,
        timeout: float | None = None,
        **options: Unpack[_requests.SearchOptions],
    ) -> Replay:
        """Asks again what an earlier answer was the answer to, and says whether it is still the same.

        A search with images or vectors of its own needs them again, with all its options: a receipt does not hold them.
        """
        request = _requests.replay_request(receipt, query, options)
        return _results.replay(await self._call(self._stub.Replay, request, timeout))

    async def classify(
        self,
        *,
        labels: Sequence[LabelLike],
        image: ImageSource | str | None = None,
        text: str | None = None,
        key: str | Key | None = None,
        vector: ArrayLike | None = None,
        templates: Sequence[str] = (),
        k: int | None = None,
        collection: str | None = None,
        timeout: float | None = None,
    ) -> Classification:
        """Says which labels fit an image (a str is a path), a text, a stored record or a vector, the best first.

        A label is put into each of the templates, in the place of `{}`, unless it comes with prompts of its own:
        `("effusion", ["Fluid around the lung."])`. All labels are answered, or the best `k`.
        """
        request = _labels.classify_request(
            collection or self._collection, image, text, key, vector, labels, templates, k
        )
        return _labels.classification(await self._call(self._stub.Classify, request, timeout))

    async def similar(
        self,
        *,
        collection: str | None = None,
        timeout: float | None = None,
        **case: Unpack[CaseOptions],
    ) -> tuple[SimilarCase, ...]:
        """Finds the cases most like a case, by images, sentences and findings together; see CaseOptions."""
        request = _cases.similar_request(collection or self._collection, case)
        return _cases.similar_cases(await self._call(self._cases_stub.FindSimilar, request, timeout))

    async def draft(
        self,
        *,
        sentences: int | None = None,
        min_support: float | None = None,
        collection: str | None = None,
        timeout: float | None = None,
        **case: Unpack[CaseOptions],
    ) -> Draft:
        """Drafts a report of at most so many sentences on which the reports of `k` similar cases agree.

        Each has at least the share `min_support` of them behind it. Retrieved text, not a diagnosis.
        """
        request = _cases.draft_request(collection or self._collection, case, sentences, min_support)
        return _cases.draft(await self._call(self._cases_stub.Draft, request, timeout))

    def ingest(
        self,
        items: Iterable[Item] | AsyncIterable[Item],
        *,
        mode: WriteMode = "upsert",
        collection: str | None = None,
        in_flight: int = 64,
        timeout: float | None = None,
    ) -> AsyncIterator[IngestResult]:
        """Stores records, and says of each in its order what became of it; nothing happens before the first `next`.

        At most `in_flight` records, 1 to 256, and about 64 MiB are under way: a slow server makes the source wait. The
        source is read until so many are under way before the first answer is; a source that waits for answers needs an
        `in_flight` of 1. A record that is refused is answered with its error and the stream goes on; when the stream
        itself breaks, records without an answer may or may not have been stored, and can be sent again. Closed before
        its end, it cancels what is under way.
        """
        return _stream.run_async(
            lambda: _stream.ingest_stream(
                self._streams(),
                collection=collection or self._collection,
                mode=mode,
                in_flight=in_flight,
                timeout=timeout,
                metadata=self._metadata,
            ),
            items,
        )

    async def get(self, key: str, *, collection: str | None = None, timeout: float | None = None) -> Record:
        """Reads a record; raises NotFound when there is none."""
        request = pb.GetRecordRequest(collection=collection or self._collection, key=key)
        return _results.record((await self._call(self._stub.GetRecord, request, timeout)).record)

    async def list(
        self,
        *,
        filter: FilterLike | None = None,
        page_size: int = 100,
        collection: str | None = None,
        timeout: float | None = None,
    ) -> AsyncIterator[RecordPage]:
        """Reads all records, or those that meet a condition, in the order of their keys, at most 1000 on a page.

        With a condition a page may hold fewer than asked for, or none, and still not be the last.
        """
        request = _requests.list_request(collection or self._collection, filter, page_size)
        while True:
            page = _results.record_page(await self._call(self._stub.ListRecords, request, timeout))
            yield page
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def delete(self, key: str, *, collection: str | None = None, timeout: float | None = None) -> None:
        """Deletes a record; raises NotFound when there is none. Never repeated: the second attempt would find none."""
        request = pb.DeleteRecordRequest(collection=collection or self._collection, key=key)
        await self._call(self._stub.DeleteRecord, request, timeout, repeat=False)

    async def update_record(
        self,
        key: str,
        set: Mapping[str, AttributeInput] | None = None,
        *,
        unset: Sequence[str] = (),
        replace: bool = False,
        request_id: str | None = None,
        collection: str | None = None,
        timeout: float | None = None,
    ) -> Outcome:
        """Sets and deletes attributes of a record, or replaces them all, without encoding it again.

        Says "updated", or "unchanged" when it had them already. Repeated with the same `request_id` it is done once;
        one is made when none is given.
        """
        request = _collections.update_request(collection or self._collection, key, set, unset, replace, request_id)
        return _results.outcome(await self._call(self._stub.UpdateRecord, request, timeout))

    async def count(
        self,
        *,
        filter: FilterLike | None = None,
        facets: Sequence[FacetLike] | None = None,
        collection: str | None = None,
        timeout: float | None = None,
    ) -> Count:
        """Counts records, all or those that meet a condition, and the values of their attributes."""
        request = _collections.count_request(collection or self._collection, filter, facets)
        return _collections.count(await self._call(self._stub.CountRecords, request, timeout))

    async def delete_where(
        self,
        filter: FilterLike,
        *,
        dry_run: bool = False,
        request_id: str | None = None,
        collection: str | None = None,
        timeout: float | None = None,
    ) -> Deletion:
        """Deletes the records that meet a condition, by an operation to wait for, or with `dry_run` counts them.

        Repeated with the same `request_id` it is done once, and taken up where it was broken off; one is made when none
        is given.
        """
        request = _collections.delete_request(collection or self._collection, filter, dry_run, request_id)
        return _collections.deletion(await self._call(self._stub.DeleteRecords, request, timeout))

    async def create_collection(
        self,
        name: str,
        types: Mapping[str, AttributeType] | None = None,
        *,
        closed: bool = False,
        timeout: float | None = None,
    ) -> Collection:
        """Creates a collection, with types for attributes if there are to be any; `closed` refuses all others.

        Raises AlreadyExists when there is one, and is never repeated: the second attempt would find it.
        """
        request = _collections.create_request(name, types, closed)
        answer = await self._call(self._collections_stub.CreateCollection, request, timeout, repeat=False)
        return _collections.collection(answer.collection)

    async def list_collections(self, *, timeout: float | None = None) -> builtins.list[Collection]:
        """All collections in the order of their names; `timeout` is that of a page of 1000."""
        found: builtins.list[Collection] = []
        request = _collections.collections_request("")
        while True:
            page = await self._call(self._collections_stub.ListCollections, request, timeout)
            found.extend(map(_collections.collection, page.collections))
            if not page.next_page_token:
                return found
            request = _collections.collections_request(page.next_page_token)

    async def get_collection(self, name: str | None = None, *, timeout: float | None = None) -> Collection:
        """Describes a collection, the client's own when none is named; raises NotFound when there is none."""
        request = cpb.GetCollectionRequest(name=name or self._collection)
        answer = await self._call(self._collections_stub.GetCollection, request, timeout)
        return _collections.collection(answer.collection)

    async def delete_collection(self, name: str, *, timeout: float | None = None) -> None:
        """Deletes a collection with all its records. Never repeated: the second attempt would find none."""
        request = cpb.DeleteCollectionRequest(name=name)
        await self._call(self._collections_stub.DeleteCollection, request, timeout, repeat=False)

    async def rebuild_index(self, name: str | None = None, *, timeout: float | None = None) -> Operation:
        """Builds the indexes of a collection again, by an operation to wait for. Never repeated."""
        request = cpb.RebuildIndexRequest(collection=name or self._collection)
        answer = await self._call(self._collections_stub.RebuildIndex, request, timeout, repeat=False)
        return _collections.operation(answer.operation)

    async def get_operation(self, operation: str | Operation, *, timeout: float | None = None) -> Operation:
        """Says how far an operation is; raises NotFound when the server has forgotten it."""
        request = _collections.operation_request(operation, 0)
        answer = await self._call(self._operations_stub.GetOperation, request, timeout)
        return _collections.operation(answer.operation)

    async def list_operations(self, *, limit: int = 100, timeout: float | None = None) -> builtins.list[Operation]:
        """Operations since the server was started, the latest first, at most 1000."""
        request = opb.ListOperationsRequest(page_size=limit)
        answer = await self._call(self._operations_stub.ListOperations, request, timeout)
        return [_collections.operation(each) for each in answer.operations]

    async def wait_operation(self, operation: str | Operation, *, timeout: float | None = None) -> Operation:
        """Waits for the end of an operation, without bound unless `timeout` says one; its `error` says how it ended.

        Raises DeadlineExceeded when it goes on longer; the operation itself goes on all the same.
        """
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            left = None if end is None else end - time.monotonic()
            if left is not None and left <= 0:
                raise _errors.still_running(_collections.operation_name(operation))
            wait = _collections.patience(self._timeout if left is None else left)
            request = _collections.operation_request(operation, wait)
            answer = await self._call(self._operations_stub.GetOperation, request, left)
            found = _collections.operation(answer.operation)
            if found.done:
                return found

    async def cancel_operation(self, operation: str | Operation, *, timeout: float | None = None) -> None:
        """Asks an operation to stop. What it has done stays done; it ends with the error Cancelled."""
        request = opb.CancelOperationRequest(name=_collections.operation_name(operation))
        await self._call(self._operations_stub.CancelOperation, request, timeout)

    async def embed(
        self, *, images: Sequence[ImageSource] = (), texts: Sequence[str] = (), timeout: float | None = None
    ) -> Embeddings:
        """Embeds images and texts without storing them, in as many calls as needed; `timeout` is that of each."""
        requests = _requests.embed_requests(images, texts)
        return _results.embeddings([await self._call(self._stub.Embed, request, timeout) for request in requests])

    async def stats(self, *, timeout: float | None = None) -> Stats:
        """Says what the server holds."""
        return _results.stats(await self._call(self._stub.Stats, pb.StatsRequest(), timeout))

    async def health(self, *, timeout: float | None = None) -> bool:
        """Whether the server answers and its model has just worked; raises Unavailable when it cannot be reached."""
        return (await self._call(self._check, standard.HealthCheckRequest(), timeout)).status == 1

    async def close(self) -> None:
        """Closes the connection; calls under way are cancelled."""
        await self._channel.close()
        if self._stream_channel is not None:
            self._stream_channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _streams(self) -> grpc.Channel:
        if self._stream_channel is None:
            self._stream_channel = open_channel(self._connection)
        return self._stream_channel

    async def _call(
        self, method: Callable[..., Awaitable[T]], request: Any, timeout: float | None, repeat: bool = True
    ) -> T:
        timeout = self._timeout if timeout is None else timeout
        end = None if timeout is None else time.monotonic() + timeout
        made = 0
        while True:
            left = None if end is None else end - time.monotonic()
            try:
                return await method(request, timeout=left, metadata=self._metadata)
            except grpc.RpcError as failure:
                error, made = from_rpc(failure), made + 1
            left = None if end is None else end - time.monotonic()
            delay = self._retry.delay(error, made, left) if repeat else None
            if delay is None:
                raise error
            await asyncio.sleep(delay)
