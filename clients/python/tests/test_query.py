"""What people write as a query, and what is sent for it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diptych import Key, PartRef, Receipt, Term, image, text, vector
from diptych._labels import classify_request
from diptych._proto.diptych.v1 import retrieval_pb2 as pb
from diptych._requests import embed_requests, item_request, replay_request, search_request
from PIL import Image


def asked(query: Any) -> pb.SearchRequest:
    return search_request("c", query)


def weights(query: Any) -> list[tuple[str, float]]:
    return [(term.WhichOneof("source") or "", term.weight) for term in asked(query).terms]


def test_one_thing_is_sent_as_that_thing() -> None:
    assert asked("a nodule").text == "a nodule"
    assert asked("photo.jpg").text == "photo.jpg", "a str is always words"
    assert asked(b"\x89PNG").image == b"\x89PNG"
    assert asked(Key("case-1")).key == pb.KeyQuery(key="case-1")
    part = pb.PartRef(modality=pb.MODALITY_TEXT, ordinal=1, chunk=2)
    assert asked(Key("case-1", PartRef("text", 1, 2))).key == pb.KeyQuery(key="case-1", part=part)
    assert asked(np.array([0.5, -0.25])).vector.values == [0.5, -0.25]
    assert not asked("a nodule").terms


def test_an_image_is_taken_from_where_it_is(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    Image.new("RGB", (3, 2), (10, 20, 30)).save(file)
    assert asked(file).image == file.read_bytes()
    assert image(str(file)).source == file.read_bytes()
    with Image.open(file) as opened:
        sent = Image.open(io.BytesIO(asked(opened).image))
    assert sent.size == (3, 2) and sent.getpixel((0, 0)) == (10, 20, 30)


def test_pixels_are_an_image_and_keep_their_values() -> None:
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    decoded = np.asarray(Image.open(io.BytesIO(asked(pixels).image)))
    assert (decoded == pixels).all()
    # Not contiguous, and gray.
    gray = pixels[:, ::2, 1]
    assert (np.asarray(Image.open(io.BytesIO(asked(gray).image))) == gray).all()
    with pytest.raises(ValueError, match="uint8 of shape"):
        asked(np.zeros((2, 4, 3), dtype=np.float32))


def test_a_picture_that_lies_on_its_side_is_sent_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    file = tmp_path / "side.jpg"
    Image.new("CMYK", (8, 4)).save(file, exif=exif)
    with Image.open(file) as opened:
        sent = Image.open(io.BytesIO(asked(opened).image))
    assert sent.size == (4, 8) and sent.mode == "RGB"
    assert 0x0112 not in sent.getexif()


def test_terms_are_weighted_and_added_as_people_write_it() -> None:
    query = 2 * text("golden retriever") + image(b"pool") - text("fruit")
    assert weights(query) == [("text", 2.0), ("image", 1.0), ("text", -1.0)]
    assert weights(-(text("a") - 0.5 * Key("k")) * 2) == [("text", -2.0), ("key", 1.0)]
    assert weights(Key("k") + vector([1, 0])) == [("key", 1.0), ("vector", 1.0)]
    two: Any = np.float64(2)
    assert weights(two * text("a") + text("b") * np.int64(3)) == [("text", 2.0), ("text", 3.0)]
    assert weights(["a", Term("b", -1)]) == [("text", 1.0), ("text", -1.0)]
    assert weights(text("a")) == [("text", 1.0)], "a term is a term, so that its score is told"


def test_what_is_no_query_is_refused_with_the_remedy() -> None:
    with pytest.raises(TypeError, match="a query is a str"):
        asked(7)
    with pytest.raises(ValueError, match="give at least one"):
        asked([])
    with pytest.raises(TypeError, match="unsupported operand"):
        text("a") + 1
    with pytest.raises(ValueError, match="'both', 'image' or 'text'"):
        search_request("c", "a", target="images")  # type: ignore[arg-type]


def test_words_are_joined_as_is_said() -> None:
    assert not asked("a").HasField("lexical")
    alone = search_request("c", None, words='+left "pleural effusion"')
    assert alone.WhichOneof("query") is None and alone.lexical.text == '+left "pleural effusion"'
    assert alone.lexical.WhichOneof("fusion") is None
    ranks = search_request("c", "a", words="b", fusion="rrf").lexical
    assert ranks.HasField("rank_fusion") and not ranks.rank_fusion.HasField("k")
    assert search_request("c", "a", words="b", fusion=("rrf", 30.0)).lexical.rank_fusion.k == 30.0
    weighted = search_request("c", "a", words="b", fusion=("weighted", 0.25)).lexical
    assert weighted.weighted_fusion.lexical == 0.25
    with pytest.raises(ValueError, match="nothing to search for"):
        search_request("c", None)
    with pytest.raises(ValueError, match="give words"):
        search_request("c", "a", fusion="rrf")
    for wrong in ("weighted", ("best", 1.0)):
        with pytest.raises(ValueError, match="there is no fusion"):
            search_request("c", "a", words="b", fusion=wrong)  # type: ignore[arg-type]


def test_what_comes_beside_the_hits_is_asked_for() -> None:
    request = search_request("c", "a", facets=["sex", ("labels", 5)], thumbnails=True, fields=["attributes.a b"])
    assert list(request.facets) == [pb.Facet(attribute="sex"), pb.Facet(attribute="labels", limit=5)]
    assert request.thumbnails and request.read_mask.paths == ["attributes.a b"]
    plain = asked("a")
    assert not plain.facets and not plain.thumbnails and not plain.HasField("read_mask")
    assert search_request("c", "a", fields=[]).read_mask.paths == ["key"], "no fields are not all of them"
    for wrong in ("sex", ("labels", 5)):
        with pytest.raises(TypeError, match="facet"):
            search_request("c", "a", facets=wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="also for one"):
        search_request("c", "a", fields="part")


def test_one_of_many_searches_says_more_than_all() -> None:
    assert item_request("c", "a", {"k": 5}) == search_request("c", "a", k=5)
    assert item_request("c", {"query": "a", "k": 3, "collection": "d"}, {"k": 5, "target": "image"}) == search_request(
        "d", "a", k=3, target="image"
    )
    assert item_request("c", {"words": "b"}, {}) == search_request("c", None, words="b")
    assert item_request("c", ["a", Key("k")], {}) == asked(["a", Key("k")])
    with pytest.raises(TypeError, match="unexpected keyword argument 'kk'"):
        item_request("c", {"query": "a", "kk": 3}, {})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="nothing to search for"):
        item_request("c", {"k": 3}, {})


def test_a_receipt_is_kept_whole() -> None:
    message = pb.Receipt(model_id="m", generation=7, request_digest=b"r", hits_digest=b"h")
    message.parameters.CopyFrom(search_request("cases", "a"))
    receipt = Receipt(message)
    assert (receipt.model_id, receipt.generation, receipt.request_digest, receipt.hits_digest) == ("m", 7, b"r", b"h")
    again = Receipt.from_bytes(bytes(receipt))
    assert again == receipt and hash(again) == hash(receipt) and again.message.parameters.text == "a"
    assert again != Receipt(pb.Receipt(model_id="m", generation=8))
    assert repr(receipt) == "Receipt(model_id='m', generation=7)"
    with pytest.raises(ValueError, match="no receipt"):
        Receipt.from_bytes(b"\xff\xff")
    assert replay_request(receipt, None, {}) == pb.ReplayRequest(receipt=message)
    whole = replay_request(receipt, b"pixels", {"k": 3})
    assert whole.request == search_request("cases", b"pixels", k=3), "in the collection of the receipt"
    with pytest.raises(TypeError, match="found.receipt"):
        replay_request(message, None, {})  # type: ignore[arg-type]


def test_a_classification_is_asked_for(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(b"\x89PNG")

    def request(labels: Any = ("a", "b"), templates: Any = (), **subject: Any) -> pb.ClassifyRequest:
        given = {"image": None, "text": None, "key": None, "vector": None, **subject}
        return classify_request("c", labels=labels, templates=templates, k=1, **given)

    made = request(["a", ("b", ["one", "two"])], ["There is {}."], text="words")
    assert made.collection == "c" and made.text == "words" and made.k == 1
    assert list(made.labels) == [pb.ClassLabel(name="a"), pb.ClassLabel(name="b", prompts=["one", "two"])]
    assert list(made.templates) == ["There is {}."]
    assert request(image=str(file)).image == request(image=file).image == b"\x89PNG"
    assert request(key="k").key == request(key=Key("k")).key == pb.KeyQuery(key="k")
    assert request(vector=[1, 0]).vector.values == [1, 0]
    for wrong in ({}, {"text": "a", "key": "k"}):
        with pytest.raises(TypeError, match="one of image, text, key and vector"):
            request(**wrong)
    for labels in ("a", [("a", "prompt")], [7]):
        with pytest.raises(TypeError, match="label"):
            request(labels, text="a")


def test_inputs_to_embed_are_divided_by_number_and_by_size() -> None:
    counts = [(len(each.images), len(each.texts)) for each in embed_requests([b"x"] * 3, ["a"] * 510)]
    assert counts == [(3, 253), (0, 256), (0, 1)]
    big = bytes(20 << 20)
    assert [len(each.images) for each in embed_requests([big, big, b"x"], [])] == [1, 2]
    assert list(embed_requests([], [])) == []
    with pytest.raises(TypeError, match="also for one"):
        list(embed_requests([], "words"))
