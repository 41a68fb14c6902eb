"""How far a stream of records runs ahead of its answers, and what becomes of it when it breaks."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import grpc
import pytest
from diptych import AsyncClient, Client, Item, PermissionDenied, Unavailable
from diptych._proto.diptych.v1 import retrieval_pb2 as pb
from diptych._window import Window

from conftest import Running


def created(number: int) -> list[pb.IngestResponse]:
    return [pb.IngestResponse(key=f"k-{n}", outcome=pb.WRITE_OUTCOME_CREATED) for n in range(number)]


class Source:
    """Items without end, counted."""

    def __init__(self) -> None:
        self.read = 0

    def __iter__(self) -> Iterator[Item]:
        while True:
            self.read += 1
            yield Item(f"k-{self.read - 1}", texts=["a"])


def test_the_source_is_read_no_further_ahead_than_allowed(obedient: Running) -> None:
    obedient.service.answers = created(100)
    source = Source()
    with Client(obedient.address) as client:
        results = client.ingest(source, in_flight=4)
        assert source.read == 0, "nothing happens before the first answer is asked for"
        for n in range(20):
            assert next(results).key == f"k-{n}"
            assert source.read == n + 4
        results.close()  # type: ignore[attr-defined]  # it is a generator


def test_the_same_holds_for_asyncio(obedient: Running) -> None:
    obedient.service.answers = created(100)
    source = Source()

    async def story() -> None:
        async with AsyncClient(obedient.address) as client:
            results = client.ingest(source, in_flight=4)
            for n in range(20):
                assert (await anext(results)).key == f"k-{n}"
                assert source.read == n + 4
            await results.aclose()  # type: ignore[attr-defined]

    asyncio.run(story())


def test_one_in_flight_is_lock_step_with_the_server(client: Client) -> None:
    told: list[str] = []

    def source() -> Iterator[Item]:
        for n in range(5):
            assert len(told) == n, "the answer before comes before the next record is asked for"
            yield Item(f"s-{n}", texts=["a"])

    for result in client.ingest(source(), in_flight=1, collection="steps"):
        told.append(result.key)
    assert len(told) == 5


def test_large_records_close_the_window_by_their_bytes() -> None:
    window = Window(64)
    large = pb.IngestRequest(images=[pb.ImageInput(data=bytes(32 << 20))])
    for _ in range(2):
        assert window.open
        window.sent(large)
    assert not window.open
    window.answered()
    assert window.open and len(window) == 1
    with pytest.raises(ValueError, match="1 to 256"):
        Window(0)


def test_an_error_of_the_source_is_the_callers(obedient: Running) -> None:
    obedient.service.answers = created(2)

    def source() -> Iterator[Item]:
        yield Item("k-0", texts=["a"])
        raise OSError("the disk is gone")

    async def story() -> None:
        async with AsyncClient(obedient.address) as client:
            [_ async for _ in client.ingest(source())]

    with Client(obedient.address) as client, pytest.raises(OSError, match="the disk is gone"):
        list(client.ingest(source()))
    with pytest.raises(OSError, match="the disk is gone"):
        asyncio.run(story())


def test_a_stream_that_breaks_says_why(obedient: Running) -> None:
    refusal = (grpc.StatusCode.PERMISSION_DENIED, "this key may only read", ())
    obedient.service.answers = [*created(1), refusal, *created(1), refusal]
    seen: list[str] = []

    async def story() -> None:
        async with AsyncClient(obedient.address) as client:
            async for result in client.ingest(Source(), in_flight=2):
                seen.append(result.key)

    with Client(obedient.address) as client, pytest.raises(PermissionDenied, match="this key may only read"):
        for result in client.ingest(Source(), in_flight=2):
            seen.append(result.key)
    with pytest.raises(PermissionDenied, match="this key may only read"):
        asyncio.run(story())
    assert seen == ["k-0", "k-0"]


def test_a_stream_that_ends_too_early_is_an_error(obedient: Running) -> None:
    async def story() -> None:
        async with AsyncClient(obedient.address) as client:
            [_ async for _ in client.ingest(Source(), in_flight=3)]

    obedient.service.answers = created(1)
    with Client(obedient.address) as client, pytest.raises(Unavailable, match="3 records unanswered"):
        list(client.ingest(Source(), in_flight=3))
    obedient.service.answers = created(1)
    with pytest.raises(Unavailable, match="3 records unanswered"):
        asyncio.run(story())
