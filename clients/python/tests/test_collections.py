"""Collections, operations and changes of records, by both clients against a real server."""

from __future__ import annotations

import asyncio
import inspect
from datetime import datetime, timezone
from typing import Any

import pytest
from diptych import (
    AlreadyExists,
    AsyncClient,
    Client,
    Collection,
    DeadlineExceeded,
    F,
    InvalidArgument,
    Item,
    NotFound,
    Operation,
)
from diptych._collections import operation as from_wire
from diptych._proto.diptych.v1 import operations_pb2 as opb

DAY = datetime(2024, 1, 31, tzinfo=timezone.utc)


async def story(client: Any, name: str) -> None:
    """What both clients must do; their calls differ by an `await`."""

    async def done(answer: Any) -> Any:
        return await answer if inspect.isawaitable(answer) else answer

    async def store(items: list[Item]) -> None:
        results = client.ingest(items, collection=name)
        if isinstance(client, AsyncClient):
            outcomes = [result.raise_for_error().outcome async for result in results]
        else:
            outcomes = [result.raise_for_error().outcome for result in results]
        assert outcomes == ["created"] * len(items)

    made: Collection = await done(client.create_collection(name, {"n": "integer", "taken": "time"}, closed=True))
    assert made.types == {"n": "integer", "taken": "time"} and made.closed and made.records == 0
    assert made.created is not None and made.created.year >= 2024
    with pytest.raises(AlreadyExists):
        await done(client.create_collection(name))
    await store([Item(f"k{n}", texts=[f"Nodule {n}."], attributes={"n": n}) for n in range(6)])
    assert (await done(client.get_collection(name))).records == 6
    assert name in [each.name for each in await done(client.list_collections())]

    async def update(*args: Any, **named: Any) -> str:
        outcome: str = await done(client.update_record("k1", *args, collection=name, **named))
        return outcome

    assert await update({"taken": DAY, "n": 10}) == "updated"
    assert await update({"taken": DAY}) == "unchanged"
    assert await update(unset=["n"]) == "updated"
    assert (await done(client.get("k1", collection=name))).attributes == {"taken": DAY}
    assert await update({"n": 1}, replace=True, request_id="once") == "updated"
    assert await update({"n": 1}, replace=True, request_id="once") == "updated", "answered as it was then"
    assert (await done(client.get("k1", collection=name))).attributes == {"n": 1}
    with pytest.raises(InvalidArgument, match="schema"):
        await update({"ward": "4"})

    assert int(await done(client.count(collection=name))) == 6
    found = await done(client.count(filter=F("n") >= 4, collection=name))
    assert found.records == 2 and found.notes == ()
    assert (await done(client.count(filter=F("m") == 1, collection=name))).notes
    dry = await done(client.delete_where(F("n") >= 4, dry_run=True, collection=name))
    assert dry.matching_records == 2 and dry.operation is None
    begun = await done(client.delete_where(F("n") >= 4, collection=name))
    ended: Operation = await done(client.wait_operation(begun.operation))
    assert ended.raise_for_error().done and ended.deleted_records == 2 and ended.kind == "delete_records"

    rebuild: Operation = await done(client.rebuild_index(name))
    rebuilt = await done(client.wait_operation(rebuild.name, timeout=60))
    assert rebuilt.indexed_points == 4 and rebuilt.started <= rebuilt.ended
    assert [each.name for each in await done(client.list_operations(limit=2))] == [rebuild.name, ended.name]
    assert await done(client.get_operation(rebuild.name)) == rebuilt
    await done(client.cancel_operation(rebuild))
    with pytest.raises(NotFound, match="operations/0-1"):
        await done(client.get_operation("operations/0-1"))
    with pytest.raises(DeadlineExceeded, match="goes on"):
        await done(client.wait_operation(rebuild, timeout=0))
    await done(client.delete_collection(name))
    with pytest.raises(NotFound):
        await done(client.get_collection(name))


def test_collections_records_and_operations(address: str) -> None:
    with Client(address) as client:
        asyncio.run(story(client, "typed"))


def test_the_same_with_asyncio(address: str) -> None:
    async def run() -> None:
        async with AsyncClient(address) as client:
            await story(client, "typed-async")

    asyncio.run(run())


def test_what_cannot_be_asked_is_refused_at_once(address: str) -> None:
    with Client(address) as client:
        with pytest.raises(ValueError, match="string, list"):
            client.create_collection("a", {"n": "number"})  # type: ignore[dict-item]
        with pytest.raises(TypeError, match="sequence"):
            client.update_record("a", unset="n")
        with pytest.raises(ValueError, match="leave unset out"):
            client.update_record("a", {"n": 1}, unset=["m"], replace=True)


def test_an_operation_that_failed_says_so() -> None:
    error = opb.OperationError(code=1, message="it was cancelled")
    kind = opb.OPERATION_KIND_REBUILD_INDEX
    failed = from_wire(opb.Operation(name="operations/1-1", kind=kind, done=True, error=error))
    assert failed.kind == "rebuild_index" and failed.ended is None
    with pytest.raises(Exception, match="it was cancelled"):
        failed.raise_for_error()
