"""Every call against a real server."""

from __future__ import annotations

import socket
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pytest
from diptych import (
    AlreadyExists,
    Client,
    Condition,
    DiptychError,
    F,
    ImagePart,
    InvalidArgument,
    Item,
    Key,
    NotFound,
    PartRef,
    Unavailable,
    text,
)
from PIL import Image

from conftest import CASES, Corpus


def test_a_text_an_image_and_a_key_find_their_case(client: Client, corpus: Corpus) -> None:
    case = corpus.cases[4]
    found = client.search(case["text"], target="text", k=3)
    assert len(found) == 3 and found.hits[0].key == case["key"]
    assert found.hits[0].score > 0.999 and found.hits[0].text == case["text"]
    assert found.hits[0].attributes["age"] == case["attributes"]["age"]
    assert found.stats.searched_points >= CASES and found.stats.plan == "scan"
    file = corpus.image(4)
    with Image.open(file) as opened:
        pixels = np.asarray(opened)
        for query in (file, file.read_bytes(), opened, pixels, Key(case["key"])):
            best = client.search(query, target="image").hits[0]
            assert best.key == case["key"] and best.score > 0.999
            assert best.part is not None
            assert best.text is None and best.part.ref == PartRef("image", 0)
            assert isinstance(best.part.content, ImagePart) and best.part.content.source == str(file)


def test_both_modalities_are_found_together(client: Client, corpus: Corpus) -> None:
    found = client.search(corpus.cases[4]["text"], k=20)
    sides = [hit.part.ref.modality if hit.part else None for hit in found]
    assert set(sides) == {"image", "text"}
    likely = [hit.relevance for hit, side in zip(found, sides) if side == "image"]
    assert all(each is not None and 0 <= each <= 1 for each in likely)
    # A text that is alone in its record has no pair to learn from.
    assert "how relevant" in found.stats.notes[0]


def test_terms_pull_and_push(client: Client, corpus: Corpus) -> None:
    towards, away = corpus.cases[4], corpus.cases[9]
    plain = client.search([towards["text"]], target="image", k=CASES)
    pushed = client.search(2 * text(towards["text"]) - text(away["text"]), target="image", k=CASES)
    assert all(len(hit.term_scores) == 2 for hit in pushed)
    rank = {hit.key: n for n, hit in enumerate(plain)}
    rank_pushed = {hit.key: n for n, hit in enumerate(pushed)}
    assert rank_pushed[away["key"]] > rank[away["key"]]
    with pytest.raises(InvalidArgument):
        client.search(-text("nothing but this"))


def test_a_vector_goes_out_and_comes_back(client: Client, corpus: Corpus) -> None:
    case = corpus.cases[4]
    made = client.embed(images=[corpus.image(4)], texts=[case["text"], "Nodule."])
    assert made.images.shape == (1, made.images.shape[1]) and made.texts.shape == (2, made.images.shape[1])
    assert made.texts.dtype == np.float32 and np.allclose(np.linalg.norm(made.texts, axis=1), 1, atol=1e-5)
    assert len(made.truncated_tokens) == 2 and made.model_id == client.stats().model_id
    assert client.search(made.texts[0], target="text").hits[0].key == case["key"]
    assert client.search(made.images[0], target="image").hits[0].key == case["key"]
    many = client.embed(texts=["Nodule."] * 300).texts
    assert many.shape[0] == 300 and np.allclose(many[-1], made.texts[1], atol=1e-6)
    with pytest.raises(InvalidArgument, match="dimension"):
        client.search(np.ones(3), target="text")


def test_a_filter_holds_for_every_hit(client: Client, corpus: Corpus) -> None:
    words = corpus.cases[4]["text"]
    old = client.search(words, target="image", k=CASES, filter=(F("age") >= 40) & ~(F("sex") == "F"))
    truth = {c["key"] for c in corpus.cases if c["attributes"]["age"] >= 40 and c["attributes"]["sex"] != "F"}
    assert {hit.key for hit in old} == truth and 0 < len(truth) < CASES
    assert old.stats.matching_points == len(truth)
    label = corpus.cases[4]["attributes"]["labels"][0]
    labelled = client.search(words, k=CASES, target="image", filter=F("labels").has(label))
    assert {hit.key for hit in labelled} == {c["key"] for c in corpus.cases if label in c["attributes"]["labels"]}
    none = client.search(words, filter=F("agee").exists())
    assert not none and "agee" in none.stats.notes[0]


def test_no_good_match_is_said(client: Client, corpus: Corpus) -> None:
    found = client.search("a red bicycle", target="image", min_relevance=0.99)
    assert found.no_good_match and not found and found.below


def test_an_answer_takes_the_shape_that_is_asked_for(client: Client, corpus: Corpus) -> None:
    case = corpus.cases[4]
    grouped = client.search(case["text"], target="image", k=10, group_by="sex")
    assert len(grouped) == len({hit.attributes["sex"] for hit in grouped})
    others = client.search(Key(case["key"]), target="image", exclude_same="sex")
    assert others.hits and all(hit.attributes["sex"] != case["attributes"]["sex"] for hit in others)
    assert len(client.search(case["text"], target="image", collapse=0.0)) < 10
    diverse = client.search(case["text"], target="image", diversity=0.9, target_recall=0.9)
    assert len(diverse) == 10


def test_pages_are_one_long_answer(client: Client, corpus: Corpus) -> None:
    words = corpus.cases[4]["text"]
    whole = [hit.key for hit in client.search(words, target="image", k=50)]
    pages = []
    for page in client.search_pages(words, target="image", k=20):
        pages.append([hit.key for hit in page])
        if len(pages) == 3:
            break
    assert [len(page) for page in pages] == [20, 20, 20]
    assert [key for page in pages for key in page][:50] == whole


def test_records_are_read_listed_and_deleted(client: Client, address: str) -> None:
    items = [Item(f"r-{n}", texts=[f"Nodule {n}."], attributes={"n": n, "tags": ["a"]}) for n in range(7)]
    with Client(address, collection="records") as mine:
        assert [result.outcome for result in mine.ingest(items)] == ["created"] * 7
        record = mine.get("r-3")
        assert record.attributes == {"n": 3, "tags": ["a"]} and record.seq > 0
        pages = list(mine.list(page_size=3))
        assert [len(page) for page in pages] == [3, 3, 1]
        assert [record.key for page in pages for record in page] == [item.key for item in items]
        mine.delete("r-3")
        with pytest.raises(NotFound, match="r-3") as refused:
            mine.get("r-3")
        assert str(refused.value) == refused.value.message
        with pytest.raises(NotFound):
            mine.delete("r-3")
    assert client.get("r-4", collection="records").key == "r-4"


def test_records_are_listed_by_moment_and_prefix(client: Client) -> None:
    days = [datetime(2024, 1, day, tzinfo=timezone.utc) for day in (1, 2, 3)]
    items = [Item(f"m-{day.day}", texts=["a"], attributes={"taken": day, "id": f"x{day.day}"}) for day in days]
    assert all(result.outcome == "created" for result in client.ingest(items, collection="moments"))
    assert client.get("m-2", collection="moments").attributes["taken"] == days[1]

    def keys(condition: Condition) -> list[str]:
        pages = client.list(filter=condition, collection="moments")
        return [record.key for page in pages for record in page]

    assert keys(F("taken") >= days[1]) == ["m-2", "m-3"]
    assert keys(F("id").starts_with("x") & ~F("id").starts_with("x3")) == ["m-1", "m-2"]
    found = client.search("a", target="text", filter=F("taken") < days[1], collection="moments")
    assert [hit.key for hit in found] == ["m-1"]


def test_ingest_tells_of_every_record_in_order(client: Client, tmp_path: Path) -> None:
    items = [Item("a", texts=["one"]), Item("b", texts=[""]), Item("c", texts=["three"])]
    results = list(client.ingest(items, collection="order"))
    assert [result.key for result in results] == ["a", "b", "c"]
    assert [result.outcome for result in results] == ["created", None, "created"]
    assert isinstance(results[1].error, InvalidArgument)
    with pytest.raises(InvalidArgument):
        results[1].raise_for_error()
    again = [Item("a", texts=["one"]), Item("c", texts=["other"])]
    inserted = list(client.ingest(again, mode="insert", collection="order"))
    assert inserted[0].outcome == "unchanged" and isinstance(inserted[1].error, AlreadyExists)
    assert list(client.ingest([], collection="order")) == []


def test_stats_and_health(client: Client, corpus: Corpus) -> None:
    stats = client.stats()
    held = {each.name: each for each in stats.collections}["default"]
    assert held.records == held.image_points == CASES
    assert stats.dimension == client.embed(texts=["a"]).texts.shape[1]
    assert stats.message.version == stats.version
    assert client.health() is True


def test_nobody_there_is_unavailable() -> None:
    # A port that is taken and not listened on.
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with Client(f"127.0.0.1:{taken.getsockname()[1]}") as lonely, pytest.raises(Unavailable) as refused:
            lonely.delete("a")
    assert isinstance(refused.value, DiptychError) and refused.value.message
