"""Pictures as the network takes them: resized as OpenCV does it, padded, in a batch."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt

Picture = npt.NDArray[np.uint8]


def fitted_size(height: int, width: int, largest: Sequence[int]) -> tuple[int, int]:
    """Height and width of a picture, its ratio kept, in a rectangle that is given as (longer, shorter) side."""
    scale = min(max(largest) / max(height, width), min(largest) / min(height, width))
    return int(height * scale + 0.5), int(width * scale + 0.5)


def resize(picture: Picture, height: int, width: int) -> Picture:
    """The picture in another size, interpolated as ``cv2.resize`` does it, which is asked where it is installed."""
    if find_spec('cv2'):
        import cv2

        return np.asarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_LINEAR), dtype=np.uint8)
    return interpolated(picture, height, width)


def interpolated(picture: Picture, height: int, width: int) -> Picture:
    """:func:`resize` in numpy, in OpenCV's whole numbers: weights are parts of 2048."""
    left, right, *columns = _places(picture.shape[1], width)
    # OpenCV's columns beyond the border take nothing from the other side; its rows take the border's row twice.
    columns = [np.where(left == right, whole, part)[:, None] for whole, part in zip((2048, 0), columns, strict=True)]
    top, bottom, *rows = _places(picture.shape[0], height)
    wide = (picture[:, left] * columns[0] + picture[:, right] * columns[1]) >> 4
    above, below = (wide[place] * row[:, None, None] >> 16 for place, row in zip((top, bottom), rows, strict=True))
    return np.asarray((above + below + 2) >> 2, dtype=np.uint8)


def _places(length: int, wanted: int) -> tuple[npt.NDArray[Any], ...]:
    """The two pixels that each wanted one lies between, and their weights."""
    centres = ((np.arange(wanted) + 0.5) * (1 / (wanted / length)) - 0.5).astype(np.float32)
    first = np.floor(centres)
    part, place = centres - first, first.astype(np.int64)
    weights = (np.rint(share * 2048).astype(np.int32) for share in (1 - part, part))
    return place.clip(0, length - 1), (place + 1).clip(0, length - 1), *weights


def batched(pictures: Sequence[Picture], padding: Sequence[float], divisor: int) -> npt.NDArray[np.float32]:
    """(B, 3, H, W) of RGB pictures, each at the top left, H and W multiples of ``divisor``."""
    height, width = (-(-max(picture.shape[axis] for picture in pictures) // divisor) * divisor for axis in (0, 1))
    batch = np.full((len(pictures), height, width, 3), padding, dtype=np.float32)
    for place, picture in zip(batch, pictures, strict=True):
        place[: picture.shape[0], : picture.shape[1]] = picture
    return np.ascontiguousarray(batch.transpose(0, 3, 1, 2))
