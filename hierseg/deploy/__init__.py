"""Exported models without torch and MMDetection: numpy and ONNX Runtime do everything.

``load_model`` opens a file of ``hierseg export``; what is found has the names and paths that ``tools/test.py`` gives.
"""

from hierseg.deploy.model import ExportedModel, load_model

__all__ = ['ExportedModel', 'load_model']
