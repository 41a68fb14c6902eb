"""Similar cases and drafts, by both clients against a real server."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

import pytest
from diptych import AsyncClient, Client, F, InvalidArgument, Item

from conftest import Corpus


async def done(answer: Any) -> Any:
    """What a call of either client gives."""
    return await answer if inspect.isawaitable(answer) else answer


STUDIES = [
    ("a", "p1", "FINDINGS: Large left pleural effusion. IMPRESSION: Left effusion.", "present"),
    ("b", "p2", "FINDINGS: Large left pleural effusion. IMPRESSION: Large effusion.", "present"),
    ("c", "p3", "FINDINGS: No pleural effusion. IMPRESSION: Clear chest.", "absent"),
    ("d", "p1", "FINDINGS: Small left pleural effusion. IMPRESSION: Small effusion.", "present"),
]


async def cases(client: Any, corpus: Corpus) -> None:
    there = {"collection": "cases"}
    picture = corpus.image(3)
    own = await done(client.similar(images=[picture], k=3))
    assert own[0].key == corpus.cases[3]["key"] and own[0].image.cosine > 0.999
    assert own[0].impression and own[0].image.part.ref.modality == "image"

    found = await done(client.similar(key="a", k=10, **there))
    assert [case.key for case in found][0] == "b" and "d" not in [case.key for case in found]
    assert found[0].common == ("effusion",) and found[0].sentence.cosine > 0.999
    assert found[-1].key == "c" and found[-1].conflicts == {"effusion": ("present", "absent")}
    history = await done(client.similar(key="a", patients="same", **there))
    assert [case.key for case in history] == ["d"]
    denied = await done(client.similar(report="No effusion.", filter=F("patient_id") != "p2", **there))
    assert [case.key for case in denied][0] == "c"
    told = await done(client.similar(report="Chest.", findings={"effusion": "absent"}, **there))
    assert told[0].key == "c"

    draft = await done(client.draft(report="Effusion.", min_support=0.0, patients="all", **there))
    assert "Large left pleural effusion." in [sentence.text for sentence in draft.findings]
    assert all(sentence.key in sentence.supporting for sentence in draft.findings)
    with pytest.raises(InvalidArgument, match="neither an image nor a report"):
        await done(client.similar(findings={"effusion": "present"}))
    with pytest.raises(InvalidArgument, match="findings_weight"):
        await done(client.similar(report="x", findings_weight=-1.0))


def test_wrong_options_are_refused_before_they_are_sent() -> None:
    with Client("127.0.0.1:1") as client:
        with pytest.raises(ValueError, match="'others', 'all' or 'same'"):
            client.similar(report="x", patients="mine")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="present"):
            client.similar(report="x", findings={"effusion": "there"})  # type: ignore[dict-item]
        with pytest.raises(TypeError, match="sequence"):
            client.similar(images="a.png")


def test_cases_are_found_by_cases(corpus: Corpus) -> None:
    with Client(corpus.address) as client:
        items = [
            Item(key, texts=[report], sentences=True, attributes={"patient_id": patient, "finding.effusion": status})
            for key, patient, report, status in STUDIES
        ]
        for result in client.ingest(items, collection="cases"):
            result.raise_for_error()
        asyncio.run(cases(client, corpus))
    asyncio.run(asynchronously(corpus))


async def asynchronously(corpus: Corpus) -> None:
    async with AsyncClient(corpus.address) as client:
        await cases(client, corpus)
