"""Training: layers one after the other, checkpoints that are whole or not there, and exact resuming.

Hooks and loops are found by their registered names; what a run trains, :func:`trained_parts` tells for any loop.
"""

from hierseg.engine.checkpoints import AtomicCheckpointHook, LoadFromHook
from hierseg.engine.finite import FiniteLossHook
from hierseg.engine.hooks import ClassCountHook, ValidationLossHook
from hierseg.engine.layerwise import LayerwiseHook, LayerwiseOptimWrapperConstructor, LayerwiseTrainLoop, trained_parts
from hierseg.engine.resuming import ExactResumeHook

__all__ = [
    'AtomicCheckpointHook',
    'ClassCountHook',
    'ExactResumeHook',
    'FiniteLossHook',
    'LayerwiseHook',
    'LayerwiseOptimWrapperConstructor',
    'LayerwiseTrainLoop',
    'LoadFromHook',
    'ValidationLossHook',
    'trained_parts',
]
