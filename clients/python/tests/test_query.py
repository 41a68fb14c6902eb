"""What people write as a query, and what is sent for it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diptych import Key, PartRef, Term, image, text, vector
from diptych._proto.diptych.v1 import retrieval_pb2 as pb
from diptych._requests import embed_requests, search_request
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


def test_inputs_to_embed_are_divided_by_number_and_by_size() -> None:
    counts = [(len(each.images), len(each.texts)) for each in embed_requests([b"x"] * 3, ["a"] * 510)]
    assert counts == [(3, 253), (0, 256), (0, 1)]
    big = bytes(20 << 20)
    assert [len(each.images) for each in embed_requests([big, big, b"x"], [])] == [1, 2]
    assert list(embed_requests([], [])) == []
    with pytest.raises(TypeError, match="also for one"):
        list(embed_requests([], "words"))
