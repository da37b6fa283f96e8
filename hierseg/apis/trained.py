"""A trained detector with the preprocessing of its config: RGB arrays in, plain detections out.

Shape letters: M detections of an image, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from mmengine.structures import InstanceData
from torch import nn

from hierseg.apis.configs import load_config
from hierseg.apis.runner import image_batch, load_detector, picture_pipeline
from hierseg.errors import ConfigError
from hierseg.found import Found, run_lengths_of
from hierseg.functional.decisions import RULES
from hierseg.models.detections import Decision
from hierseg.models.two_layer_ensemble import TwoLayerEnsemble
from hierseg.taxonomy import Taxonomy


class TrainedModel:
    """A detector, called on RGB pictures; detectors of MMDetection without a hierarchy, too.

    Args:
        config: The config file.
        checkpoint: The weights, a file or an address.
        device: As of :func:`~hierseg.apis.runner.load_detector`.
        rule: The decision's, instead of the config's.
        threshold: The decision's, instead of the config's.
        options: Values by dotted key that override the config's.

    Raises:
        ConfigError: A file does not exist or cannot be read, they do not fit each other, or the model has no such rule.
    """

    def __init__(
        self,
        config: str | PathLike[str],
        checkpoint: str,
        *,
        device: str | None = None,
        rule: str | None = None,
        threshold: float | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        if (rule is not None and rule not in RULES) or (threshold is not None and not 0 < threshold <= 1):
            what = f'rule={rule!r}, threshold={threshold!r}'
            raise ConfigError(what, fix=f'Use one of the rules {", ".join(RULES)}, and a threshold in (0, 1].')
        self.config = load_config(config, options=options)
        self.detector = load_detector(self.config, checkpoint, device=device)
        self.pipeline = picture_pipeline(self.config)
        self.taxonomy = taxonomy_of(self.detector, where=checkpoint)
        if rule is not None or threshold is not None:
            decide_by(self.detector, rule=rule, threshold=threshold)

    @torch.inference_mode()
    def __call__(self, images: Sequence[npt.NDArray[np.uint8]], *, score_thr: float = 0.0) -> list[Found]:
        """The detections of (H, W, 3) uint8 RGB pictures, computed together, of at least this score."""
        samples = self.detector.test_step(image_batch(self.pipeline, images))
        return [
            self._found(sample.pred_instances, image.shape[:2], score_thr)
            for sample, image in zip(samples, images, strict=True)
        ]

    def _found(self, instances: InstanceData, size: Sequence[int], score_thr: float) -> Found:
        kept = instances[instances.scores >= score_thr].cpu()
        labels, scores = kept.labels.numpy().astype(np.int64), kept.scores.numpy()
        if 'class_scores' in kept:
            class_scores = kept.class_scores.numpy()
        else:
            class_scores = np.zeros((len(labels), self.taxonomy.num_classes), dtype=scores.dtype)
            class_scores[np.arange(len(labels)), labels] = scores
        boxes = getattr(kept.bboxes, 'tensor', kept.bboxes)  # mmdet's box types
        return Found(
            image_size=(int(size[0]), int(size[1])),
            boxes=boxes.numpy(),
            scores=scores,
            labels=labels,
            class_scores=class_scores,
            masks=run_lengths_of(np.asarray(kept.masks)) if 'masks' in kept else None,
            names=self.taxonomy.names,
            parents=self.taxonomy.parents,
        )


def taxonomy_of(detector: nn.Module, *, where: str) -> Taxonomy:
    """The classes of a loaded detector: its own, else those of its checkpoint; without a hierarchy, all root classes.

    Raises:
        ConfigError: Neither names any.
    """
    for part in detector.modules():
        if isinstance(getattr(part, 'taxonomy', None), Taxonomy):
            return part.taxonomy
    meta = detector.dataset_meta
    if meta.get('taxonomy'):
        return Taxonomy.from_json(meta['taxonomy'], where=where)
    if not meta.get('classes'):
        raise ConfigError('the checkpoint does not name its classes', where=where, fix='Use one of a training run.')
    return Taxonomy.from_edges([str(label) for label in range(len(meta['classes']))], [], names=meta['classes'])


def decide_by(detector: nn.Module, *, rule: str | None, threshold: float | None) -> None:
    """Changes how a detector chooses the class to name, by a known rule and a threshold in (0, 1]; None stays.

    Raises:
        ConfigError: The model has no such choice.
    """
    if isinstance(detector, TwoLayerEnsemble):
        if rule not in (None, 'back_off'):
            raise ConfigError(f'rule={rule!r} for a two-layer ensemble', fix='It knows back_off alone.')
        if threshold is not None:
            detector.merge_options['decision_threshold'] = threshold
        return
    decisions = [part for part in detector.modules() if isinstance(part, Decision)]
    if not decisions:
        raise ConfigError('the model names one class for each detection, without a rule', fix='Leave the rule out.')
    for decision in decisions:
        decision.rule = rule or decision.rule
        decision.threshold = decision.threshold if threshold is None else threshold
