"""The baseline: one detector for root classes, one for all deeper classes, merged into paths.

Shape letters: K merged instances, C classes of the taxonomy.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from mmengine.model import BaseModel
from mmengine.structures import InstanceData
from torch import Tensor

from hierseg.errors import ConfigError
from hierseg.models.merge import LayerInstances, MergedInstances, merge_layers
from hierseg.registry import MODELS
from hierseg.seeding import from_the_start
from hierseg.store.layers import LayerClasses
from hierseg.taxonomy import Taxonomy, read_taxonomy

LAYERS = ('layer0', 'layer1')


@MODELS.register_module()
class TwoLayerEnsemble(BaseModel):
    """Two independent detectors in one model; source: the seed report (Suman, 2019).

    The layers are trained by ``hierseg.LayerwiseTrainLoop``, each through its own ``train_step``. Testing runs both
    on the image and gives the record of the end-to-end model: one instance with ``bboxes``, ``masks``, ``labels``
    (the class to name), ``scores`` and ``class_scores`` (K, C) of the full taxonomy.

    Args:
        taxonomy: A taxonomy, or the path of a file that ``read_taxonomy`` understands.
        layer0: Config of a detector of the root classes.
        layer1: Config of a detector of all deeper classes.
        merge: How :func:`~hierseg.models.merge.merge_layers` joins what the layers found. ``iou_threshold`` (default
            0.5, above 0), from which masks belong together; ``unmatched``: ``drop`` (default) layer-1 instances that
            belong to none, or ``keep`` them; ``decision_thr`` (default 0.5), the part of a root's score that the
            deeper class must have to give the name.

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
        """Not a model of one forward pass.

        Raises:
            ConfigError: Always; it says what to use.
        """
        raise ConfigError(
            f'forward(mode={mode!r}) of the ensemble', fix='Train with hierseg.LayerwiseTrainLoop; test with test_step.'
        )

    def val_step(self, data: dict[str, Any]) -> list[Any]:
        """As :meth:`test_step`."""
        return self.test_step(data)

    def test_step(self, data: dict[str, Any]) -> list[Any]:
        """Both layers' predictions, merged.

        Args:
            data: A batch as the data loader gives it; each layer preprocesses it itself.

        Returns:
            The second layer's data samples with merged ``pred_instances``.
        """
        results = self.predict_layers(data)
        found = [[sample.pred_instances for sample in samples] for samples in results]
        for sample, first, second in zip(results[1], *found, strict=True):
            sample.pred_instances = self.merged(first, second)[0]
        return results[1]

    def predict_layers(self, data: dict[str, Any]) -> list[list[Any]]:
        """The data samples of a batch with what each layer found, in the layer's labels."""
        return [getattr(self, name).test_step(data) for name in LAYERS]

    def merged(self, first: InstanceData, second: InstanceData) -> tuple[InstanceData, MergedInstances]:
        """Merges what the layers found on one image.

        Args:
            first: Layer 0's instances: bboxes, labels, scores and masks; labels are the layer's.
            second: Layer 1's.

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
        device = first.bboxes.device
        labels = torch.from_numpy(result.labels).to(device)
        class_scores = torch.from_numpy(result.class_scores).to(first.scores)
        instances = InstanceData(
            bboxes=_taken(first.bboxes, second.bboxes, result.sources),
            masks=_taken(first.masks, second.masks, result.sources),
            labels=labels,
            scores=class_scores.gather(1, labels[:, None]).squeeze(1),
            class_scores=class_scores,
        )
        return instances, result


def _taken(first: Tensor, second: Tensor, sources: npt.NDArray[np.int64]) -> Tensor:
    """Rows of two tensors, counted through both: as of their concatenation, which for masks would be large."""
    rows = [first[row] if row < len(first) else second[row - len(first)] for row in sources.tolist()]
    return torch.stack(rows) if rows else first[:0]


def _merge_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of ``merge_layers`` that a config stands for."""
    options = {'iou_threshold': 0.5, 'unmatched': 'drop', 'decision_thr': 0.5, **given}
    valid = (
        len(options) == 3
        and options['unmatched'] in ('keep', 'drop')
        and 0 < options['iou_threshold'] <= 1
        and 0 <= options['decision_thr'] <= 1
    )
    if not valid:
        raise ConfigError(
            f'merge={dict(given)}',
            where='TwoLayerEnsemble',
            fix="Use iou_threshold in (0, 1], unmatched='keep' or 'drop', and decision_thr in [0, 1].",
        )
    return {
        'iou_threshold': options['iou_threshold'],
        'keep_unmatched': options['unmatched'] == 'keep',
        'decision_threshold': options['decision_thr'],
    }
