"""hierseg's registries, children of MMDetection's: ``type='hierseg.X'`` in a config finds X here.

MMEngine imports this module by itself when it meets the scope ``hierseg``; the packages named as
locations are imported at the first look-up.
"""

from __future__ import annotations

import mmdet.registry
from mmengine.registry import Registry

DATASETS = Registry('dataset', parent=mmdet.registry.DATASETS, locations=['hierseg.datasets'])
MODELS = Registry('model', parent=mmdet.registry.MODELS, locations=['hierseg.models'])
METRICS = Registry('metric', parent=mmdet.registry.METRICS, locations=['hierseg.evaluation'])
VISUALIZERS = Registry('visualizer', parent=mmdet.registry.VISUALIZERS, locations=['hierseg.report'])
