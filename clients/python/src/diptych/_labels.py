"""Labels for an image, a text, a stored record or a vector.

Owns how a classification is asked for and answered. Deliberately absent: sending.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Union, overload

from numpy.typing import ArrayLike

from ._images import ImageSource
from ._proto.diptych.v1 import retrieval_pb2 as pb
from ._query import Key, Source, image, set_source, text, vector

LabelLike = Union[str, tuple[str, Sequence[str]]]
"""A label's name, or that and the prompts that describe it."""


@dataclass(frozen=True)
class LabelScore:
    """How well a label fits."""

    label: str
    probability: float
    """The probability that the model gives it, 0 to 1, among the labels that were asked for."""
    score: float
    """Cosine similarity of the subject and the label's prompts, -1 to 1."""


@dataclass(frozen=True)
class Classification:
    """How well labels fit, the most probable first. It is a sequence of its scores."""

    scores: tuple[LabelScore, ...]
    independent: bool
    """Whether each label is a question of its own; else the probabilities of all labels add up to 1."""
    model_id: str

    def __iter__(self) -> Iterator[LabelScore]:
        return iter(self.scores)

    def __len__(self) -> int:
        return len(self.scores)

    @overload
    def __getitem__(self, index: int) -> LabelScore: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[LabelScore, ...]: ...
    def __getitem__(self, index: int | slice) -> LabelScore | tuple[LabelScore, ...]:
        return self.scores[index]


def classify_request(
    collection: str,
    image: ImageSource | str | None,
    text: str | None,
    key: str | Key | None,
    vector: ArrayLike | None,
    labels: Sequence[LabelLike],
    templates: Sequence[str],
    k: int | None,
) -> pb.ClassifyRequest:
    """The request for the labels that fit. An image that is a str is a path."""
    if isinstance(labels, str) or isinstance(templates, str):
        raise TypeError("labels and templates are sequences; write labels=[...] and templates=[...], also for one")
    request = pb.ClassifyRequest(
        collection=collection, labels=[_label(each) for each in labels], templates=templates, k=k
    )
    set_source(request, _subject(image, text, key, vector))
    return request


def classification(response: pb.ClassifyResponse) -> Classification:
    """The answer of Classify."""
    return Classification(
        scores=tuple(LabelScore(each.name, each.probability, each.score) for each in response.scores),
        independent=response.independent,
        model_id=response.model_id,
    )


def _subject(
    picture: ImageSource | str | None, words: str | None, key: str | Key | None, values: ArrayLike | None
) -> Source:
    given: list[Source] = []
    if picture is not None:
        given.append(image(picture).source)
    if words is not None:
        given.append(text(words).source)
    if key is not None:
        given.append(key if isinstance(key, Key) else Key(key))
    if values is not None:
        given.append(vector(values).source)
    if len(given) != 1:
        raise TypeError(f"classify takes one of image, text, key and vector, not {len(given)} of them")
    return given[0]


def _label(label: LabelLike) -> pb.ClassLabel:
    if isinstance(label, str):
        return pb.ClassLabel(name=label)
    if not (isinstance(label, tuple) and len(label) == 2) or isinstance(label[1], str):
        raise TypeError(f"a label is its name or (name, [prompts]), not {label!r}")
    name, prompts = label
    return pb.ClassLabel(name=name, prompts=prompts)
