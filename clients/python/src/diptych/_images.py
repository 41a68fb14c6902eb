"""Images from whatever a program has: encoded bytes, a path, a PIL image or an array of pixels.

Owns reading and encoding. Deliberately absent: decoding and resizing, which are the server's, so that all clients get
the same embedding.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL import Image

ImageSource = Union[bytes, Path, "Image.Image", "NDArray[np.uint8]"]
"""An encoded file's bytes, its path, a PIL image, or pixels as uint8 of shape (height, width) or (height, width, 3)."""

# What PNG holds as it is; other modes become RGB.
_PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")


def encoded(source: ImageSource) -> bytes:
    """The bytes of an image file."""
    if isinstance(source, bytes):
        return source
    if isinstance(source, Path):
        return source.read_bytes()
    if isinstance(source, np.ndarray):
        return _from_pixels(source)
    if is_pil(source):
        return _from_pil(source)
    raise TypeError(
        f"an image is bytes, a pathlib.Path, a PIL image or an array of uint8 pixels, not {type(source).__name__}"
    )


def is_pil(source: object) -> bool:
    """Whether it is a PIL image, without importing Pillow, which need not be there."""
    return any(kind.__module__ == "PIL.Image" and kind.__name__ == "Image" for kind in type(source).__mro__)


def _from_pixels(pixels: NDArray[Any]) -> bytes:
    gray = pixels.ndim == 2
    if pixels.dtype != np.uint8 or not (gray or (pixels.ndim == 3 and pixels.shape[2] == 3)):
        raise ValueError(
            f"pixels are uint8 of shape (height, width) or (height, width, 3), not {pixels.dtype} of "
            f"shape {pixels.shape}"
        )
    height, width = pixels.shape[:2]
    # PGM and PPM: a line of text, then the pixels as they are.
    return f"{'P5' if gray else 'P6'} {width} {height} 255\n".encode() + pixels.tobytes()


def _from_pil(picture: Any) -> bytes:
    from PIL import ImageOps

    # What a file says of its orientation would be lost.
    upright = ImageOps.exif_transpose(picture)
    if upright.mode not in _PNG_MODES:
        upright = upright.convert("RGB")
    file = io.BytesIO()
    # Little compression: the network is seldom slower than that.
    upright.save(file, format="PNG", compress_level=1)
    return file.getvalue()
