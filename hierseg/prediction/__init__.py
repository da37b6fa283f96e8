"""Trained and exported models on what people have: images, folders, videos, cameras.

Only what runs the model is imported, and only then: MMDetection for a config and a checkpoint, onnxruntime for an
exported model. ``predictor`` calls the model, ``inputs`` reads, ``outputs`` writes what ``hierseg predict`` leaves.
"""

from hierseg.prediction.outputs import predict
from hierseg.prediction.predictor import Predictor, load_model

__all__ = ['Predictor', 'load_model', 'predict']
