"""Words, counts, pictures, many searches at once, receipts and labels, by both clients against a real server."""

from __future__ import annotations

import asyncio
import inspect
import io
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import pytest
from diptych import (
    AsyncClient,
    Client,
    DiptychError,
    F,
    FacetValue,
    InvalidArgument,
    Item,
    NotFound,
    Receipt,
    SearchResult,
    Unavailable,
)
from diptych._proto.diptych.v1 import retrieval_pb2 as pb
from PIL import Image

from conftest import CASES, Corpus, Running


async def done(answer: Any) -> Any:
    """What a call of either client gives."""
    return await answer if inspect.isawaitable(answer) else answer


async def listed(answers: Any) -> list[Any]:
    """What an iterator of either client gives."""
    if isinstance(answers, AsyncIterator):
        return [answer async for answer in answers]
    return list(answers)


async def beside_the_hits(client: Any, corpus: Corpus) -> None:
    sexes = Counter(case["attributes"]["sex"] for case in corpus.cases)
    labels = Counter(label for case in corpus.cases for label in case["attributes"]["labels"])
    words = corpus.cases[4]["text"]
    found: SearchResult = await done(client.search(words, target="image", k=3, facets=["sex", ("labels", 5)]))
    sex, label = found.facets
    assert (sex.attribute, sex.records, sex.distinct_values) == ("sex", CASES, len(sexes))
    assert dict(sex) == sexes and isinstance(sex.values[0], FacetValue)
    assert len(label) == 5 and label.distinct_values == len(labels)
    assert [each.records for each in label] == [number for _, number in labels.most_common(5)]
    assert all(labels[str(each.value)] == each.records for each in label)

    old = F("age") >= 60
    count = await done(client.count(filter=old, facets=["age"]))
    ages = Counter(case["attributes"]["age"] for case in corpus.cases if case["attributes"]["age"] >= 60)
    assert int(count) == count.facets[0].records == ages.total() and count.facets[0].distinct_values == len(ages)
    assert all(type(value) is int and ages[value] == records for value, records in count.facets[0])
    assert (await done(client.count())).facets == ()

    hit = (await done(client.search(words, target="image", k=1, thumbnails=True)))[0]
    with Image.open(io.BytesIO(hit.thumbnail)) as picture:
        assert picture.format == "JPEG" and max(picture.size) <= 160
    some = (await done(client.search([words], target="text", fields=["attributes.sex"])))[0]
    assert list(some.attributes) == ["sex"] and some.score > 0.99
    assert some.part is None and some.text is None and some.term_scores == () and some.thumbnail is None
    bare = await done(client.search(words, k=4, fields=[]))
    assert len(bare[1:3]) == 2 and all(each.key and not each.attributes and not each.part for each in bare)
    with pytest.raises(InvalidArgument, match="no field 'parts'"):
        await done(client.search(words, fields=["parts"]))


async def by_words(client: Any, name: str) -> None:
    texts = ["Left pleural effusion.", "Right effusion, no fracture.", "Fracture of the left clavicle.", "Clear lungs."]
    stored = await listed(client.ingest((Item(f"w{n}", texts=[each]) for n, each in enumerate(texts)), collection=name))
    assert all(result.outcome == "created" for result in stored)

    async def search(*query: Any, **options: Any) -> SearchResult:
        found: SearchResult = await done(client.search(*query, target="text", collection=name, **options))
        return found

    alone = await search(words="effusion")
    assert {hit.key for hit in alone} == {"w0", "w1"} and alone.stats.lexical_matches == 2
    assert all(hit.lexical_score and hit.lexical_score > 0 and hit.score == 0 for hit in alone)
    phrase = (await search(words='"pleural effusion" -right'))[0]
    assert phrase.key == "w0" and phrase.lexical_part is not None and phrase.lexical_part.ref.ordinal == 0
    both = await search("Clear lungs.", words="+fracture", fusion=("weighted", 1.0))
    assert {hit.key for hit in both} == {"w1", "w2"} and both.stats.lexical_matches == 2
    # Words that need not be there and count nothing leave the best by meaning where it is.
    meant = await search("Clear lungs.", words="effusion", fusion=("weighted", 0.0))
    assert meant[0].key == "w3" and meant[0].lexical_score is None and meant[0].lexical_part is None
    assert {hit.key for hit in await search("Clear lungs.", words="effusion", fusion=("rrf", 10.0))} >= {"w0", "w3"}
    pages = await listed(client.search_pages(words="effusion", target="text", k=1, collection=name))
    assert [hit.key for page in pages for hit in page] == [hit.key for hit in alone]


async def many_at_once(client: Any, corpus: Corpus) -> None:
    texts = [case["text"] for case in corpus.cases]
    singly = [await done(client.search(each, target="image", k=5)) for each in texts[:3]]
    answers = await listed(client.search_many(({"query": text, "target": "image", "k": 5} for text in texts)))
    assert [len(found) for found in answers] == [5] * CASES
    assert [found.hits for found in answers[:3]] == [found.hits for found in singly]
    mixed = await listed(
        client.search_many(
            [texts[4], {"query": texts[4], "k": 2000}, {"words": "effusion", "collection": "nowhere"}, corpus.image(4)],
            target="image",
            k=2,
            in_flight=1,
        )
    )
    best, refused, missing, pictured = mixed
    assert len(best) == 2 and len(pictured) == 2 and pictured[0].key == corpus.cases[4]["key"]
    assert isinstance(refused, InvalidArgument) and "2000" in refused.message
    assert isinstance(missing, NotFound) and "nowhere" in missing.message
    assert await listed(client.search_many([])) == []
    with pytest.raises(TypeError, match="a query is a str"):
        await listed(client.search_many(["a", 7]))


async def again(client: Any, corpus: Corpus, name: str) -> None:
    items = [Item(f"r{n}", images=[corpus.image(n)], texts=[corpus.cases[n]["text"]]) for n in range(6)]
    assert all(result.error is None for result in await listed(client.ingest(items, collection=name)))
    found: SearchResult = await done(client.search("Effusion.", target="image", k=3, collection=name))
    assert found.receipt.model_id and found.receipt.generation > 0
    replay = await done(client.replay(Receipt.from_bytes(bytes(found.receipt))))
    assert replay.identical and replay.same_generation and replay.found.hits == found.hits
    by_image = await done(client.search(corpus.image(2), target="text", k=3, collection=name))
    with pytest.raises(InvalidArgument, match="does not hold"):
        await done(client.replay(by_image.receipt))
    with pytest.raises(InvalidArgument, match="not the one"):
        await done(client.replay(by_image.receipt, corpus.image(2), target="text", k=4))
    assert (await done(client.replay(by_image.receipt, corpus.image(2), target="text", k=3))).identical
    await done(client.delete(found[0].key, collection=name))
    changed = await done(client.replay(found.receipt))
    assert not changed.identical and not changed.same_generation
    assert found[0].key not in [hit.key for hit in changed.found]


async def labelled(client: Any, corpus: Corpus) -> None:
    key, labels = corpus.cases[4]["key"], ["pleural effusion", "pneumothorax", "cardiomegaly"]
    asked = {"labels": labels, "templates": ["There is {}."]}
    found = await done(client.classify(key=key, **asked))
    assert len(found) == 3 and {each.label for each in found} == set(labels)
    assert [each.probability for each in found] == sorted((each.probability for each in found), reverse=True)
    assert all(0 < each.probability <= 1 and -1 <= each.score <= 1 for each in found)
    assert found.independent or sum(each.probability for each in found) == pytest.approx(1)
    assert found.model_id == (await done(client.stats())).model_id
    pictured = await done(client.classify(image=corpus.image(4), k=1, **asked))
    assert len(pictured) == 1 and pictured[0].label == found[0].label
    assert pictured[0].probability == pytest.approx(found[0].probability, abs=1e-4)
    made = await done(client.embed(images=[corpus.image(4)]))
    assert (await done(client.classify(vector=made.images[0], **asked)))[0].label == found[0].label
    # A label is what its prompts say: the text's own words fit it best, whatever the label is called.
    words = corpus.cases[4]["text"]
    named = [("this one", [words]), ("another", ["Something else."]), "pneumothorax"]
    best = await done(client.classify(text=words, labels=named))
    assert best[0].label == "this one" and best[0].score > 0.99
    with pytest.raises(InvalidArgument):
        await done(client.classify(text=words, labels=["alone"]))
    with pytest.raises(NotFound, match="no-such"):
        await done(client.classify(key="no-such", labels=labels))


async def story(client: Any, corpus: Corpus, name: str) -> None:
    """What both clients must do; their calls differ by an `await`."""
    await beside_the_hits(client, corpus)
    await by_words(client, f"{name}-words")
    await many_at_once(client, corpus)
    await again(client, corpus, f"{name}-again")
    await labelled(client, corpus)


def test_searches_and_what_is_like_them(corpus: Corpus) -> None:
    with Client(corpus.address) as client:
        asyncio.run(story(client, corpus, "questions"))


def test_the_same_with_asyncio(corpus: Corpus) -> None:
    async def run() -> None:
        async with AsyncClient(corpus.address) as client:
            await story(client, corpus, "questions-async")

            async def queries() -> AsyncIterator[str]:
                for case in corpus.cases[:40]:
                    await asyncio.sleep(0)
                    yield case["text"]

            answers = [found async for found in client.search_many(queries(), target="text", k=1, in_flight=8)]
            keys = [found[0].key for found in answers if not isinstance(found, DiptychError)]
            assert keys == [case["key"] for case in corpus.cases[:40]]

    asyncio.run(run())


def answered(number: int) -> list[pb.BatchSearchResponse]:
    return [pb.BatchSearchResponse(response=pb.SearchResponse(hits=[pb.Hit(key=f"k-{n}")])) for n in range(number)]


def endless(read: list[int]) -> Iterator[str]:
    while True:
        read.append(len(read))
        yield "words"


def test_queries_are_read_no_further_ahead_than_allowed(obedient: Running) -> None:
    obedient.service.answers = answered(100)
    read: list[int] = []
    with Client(obedient.address, api_key="secret") as client:
        answers = client.search_many(endless(read), in_flight=4)
        assert not read, "nothing happens before the first answer is asked for"
        for n in range(20):
            found = next(answers)
            assert isinstance(found, SearchResult) and found[0].key == f"k-{n}"
            assert len(read) == n + 4
        answers.close()  # type: ignore[attr-defined]  # it is a generator
    assert obedient.service.metadata[0]["authorization"] == "Bearer secret"

    async def story() -> None:
        async with AsyncClient(obedient.address) as client:
            answers = client.search_many(endless(read), in_flight=4)
            for n in range(20):
                await anext(answers)
                assert len(read) == n + 4
            await answers.aclose()  # type: ignore[attr-defined]

    obedient.service.answers = answered(100)
    read.clear()
    asyncio.run(story())


def test_a_stream_of_searches_that_breaks_says_why(obedient: Running) -> None:
    obedient.service.answers = [*answered(1), (grpc.StatusCode.UNAVAILABLE, "it stops", ())]
    read: list[int] = []
    with Client(obedient.address) as client:
        answers = client.search_many(endless(read), in_flight=2)
        assert isinstance(next(answers), SearchResult)
        with pytest.raises(Unavailable, match="it stops"):
            next(answers)
        obedient.service.answers = answered(1)
        with pytest.raises(Unavailable, match="3 searches unanswered"):
            list(client.search_many(endless(read), in_flight=3))
        # Neither was repeated.
        assert len(obedient.service.asked) == 3
        obedient.service.answers = answered(2)
        answers = client.search_many({"query": words, "target": "image", "k": 5} for words in ("a", "b"))
        assert [len(found) for found in answers if not isinstance(found, DiptychError)] == [1, 1]
    assert [each.search.text for each in obedient.service.asked[3:]] == ["a", "b"]
