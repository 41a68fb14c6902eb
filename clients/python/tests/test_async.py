"""The calls of the client for asyncio against a real server."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator

import pytest
from diptych import AsyncClient, Client, F, InvalidArgument, Item, Key, NotFound, text

from conftest import CASES, Corpus


def test_every_call_does_what_it_does_without_asyncio(corpus: Corpus) -> None:
    case = corpus.cases[4]

    async def items() -> AsyncIterator[Item]:
        for n in range(100):
            await asyncio.sleep(0)
            yield Item(f"a-{n:03}", images=[corpus.image(n % CASES)], texts=[f"Nodule {n}." if n != 7 else ""])

    async def story() -> None:
        async with AsyncClient(corpus.address) as client:
            hits = (await client.search(case["text"], target="text", k=3, filter=F("age").exists())).hits
            assert hits[0].key == case["key"] and len(hits) == 3
            terms = text(case["text"]) + Key(case["key"])
            texts, images, both = await asyncio.gather(
                client.search(case["text"], target="text"),
                client.search(corpus.image(4), target="image"),
                client.search(terms, target="image"),
            )
            assert texts.hits[0].key == images.hits[0].key == case["key"]
            assert len(both.hits[0].term_scores) == 2
            pages = [len(page) async for page in client.search_pages(case["text"], target="image", k=30)]
            assert pages[:2] == [30, 30] and sum(pages) == CASES
            made = await client.embed(texts=[case["text"]], images=[corpus.image(4)])
            assert (await client.search(made.texts[0], target="text")).hits[0].key == case["key"]
            assert await client.health() is True
            assert (await client.stats()).model_id == made.model_id

        async with AsyncClient(corpus.address, collection="async") as mine:
            results = [result async for result in mine.ingest(items(), in_flight=16)]
            assert [result.key for result in results] == [f"a-{n:03}" for n in range(100)]
            assert [n for n, result in enumerate(results) if result.error] == [7]
            assert isinstance(results[7].error, InvalidArgument)
            listed = [record.key async for page in mine.list(page_size=40) for record in page]
            assert listed == [result.key for result in results if not result.error]
            await mine.delete("a-003")
            with pytest.raises(NotFound, match="a-003"):
                await mine.get("a-003")

    asyncio.run(story())


def test_both_clients_have_the_same_calls() -> None:
    def calls(client: type) -> dict[str, list[str]]:
        members = inspect.getmembers(client, inspect.isfunction)
        return {name: list(inspect.signature(call).parameters) for name, call in members if name[0] != "_"}

    assert calls(Client) == calls(AsyncClient)
    assert inspect.signature(Client) == inspect.signature(AsyncClient)
