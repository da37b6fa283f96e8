"""The baseline: one detector for root classes, one for all deeper classes, merged into paths.

Shape letters: N layer-0 instances, M layer-1 instances, K merged instances, C classes of the taxonomy, H, W the
image. Labels are those of the full taxonomy unless said so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from mmengine.model import BaseModel
from mmengine.structures import InstanceData
from torch import Tensor

from hierseg.errors import ConfigError
from hierseg.formats import FloatArray, IntArray
from hierseg.registry import MODELS
from hierseg.seeding import from_the_start
from hierseg.store.layers import LayerClasses
from hierseg.taxonomy import Taxonomy, TaxonomyArrays, read_taxonomy
from hierseg.taxonomy.arrays import named_classes

LAYERS = ('layer0', 'layer1')


@MODELS.register_module()
class TwoLayerEnsemble(BaseModel):
    """Two independent detectors in one model; source: the seed report (Suman, 2019).

    The layers are trained by ``hierseg.LayerwiseTrainLoop``, each through its own ``train_step``. Testing runs both
    on the image and gives the record of the end-to-end model: one instance with ``bboxes``, ``masks``, ``labels``
    (the class to name), ``scores``, ``class_scores`` (K, C) of the full taxonomy and ``paths``.

    Args:
        taxonomy: A taxonomy, or the path of a file that ``read_taxonomy`` understands.
        layer0: Config of a detector of the root classes.
        layer1: Config of a detector of all deeper classes.
        merge: How :func:`merge_layers` joins what the layers found: its ``iou_threshold``; ``unmatched``, whether to
            ``drop`` (default) or ``keep`` layer-1 instances that belong to none; ``decision_thr``, its
            ``decision_threshold``.

    Raises:
        ConfigError: On an option of ``merge`` that is unknown or out of range, or a head with another number of
            classes than its layer.
    """

    def __init__(
        self,
        *,
        taxonomy: Taxonomy | str | Path,
        layer0: dict[str, Any],
        layer1: dict[str, Any],
        merge: dict[str, Any] | None = None,
        init_cfg: Any = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        self.merge_options = _merge_options(merge or {})
        self.taxonomy = taxonomy if isinstance(taxonomy, Taxonomy) else read_taxonomy(taxonomy)
        self.layer_labels = []
        for number, (name, config) in enumerate(zip(LAYERS, (layer0, layer1), strict=True)):
            # The weights are those of the layer alone, whatever was built before it.
            with from_the_start():
                setattr(self, name, MODELS.build(config))
            self.layer_labels.append(LayerClasses.of(self.taxonomy, number).labels)
            found, expected = getattr(self, name).roi_head.bbox_head.num_classes, len(self.layer_labels[-1])
            if found != expected:
                raise ConfigError(
                    f'the box head of {name} has num_classes={found}, the layer {expected} classes',
                    where='TwoLayerEnsemble',
                    fix=f'Set num_classes={expected} for the heads of {name}.',
                )

    def forward(self, inputs: Any, data_samples: Any = None, mode: str = 'tensor') -> Any:
        """Refuses: one forward pass of two models has no meaning. The error says what to use."""
        raise ConfigError(
            f'forward(mode={mode!r}) of the ensemble', fix='Train with hierseg.LayerwiseTrainLoop; test with test_step.'
        )

    def test_step(self, data: dict[str, Any]) -> list[Any]:
        """The second layer's data samples with both layers' predictions, merged, as ``pred_instances``."""
        results = self.predict_layers(data)
        found = [[sample.pred_instances for sample in samples] for samples in results]
        for sample, first, second in zip(results[1], *found, strict=True):
            sample.pred_instances = self.merged(first, second)[0]
        return results[1]

    val_step = test_step

    def predict_layers(self, data: dict[str, Any]) -> list[list[Any]]:
        """The data samples of a batch, which each layer preprocesses, with what it found, in its own labels."""
        return [getattr(self, name).test_step(data) for name in LAYERS]

    def merged(self, first: InstanceData, second: InstanceData) -> tuple[InstanceData, MergedInstances]:
        """Merges the bboxes, labels, scores and masks that the layers found on one image; labels are the layers'.

        Returns:
            The instances in descending order of their best score, and how they came about, in the same order.
        """
        layers = [
            LayerInstances(of_layer[found.labels.cpu().numpy()], found.scores.double().cpu().numpy(), found.masks)
            for of_layer, found in zip(self.layer_labels, (first, second), strict=True)
        ]
        result = merge_layers(*layers, self.taxonomy.arrays, **self.merge_options)
        order = np.argsort(-result.class_scores.max(axis=1, initial=0), kind='stable')
        result = MergedInstances(
            result.sources[order], result.labels[order], result.class_scores[order], result.joined, result.best[order]
        )
        labels = torch.from_numpy(result.labels).to(first.bboxes.device)
        class_scores = torch.from_numpy(result.class_scores).to(first.scores)
        instances = InstanceData(
            bboxes=_taken(first.bboxes, second.bboxes, result.sources),
            masks=_taken(first.masks, second.masks, result.sources),
            labels=labels,
            scores=class_scores.gather(1, labels[:, None]).squeeze(1),
            class_scores=class_scores,
            paths=[self.taxonomy.named_paths[label] for label in result.labels.tolist()],
        )
        return instances, result


def _taken(first: Tensor, second: Tensor, sources: IntArray) -> Tensor:
    """Rows of two tensors, counted through both: as of their concatenation, which for masks would be large."""
    rows = [first[row] if row < len(first) else second[row - len(first)] for row in sources.tolist()]
    return torch.stack(rows) if rows else first[:0]


def _merge_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of ``merge_layers`` that a config stands for."""
    options = {'iou_threshold': 0.5, 'unmatched': 'drop', 'decision_thr': 0.5, **given}
    in_range = 0 < options['iou_threshold'] <= 1 and 0 <= options['decision_thr'] <= 1
    if len(options) > 3 or options['unmatched'] not in ('keep', 'drop') or not in_range:
        raise ConfigError(
            f'merge={dict(given)}',
            where='TwoLayerEnsemble',
            fix="Use iou_threshold in (0, 1], unmatched='keep' or 'drop', and decision_thr in [0, 1].",
        )
    keep_unmatched = options.pop('unmatched') == 'keep'
    return {'decision_threshold': options.pop('decision_thr'), 'keep_unmatched': keep_unmatched, **options}


@dataclass(frozen=True, eq=False)
class LayerInstances:
    """Instances that one layer found on one image: (N,) labels, (N,) scores and (N, H, W) bool masks on any device."""

    labels: IntArray
    scores: FloatArray
    masks: Tensor


@dataclass(frozen=True, eq=False)
class MergedInstances:
    """Instances with paths.

    Attributes:
        sources: (K,) int64; the instance whose box and mask it has: i < N of layer 0, N + j of layer 1.
        labels: (K,) int64; the class to name.
        class_scores: (K, C) float64; the score of every class that the instance claims, 0 for the others.
        joined: (M,) int64; the layer-0 instance that each layer-1 instance belongs to, -1 for none.
        best: (K,) int64; the layer-1 instance that speaks for it: the best of those that belong to it and have its
            name, else the best of all of them, or itself where it is of layer 1; -1 for none.
    """

    sources: IntArray
    labels: IntArray
    class_scores: FloatArray
    joined: IntArray
    best: IntArray


def merge_layers(
    layer0: LayerInstances,
    layer1: LayerInstances,
    arrays: TaxonomyArrays,
    *,
    iou_threshold: float = 0.5,
    keep_unmatched: bool = False,
    decision_threshold: float = 0.5,
) -> MergedInstances:
    """Merges the layers' instances on one image.

    A layer-1 instance belongs to the layer-0 instance whose class is one of its ancestors and whose mask
    overlaps it most, the one of higher score where two overlap it equally. All of them give it their scores, for
    they are opinions on the same object, not further objects. Scores stay as each layer gave them; what lies between
    the two classes, or above the deeper one by another path, gets the deeper one's.

    A detector gives a Man of score 0.05 on most Persons of score 0.99, which is no reason to name them so. The rule
    is that of the end-to-end model: of the classes that have a part of their root's score the deepest gives the name.

    Args:
        layer0: N instances of root classes.
        layer1: M instances of deeper classes.
        arrays: The taxonomy.
        iou_threshold: Masks that overlap less do not belong together; above 0.
        keep_unmatched: Keep a layer-1 instance that belongs to none, under its own ancestors; else drop it.
        decision_threshold: The part of its root's score that a class needs to give the name; with 0 the deepest one
            always does. No score depends on it.
    """
    joined = _join(layer0, layer1, arrays, iou_threshold)
    num_classes, num_first = len(arrays.depths), len(layer0.labels)
    alone = np.flatnonzero(joined < 0) if keep_unmatched else np.zeros(0, dtype=np.int64)
    sources = np.concatenate([np.arange(num_first), num_first + alone]).astype(np.int64)
    row_of: IntArray = joined.copy()
    row_of[alone] = num_first + np.arange(len(alone))

    class_scores: FloatArray = np.zeros((len(sources), num_classes))
    best = np.full(len(sources), -1, dtype=np.int64)
    # Ascending, so that the best child of an instance is written last.
    by_score = np.argsort(layer1.scores, kind='stable')
    children = by_score[row_of[by_score] >= 0]
    for index in children:
        above = arrays.above(layer1.labels[index])
        class_scores[row_of[index], above] = np.maximum(class_scores[row_of[index], above], layer1.scores[index])
        best[row_of[index]] = index
    class_scores[np.arange(num_first), layer0.labels] = layer0.scores

    labels = named_classes(class_scores, arrays, threshold=decision_threshold)
    # The best of those that have the name speaks before the others.
    for index in children:
        if layer1.labels[index] == labels[row_of[index]]:
            best[row_of[index]] = index
    return MergedInstances(sources, labels, class_scores, joined, best)


def _join(layer0: LayerInstances, layer1: LayerInstances, arrays: TaxonomyArrays, iou_threshold: float) -> IntArray:
    """(M,) int64 indices of layer-0 instances, -1 for none."""
    if not len(layer0.labels) or not len(layer1.labels):
        return np.full(len(layer1.labels), -1, dtype=np.int64)
    descends = np.stack([np.isin(layer0.labels, arrays.above(label)) for label in layer1.labels])
    overlaps = mask_overlaps(layer1.masks, layer0.masks, descends, at_least=iou_threshold)
    # The first of equal overlaps is then the one of the highest score.
    by_score = np.argsort(-layer0.scores, kind='stable')
    joined = by_score[overlaps[:, by_score].argmax(axis=1)]
    return np.where(overlaps.max(axis=1) > 0, joined, -1).astype(np.int64)


def mask_overlaps(first: Tensor, second: Tensor, wanted: npt.NDArray[np.bool_], *, at_least: float) -> FloatArray:
    """(M, N) intersection over union of the wanted pairs of masks; 0 for others and below ``at_least``.

    Detectors hand out masks as planes, on their device. To encode 100 planes of 1024 × 768 pixels as run lengths
    takes pycocotools 0.2 s, to find the rectangles that they fill 0.01 s; and since the overlap of two rectangles
    bounds that of their masks, few pairs are left to compare, within those rectangles.

    ``first`` are (M, H, W) bool, ``second`` (N, H, W) bool on the same device; ``wanted`` are (M, N) bool, the pairs to
    compare, and ``at_least`` is above 0.
    """
    bounds, other_bounds = mask_bounds(first), mask_bounds(second)
    areas, other_areas = _areas(first, bounds), _areas(second, other_bounds)
    corners = np.maximum(bounds[:, None, :2], other_bounds[None, :, :2])
    opposite = np.minimum(bounds[:, None, 2:], other_bounds[None, :, 2:])
    rectangles = np.clip(opposite - corners, 0, None).prod(axis=2)
    limits = rectangles / np.maximum(np.maximum(areas[:, None], other_areas[None]), 1)

    overlaps: FloatArray = np.zeros(wanted.shape)
    rows, columns = np.nonzero(wanted & (limits >= at_least))
    common = []
    for row, column in zip(rows, columns, strict=True):
        (left, top), (right, bottom) = corners[row, column], opposite[row, column]
        common.append(torch.count_nonzero(first[row, top:bottom, left:right] & second[column, top:bottom, left:right]))
    intersections = _gathered(common)
    found = intersections / (areas[rows] + other_areas[columns] - intersections)
    overlaps[rows, columns] = np.where(found >= at_least, found, 0)
    return overlaps


def mask_bounds(masks: Tensor) -> IntArray:
    """(N, 4) int64 left, top, right and bottom of the pixels set in (N, H, W) masks, ends excluded; 0 without any."""
    if not masks.numel():
        return np.zeros((len(masks), 4), dtype=np.int64)
    # PyTorch takes the maximum of bytes ten times as fast as it asks for any truth.
    planes = masks.to(torch.bool).view(torch.uint8)
    columns, rows = (planes.amax(dim=axis).cpu().numpy().astype(bool) for axis in (1, 2))
    ends = [(line.argmax(axis=1), line.shape[1] - line[:, ::-1].argmax(axis=1)) for line in (columns, rows)]
    (left, right), (top, bottom) = ends
    bounds = np.stack([left, top, right, bottom], axis=1)
    return np.where(rows.any(axis=1)[:, None], bounds, 0).astype(np.int64)


def _areas(masks: Tensor, bounds: IntArray) -> IntArray:
    """(N,) pixels set in each mask."""
    rectangles = zip(masks, bounds, strict=True)
    return _gathered([mask[top:bottom, left:right].count_nonzero() for mask, (left, top, right, bottom) in rectangles])


def _gathered(counts: list[Tensor]) -> IntArray:
    """Single numbers, fetched from their device together."""
    return torch.stack(counts).cpu().numpy() if counts else np.zeros(0, dtype=np.int64)
