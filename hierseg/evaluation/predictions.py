"""Images as all measures see them: ground truth from a store, predictions from a model or a submission.

Boxes are divided by the size of their image, as the official files have them. Shape letters: R detections of an image,
H × W its pixels, C classes, I objects, M masks of objects, D claims, A absent classes.
"""

from __future__ import annotations

import csv
import io
import os
import weakref
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from typing import Any, BinaryIO

import cv2
import numpy as np
import numpy.typing as npt
import torch
from pycocotools import mask as coco_mask

from hierseg.errors import EvaluationError
from hierseg.evaluation.result_keys import keys_of_store
from hierseg.files import disk_faults, hidden, make_folder, output_file, whole_file
from hierseg.formats import IntArray
from hierseg.formats.run_lengths import Measures, measure, regular, text_of_counts
from hierseg.limits import MAX_PIXELS
from hierseg.metrics.matching import check_sizes, common_pixels
from hierseg.metrics.open_images import read_detections
from hierseg.metrics.records import (
    Expansion,
    ImageDetections,
    ImageGroundTruth,
    ImagePrediction,
    InstanceRows,
    join_boxes_and_masks,
)
from hierseg.metrics.submissions import BOX_SUBMISSION_COLUMNS, MASK_SUBMISSION_COLUMNS, is_results
from hierseg.store import ImageRow, Instances, Store
from hierseg.taxonomy import TaxonomyArrays
from hierseg.taxonomy.arrays import named_classes


@dataclass(frozen=True, eq=False)
class ImageTruth:
    """The ground truth of one image of a store: its masks, read and measured once, and views of the objects on them.

    Attributes:
        image: The image.
        instances: As the store has them.
        masks: M run lengths that pycocotools can compare.
        mask_areas: (M,) int64, pixels.
        verified: Labels that were verified as present and as absent.
        not_exhaustive: Labels of which not every instance is annotated.
        expansion: Through the taxonomy of the store.
    """

    image: ImageRow
    instances: Instances
    masks: list[bytes]
    mask_areas: IntArray
    verified: tuple[IntArray, IntArray]
    not_exhaustive: IntArray
    expansion: Expansion

    @classmethod
    def read(cls, store: Store, row: int, *, expansion: Expansion, by_mask: bool = True) -> ImageTruth:
        """Reads the image of a row; its masks only where masks are compared.

        Raises:
            EvaluationError: If a mask of the store is malformed.
        """
        image, instances = store.image(row), store.instances(row)
        masks = [instances.masks[index] for index in np.flatnonzero(instances.has_mask)] if by_mask else []
        measures = _measured(masks, image, ' of the store')
        for index in np.flatnonzero(measures.irregular).tolist():
            masks[index] = regular(masks[index])
        verified, beyond = store.verified(row), store.not_exhaustive(row)
        return cls(image, instances, masks, measures.areas, verified, beyond, expansion)

    @cached_property
    def expanded(self) -> tuple[ImageGroundTruth, IntArray]:
        """The objects copied to all their ancestors, and (I,) int64 the mask of each, -1 for none."""
        return self._objects(self.expansion)

    @cached_property
    def annotated(self) -> tuple[ImageGroundTruth, IntArray]:
        """The objects as annotated, and (I,) int64 the mask of each, -1 for none."""
        return self._objects(Expansion.none(len(self.expansion.above[0]) - 1))

    @cached_property
    def absent(self) -> IntArray:
        """(A,) int64, ascending; classes that were verified as absent, with all below them."""
        return np.unique(self.expansion.downward(self.verified[1])[1])

    def common_pixels(self, prediction: ImagePrediction) -> IntArray:
        """(R, M + 1) int64; pixels that detections and masks have in common; the last column stands for no mask.

        Raises:
            EvaluationError: If the detections have no masks, or masks of another size.
        """
        areas, size = prediction.measured_areas, (self.image.height, self.image.width)
        check_sizes(self.annotated[0], prediction, self.image.id)
        return np.pad(common_pixels(prediction.masks, areas, self.masks, size), ((0, 0), (0, 1)))

    def _objects(self, expansion: Expansion) -> tuple[ImageGroundTruth, IntArray]:
        # An instance is a box row and, where it has one, a mask row of the official files.
        index = np.arange(len(self.instances))
        boxes, group_of = self.instances.boxes / _extent(self.image), self.instances.group_of
        rows = InstanceRows(np.zeros_like(index), self.instances.labels, boxes, group_of, index)
        objects = rows.expanded(*expansion.upward(rows.labels))
        mask_of = np.full(len(objects), -1, dtype=np.int64)
        if self.masks:
            has_mask = self.instances.has_mask
            objects, sources = join_boxes_and_masks(objects, objects.take(np.flatnonzero(has_mask[objects.sources])))
            mask_of = np.append(np.cumsum(has_mask) - 1, -1)[sources]  # -1 stays -1
        areas = np.append(self.mask_areas, 0)[mask_of]
        return ImageGroundTruth(
            labels=objects.labels,
            boxes=objects.boxes,
            group_of=objects.group_of,
            masks=[self.masks[at] if area else b'' for at, area in zip(mask_of.tolist(), areas.tolist(), strict=True)],
            mask_areas=areas,
            verified=expansion.verified(*self.verified),
            size=(self.image.height, self.image.width) if self.masks else None,
            not_exhaustive=np.unique(self.expansion.upward(self.not_exhaustive)[1]),
        ), mask_of


def prediction_of(
    instances: Mapping[str, Any],
    image: ImageRow,
    *,
    num_classes: int,
    by_mask: bool = True,
    named: bool = True,
    image_path: str | None = None,
) -> ImagePrediction:
    """The detections in one image's ``pred_instances``.

    Args:
        instances: ``bboxes`` (R, 4) xyxy in pixels, ``masks`` (R, H, W) if masks are compared, ``labels`` (R,), the
            classes to name, and ``class_scores`` (R, C) or, of those classes alone, ``scores`` (R,).
        image: The image that they belong to.
        num_classes: C of the ground truth.
        by_mask: Whether masks are compared.
        named: Whether names matter; without, ``class_scores`` do not need ``labels``.
        image_path: Its file.

    Raises:
        EvaluationError: If something is missing, not finite or does not fit image or classes.
    """
    where = f'image {image.id}'
    needed = ['masks' if by_mask else 'bboxes']
    needed += ['class_scores'] if 'class_scores' in instances else ['labels', 'scores']
    needed += ['labels'] if named and 'labels' not in needed else []
    missing = [name for name in needed if name not in instances]
    if missing:
        raise EvaluationError(f'pred_instances has no {", ".join(missing)}', where=where, fix='The model must give it.')
    class_scores = _class_scores(instances, num_classes, where)
    labels = _labels(instances, num_classes, where) if 'labels' in instances else class_scores.argmax(axis=1)
    if not by_mask:
        boxes = _array(instances['bboxes']).astype(np.float64) / _extent(image)
        return ImagePrediction(image.id, boxes, class_scores, labels, image_path=image_path)
    masks, size = torch.as_tensor(instances['masks']), (image.height, image.width)
    if masks.ndim != 3 or (len(masks) and tuple(masks.shape[1:]) != size):
        raise EvaluationError(
            f'masks have the shape {tuple(masks.shape)}',
            where=where,
            fix=f'They must be (N, {image.height}, {image.width}), the size of the image.',
        )
    encoded = _encoded(masks)
    measures = _measured(encoded, image, '')
    boxes = measures.boxes / _extent(image)
    return ImagePrediction(image.id, boxes, class_scores, labels, encoded, measures.areas, size, image_path)


def _class_scores(instances: Mapping[str, Any], num_classes: int, where: str) -> np.ndarray:
    """(R, C) float, at least 0; of the named class alone where there are no ``class_scores``."""
    if 'class_scores' in instances:
        class_scores = _array(instances['class_scores'])
        if class_scores.ndim != 2 or class_scores.shape[1] != num_classes:
            raise EvaluationError(
                f'class_scores have the shape {class_scores.shape}, the store has {num_classes} classes',
                where=where,
                fix='Model and store need one taxonomy.',
            )
    else:
        labels, scores = _labels(instances, num_classes, where), _array(instances['scores'])
        class_scores = np.zeros((len(labels), num_classes), dtype=scores.dtype)
        class_scores[np.arange(len(labels)), labels] = scores
    if not np.isfinite(class_scores).all():
        raise EvaluationError('a score is not finite', where=where, fix='Has training diverged?')
    return np.maximum(class_scores, 0)


def _labels(instances: Mapping[str, Any], num_classes: int, where: str) -> IntArray:
    labels = _array(instances['labels']).astype(np.int64)
    if len(labels) and not 0 <= labels.min() <= labels.max() < num_classes:
        raise EvaluationError(
            f'labels run from {labels.min()} to {labels.max()}, the store has {num_classes} classes',
            where=where,
            fix='Model and store need one taxonomy.',
        )
    return labels


def _encoded(masks: torch.Tensor) -> list[bytes]:
    """Run lengths of (R, H, W) masks; pycocotools wants them column by column."""
    planes = np.ascontiguousarray(_array(masks.to(torch.bool))).view(np.uint8)
    # OpenCV turns a plane several times as fast as PyTorch or numpy.
    return [bytes(coco_mask.encode(cv2.transpose(plane).T)['counts']) for plane in planes]


def _measured(masks: list[bytes], image: ImageRow, what: str) -> Measures:
    heights, widths = (np.full(len(masks), extent, dtype=np.int64) for extent in (image.height, image.width))
    return measure(masks, heights, widths, where=lambda index: f'image {image.id}{what}, mask {index}')


def _extent(image: ImageRow) -> npt.NDArray[np.float64]:
    """Divisor of boxes in pixels: width, height, width, height."""
    return np.array([image.width, image.height, image.width, image.height], dtype=np.float64)


def _array(values: Any) -> np.ndarray:
    return values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)


def read_predictions(path: str | PathLike[str], store: Store, *, max_pixels: int = MAX_PIXELS) -> list[ImagePrediction]:
    """Reads a submission of masks, see :mod:`hierseg.metrics.submissions`, as predictions of every image of a store.

    Rows of an image with the same mask are one detection with a path of classes, as ``submission_file`` of
    ``OpenImagesInstanceMetric`` writes them. An entry of COCO results that claims several classes is one detection,
    whatever other masks there are. A detection names the deepest class that has half of its root class's score, the
    rule of both systems; one of COCO results, the class that it says. Rows on other images are dropped. A mask of more
    than ``max_pixels`` is refused.

    Returns:
        One for each image, in the order of image ids.

    Raises:
        EvaluationError: If the file cannot be used; it names the line or entry.
    """
    image_ids = store.image_ids.tolist()
    sizes = np.stack([store.image_column(side) for side in ('height', 'width')], axis=1).astype(np.int64)
    keys = keys_of_store(store)
    found = read_detections(
        path,
        image_ids,
        sizes,
        taxonomy=store.taxonomy,
        iou_type='segm',
        keys=keys,
        max_pixels=max_pixels,
        progress=True,
    )
    order = sorted(range(len(image_ids)), key=image_ids.__getitem__)
    named = is_results(path)
    return [_submitted(image_ids[index], found[index], store.taxonomy.arrays, named=named) for index in order]


def _submitted(image_id: str, claims: ImageDetections, arrays: TaxonomyArrays, *, named: bool) -> ImagePrediction:
    """Claims of an image as detections; of several claims of a class the best counts.

    Claims of one class each that have the same mask are one detection. ``named`` says that the first claim of each is
    of the class that it names.
    """
    several = np.bincount(claims.regions, minlength=len(claims.masks)) > 1
    keys = [region if alone else mask for region, (mask, alone) in enumerate(zip(claims.masks, several, strict=True))]
    places: dict[bytes | int, int] = {}
    found_of = np.array([places.setdefault(key, len(places)) for key in keys], dtype=np.int64)
    kept = np.unique(found_of, return_index=True)[1]
    detections = found_of[claims.regions]
    class_scores = np.zeros((len(kept), len(arrays.depths)), dtype=np.float32)
    np.maximum.at(class_scores, (detections, claims.labels), claims.scores.astype(np.float32))
    areas = None if claims.mask_areas is None else claims.mask_areas[kept]
    first = np.unique(detections, return_index=True)[1]
    names = claims.labels[first] if named else named_classes(class_scores, arrays)
    masks = [claims.masks[region] for region in kept]
    return ImagePrediction(image_id, claims.boxes[kept], class_scores, names, masks, areas, claims.size)


@dataclass(frozen=True)
class Span:
    """Where the rows of an image are: the name of the part file that has them, first byte and number of bytes."""

    part: str
    start: int
    length: int


class RankedFile:
    """A file whose parts every rank writes, image by image, into a hidden file beside it; the main rank joins them."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = output_file(path)
        self._part: BinaryIO | None = None
        self._name = ''
        self._opened = ExitStack()
        # A run that fails before it comes to the end leaves nothing either.
        weakref.finalize(self, self._opened.close)

    def write(self, text: str) -> Span:
        """Writes what one image has to the part file."""
        with disk_faults(self.path):
            if self._part is None:
                make_folder(self.path.parent)
                part, descriptor = self._opened.enter_context(hidden(self.path))
                file = open(descriptor, 'wb', closefd=False)  # noqa: SIM115  # for longer than this call
                self._part = self._opened.enter_context(file)
                self._name = part.name
            content = text.encode('utf-8')
            start = self._part.tell()
            self._part.write(content)
            return Span(self._name, start, len(content))

    def close(self) -> None:
        """Ends the part file. Every rank does so before the main one joins."""
        if self._part is not None:
            with disk_faults(self.path):
                self._part.flush()

    def join(self, spans: Iterable[Span], *, begin: str, between: str = '', end: str = '') -> None:
        """Writes the file, whole or not at all, from what the images that count have; the empty ones are left out.

        Raises:
            EvaluationError: If the part file of another rank is not there.
            OutputError: If the file cannot be written.
        """
        wanted = [span for span in spans if span.length]
        make_folder(self.path.parent)
        with ExitStack() as opened:
            try:
                parts: dict[str, BinaryIO] = {}
                for name in {span.part for span in wanted}:
                    parts[name] = opened.enter_context(self.path.with_name(name).open('rb'))
            except FileNotFoundError as error:
                raise EvaluationError(
                    f'{error.filename}, the part of another rank, is missing',
                    where=str(self.path),
                    fix='Put it into a folder that all ranks share.',
                ) from None
            with whole_file(self.path) as target:
                target.write(begin.encode())
                for index, span in enumerate(wanted):
                    parts[span.part].seek(span.start)
                    target.write((between.encode() if index else b'') + parts[span.part].read(span.length))
                target.write(end.encode())

    def remove_part(self) -> None:
        """Deletes this rank's part file."""
        self._part = None
        with suppress(OSError):  # of what never came to a full disk
            self._opened.close()


class SubmissionWriter(RankedFile):
    """Writes a submission, the official CSV."""

    def __init__(self, path: str | os.PathLike[str], *, class_ids: Sequence[str]) -> None:
        super().__init__(path)
        self.class_ids = class_ids

    def add(self, image: ImageRow, detections: ImageDetections) -> Span:
        """Writes the rows of one image to the part file."""
        return self.write(submission_rows(image, detections, self.class_ids))

    def merge(self, spans: Iterable[Span], *, by_mask: bool) -> None:
        """Writes the submission from the rows of the images that count; errors as of :meth:`join`."""
        columns = MASK_SUBMISSION_COLUMNS if by_mask else BOX_SUBMISSION_COLUMNS
        self.join(spans, begin=','.join(columns) + '\n')


def submission_rows(image: ImageRow, detections: ImageDetections, class_ids: Sequence[str]) -> str:
    """Rows of the official CSV; detections with a blank mask, which the evaluation drops, are left out.

    Scores and coordinates are written so that reading gives the same numbers.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator='\n')
    areas, boxes = detections.mask_areas, detections.boxes.tolist()
    texts = [text_of_counts(mask) for mask in detections.masks]
    claims = (part.tolist() for part in (detections.regions, detections.labels, detections.scores))
    for region, label, score in zip(*claims, strict=True):
        if areas is None:
            x1, y1, x2, y2 = boxes[region]
            writer.writerow([image.id, class_ids[label], repr(score), repr(x1), repr(x2), repr(y1), repr(y2)])
        elif areas[region]:
            writer.writerow([image.id, image.width, image.height, class_ids[label], repr(score), texts[region]])
    return buffer.getvalue()
