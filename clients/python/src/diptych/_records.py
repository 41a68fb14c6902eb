"""Records to store.

Owns the conversion of an item to the wire. Deliberately absent: the stream that carries it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ._attributes import AttributeInput, to_wire
from ._images import ImageSource, encoded
from ._proto.diptych.v1 import retrieval_pb2 as pb

WriteMode = Literal["upsert", "insert"]
"""What happens when the key exists: replace the record, or refuse unless the content is the same."""

_MODES: dict[str, pb.WriteMode.ValueType] = {"upsert": pb.WRITE_MODE_UPSERT, "insert": pb.WRITE_MODE_INSERT}


@dataclass(frozen=True)
class Item:
    """A record to store. An image given by its path is remembered by that path."""

    key: str
    images: Sequence[ImageSource] = ()
    texts: Sequence[str] = ()
    attributes: Mapping[str, AttributeInput] = field(default_factory=dict)
    sentences: bool = False
    """Whether texts are searched sentence by sentence; else they are divided only where the model's context ends."""

    def __post_init__(self) -> None:
        if isinstance(self.texts, str):
            raise TypeError("texts is a sequence; write texts=[...], also for one")
        if isinstance(self.images, (bytes, str, Path)) or not isinstance(self.images, Sequence):
            raise TypeError("images is a sequence; write images=[...], also for one")

    def to_wire(self, collection: str, mode: WriteMode) -> pb.IngestRequest:
        """The item as the message; reads the images that are paths.

        Raises OSError when one cannot be read.
        """
        return pb.IngestRequest(
            collection=collection,
            key=self.key,
            images=[_image(image) for image in self.images],
            texts=self.texts,
            attributes={name: to_wire(value) for name, value in self.attributes.items()},
            mode=write_mode(mode),
            chunking=pb.TEXT_CHUNKING_SENTENCES if self.sentences else pb.TEXT_CHUNKING_CONTEXT,
        )


def write_mode(mode: str) -> pb.WriteMode.ValueType:
    """A mode as the wire has it."""
    if mode not in _MODES:
        raise ValueError(f"there is no write mode {mode!r}; use 'upsert' or 'insert'")
    return _MODES[mode]


def _image(source: ImageSource) -> pb.ImageInput:
    return pb.ImageInput(data=encoded(source), source=str(source) if isinstance(source, Path) else "")
