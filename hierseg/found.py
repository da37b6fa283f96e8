"""Detections of one image as plain data, and the forms in which other programs take them.

Every model of hierseg ends here, whether torch or an exported one runs it. Shape letters: M detections, C classes, H, W
the image. Boxes are xyxy in pixels; labels are positions in ``names``. A path runs from a root class to the class
named, by preferred parents.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from importlib import import_module
from os import PathLike
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import numpy.typing as npt

from hierseg.errors import AnnotationError, ConfigError
from hierseg.formats import BoolArray, IntArray
from hierseg.formats.run_lengths import check_counts, counts_of_mask, mask_of_counts
from hierseg.limits import MAX_PIXELS

if TYPE_CHECKING:
    import pandas as pd

    from hierseg.pictures import Orientation
    from hierseg.taxonomy import Taxonomy

SEPARATOR = ' › '
RunLengths = dict[str, Any]
"""COCO's run lengths of a mask: ``size`` [H, W] and ``counts``, compressed, as text."""
Numbers = npt.NDArray[np.floating[Any]]
Picture = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Instance:
    """One detection: one physical object.

    Attributes:
        box: (4,) xyxy, pixels.
        score: Probability of the class named.
        label: The class named.
        path: Names from the root class to the class named, such as ``('Person', 'Man')``.
        class_scores: (C,) probability of every class that the detection claims, 0 for the others.
        run_lengths: Of its mask; None from a model without masks.
    """

    box: Numbers
    score: float
    label: int
    path: tuple[str, ...]
    class_scores: Numbers
    run_lengths: RunLengths | None = None

    @property
    def name(self) -> str:
        """Name of the class."""
        return self.path[-1]

    @property
    def mask(self) -> BoolArray | None:
        """(H, W) bool; None from a model without masks."""
        return None if self.run_lengths is None else _decoded(self.run_lengths)

    def __str__(self) -> str:
        """The text on pictures, such as ``Person › Man 0.87``."""
        return f'{SEPARATOR.join(self.path)} {self.score:.2f}'


@dataclass(frozen=True, eq=False)
class Found:
    """All detections of one image, or of one frame of a video, the most probable first.

    ``found[0]`` is an :class:`Instance`; ``found[found.scores > 0.5]``, or any other index of numpy, a Found of fewer.

    Attributes:
        image_size: H, W, pixels.
        boxes: (M, 4) float, xyxy, pixels.
        scores: (M,) float; probability of the class named.
        labels: (M,) int; the class named.
        class_scores: (M, C) float; probability of every class that a detection claims, 0 for the others.
        masks: M run lengths; None from a model without masks.
        names: Of the C classes.
        parents: Labels of the parents of each class, the preferred parent first; empty for a root class.
        source: The file or camera; None for an array.
        frame: Number of the frame in a video, from 0; None for an image.
        image: (H, W, 3) uint8 RGB, where there is no file to read again.
        orientation: How the file is to be read so that it has these pixels.
    """

    image_size: tuple[int, int]
    boxes: Numbers
    scores: Numbers
    labels: IntArray
    class_scores: Numbers
    masks: Sequence[RunLengths] | None
    names: tuple[str, ...]
    parents: tuple[tuple[int, ...], ...]
    source: str | None = None
    frame: int | None = None
    image: Picture | None = None
    orientation: Orientation = 'turned'

    def __len__(self) -> int:
        return len(self.labels)

    @overload
    def __getitem__(self, index: int) -> Instance: ...
    @overload
    def __getitem__(self, index: slice | Sequence[int] | BoolArray | IntArray) -> Found: ...
    def __getitem__(self, index: Any) -> Instance | Found:
        if isinstance(index, (int, np.integer)):
            row = int(index)
            label = int(self.labels[row])
            return Instance(
                box=self.boxes[row],
                score=float(self.scores[row]),
                label=label,
                path=self.path(label),
                class_scores=self.class_scores[row],
                run_lengths=None if self.masks is None else self.masks[row],
            )
        rows = np.arange(len(self))[index]
        return replace(
            self,
            boxes=self.boxes[rows],
            scores=self.scores[rows],
            labels=self.labels[rows],
            class_scores=self.class_scores[rows],
            masks=None if self.masks is None else [self.masks[row] for row in rows.tolist()],
        )

    def __iter__(self) -> Iterator[Instance]:
        return (self[row] for row in range(len(self)))

    def path(self, label: int) -> tuple[str, ...]:
        """Names from the root class to a class, by preferred parents."""
        steps = [label]
        while self.parents[steps[-1]]:
            steps.append(self.parents[steps[-1]][0])
        return tuple(self.names[step] for step in reversed(steps))

    def back_off(self, threshold: float) -> Found:
        """The same detections, each named by the deepest class that has this part, 0 to 1, of its root's probability.

        Boxes, masks and probabilities stay. The rule is :func:`hierseg.taxonomy.arrays.named_classes`.
        """
        from hierseg.taxonomy.arrays import named_classes

        labels = named_classes(self.class_scores, _taxonomy(self.names, self.parents).arrays, threshold=threshold)
        return replace(self, labels=labels, scores=self.class_scores[np.arange(len(self)), labels])

    def decoded_masks(self) -> BoolArray | None:
        """(M, H, W) bool masks; None from a model without."""
        if self.masks is None:
            return None
        planes: BoolArray = np.zeros((len(self), *self.image_size), dtype=np.bool_)
        for plane, run_lengths in zip(planes, self.masks, strict=True):
            plane[:] = _decoded(run_lengths)
        return planes

    def to_json(self) -> dict[str, Any]:
        """A document of one image, a line of JSON Lines: ``json.dumps(found.to_json())``.

        ``class_scores`` are by name, those above 0; of classes with one name, by path.
        """
        known = self._keys
        instances = []
        for instance in self:
            claimed = np.flatnonzero(instance.class_scores > 0).tolist()
            entry = {
                'path': list(instance.path),
                'label': instance.label,
                'score': instance.score,
                'box': instance.box.tolist(),
                'class_scores': {known[label]: float(instance.class_scores[label]) for label in claimed},
            }
            instances.append(entry if instance.run_lengths is None else {**entry, 'mask': instance.run_lengths})
        height, width = self.image_size
        return {'source': self.source, 'frame': self.frame, 'height': height, 'width': width, 'instances': instances}

    @cached_property
    def _keys(self) -> tuple[str, ...]:
        """A text for every class that no other has."""
        counts = Counter(self.names)
        return tuple(
            name if counts[name] == 1 else SEPARATOR.join(self.path(label)) for label, name in enumerate(self.names)
        )

    def to_coco(self) -> dict[str, Any]:
        """A COCO document of one image, see :func:`coco_document`."""
        return coco_document([self])

    def to_pandas(self) -> pd.DataFrame:
        """A table of a row for each detection.

        Columns are ``source``, ``frame``, ``name``, ``path`` (``Person › Man``), ``label``, ``score``, ``x1``, ``y1``,
        ``x2``, ``y2`` and, where there are masks, ``area`` in pixels.
        """
        columns: dict[str, Any] = {
            'source': [self.source] * len(self),
            'frame': [self.frame] * len(self),
            'name': [self.names[label] for label in self.labels.tolist()],
            'path': [SEPARATOR.join(self.path(label)) for label in self.labels.tolist()],
            'label': self.labels,
            'score': self.scores,
            **dict(zip(('x1', 'y1', 'x2', 'y2'), self.boxes.T, strict=True)),
        }
        if self.masks is not None:
            columns['area'] = [_area(run_lengths) for run_lengths in self.masks]
        frame: pd.DataFrame = _optional('pandas').DataFrame(columns)
        return frame

    def to_supervision(self) -> Any:
        """``supervision.Detections`` with masks; ``data`` has ``class_name`` and ``path`` (``Person › Man``)."""
        return _optional('supervision').Detections(
            xyxy=self.boxes.astype(np.float32),
            mask=self.decoded_masks(),
            confidence=self.scores.astype(np.float32),
            class_id=self.labels.astype(int),
            data={
                'class_name': np.array([self.names[label] for label in self.labels.tolist()], dtype=str),
                'path': np.array([SEPARATOR.join(self.path(label)) for label in self.labels.tolist()], dtype=str),
            },
        )

    def to_fiftyone(self) -> Any:
        """``fiftyone.Detections`` with masks and the attribute ``path``, a list of names.

        FiftyOne lays a mask on the box of its detection. So that pixels stay where they are, the box of a detection
        with a mask is widened to whole pixels; what of the mask lies outside is cut.
        """
        fiftyone = _optional('fiftyone')
        height, width = self.image_size
        detections = []
        for instance in self:
            box, mask = np.clip(instance.box, 0, (width, height, width, height)).astype(float), instance.mask
            if mask is not None:
                left, top = np.minimum(np.floor(box[:2]), (width - 1, height - 1)).astype(int)
                right, bottom = np.maximum(np.ceil(box[2:]).astype(int), (left + 1, top + 1))
                box, mask = np.array([left, top, right, bottom], dtype=float), mask[top:bottom, left:right]
            relative = (box / (width, height, width, height)).tolist()
            place = [*relative[:2], relative[2] - relative[0], relative[3] - relative[1]]
            attributes = {'confidence': instance.score, 'path': list(instance.path)}
            detections.append(fiftyone.Detection(label=instance.name, bounding_box=place, mask=mask, **attributes))
        return fiftyone.Detections(detections=detections)

    def picture(self) -> Picture:
        """The image, (H, W, 3) uint8 RGB: the array, or its file read again.

        Raises:
            ConfigError: If it is a frame of a video that was not kept, or came from nowhere.
            AnnotationError: If the file is no readable image any more.
            OSError: If there is no such file any more.
        """
        if self.image is not None:
            return self.image
        if self.source is None or self.frame is not None:
            raise ConfigError('the image was not kept', fix='Give it: draw(path, image=array).')
        from hierseg.pictures import read_picture

        # What detections were found on was taken as not too large, by whatever limit.
        return read_picture(self.source, self.orientation, max_pixels=max(MAX_PIXELS, math.prod(self.image_size)))

    def draw(self, path: str | PathLike[str] | None = None, *, image: Picture | None = None) -> Picture:
        """Draws masks, boxes and paths such as ``Person › Man 0.87``, the colour of each class that of its family.

        Args:
            path: A file to write, in the format that its ending names.
            image: (H, W, 3) uint8 RGB to draw on instead of :meth:`picture`.

        Returns:
            RGB uint8, enlarged by a whole number where the image is small.

        Raises:
            ConfigError: As of :meth:`picture`, or the ending is none of an image.
            AnnotationError: As of :meth:`picture`, or the image has another size.
        """
        from hierseg.drawing import DrawnInstance, draw_instances, label_variants
        from hierseg.pictures import write_picture

        canvas = self.picture() if image is None else image
        if canvas.shape[:2] != tuple(self.image_size):
            sizes = ' and not '.join(f'{width} x {height}' for height, width in (canvas.shape[:2], self.image_size))
            raise AnnotationError(f'the image has {sizes} pixels', where=self.source or '', fix='Draw on the same one.')
        colors = _colors(self.names, self.parents)
        instances = []
        for instance in self:
            texts = label_variants((*instance.path[:-1], f'{instance.name} {instance.score:.2f}'))
            instances.append(DrawnInstance(instance.box, colors[instance.label], texts, instance.mask))
        drawn, _ = draw_instances(canvas, instances)
        if path is not None:
            write_picture(drawn, path)
        return drawn


def run_lengths_of(planes: npt.NDArray[Any]) -> list[RunLengths]:
    """Run lengths of (M, H, W) masks; every value but 0 is inside."""
    size = list(planes.shape[1:])
    return [{'size': size, 'counts': counts_of_mask((plane != 0).view(np.uint8)).decode()} for plane in planes]


def coco_document(images: Iterable[Found]) -> dict[str, Any]:
    """A COCO document of several images: ``images``, ``annotations`` with ``score``, ``categories``.

    Image and annotation ids count from 1; a category id is label + 1, its ``supercategory`` the preferred parent, or
    the class itself for a root class. ``annotations`` alone are COCO results. A frame of a video has its ``frame``.
    """
    entries: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    names: tuple[str, ...] = ()
    parents: tuple[tuple[int, ...], ...] = ()
    for number, found in enumerate(images, 1):
        names, parents = found.names, found.parents
        height, width = found.image_size
        entry = {'id': number, 'file_name': found.source or '', 'height': height, 'width': width}
        entries.append(entry if found.frame is None else {**entry, 'frame': found.frame})
        for instance in found:
            x1, y1, x2, y2 = instance.box.tolist()
            annotation = {
                'id': len(annotations) + 1,
                'image_id': number,
                'category_id': instance.label + 1,
                'score': instance.score,
                'bbox': [x1, y1, x2 - x1, y2 - y1],
                'area': (x2 - x1) * (y2 - y1),
                'iscrowd': 0,
            }
            if instance.run_lengths is not None:
                annotation |= {'segmentation': instance.run_lengths, 'area': _area(instance.run_lengths)}
            annotations.append(annotation)
    categories = [
        {'id': label + 1, 'name': name, 'supercategory': names[parents[label][0] if parents[label] else label]}
        for label, name in enumerate(names)
    ]
    return {'images': entries, 'annotations': annotations, 'categories': categories}


def _decoded(run_lengths: RunLengths) -> BoolArray:
    return mask_of_counts(run_lengths['counts'].encode(), *run_lengths['size']).view(np.bool_)


def _area(run_lengths: RunLengths) -> int:
    return check_counts(run_lengths['counts'].encode(), *run_lengths['size'])


def _optional(package: str) -> Any:
    """A package that is used if it is there.

    Raises:
        ConfigError: It is not installed.
    """
    try:
        return import_module(package)
    except ModuleNotFoundError as error:
        raise ConfigError(f'{package} is not installed', fix=f'pip install {package}') from error


@lru_cache(maxsize=4)
def _taxonomy(names: tuple[str, ...], parents: tuple[tuple[int, ...], ...]) -> Taxonomy:
    from hierseg.taxonomy import Taxonomy

    return Taxonomy(tuple(map(str, range(len(names)))), names, parents)


@lru_cache(maxsize=4)
def _colors(names: tuple[str, ...], parents: tuple[tuple[int, ...], ...]) -> npt.NDArray[np.uint8]:
    from hierseg.drawing import class_colors

    return class_colors(_taxonomy(names, parents))
