"""Image files as arrays and back; OpenCV reads and writes them."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from hierseg.errors import AnnotationError, ConfigError
from hierseg.files import write_atomically

Orientation = Literal['stored', 'turned']
"""Whether pixels are counted as they lie in the file, or in the picture that EXIF data turn for people."""
_FLAGS = {'stored': cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION, 'turned': cv2.IMREAD_COLOR}


def read_picture(path: str | PathLike[str], orientation: Orientation = 'stored') -> npt.NDArray[np.uint8]:
    """An image file, (H, W, 3) uint8 RGB, turned as EXIF says where the orientation is ``'turned'``.

    Raises:
        OSError: If there is no such file.
        AnnotationError: If it holds no image.
    """
    content = np.frombuffer(Path(path).read_bytes(), dtype=np.uint8)
    # OpenCV fails on an empty file with an error of its own.
    picture = cv2.imdecode(content, _FLAGS[orientation]) if len(content) else None
    if picture is None:
        raise AnnotationError('is no readable image', where=str(path), fix='Fetch it again.')
    return np.ascontiguousarray(picture[..., ::-1], dtype=np.uint8)


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
