"""Annotations of COCO files as instances: boxes within their image, masks as compressed run lengths.

Faults are treated as :mod:`hierseg.converters.coco_reading` says. Polygons and run lengths become compressed counts
exactly as in pycocotools' ``COCO.annToRLE``, but are checked first, since its C code trusts its input.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from hierseg.converters.coco_reading import NOTHING, CocoDocument, CocoImage, Entry, Faults
from hierseg.converters.options import ConversionSummary
from hierseg.formats import run_lengths
from hierseg.formats.json_files import is_number, is_quadruple, key_of
from hierseg.formats.reading import shown
from hierseg.store.store import ImageRow, Instances

# Boxes are rounded to hundredths of a pixel in many files. One that sticks out by no more is kept as it is.
ROUNDING = 0.02
# pycocotools takes some eighty bytes for each pixel that it walks along, and ends the process if there are none left.
LONGEST_OUTLINE = 1 << 22


class AnnotationReader:
    """Turns the annotations of images into instances.

    Args:
        document: The file.
        faults: Gets what was put right and what has to be refused.
        summary: Gets the counts of boxes and masks.
        crowds: False to take ``iscrowd`` as 0.
    """

    def __init__(
        self, document: CocoDocument, faults: Faults, summary: ConversionSummary, *, crowds: bool = True
    ) -> None:
        self._labels = document.labels
        self._crowds = crowds
        self._faults = faults
        self._summary = summary

    def instances(self, image: CocoImage) -> Instances:
        """The instances of an image, without annotations that were refused."""
        found = [self._instance(name, entry, image.row) for name, entry in image.annotations]
        self._summary.box_rows += len(found)
        columns = list(zip(*(instance for instance in found if instance is not None), strict=True)) or [()] * 6
        labels, boxes, masks, group_of, areas, names = columns
        return Instances(
            labels=np.array(labels, dtype=np.int64),
            boxes=np.array(boxes, dtype=np.float64).reshape(-1, 4),
            masks=list(masks),
            has_mask=np.array([bool(counts) for counts in masks], dtype=bool),
            group_of=np.array(group_of, dtype=bool),
            areas=np.array(areas, dtype=np.float64),
            annotation_ids=list(names),
        )

    def _instance(
        self, name: str, entry: Entry, image: ImageRow
    ) -> tuple[int, Sequence[float], bytes, bool, float, str] | None:
        """Label, box, counts, group-of, area and id; None where the annotation is refused."""
        place = f'annotation {name} of image {image.id}'
        label = self._labels.get(key_of(entry.get('category_id')) or '')
        if label is None:
            what = f'category_id {shown(entry.get("category_id"))} is no category'
            self._faults.refuse('annotations of no category', place, what, 'Add it to the categories.')
            return None
        counts, pixels = self._mask(entry.get('segmentation'), image, place)
        box = self._box(entry, image, counts, place)
        if box is None:
            return None
        crowd = 0 if entry.get('iscrowd') in NOTHING else entry['iscrowd']
        if crowd not in (0, 1, '0', '1'):
            self._faults.refuse('iscrowd other than 0 and 1', place, f'iscrowd is {shown(crowd)}', 'It is 0 or 1.')
            return None
        area = entry.get('area')
        if area in NOTHING or (isinstance(area, float) and not math.isfinite(area)):
            area = pixels if counts else (box[2] - box[0]) * (box[3] - box[1])
        elif not is_number(area) or area < 0:
            self._faults.refuse('areas that are none', place, f'area is {shown(area)}', 'It is a number of pixels.')
            return None
        return (
            label,
            box,
            counts,
            self._crowds and bool(int(crowd)),
            float(area),
            '' if entry.get('source_id') == '' else key_of(entry.get('source_id')) or name,
        )

    def _box(self, entry: Entry, image: ImageRow, counts: bytes, place: str) -> list[float] | None:
        """Xyxy, within the image; None where the box is refused."""
        box = entry.get('bbox')
        fix = 'It is [x, y, width, height] in pixels.'
        if not is_quadruple(box) or min(box[2:]) < 0:
            what = f'bbox {box} has a negative size' if is_quadruple(box) else f'bbox is {shown(box, 80)}'
            if counts:
                self._faults.mend('boxes that are none, taken from the mask', place, what)
                return corners(coco_mask.toBbox({'size': [image.height, image.width], 'counts': counts}).tolist())
            self._faults.refuse('boxes that are none', place, what, fix)
            return None
        x1, y1, x2, y2 = corners(box)
        over = max(-x1 / image.width, -y1 / image.height, x2 / image.width - 1, y2 / image.height - 1)
        if over > 1 or x1 >= image.width or y1 >= image.height or x2 <= 0 or y2 <= 0:
            what = f'bbox {box} is outside the image of {image.width} x {image.height} pixels'
            self._faults.refuse('boxes outside their image', place, what, fix)
            return None
        if max(-x1, -y1, x2 - image.width, y2 - image.height) > ROUNDING:
            what = f'bbox {box} sticks out of the image of {image.width} x {image.height} pixels'
            self._faults.mend('boxes that stick out of their image, clipped', place, what)
            return [max(x1, 0.0), max(y1, 0.0), min(x2, float(image.width)), min(y2, float(image.height))]
        exact = entry.get('bbox_xyxy', [x1, y1, x2, y2])
        if not is_quadruple(exact) or max(abs(a - b) for a, b in zip(exact, (x1, y1, x2, y2), strict=True)) > 1e-9:
            what = f'bbox_xyxy {exact} contradicts bbox {box}'
            self._faults.refuse('corners that contradict the box', place, what, 'Leave out bbox_xyxy.')
            return None
        return list(exact)

    def _mask(self, segmentation: Any, image: ImageRow, place: str) -> tuple[bytes, int]:
        """Compressed counts and pixels; nothing where there is no mask, or it is refused."""
        if segmentation in (*NOTHING, [], {}):
            return b'', 0
        self._summary.mask_rows += 1
        self._summary.masks_joined += 1
        try:
            counts, mends = encode_segmentation(segmentation, image.height, image.width)
            area = run_lengths.check_counts(counts, image.height, image.width) if counts else 0
        except run_lengths.MalformedMaskError as error:
            what = f'the segmentation is malformed: {error}'
            self._faults.refuse('segmentations that are malformed, kept as box', place, what, 'Put it right.')
            return b'', 0
        for kind, what in mends.items():
            self._faults.mend(kind, place, what)
        if not area:
            self._summary.skip('segmentations without a pixel, kept as box', [place])
        return (counts, area) if area else (b'', 0)


def corners(box: Sequence[float]) -> list[float]:
    """Xyxy of a COCO box ``[x, y, width, height]``."""
    return [box[0], box[1], box[0] + box[2], box[1] + box[3]]


def encode_segmentation(segmentation: Any, height: int, width: int) -> tuple[bytes, dict[str, str]]:
    """Compressed counts of a segmentation, as pycocotools' ``COCO.annToRLE`` gives them.

    Args:
        segmentation: Polygons ``[x1, y1, x2, y2, ...]`` in pixels, nested or a single one, or as pairs of
            coordinates; or run lengths (``size`` and ``counts``), or a list of such.
        height: Pixels, of the image.
        width: Pixels, of the image.

    Returns:
        The counts, ``b''`` if nothing is left; and what was put right: kind → description.

    Raises:
        MalformedMaskError: If it is malformed or of another size.
    """
    if isinstance(segmentation, dict):
        return _encode_runs(segmentation, height, width), {}
    if not isinstance(segmentation, list):
        raise run_lengths.MalformedMaskError(f'it is neither polygons nor run lengths, but {shown(segmentation, 40)}')
    if all(isinstance(part, dict) for part in segmentation):
        counts = [_encode_runs(part, height, width) for part in segmentation]
        for some in counts:
            run_lengths.check_counts(some, height, width)
        merged = coco_mask.merge([{'size': [height, width], 'counts': some} for some in counts])
        return merged['counts'], {'lists of run lengths, merged': 'the segmentation is a list of run lengths'}
    polygons, mends = _polygons(segmentation)
    whole = [polygon for polygon in polygons if len(polygon) > 4]
    if len(whole) < len(polygons):
        mends['polygons of one or two points, left out'] = 'a polygon has fewer than three points'
    for polygon in whole:
        # pycocotools clips, but walks along every edge: a wild coordinate would take gigabytes.
        for values, size in ((polygon[0::2], width), (polygon[1::2], height)):
            if min(values) < -size or max(values) > 2 * size:
                raise run_lengths.MalformedMaskError('a polygon reaches further outside than the image is large')
    # No edge is longer than three times the image: few points need no closer look.
    if sum(map(len, whole)) * 1.5 * max(height, width) > LONGEST_OUTLINE:
        outline = sum(map(_outline, whole))
        if outline > LONGEST_OUTLINE:
            raise run_lengths.MalformedMaskError(f'the edges of the polygons are {outline:,.0f} pixels long in all')
    return (coco_mask.merge(coco_mask.frPyObjects(whole, height, width))['counts'] if whole else b''), mends


def _polygons(segmentation: list[Any]) -> tuple[list[list[float]], dict[str, str]]:
    """Flat polygons, and what was put right about their nesting."""
    if all(map(is_number, segmentation)):
        mends = {'polygons that are not nested, read as one': 'the polygon is not nested in a list'}
        return [_whole(segmentation, 'the polygon')], mends
    if len(segmentation) > 2 and all(map(_is_point, segmentation)):
        mends = {'polygons of pairs of coordinates, read': 'the polygon is a list of pairs of coordinates'}
        return [[value for point in segmentation for value in point]], mends
    polygons, mends = [], {}
    for number, polygon in enumerate(segmentation, 1):
        if isinstance(polygon, list) and polygon and all(map(_is_point, polygon)):
            mends['polygons of pairs of coordinates, read'] = f'polygon {number} is a list of pairs of coordinates'
            polygons.append([value for point in polygon for value in point])
        else:
            polygons.append(_whole(polygon, f'polygon {number}'))
    return polygons, mends


def _outline(polygon: Sequence[float]) -> float:
    """Steps that pycocotools takes along the edges."""
    points = np.array(polygon, dtype=np.float64).reshape(-1, 2)
    return float(np.abs(points - np.roll(points, 1, axis=0)).max(axis=1).sum())


def _whole(polygon: Any, name: str) -> list[float]:
    if not isinstance(polygon, list) or any(isinstance(value, (list, dict)) for value in polygon):
        raise run_lengths.MalformedMaskError(
            f'{name} is nested wrongly: it is {shown(polygon, 60)}, and would be [x1, y1, x2, y2, ...]'
        )
    if not all(map(is_number, polygon)):
        raise run_lengths.MalformedMaskError(f'{name} holds something that is not a number')
    if len(polygon) % 2:
        raise run_lengths.MalformedMaskError(f'{name} has half a point')
    return polygon


def _is_point(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(is_number, value))


def _encode_runs(segmentation: Mapping[str, Any], height: int, width: int) -> bytes:
    if segmentation.get('size') != [height, width]:
        raise run_lengths.MalformedMaskError(
            f'the mask has the size {shown(segmentation.get("size"))}, its image [{height}, {width}] (height, width)'
        )
    counts = segmentation.get('counts')
    if isinstance(counts, list):
        return run_lengths.encode_runs(counts, height, width)
    if isinstance(counts, str) and counts.isascii():
        return counts.encode()
    raise run_lengths.MalformedMaskError('the counts are neither a list nor run-length text')
