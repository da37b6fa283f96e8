"""Instances on pictures: a colour for every class, labels that find their place, and pictures side by side.

OpenCV draws shapes, Pillow writes text. Boxes are xyxy in pixels of the image given; pictures are RGB uint8.
Shape letters: C classes; H, W the image. Everything is drawn after enlarging the image by a whole number.
"""

from __future__ import annotations

import colorsys
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import cv2
import matplotlib
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from hierseg.found import SEPARATOR
from hierseg.taxonomy import Taxonomy

Picture = npt.NDArray[np.uint8]
Rectangle = tuple[int, int, int, int]
GOLDEN_RATIO = 0.618033988749895
"""Steps of this part of a circle keep any number of hues far apart, and never move an earlier one."""
GROUP = '(group)'
FULL_SIZE = 640
"""Pictures whose longer side is smaller are enlarged to about this, so that text finds room."""
LARGEST_FACTOR = 6
MASK_OPACITY = 0.4
LABEL_OPACITY = 0.88
TOLERATED_OVERLAP = 0.35
"""A label of which a larger part would cover other labels is left out."""
CROWD = 12
"""With more instances than this, text is smaller and narrow boxes get the shorter forms of their labels."""
GAP = 8
"""Pixels between two panels."""
BACKGROUND = (24, 24, 27)
LIGHT_TEXT, FAINT_TEXT = (228, 228, 231), (161, 161, 170)


def class_colors(taxonomy: Taxonomy) -> npt.NDArray[np.uint8]:
    """The colours of a taxonomy's classes, the same at every call.

    A class takes the hue of its preferred root, so that siblings and their parent look related. Within a
    family the shades are spread by position, so that siblings can still be told apart.

    Returns:
        (C, 3) uint8, RGB.
    """
    colors = np.empty((taxonomy.num_classes, 3))
    for family, root in enumerate(taxonomy.root_classes):
        hue = (0.58 + family * GOLDEN_RATIO) % 1
        colors[root] = colorsys.hsv_to_rgb(hue, 0.78, 0.95)
        members = np.flatnonzero(taxonomy.arrays.preferred_roots == root)
        for position, label in enumerate(members[members != root], 1):
            step = (position * GOLDEN_RATIO) % 1
            shade = (hue + (step - 0.5) * 0.06) % 1
            colors[label] = colorsys.hsv_to_rgb(shade, 0.95 - 0.5 * step, 0.72 + 0.28 * ((step * 3) % 1))
    return np.round(colors * 255).astype(np.uint8)


def text_color(background: npt.NDArray[np.uint8]) -> tuple[int, int, int]:
    """Black or white, whichever reads better on an RGB background.

    By relative luminance (WCAG 2). That standard's own border, 0.18, has black text on violet and blue.
    """
    linear = (np.asarray(background, dtype=np.float64) / 255) ** 2.2
    luminance = float(linear @ (0.2126, 0.7152, 0.0722))
    return (0, 0, 0) if luminance > 0.3 else (255, 255, 255)


def path_steps(
    taxonomy: Taxonomy, label: int, *, class_scores: npt.NDArray[np.floating] | None = None, score: float | None = None
) -> tuple[str, ...]:
    """Texts for the steps of a class's preferred path, root class first, such as ``('Animal 0.98', 'Dog 0.71')``.

    Args:
        taxonomy: The classes.
        label: The decided class.
        class_scores: (C,) probability of every class; a step that the detection does not claim (0) stays bare.
        score: Probability of the decided class, where only that is known.
    """
    path = taxonomy.preferred_path(label)
    scores = {label: score} if score is not None else {}
    if class_scores is not None:
        scores |= {step: float(class_scores[step]) for step in path if class_scores[step] > 0}
    return tuple(
        f'{taxonomy.names[step]} {scores[step]:.2f}' if step in scores else taxonomy.names[step] for step in path
    )


def label_variants(steps: tuple[str, ...], *, mark: str = '') -> tuple[str, ...]:
    """Forms of a label from the longest to the shortest: root steps give way first, a mark stays.

    Example:
        >>> label_variants(('Animal', 'Carnivore', 'Dog'), mark='(group)')
        ('Animal › Carnivore › Dog (group)', '… › Carnivore › Dog (group)', 'Dog (group)')
    """
    behind = f' {mark}' if mark else ''
    whole, last = SEPARATOR.join(steps), steps[1:][-1:]
    cut = [SEPARATOR.join(('…', *steps[start:])) for start in range(1, len(steps) - 1)]
    return tuple(text + behind for text in (whole, *cut, *last))


@dataclass(frozen=True, eq=False)
class DrawnInstance:
    """One instance, ready to be drawn.

    Attributes:
        box: (4,) xyxy, pixels.
        color: (3,) uint8 RGB.
        texts: The label from its longest to its shortest form, as of :func:`label_variants`.
        mask: (H, W) bool or uint8; None or empty for a box without a mask.
        dashed: Whether the box is dashed, as for a group.
    """

    box: npt.NDArray[np.floating]
    color: Picture
    texts: tuple[str, ...]
    mask: npt.NDArray[np.bool_ | np.uint8] | None = None
    dashed: bool = False


def draw_instances(
    image: Picture, instances: Sequence[DrawnInstance], *, text_size: int | None = None
) -> tuple[Picture, int]:
    """Draws instances on an enlarged copy of an (H, W, 3) uint8 RGB image, large ones first.

    Labels have text of ``text_size`` pixels, else of :func:`font_size`.

    Returns:
        The picture (see :func:`enlargement` for its size) and the number of labels that found no place.
    """
    height, width = image.shape[:2]
    factor = enlargement(height, width)
    resized = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)
    picture = np.asarray(resized, dtype=np.uint8)
    ordered = sorted(instances, key=lambda instance: -np.prod(instance.box[2:] - instance.box[:2]))
    for instance in ordered:
        _draw_mask(picture, instance, factor)
    for instance in ordered:
        _draw_box(picture, instance, factor)
    return _draw_labels(picture, ordered, factor, text_size or font_size(picture))


def enlargement(height: int, width: int) -> int:
    """The whole number by which a picture of this size is enlarged before anything is drawn."""
    return int(np.clip(round(FULL_SIZE / max(height, width)), 1, LARGEST_FACTOR))


def font_size(picture: Picture) -> int:
    """Pixels of text, which grow slowly with the picture."""
    return int(np.clip(round(min(picture.shape[:2]) / 38), 12, 22))


@lru_cache(maxsize=64)
def font(size: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib, so that text looks the same on every machine."""
    name = 'DejaVuSans-Bold.ttf' if bold else 'DejaVuSans.ttf'
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / 'fonts' / 'ttf' / name), size)


def _draw_mask(picture: Picture, instance: DrawnInstance, factor: int) -> None:
    """Fills the mask and outlines it, working on its own rectangle alone."""
    if instance.mask is None:
        return
    mask = np.ascontiguousarray(instance.mask, dtype=np.uint8)
    left, top, width, height = cv2.boundingRect(mask)
    if width == 0:
        return
    part = cv2.copyMakeBorder(mask[top : top + height, left : left + width] * 255, 1, 1, 1, 1, cv2.BORDER_CONSTANT)
    part = cv2.resize(part, None, fx=factor, fy=factor)[factor:-factor, factor:-factor]
    left, top = left * factor, top * factor
    region = picture[top : top + part.shape[0], left : left + part.shape[1]]
    inside = part > 127
    tint = instance.color.astype(np.float32) * MASK_OPACITY
    region[inside] = (region[inside] * np.float32(1 - MASK_OPACITY) + tint).astype(np.uint8)
    outlines, _ = cv2.findContours(inside.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE, offset=(left, top))
    cv2.drawContours(picture, outlines, -1, instance.color.tolist(), 2, cv2.LINE_AA)


def _draw_box(picture: Picture, instance: DrawnInstance, factor: int) -> None:
    left, top, right, bottom = (int(side) for side in np.round(np.asarray(instance.box) * factor))
    has_mask = instance.mask is not None and bool(instance.mask.any())
    color, thickness = instance.color.tolist(), 1 if has_mask else 2
    if not instance.dashed:
        cv2.rectangle(picture, (left, top), (right, bottom), color, thickness, cv2.LINE_AA)
        return
    corners = np.array([(left, top), (right, top), (right, bottom), (left, bottom), (left, top)])
    for start, end in pairwise(corners):
        length = max(np.abs(end - start).max(), 1)
        for offset in range(0, length, 14):  # dashes of 8 pixels with 6 between them
            first, last = (
                np.round(start + (end - start) / length * min(at, length)).astype(int).tolist()
                for at in (offset, offset + 8)
            )
            cv2.line(picture, first, last, color, thickness, cv2.LINE_AA)


def _draw_labels(
    picture: Picture, instances: Sequence[DrawnInstance], factor: int, text_size: int
) -> tuple[Picture, int]:
    """Writes every label that finds a place; returns the picture and the number of those that did not."""
    canvas = Image.fromarray(picture)
    pen = ImageDraw.Draw(canvas, 'RGBA')
    boxes = np.array([instance.box * factor for instance in instances]).reshape(-1, 4)
    labels = place_labels(boxes, [instance.texts for instance in instances], picture.shape[1::-1], text_size=text_size)
    letters = font(label_size(text_size, len(instances)))
    for label, instance in zip(reversed(labels), reversed(instances), strict=True):
        if label is None:
            continue
        text, rectangle = label
        pen.rounded_rectangle(rectangle, radius=3, fill=(*instance.color.tolist(), round(255 * LABEL_OPACITY)))
        middle = (rectangle[0] + 4, (rectangle[1] + rectangle[3]) / 2)
        pen.text(middle, text, font=letters, fill=text_color(instance.color), anchor='lm')
    return np.asarray(canvas), labels.count(None)


def label_size(text_size: int, count: int) -> int:
    """Pixels of the text of labels: smaller where there are many."""
    return round(text_size * 0.85) if count > CROWD else text_size


def place_labels(
    boxes: npt.NDArray[np.floating], texts: Sequence[Sequence[str]], size: Sequence[int], *, text_size: int
) -> list[tuple[str, Rectangle] | None]:
    """Finds a place for the label of every instance, the last one first.

    Args:
        boxes: (L, 4) xyxy, pixels; the larger ones first, since small ones have the least choice.
        texts: L labels, each from its longest to its shortest form.
        size: Width and height of the picture.
        text_size: Pixels, before :func:`label_size`.

    Returns:
        The chosen form and its rectangle; None where it would cover too much of other labels.
    """
    crowded = len(boxes) > CROWD
    letters = font(label_size(text_size, len(boxes)))
    line = letters.size * 1.35 + 1
    small = boxes[(boxes[:, 2:] - boxes[:, :2]).prod(axis=1) < (10 * line) ** 2]
    placed: list[Rectangle] = []
    labels: list[tuple[str, Rectangle] | None] = []
    for box, variants in zip(boxes[::-1], reversed(texts), strict=True):
        allowed = max(1.5 * (box[2] - box[0]), size[0] / (7 if crowded else 3))
        sizes = [(text, int(letters.getlength(text)) + 8, int(line)) for text in variants]
        sizes = [entry for entry in sizes[:-1] if entry[1] <= allowed] + sizes[-1:]
        label = _place(box, sizes, size, np.array(placed).reshape(-1, 4), small)
        labels.append(label)
        if label is not None:
            placed.append(label[1])
    return labels[::-1]


def _place(
    box: npt.NDArray[np.floating],
    texts: Sequence[tuple[str, int, int]],
    size: Sequence[int],
    labels: npt.NDArray[np.int64],
    small: npt.NDArray[np.floating],
) -> tuple[str, Rectangle] | None:
    """The longest text with a place near its box where it covers nothing, and that place.

    If there is none, the one that covers least; covering one of the (L, 4) labels that stand already counts four
    times as much as covering one of the (S, 4) small boxes. Texts have their width and height, the longest first.
    """
    best: tuple[float, str, Rectangle] | None = None
    for text, width, height in texts:
        for rectangle in _candidates(box, width, height, size):
            covered = _overlap(rectangle, labels)
            if covered > TOLERATED_OVERLAP:
                continue
            cost = covered + 0.25 * min(_overlap(rectangle, small), 1)
            if best is None or cost < best[0]:
                best = cost, text, rectangle
        if best is not None and best[0] == 0:
            break
    return None if best is None else best[1:]


def _candidates(box: npt.NDArray[np.floating], width: int, height: int, size: Sequence[int]) -> list[Rectangle]:
    """Places for a text at a box, the best first, each moved into the picture."""
    left, top, right, bottom = (int(side) for side in box)
    places = [
        (left, top - height),  # above
        (left, top),  # inside, at the top
        (left, bottom),  # below
        (right - width, top - height),
        (right - width, bottom),
        (left, bottom - height),
        ((left + right - width) // 2, (top + bottom - height) // 2),
        (right, top),
        (left - width, top),
    ]
    inside = np.clip(places, 0, np.maximum(np.subtract(size, (width, height)), 0))
    return [(x, y, x + width, y + height) for x, y in inside.tolist()]


def _overlap(rectangle: Rectangle, others: npt.NDArray[np.floating | np.integer]) -> float:
    """The part of a rectangle that others (S, 4) cover; counted twice where two do."""
    widths = np.minimum(others[:, 2], rectangle[2]) - np.maximum(others[:, 0], rectangle[0])
    heights = np.minimum(others[:, 3], rectangle[3]) - np.maximum(others[:, 1], rectangle[1])
    area = (rectangle[2] - rectangle[0]) * (rectangle[3] - rectangle[1])
    return float((np.clip(widths, 0, None) * np.clip(heights, 0, None)).sum()) / area


@dataclass(frozen=True, eq=False)
class TitledPicture:
    """An (H, W, 3) uint8 RGB picture with a title and a subtitle above it, and remarks below, a line each."""

    picture: Picture
    title: str
    subtitle: str = ''
    remarks: tuple[str, ...] = ()


def side_by_side(panels: Sequence[TitledPicture]) -> Picture:
    """Sets pictures with their texts in a row, all tops aligned; text that is too wide ends in an ellipsis.

    Returns:
        RGB uint8; as wide as the pictures and the gaps between them, and higher than the highest of them
        by the heading and the longest list of remarks (see :func:`line_height`).
    """
    line, size = line_height(panels[0].picture), font_size(panels[0].picture)
    bold, plain = font(size, bold=True), font(size)
    below = max(len(panel.remarks) for panel in panels) * line
    heights = [panel.picture.shape[0] for panel in panels]
    widths = [panel.picture.shape[1] for panel in panels]
    sheet = Image.new('RGB', (sum(widths) + GAP * (len(panels) - 1), line + max(heights) + below), BACKGROUND)
    pen = ImageDraw.Draw(sheet)
    left = 0
    for panel, height, width in zip(panels, heights, widths, strict=True):
        pen.text((left + 6, line / 2), panel.title, font=bold, fill=LIGHT_TEXT, anchor='lm')
        behind = 6 + bold.getlength(panel.title) + size
        subtitle = shortened(panel.subtitle, width - behind, size)
        pen.text((left + behind, line / 2), subtitle, font=plain, fill=FAINT_TEXT, anchor='lm')
        sheet.paste(Image.fromarray(panel.picture), (left, line))
        for row, remark in enumerate(panel.remarks):
            place = (left + 6, line + height + (row + 0.5) * line)
            pen.text(place, shortened(remark, width - 12, size), font=plain, fill=LIGHT_TEXT, anchor='lm')
        left += width + GAP
    return np.asarray(sheet)


def panel_of(
    image: Picture, instances: Sequence[DrawnInstance], title: str, *, note: str = '', remarks: tuple[str, ...] = ()
) -> TitledPicture:
    """Draws instances and tells, before the note, how many they are and how many labels found no place."""
    picture, left_out = draw_instances(image, instances)
    count = f'{len(instances)} instance{"" if len(instances) == 1 else "s"}'
    without = f', {left_out} of them without room for a label' if left_out else ''
    return TitledPicture(picture, title, count + without + note, remarks)


def line_height(picture: Picture) -> int:
    """Height of a heading and of a remark, in pixels."""
    return round(font_size(picture) * 1.8)


def shortened(text: str, width: float, size: int) -> str:
    """The text, cut and ended with an ellipsis where it is wider than ``width`` pixels."""
    letters = font(size)
    if letters.getlength(text) <= width:
        return text
    ends = range(1, len(text) + 1)
    end = bisect_right(ends, width, key=lambda end: letters.getlength(text[:end].rstrip() + ' …'))
    return text[:end].rstrip(' ,') + ' …' if end else ''
