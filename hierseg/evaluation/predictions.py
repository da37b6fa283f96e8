"""What a system said of one image, in the form that all measures share.

Shape letters: R detections of an image (regions), C classes.

From a store and from a model's results to the arrays that :mod:`hierseg.metrics` compares.

Boxes are divided by the size of their image, as the official files have them. Shape letters: N instances
that a model predicts, H × W pixels of the image, C classes, I objects, D detections, A absent classes.

Writes detections as the official submission CSV, from several ranks into one file.

Each rank writes the rows of its images to a part file of its own and remembers where each image's rows are;
the main rank then copies those of the images that count. So the rows, gigabytes at full size, are never
gathered, and an image that the sampler gave to two ranks is written once.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import torch
from pycocotools import mask as coco_mask

from hierseg.errors import EvaluationError
from hierseg.files import whole_file
from hierseg.formats.run_lengths import measure, regular, text_of_counts
from hierseg.functional import Relations
from hierseg.metrics import (
    BOX_SUBMISSION_COLUMNS,
    MASK_SUBMISSION_COLUMNS,
    Expansion,
    ImageDetections,
    ImageGroundTruth,
    InstanceRows,
    join_boxes_and_masks,
    read_detections,
)
from hierseg.models.decision import Decision
from hierseg.store import ImageRow, Store


def ground_truth_of(store: Store, row: int, *, expansion: Expansion, by_mask: bool) -> ImageGroundTruth:
    """The expanded ground truth of an image of a store.

    An instance is a box row and, where it has one, a mask row of the official files.

    Args:
        store: The store.
        row: Row of the image.
        expansion: Through the taxonomy of the store.
        by_mask: Whether masks are compared; without, they are not read.

    Raises:
        EvaluationError: If a mask of the store is malformed.
    """
    image, instances = store.image(row), store.instances(row)
    index = np.arange(len(instances.labels))
    scale = np.array([image.width, image.height, image.width, image.height], dtype=np.float64)
    rows = InstanceRows(np.zeros_like(index), instances.labels, instances.boxes / scale, instances.group_of, index)
    objects = rows.expanded(*expansion.upward(rows.labels))
    masks, areas, size = [b''] * len(objects), np.zeros(len(objects), dtype=np.int64), None
    if by_mask:
        masked = np.flatnonzero(instances.has_mask)
        objects, mask_of = join_boxes_and_masks(objects, objects.take(np.flatnonzero(np.isin(objects.sources, masked))))
        stored, stored_areas = _checked([instances.masks[i] for i in masked.tolist()], image)
        position = np.append(np.cumsum(instances.has_mask) - 1, -1)[mask_of]  # -1 stays -1
        areas = np.append(stored_areas, 0)[position]
        masks = [stored[at] if area else b'' for at, area in zip(position.tolist(), areas.tolist(), strict=True)]
        size = (image.height, image.width) if len(masked) else None
    return ImageGroundTruth(
        labels=objects.labels,
        boxes=objects.boxes,
        group_of=objects.group_of,
        masks=masks,
        mask_areas=areas,
        verified=expansion.verified(*store.verified(row)),
        size=size,
    )


def absent_classes(store: Store, row: int, *, expansion: Expansion) -> npt.NDArray[np.int64]:
    """(A,) int64, ascending; classes that were verified as absent on an image, with all below them."""
    _, labels = expansion.downward(store.verified(row)[1])
    return np.unique(labels)


def detections_of(instances: Mapping[str, Any], image: ImageRow, *, num_classes: int, by_mask: bool) -> ImageDetections:
    """The detections in one image's ``pred_instances``.

    With ``class_scores`` every class of positive probability is a detection on its instance's box and mask;
    without, each instance has its ``labels`` and ``scores`` only.

    Args:
        instances: ``bboxes`` (N, 4) xyxy in pixels, ``masks`` (N, H, W) if masks are compared, and
            ``class_scores`` (N, C) or ``labels`` and ``scores`` (N,).
        image: The image that they belong to.
        num_classes: C of the ground truth.
        by_mask: Whether masks are compared.

    Raises:
        EvaluationError: If something is missing, not finite or does not fit image or classes.
    """
    where = f'image {image.id}'
    needed = [
        'masks' if by_mask else 'bboxes',
        *(['class_scores'] if 'class_scores' in instances else ['labels', 'scores']),
    ]
    missing = [name for name in needed if name not in instances]
    if missing:
        raise EvaluationError(f'pred_instances has no {", ".join(missing)}', where=where, fix='The model must give it.')
    regions, labels, scores = _claims(instances, num_classes, where)
    if not by_mask:
        scale = np.array([image.width, image.height, image.width, image.height], dtype=np.float64)
        return ImageDetections(labels, scores, regions, _array(instances['bboxes']).astype(np.float64) / scale)
    masks = torch.as_tensor(instances['masks'])
    size = (image.height, image.width)
    if masks.ndim != 3 or (len(masks) and tuple(masks.shape[1:]) != size):
        raise EvaluationError(
            f'masks have the shape {tuple(masks.shape)}',
            where=where,
            fix=f'They must be (N, {image.height}, {image.width}), the size of the image.',
        )
    encoded = _encoded(masks)
    heights, widths = (np.full(len(encoded), extent, dtype=np.int64) for extent in size)
    measures = measure(encoded, heights, widths, where=lambda index: f'{where}, mask {index}')
    boxes = measures.boxes / np.array([image.width, image.height, image.width, image.height], dtype=np.float64)
    return ImageDetections(labels, scores, regions, boxes, encoded, measures.areas, size)


def _claims(instances: Mapping[str, Any], num_classes: int, where: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(D,) instance, label and score of every detection; instance after instance, ascending labels."""
    if 'class_scores' in instances:
        class_scores = _array(instances['class_scores']).astype(np.float64)
        if class_scores.ndim != 2 or class_scores.shape[1] != num_classes:
            raise EvaluationError(
                f'class_scores have the shape {class_scores.shape}, the store has {num_classes} classes',
                where=where,
                fix='Model and store need one taxonomy.',
            )
        regions, labels = np.nonzero(~(class_scores <= 0))  # nan is kept, to be refused below
        scores = class_scores[regions, labels]
    else:
        labels = _array(instances['labels']).astype(np.int64)
        scores = _array(instances['scores']).astype(np.float64)
        regions = np.arange(len(labels))
        if len(labels) and not 0 <= labels.min() <= labels.max() < num_classes:
            raise EvaluationError(
                f'labels run from {labels.min()} to {labels.max()}, the store has {num_classes} classes',
                where=where,
                fix='Model and store need one taxonomy.',
            )
    if not np.isfinite(scores).all():
        raise EvaluationError('a score is not finite', where=where, fix='Has training diverged?')
    return regions, labels, scores


def _encoded(masks: torch.Tensor) -> list[bytes]:
    """Run lengths of (N, H, W) masks; pycocotools wants them column by column."""
    if not len(masks):
        return []
    columns = masks.to(dtype=torch.uint8).permute(0, 2, 1).contiguous().cpu().numpy()
    return [mask['counts'] for mask in coco_mask.encode(columns.transpose(2, 1, 0))]


def _checked(masks: list[bytes], image: ImageRow) -> tuple[list[bytes], np.ndarray]:
    """Masks of the store that pycocotools can compare, and their areas."""
    heights, widths = (np.full(len(masks), extent, dtype=np.int64) for extent in (image.height, image.width))
    measures = measure(masks, heights, widths, where=lambda index: f'image {image.id} of the store, mask {index}')
    for index in np.flatnonzero(measures.irregular).tolist():
        masks[index] = regular(masks[index], (image.height, image.width))
    return masks, measures.areas


def _array(values: Any) -> np.ndarray:
    return values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)


@dataclass(frozen=True, eq=False)
class ImagePrediction:
    """The detections of one image, each with the class that it names.

    Attributes:
        image_id: Id of the image in the store.
        detections: R regions and the classes that are claimed of each; box coordinates are parts of the image's size.
        named_labels: (R,) int64.
        image_path: The file; None where it is not known.
    """

    image_id: str
    detections: ImageDetections
    named_labels: npt.NDArray[np.int64]
    image_path: str | None = None

    @classmethod
    def of(
        cls, instances: Mapping[str, Any], image: ImageRow, *, num_classes: int, image_path: str | None = None
    ) -> ImagePrediction:
        """From the ``pred_instances`` of a model.

        Args:
            instances: As of :func:`~hierseg.evaluation.predictions.detections_of`, with ``masks`` and ``labels``.
            image: The image.
            num_classes: C.
            image_path: Its file.

        Raises:
            EvaluationError: If something is missing, not finite or does not fit image or classes.
        """
        detections = detections_of(instances, image, num_classes=num_classes, by_mask=True)
        if 'labels' not in instances:
            raise EvaluationError('pred_instances has no labels', where=f'image {image.id}')
        named = np.asarray(torch.as_tensor(instances['labels']).cpu(), dtype=np.int64)
        return cls(image.id, detections, named, image_path)

    def class_scores(self, num_classes: int) -> npt.NDArray[np.float32]:
        """(R, C) float32; the probability of every class that a region claims, else 0."""
        return class_scores_of(self.detections, num_classes)


def class_scores_of(detections: ImageDetections, num_classes: int) -> npt.NDArray[np.float32]:
    """(R, C) float32; the probability of every class that a region claims, else 0; of several claims the best."""
    scores = np.zeros((len(detections.boxes), num_classes), dtype=np.float32)
    np.maximum.at(scores, (detections.regions, detections.labels), detections.scores.astype(np.float32))
    return scores


def read_predictions(path: str | PathLike[str], store: Store) -> list[ImagePrediction]:
    """Reads a submission CSV of masks as predictions of every image of a store.

    Rows of an image with the same mask are one detection with a path of classes, as ``submission_file`` of
    ``OpenImagesInstanceMetric`` writes them. A detection names the deepest class that has half of its root class's
    score, the rule of both systems. Rows on other images are dropped.

    Args:
        path: The file.
        store: The images, and their sizes.

    Returns:
        One for each image, in the order of image ids.

    Raises:
        EvaluationError: If the file cannot be used; it names the line.
    """
    image_ids = store.image_ids.tolist()
    sizes = np.stack([store.image_column(side) for side in ('height', 'width')], axis=1).astype(np.int64)
    table = read_detections(path, image_ids, sizes, taxonomy=store.taxonomy, iou_type='segm', progress=True)
    decision = Decision(Relations.of(store.taxonomy.arrays))
    predictions = []
    for index in sorted(range(len(image_ids)), key=image_ids.__getitem__):
        detections = with_shared_regions(table.image(index))
        scores = class_scores_of(detections, store.taxonomy.num_classes)
        predictions.append(ImagePrediction(image_ids[index], detections, decision(torch.from_numpy(scores)).numpy()))
    return predictions


def with_shared_regions(detections: ImageDetections) -> ImageDetections:
    """The same detections, those of one mask on one region."""
    first_of: dict[bytes, int] = {}
    regions = np.array([first_of.setdefault(mask, len(first_of)) for mask in detections.masks], dtype=np.int64)
    _, kept = np.unique(regions, return_index=True)
    return replace(
        detections,
        regions=regions,
        boxes=detections.boxes[kept],
        masks=list(first_of),
        mask_areas=detections.mask_areas[kept],
    )


@dataclass(frozen=True)
class Span:
    """Where the rows of an image are: the rank whose part file has them, first byte and number of bytes."""

    rank: int
    start: int
    length: int


class SubmissionWriter:
    """Writes one submission file.

    Args:
        path: The file; its folder must be shared by all ranks.
        class_ids: Class id of every label.
        rank: Rank of this process.
    """

    def __init__(self, path: str | os.PathLike[str], *, class_ids: Sequence[str], rank: int) -> None:
        self.path, self.class_ids, self.rank = Path(path), class_ids, rank
        self._part: BinaryIO | None = None

    def add(self, image: ImageRow, detections: ImageDetections) -> Span:
        """Writes the rows of one image to the part file."""
        if self._part is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._part = self._part_of(self.rank).open('wb')
        rows = submission_rows(image, detections, self.class_ids).encode('utf-8')
        start = self._part.tell()
        self._part.write(rows)
        return Span(self.rank, start, len(rows))

    def close(self) -> None:
        """Ends the part file. Every rank does so before the main one merges."""
        if self._part is not None:
            self._part.close()
            self._part = None

    def merge(self, spans: Iterable[Span], *, by_mask: bool) -> None:
        """Writes the submission, whole or not at all.

        Args:
            spans: Rows of the images that count, in the order of the file.
            by_mask: Masks or boxes.

        Raises:
            EvaluationError: If the part file of another rank is not there.
        """
        parts: dict[int, BinaryIO] = {}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with whole_file(self.path) as target:
                columns = MASK_SUBMISSION_COLUMNS if by_mask else BOX_SUBMISSION_COLUMNS
                target.write((','.join(columns) + '\n').encode('ascii'))
                for span in spans:
                    if span.rank not in parts:
                        parts[span.rank] = self._part_of(span.rank).open('rb')
                    parts[span.rank].seek(span.start)
                    target.write(parts[span.rank].read(span.length))
        except FileNotFoundError as error:
            raise EvaluationError(
                f'{error.filename} is missing',
                where=str(self.path),
                fix='Put submission_file into a folder that all ranks share.',
            ) from None
        finally:
            for part in parts.values():
                part.close()

    def remove_part(self) -> None:
        """Deletes this rank's part file."""
        self._part_of(self.rank).unlink(missing_ok=True)

    def _part_of(self, rank: int) -> Path:
        return self.path.with_name(f'.{self.path.name}.rank{rank}.part')


def submission_rows(image: ImageRow, detections: ImageDetections, class_ids: Sequence[str]) -> str:
    """Rows of the official CSV; detections with a blank mask, which the evaluation drops, are left out.

    Scores and coordinates are written so that reading gives the same numbers.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator='\n')
    claims = zip(
        detections.regions.tolist(), map(class_ids.__getitem__, detections.labels.tolist()), detections.scores.tolist(),
        strict=True,
    )  # fmt: skip
    if detections.mask_areas is None:
        boxes = detections.boxes.tolist()
        for region, class_id, score in claims:
            x1, y1, x2, y2 = boxes[region]
            writer.writerow([image.id, class_id, repr(score), repr(x1), repr(x2), repr(y1), repr(y2)])
    else:
        blank = (detections.mask_areas == 0).tolist()
        texts = [text_of_counts(mask) for mask in detections.masks]
        for region, class_id, score in claims:
            if not blank[region]:
                writer.writerow([image.id, image.width, image.height, class_id, repr(score), texts[region]])
    return buffer.getvalue()
