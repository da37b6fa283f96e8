"""Training: layers one after the other, validation loss, and runs that go on exactly where they were killed."""

from hierseg.engine.atomic_checkpoint import AtomicCheckpointHook
from hierseg.engine.class_count import ClassCountHook
from hierseg.engine.exact_resume import ExactResumeHook
from hierseg.engine.layerwise_loop import Layer, LayerwiseTrainLoop
from hierseg.engine.layerwise_parts import LayerwiseHook, LayerwiseOptimWrapperConstructor
from hierseg.engine.load_from import LoadFromHook
from hierseg.engine.validation_loss import ValidationLossHook

__all__ = [
    'AtomicCheckpointHook',
    'ClassCountHook',
    'ExactResumeHook',
    'Layer',
    'LayerwiseHook',
    'LayerwiseOptimWrapperConstructor',
    'LayerwiseTrainLoop',
    'LoadFromHook',
    'ValidationLossHook',
]
