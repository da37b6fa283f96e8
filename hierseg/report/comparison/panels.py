"""Pictures of the comparison page: one photograph for each image, and over it the instances of every panel as shapes.

Shapes can be hidden by score and take either of two colours, and no photograph is stored twice. All places are in units
of the drawing, whose longer side is ``LONG_SIDE``. Boxes given are xyxy in pixels of the image. Shape letters: H, W the
image; C classes.
"""

from __future__ import annotations

import base64
import colorsys
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image
from pycocotools import mask as coco_mask

from hierseg.drawing import (
    GOLDEN_RATIO,
    GROUP,
    Picture,
    class_colors,
    label_size,
    label_variants,
    path_steps,
    place_labels,
)
from hierseg.taxonomy import Taxonomy

LONG_SIDE = 600
"""Units of a drawing, and at most the pixels of its photograph."""
SMALLEST_SIDE = 160
"""Pixels of photographs where there are thousands."""
QUALITY = 70
"""Of WebP; a photograph of 600 × 450 pixels takes about 40 kB."""
ALL_PHOTOGRAPHS = 60e6
"""Bytes that the photographs of a page take at most, until they are as small as ``SMALLEST_SIDE``."""
BYTES_PER_PIXEL = 0.2
"""Of a photograph, as base64."""
TOLERANCE = 1.5
"""Units by which outlines may deviate."""
TEXT_SIZE = 19
"""Of the labels: legible where a drawing is 300 pixels wide."""
MOST_INSTANCES = 100
"""Of a panel; the surest ones, as COCO's evaluation takes them."""


@dataclass(frozen=True, eq=False)
class PanelInstance:
    """An annotated or detected instance.

    Attributes:
        label: Its class.
        box: (4,) xyxy, pixels.
        mask: (H, W) bool, or COCO's compressed run lengths at the size of the image; None for a box alone.
        class_scores: (C,) probability of every class; None for ground truth.
        group_of: Whether it stands for a group; its box is dashed.
        identity: Instances of one image that share it are the same object, and have one colour of their own.
    """

    label: int
    box: npt.NDArray[np.floating]
    mask: npt.NDArray[np.bool_] | bytes | None = None
    class_scores: npt.NDArray[np.floating] | None = None
    group_of: bool = False
    identity: int = 0

    @property
    def score(self) -> float | None:
        """The probability of its most probable class; None for ground truth."""
        return None if self.class_scores is None else float(self.class_scores.max(initial=0))


@dataclass(frozen=True)
class Label:
    """A text on a picture: its middle left, and the rectangle behind it (x, y, width, height)."""

    text: str
    rectangle: tuple[int, int, int, int]
    size: int


@dataclass(frozen=True)
class ShownInstance:
    """An instance of a panel, ready for the page.

    Attributes:
        text: Its path, such as ``Person › Man 0.87``.
        class_color: That of its class, such as ``#2f6df2``.
        own_color: One that tells it from its neighbours.
        box: (x, y, width, height).
        outline: Of its mask, as SVG writes paths; '' for a box alone.
        dashed: Whether the box is dashed, as for a group.
        score: That of its most probable class, in hundredths, rounded down; None for ground truth.
        label: On the picture; None where there was no place.
    """

    text: str
    class_color: str
    own_color: str
    box: tuple[int, int, int, int]
    outline: str = ''
    dashed: bool = False
    score: int | None = None
    label: Label | None = None

    def to_json(self) -> dict[str, Any]:
        """What it is, not how it is drawn."""
        return {'text': self.text, 'score': None if self.score is None else self.score / 100}


@dataclass(frozen=True)
class ShownPanel:
    """The ground truth of an image, or what a system found there, the largest instances first.

    Errors are keys of their kinds. The score says how good the system is on this image; higher is better.
    """

    instances: Sequence[ShownInstance] = ()
    errors: Sequence[str] = ()
    score: float | None = None

    @property
    def surest_first(self) -> list[ShownInstance]:
        """The instances for a list: by score; those of the ground truth the largest first."""
        return sorted(self.instances, key=lambda entry: entry.score or 0, reverse=True)

    def to_json(self) -> dict[str, Any]:
        """All but the drawing."""
        instances = [instance.to_json() for instance in self.instances]
        return {'instances': instances, 'errors': list(self.errors), 'score': self.score}


@dataclass(frozen=True)
class Photograph:
    """An image as WebP, and the width and height of drawings on it."""

    content: bytes
    size: tuple[int, int]

    @property
    def address(self) -> str:
        """The picture as an address of a page."""
        return 'data:image/webp;base64,' + base64.b64encode(self.content).decode()


def photograph_side(count: int) -> int:
    """Pixels of the longer side of each of ``count`` photographs, so that a page can hold them all.

    600 up to about 1,100 of them.
    """
    pixels = ALL_PHOTOGRAPHS / max(count, 1) / BYTES_PER_PIXEL
    return int(np.clip((pixels * 4 / 3) ** 0.5, SMALLEST_SIDE, LONG_SIDE))


def photograph(image: Picture, *, side: int = LONG_SIDE) -> Photograph:
    """Compresses an (H, W, 3) uint8 RGB image, whose longer side becomes ``side`` pixels unless it is smaller."""
    height, width = image.shape[:2]
    if max(height, width) > side:
        size = _scaled(width, height, side)
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    content = io.BytesIO()
    Image.fromarray(image).save(content, format='WEBP', quality=QUALITY, method=5)
    return Photograph(content.getvalue(), _scaled(width, height, LONG_SIDE))


def draw_panel(
    shape: tuple[int, int],
    instances: Sequence[PanelInstance],
    *,
    taxonomy: Taxonomy,
    errors: Sequence[str] = (),
    score: float | None = None,
    shown_from: float = 0.0,
    side: int = LONG_SIDE,
) -> ShownPanel:
    """Draws instances on an image.

    Args:
        shape: Height and width of the image.
        instances: In any order; the ``MOST_INSTANCES`` of the highest score are drawn.
        taxonomy: Of their classes.
        errors: Of the panel.
        score: Of the panel.
        shown_from: Labels of instances with a lower score take the places that are left.
        side: Of the photograph in pixels; outlines are as fine.
    """
    surest = sorted(instances, key=lambda instance: -_certainty(instance))[:MOST_INSTANCES]
    # Those that are hidden at first lie behind, and large ones behind small ones.
    ordered = sorted(surest, key=lambda instance: (_certainty(instance) >= shown_from, -_extent(instance)))
    colors, size = class_colors(taxonomy), _scaled(shape[1], shape[0], LONG_SIDE)
    scale = np.tile((size[0] / shape[1], size[1] / shape[0]), 2)
    boxes = np.array([np.asarray(entry.box, dtype=np.float64) * scale for entry in ordered]).reshape(-1, 4)
    texts = [
        label_variants(
            path_steps(taxonomy, entry.label, class_scores=entry.class_scores), mark=GROUP if entry.group_of else ''
        )
        for entry in ordered
    ]
    labels, letters = place_labels(boxes, texts, size, text_size=TEXT_SIZE), label_size(TEXT_SIZE, len(ordered))
    # Half a pixel of the image, or one of the photograph.
    tolerance = max(TOLERANCE, LONG_SIDE / max(shape) / 2, LONG_SIDE / side)
    shown = []
    for entry, box, variants, label in zip(ordered, boxes, texts, labels, strict=True):
        left, top, right, bottom = (int(end) for end in np.round(box))
        outline = _outline(entry.mask, shape, size, tolerance=tolerance)
        shown.append(
            ShownInstance(
                text=variants[0],
                class_color=_hex(colors[entry.label]),
                own_color=instance_color(entry.identity),
                box=(left, top, right - left, bottom - top),
                outline=outline,
                dashed=entry.group_of,
                score=None if entry.score is None else int(entry.score * 100 + 1e-9),
                label=None if label is None else Label(label[0], _from_corner(label[1]), letters),
            )
        )
    return ShownPanel(tuple(shown), tuple(errors), score)


def instance_color(identity: int) -> str:
    """A colour such as ``#2f6df2``; neighbouring numbers are far apart."""
    hue, is_dark = (0.58 + identity * GOLDEN_RATIO) % 1, identity % 3 == 2
    return _hex(np.round(np.array(colorsys.hsv_to_rgb(hue, 0.85, 0.7 if is_dark else 1.0)) * 255).astype(np.uint8))


def _hex(color: npt.NDArray[np.uint8]) -> str:
    return f'#{color.tobytes().hex()}'


def _certainty(instance: PanelInstance) -> float:
    return 1.0 if instance.score is None else instance.score


def _extent(instance: PanelInstance) -> float:
    left, top, right, bottom = (float(side) for side in instance.box)
    return (right - left) * (bottom - top)


def _scaled(width: int, height: int, side: int) -> tuple[int, int]:
    factor = side / max(width, height)
    return max(round(width * factor), 1), max(round(height * factor), 1)


def _from_corner(rectangle: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    left, top, right, bottom = rectangle
    return left, top, right - left, bottom - top


def _outline(
    mask: npt.NDArray[np.bool_] | bytes | None, shape: tuple[int, int], size: tuple[int, int], *, tolerance: float
) -> str:
    """The outlines of a mask as polygons that deviate by at most ``tolerance``, holes among them."""
    if mask is None:
        return ''
    if isinstance(mask, bytes):
        mask = coco_mask.decode({'size': list(shape), 'counts': mask})
    pixels = cv2.resize(np.ascontiguousarray(mask, dtype=np.uint8) * 255, size, interpolation=cv2.INTER_LINEAR)
    contours, _ = cv2.findContours((pixels > 127).astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    parts = []
    for contour in contours:
        points = cv2.approxPolyDP(contour, tolerance, closed=True).reshape(-1, 2)
        if len(points) < 3:
            continue
        steps = np.diff(points, axis=0, prepend=np.zeros((1, 2), dtype=points.dtype)).tolist()
        (x, y), *others = steps
        parts.append(f'M{x} {y}l' + ' '.join(f'{right} {down}' for right, down in others) + 'z')
    return ''.join(parts).replace(' -', '-')
