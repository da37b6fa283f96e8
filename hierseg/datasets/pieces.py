"""Masks of one image as small pieces: what is moved, cut and packed is the object, not a plane of the whole image.

Shape letters: I instances, H × W pixels of the image, h × w of a piece.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
from mmdet.structures.mask import BitmapMasks


class Piece(NamedTuple):
    """A mask within its bounds: (h, w) uint8 whose upper left pixel is at (left, top); no pixel: an unknown mask."""

    plane: np.ndarray
    left: int
    top: int

    @property
    def is_known(self) -> bool:
        """Tells if there is a mask."""
        return self.plane.size > 0


UNKNOWN = Piece(np.zeros((0, 0), dtype=np.uint8), 0, 0)


class PieceMasks(BitmapMasks):
    """mmdet's ``BitmapMasks`` whose planes are made when they are asked for.

    A mosaic of 1280 × 1280 pixels with 35 objects takes 57 MB as planes. Cutting out, flipping and padding keep
    pieces; all else that mmdet does with masks is done with the planes.

    Args:
        pieces: One for each instance.
        height: H.
        width: W.
    """

    def __init__(self, pieces: Sequence[Piece], height: int, width: int) -> None:
        self.pieces, self.height, self.width = list(pieces), height, width

    @classmethod
    def of(cls, masks: BitmapMasks) -> PieceMasks:
        """The same masks as pieces; all-zero planes are unknown."""
        if isinstance(masks, cls):
            return masks
        return cls([trimmed(plane) or UNKNOWN for plane in masks.masks], masks.height, masks.width)

    @property
    def masks(self) -> np.ndarray:
        """(I, H, W) uint8, made anew."""
        planes = np.zeros((len(self.pieces), self.height, self.width), dtype=np.uint8)
        for plane, (piece, left, top) in zip(planes, self.pieces, strict=True):
            plane[top : top + piece.shape[0], left : left + piece.shape[1]] = piece
        return planes

    def __len__(self) -> int:
        return len(self.pieces)

    def __getitem__(self, index: Any) -> PieceMasks:
        chosen = np.atleast_1d(np.arange(len(self))[index])
        return PieceMasks([self.pieces[number] for number in chosen], self.height, self.width)

    def flip(self, flip_direction: str = 'horizontal') -> PieceMasks:
        """The masks of the flipped image."""
        across, down = flip_direction in ('horizontal', 'diagonal'), flip_direction in ('vertical', 'diagonal')
        pieces = []
        for plane, left, top in self.pieces:
            height, width = plane.shape
            flipped = plane[:: -1 if down else 1, :: -1 if across else 1]
            place = self.width - width - left if across else left, self.height - height - top if down else top
            pieces.append(Piece(flipped, *place) if plane.size else UNKNOWN)
        return PieceMasks(pieces, self.height, self.width)

    def pad(self, out_shape: tuple[int, int], pad_val: int = 0) -> BitmapMasks:
        """The masks of an image filled up at its right and lower border to (H, W)."""
        height, width = out_shape[:2]
        if pad_val or height < self.height or width < self.width:
            return super().pad(out_shape, pad_val)
        return PieceMasks(self.pieces, height, width)


def trimmed(plane: np.ndarray, left: int = 0, top: int = 0) -> Piece | None:
    """What is set of an (h, w) plane whose upper left pixel is at (left, top), None for nothing."""
    x, y, width, height = cv2.boundingRect(plane)
    return Piece(plane[y : y + height, x : x + width], left + x, top + y) if width else None
