"""The Open Images protocol once more, written as plain loops over pixels, to compare the fast one with.

Slow, for tiny cases. It shares no code with hierseg: dense masks, exact fractions, one object at a time.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np

HALF = Fraction(1, 2)
Row = dict[str, Any]


def evaluate(
    boxes: list[Row],
    masks: list[Row],
    labels: list[Row],
    detections: list[Row],
    *,
    parents: dict[str, list[str]],
    iou_type: str,
    weight: int,
    threshold: Fraction = HALF,
    areas: tuple[float, float] = (0, math.inf),
) -> dict[str, float | None]:
    """AP of every class of ``parents``; None where there is no ground truth.

    Rows are dicts: ``image``, ``cls``, ``box`` (x1, y1, x2, y2), ``group``, ``mask`` (H, W), ``score``,
    ``present``. ``threshold`` is the least overlap; ``areas`` the least and greatest number of pixels of an object.
    """
    boxes = [{**row, 'cls': cls} for row in boxes for cls in sorted(_up(row['cls'], parents))]
    masks = [{**row, 'cls': cls} for row in masks for cls in sorted(_up(row['cls'], parents))]
    objects = _join(boxes, masks) if iou_type == 'segm' else [{**row, 'mask': None} for row in boxes]
    verified = {(row['image'], cls) for row in objects for cls in [row['cls']]}
    for row in labels:
        implied = _up(row['cls'], parents) if row['present'] else {c for c in parents if row['cls'] in _up(c, parents)}
        verified |= {(row['image'], cls) for cls in implied}
    rules = iou_type, weight, threshold, areas
    return {cls: _average_precision(cls, objects, verified, detections, rules) for cls in parents}


def _up(cls: str, parents: dict[str, list[str]]) -> set[str]:
    return {cls}.union(*(_up(parent, parents) for parent in parents[cls]))


def _join(boxes: list[Row], masks: list[Row]) -> list[Row]:
    def key(row: Row) -> tuple[Any, ...]:
        x1, y1, x2, y2 = row['box']
        return row['cls'], row['image'], x1, x2, y1, y2, row['group']

    objects = []
    for at in sorted({key(row) for row in [*boxes, *masks]}):
        with_box = [row for row in boxes if key(row) == at]
        with_mask = [row for row in masks if key(row) == at]
        for box in with_box or with_mask[:1]:
            for mask in with_mask or [{'mask': None}]:
                pixels = mask['mask']
                objects.append({**box, 'mask': pixels if pixels is not None and pixels.any() else None})
    return objects


def _average_precision(
    cls: str, objects: list[Row], verified: set[Any], detections: list[Row], rules: tuple[Any, ...]
) -> float | None:
    iou_type, weight, _, areas = rules
    counted = [
        row
        for row in objects
        if row['cls'] == cls
        and (iou_type == 'bbox' or row['mask'] is not None)
        and (iou_type == 'bbox' or _is_within(row, areas))
    ]
    total = sum(weight if row['group'] else 1 for row in counted)
    if not total:
        return None
    entries: list[tuple[float, int]] = []
    for image in sorted({row['image'] for row in detections}):
        if (image, cls) in verified:
            mine = [row for row in detections if row['image'] == image and row['cls'] == cls]
            theirs = [row for row in objects if row['image'] == image and row['cls'] == cls]
            entries += _match(mine, theirs, rules)
    precisions, recalls = [], []
    found = wrong = 0
    for _, value in sorted(entries, key=lambda entry: -entry[0]):
        found, wrong = found + value, wrong + (value == 0)
        precisions.append(Fraction(found, found + wrong))
        recalls.append(Fraction(found, total))
    area, before = Fraction(0), Fraction(0)
    for index, recall in enumerate(recalls):
        area += (recall - before) * max(precisions[index:])
        before = recall
    return float(area)


def _is_within(row: Row, areas: tuple[float, float]) -> bool:
    return bool(areas[0] <= row['mask'].sum() <= areas[1])


def _match(detections: list[Row], objects: list[Row], rules: tuple[Any, ...]) -> list[tuple[float, int]]:
    iou_type, weight, threshold, areas = rules
    if iou_type == 'segm':
        detections = [row for row in detections if row['mask'].any()]
    detections = sorted(detections, key=lambda row: -row['score'])
    state = ['open'] * len(detections)
    group_scores: list[float] = []
    by_mask = [row for row in objects if row['mask'] is not None]
    by_box = [row for row in objects if row['mask'] is None]
    for stage, compare in ((by_mask, _mask_overlap), (by_box, _box_overlap)):
        counted = [row for row in stage if iou_type == 'bbox' or (stage is by_mask and _is_within(row, areas))]
        ignored = [row for row in stage if all(row is not other for other in counted)]
        for some, then in ((counted, 'hit'), (ignored, 'gone')):
            singles = [row for row in some if not row['group']]
            taken = [False] * len(singles)
            for index, detection in enumerate(detections):
                overlaps = [compare(detection, row)[0] for row in singles]
                if state[index] == 'open' and overlaps and max(overlaps) >= threshold:
                    tried = overlaps.index(max(overlaps))
                    if not taken[tried]:
                        taken[tried] = True
                        state[index] = then
        groups = [row for row in stage if row['group']]
        best = [0.0] * len(groups)
        for index, detection in enumerate(detections):
            overlaps = [compare(detection, row)[1] for row in groups]
            if state[index] == 'open' and overlaps and max(overlaps) >= threshold:
                state[index] = 'gone'
                best[overlaps.index(max(overlaps))] = max(best[overlaps.index(max(overlaps))], detection['score'])
        for row, score in zip(groups, best, strict=True):
            if score > 0 and any(row is other for other in counted):
                group_scores.append(score)
    for index, detection in enumerate(detections):
        if state[index] == 'open' and iou_type == 'segm' and not _is_within(detection, areas):
            state[index] = 'gone'
    entries = [
        (row['score'], int(at == 'hit')) for row, at in zip(detections, state, strict=True) if at in ('open', 'hit')
    ]
    return entries + ([(score, weight) for score in group_scores] if weight else [])


def _mask_overlap(detection: Row, row: Row) -> tuple[Fraction, Fraction]:
    """IoU and intersection over detection area."""
    both = int((detection['mask'] & row['mask']).sum())
    area = int(detection['mask'].sum())
    return Fraction(both, area + int(row['mask'].sum()) - both), Fraction(both, area)


def _box_overlap(detection: Row, row: Row) -> tuple[Fraction, Fraction]:
    x1, y1, x2, y2 = map(Fraction, detection['box'])
    u1, v1, u2, v2 = map(Fraction, row['box'])
    both = max(min(x2, u2) - max(x1, u1), Fraction(0)) * max(min(y2, v2) - max(y1, v1), Fraction(0))
    area = (x2 - x1) * (y2 - y1)
    return both / (area + (u2 - u1) * (v2 - v1) - both), both / area


def tight_box(mask: np.ndarray) -> tuple[float, float, float, float]:
    """Normalised xyxy box of a mask; zeros if it is empty."""
    rows, columns = np.nonzero(mask)
    if not len(rows):
        return 0.0, 0.0, 0.0, 0.0
    height, width = mask.shape
    return columns.min() / width, rows.min() / height, (columns.max() + 1) / width, (rows.max() + 1) / height
