"""Image files as arrays and back: Pillow reads their headers, OpenCV their pixels, and writes them."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from threading import Lock
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from hierseg.errors import AnnotationError, ConfigError
from hierseg.files import write_atomically
from hierseg.formats.reading import reading
from hierseg.limits import MAX_PIXELS, excess

Orientation = Literal['stored', 'turned']
"""Whether pixels are counted as they lie in the file, or in the picture that EXIF data turn for people."""
_FLAGS = {'stored': cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION, 'turned': cv2.IMREAD_COLOR}
UNREADABLE, AGAIN = 'is no readable image', 'Fetch it again.'
_PNG, _CHANNELS = b'\x89PNG\r\n\x1a\n', {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_LOCK = Lock()


@contextmanager
def opened(
    path: str | PathLike[str],
    content: bytes | None = None,
    *,
    formats: tuple[str, ...] | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Iterator[Image.Image]:
    """An image of Pillow, of which the header is read and the size checked, and no pixel is decoded yet.

    Args:
        path: The file.
        content: What is in it, where it has been read.
        formats: Those to try, all of Pillow's if omitted.
        max_pixels: To accept.

    Raises:
        AnnotationError: If it is no image that can be read, then or in the block, or is larger.
    """
    with reading(path, AnnotationError, what=UNREADABLE, fix=AGAIN):
        # Pillow has one limit for the whole process, lower than ours: it is put back as soon as the header is read.
        with _LOCK:
            theirs, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            try:
                image = Image.open(path if content is None else io.BytesIO(content), formats=formats)
            except UnidentifiedImageError:
                raise AnnotationError(UNREADABLE, where=str(path), fix=AGAIN) from None
            finally:
                Image.MAX_IMAGE_PIXELS = theirs
        with image:
            what = excess(image.height, image.width, max_pixels)
            if what:
                raise AnnotationError(what, where=str(path), fix='Leave it out, or raise the limit.')
            yield image


def read_picture(
    path: str | PathLike[str], orientation: Orientation = 'stored', *, max_pixels: int = MAX_PIXELS
) -> npt.NDArray[np.uint8]:
    """An image file, (H, W, 3) uint8 RGB, turned as EXIF says where the orientation is ``'turned'``.

    Raises:
        OSError: If there is no such file.
        AnnotationError: If it holds no image, or one of more than ``max_pixels``.
    """
    content = Path(path).read_bytes()
    with opened(path, content, max_pixels=max_pixels):
        if _is_overfull(content):
            raise AnnotationError('has more compressed pixels than its size can need', where=str(path), fix=AGAIN)
    with reading(path, AnnotationError, what=UNREADABLE, fix=AGAIN, also=(cv2.error,)):
        picture = cv2.imdecode(np.frombuffer(content, dtype=np.uint8), _FLAGS[orientation])
    if picture is None:
        raise AnnotationError(UNREADABLE, where=str(path), fix=AGAIN)
    return np.ascontiguousarray(picture[..., ::-1], dtype=np.uint8)


def _is_overfull(content: bytes) -> bool:
    """Whether a PNG has many more compressed bytes than its pixels have plain ones: OpenCV would inflate them all."""
    if not content.startswith(_PNG) or len(content) < 33:
        return False
    width, height, depth, color = struct.unpack_from('>IIBB', content, 16)
    plain = height * (2 + width * depth * _CHANNELS.get(color, 4) // 8)  # and a byte for the filter of each row
    place, packed = len(_PNG), 0
    while place + 8 <= len(content):
        size, kind = struct.unpack_from('>I4s', content, place)
        packed += size if kind == b'IDAT' else 0
        place += size + 12
    return bool(min(packed, len(content)) > 1.1 * plain + 65536)


def write_picture(picture: npt.NDArray[np.uint8], path: str | PathLike[str]) -> None:
    """Writes an (H, W, 3) uint8 RGB picture in the format that the file's ending names; its folder is made.

    Raises:
        ConfigError: If OpenCV knows no format of that ending.
    """
    ending = Path(path).suffix
    if not ending or not cv2.haveImageWriter(ending):
        raise ConfigError(
            f'{ending or "no ending"} is no format of images', where=str(path), fix='Name it .jpg or .png.'
        )
    _, content = cv2.imencode(ending, np.ascontiguousarray(picture[..., ::-1]))
    write_atomically(content.tobytes(), path)
