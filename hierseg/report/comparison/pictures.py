"""The panels of the comparison page: one image with its instances, as JPEG and in words.

Boxes are xyxy in pixels of the image given. Shape letters: H, W the image; C classes.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image
from pycocotools import mask as coco_mask

from hierseg.report.canvas import DrawnInstance, Picture, draw_instances
from hierseg.report.comparison.document import NamedPath, Panel
from hierseg.report.labels import SEPARATOR, label_variants, path_steps
from hierseg.report.palette import class_colors
from hierseg.taxonomy import Taxonomy

LONG_SIDE = 600
"""Pixels of a panel: at the quality below a photograph takes about 42 kB, and 120 of them 7 MB of a page."""
QUALITY = 70
TEXT_SIZE = 17
"""Of the labels: still legible where a panel is as wide as a phone."""
GROUP = '(group)'


@dataclass(frozen=True, eq=False)
class PanelInstance:
    """An annotated or detected instance.

    Attributes:
        label: Its class.
        box: (4,) xyxy, pixels.
        mask: (H, W) bool, or COCO's compressed run lengths at the size of the image; None for a box alone.
        class_scores: (C,) probability of every class; None for ground truth.
        score: Probability of its class, where only that is known.
        group_of: Whether it stands for a group; its box is dashed.
    """

    label: int
    box: npt.NDArray[np.floating]
    mask: npt.NDArray[np.bool_] | bytes | None = None
    class_scores: npt.NDArray[np.floating] | None = None
    score: float | None = None
    group_of: bool = False


def draw_panel(
    image: Picture,
    instances: Sequence[PanelInstance],
    *,
    taxonomy: Taxonomy,
    errors: Sequence[str] = (),
    score: float | None = None,
) -> Panel:
    """Draws instances on an image, each in the colour of its class, whose hue is that of its root class.

    Args:
        image: (H, W, 3) uint8 RGB.
        instances: What to draw; the words are in this order.
        taxonomy: C classes.
        errors: Handed on to the panel.
        score: Handed on.
    """
    height, width = image.shape[:2]
    factor = LONG_SIDE / max(height, width)
    size = max(round(width * factor), 1), max(round(height * factor), 1)
    colors = class_colors(taxonomy)
    drawn, paths = [], []
    for instance in instances:
        steps = path_steps(taxonomy, instance.label, class_scores=instance.class_scores, score=instance.score)
        mark = GROUP if instance.group_of else ''
        color = colors[instance.label]
        box = np.asarray(instance.box, dtype=np.float64) * np.tile((size[0] / width, size[1] / height), 2)
        mask = _resized(_decoded(instance.mask, height, width), size)
        drawn.append(DrawnInstance(box, color, label_variants(steps, mark=mark), mask, instance.group_of))
        paths.append(NamedPath(' '.join(filter(None, [SEPARATOR.join(steps), mark])), _hexadecimal(color)))
    small: Picture = cv2.resize(image, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC).astype(
        np.uint8
    )
    picture, _ = draw_instances(small, drawn, text_size=TEXT_SIZE)
    return Panel(_jpeg(picture), tuple(paths), tuple(errors), score)


def _decoded(mask: npt.NDArray[np.bool_] | bytes | None, height: int, width: int) -> npt.NDArray[np.uint8] | None:
    if isinstance(mask, bytes):
        decoded: npt.NDArray[np.uint8] = coco_mask.decode({'size': [height, width], 'counts': mask})
        return decoded
    return None if mask is None else np.asarray(mask, dtype=np.uint8)


def _resized(mask: npt.NDArray[np.uint8] | None, size: tuple[int, int]) -> npt.NDArray[np.bool_] | None:
    if mask is None:
        return None
    resized: npt.NDArray[np.bool_] = cv2.resize(mask * np.uint8(255), size, interpolation=cv2.INTER_LINEAR) > 127
    return resized


def _hexadecimal(color: npt.NDArray[np.uint8]) -> str:
    return '#' + ''.join(f'{channel:02x}' for channel in color)


def _jpeg(picture: Picture) -> bytes:
    content = io.BytesIO()
    Image.fromarray(picture).save(content, format='JPEG', quality=QUALITY, optimize=True, progressive=True)
    return content.getvalue()
