"""An exported model, run by ONNX Runtime. Shape letters: H, W a picture, C classes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from os import PathLike
from typing import Any, overload

import numpy as np
import onnxruntime

from hierseg.deploy.identity import FIX, check_seal, read_settings
from hierseg.deploy.masks import run_lengths_in_boxes
from hierseg.deploy.naming import Classes
from hierseg.deploy.pictures import Picture, batched, fitted_size, resize
from hierseg.errors import AnnotationError, ConfigError
from hierseg.found import Found

INPUTS = ('images', 'sizes')
OUTPUTS = ('image', 'boxes', 'class_scores', 'mask_logits')
PROVIDERS = ('CUDAExecutionProvider', 'CPUExecutionProvider')


def load_model(
    path: str | PathLike[str], *, providers: Sequence[str] | None = None, threads: int | None = None
) -> ExportedModel:
    """Opens a file of ``hierseg export``.

    Args:
        path: The file.
        providers: ONNX Runtime's, the preferred one first; the first GPU, where it can use one, and the processor.
        threads: On the processor; all cores when omitted.

    Raises:
        ConfigError: The file does not exist, or is no such export.
    """
    if not os.path.isfile(path):
        raise ConfigError('the model does not exist', where=str(path), fix='Name a file of hierseg export.')
    check_seal(str(path))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    chosen = list(providers or [name for name in PROVIDERS if name in onnxruntime.get_available_providers()])
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=chosen)
    except Exception as error:  # of ONNX Runtime's own classes, which it does not export
        reason = str(error).partition('\n')[0]
        raise ConfigError(
            f'the model cannot be opened: {reason}', where=str(path), fix='Name a file of hierseg export.'
        ) from error
    return ExportedModel(session, where=str(path))


class ExportedModel:
    """A network, called on pictures, with all that its file says about it. :func:`load_model` makes one.

    Attributes:
        settings: The file's metadata by name; docs/export.md explains each.
        names, parents: Of the C classes; the parents are labels, the preferred one first.
        rule: Name of the rule that names a class: ``back_off``, ``leaf`` or ``distance``.
    """

    def __init__(self, session: onnxruntime.InferenceSession, *, where: str) -> None:
        self.settings = read_settings(session.get_modelmeta().custom_metadata_map, where)
        given = [value.name for value in session.get_inputs()], [value.name for value in session.get_outputs()]
        if set(given[0]) != set(INPUTS) or not set(given[1]) >= set(OUTPUTS):
            what = f'the graph has the inputs {given[0]} and outputs {given[1]}'
            raise ConfigError(what, where=where, fix=FIX)
        self.session, self._where = session, where
        classes = self.settings['taxonomy']['classes']
        label_of = {entry['id']: label for label, entry in enumerate(classes)}
        self.names = tuple(entry['name'] for entry in classes)
        self.parents = tuple(tuple(label_of[parent] for parent in entry['parents']) for entry in classes)
        decision = self.settings['decision']
        self.rule: str = decision['rule']
        self._options = {name: decision[name] for name in ('threshold', 'relative') if self.rule == 'back_off'}
        self._choose = getattr(Classes(self.parents), self.rule)

    @overload
    def __call__(self, images: Picture, *, batch_size: int = 1) -> Found: ...
    @overload
    def __call__(self, images: Sequence[Picture], *, batch_size: int = 1) -> list[Found]: ...
    def __call__(self, images: Picture | Sequence[Picture], *, batch_size: int = 1) -> Found | list[Found]:
        """What is found on a picture, (H, W, 3) uint8 RGB, or on each of a list.

        Pictures that the network sees at once, ``batch_size`` of them, are padded to one size, by which probabilities
        change a little.

        Raises:
            AnnotationError: An array is no such picture.
            ConfigError: The graph fails, or gives what no detections are.
        """
        pictures = [images] if isinstance(images, np.ndarray) else list(images)
        for number, array in enumerate(map(np.asarray, pictures)):
            if array.ndim != 3 or array.shape[-1] != 3 or not array.size or array.dtype != np.uint8:
                what = f'is no RGB picture but {array.dtype} of shape {array.shape}'
                raise AnnotationError(what, where=f'image {number}', fix='Give uint8 of shape (height, width, 3).')
        batches = (pictures[start : start + batch_size] for start in range(0, len(pictures), batch_size))
        found = [one for batch in batches for one in self._find(batch)]
        return found[0] if isinstance(images, np.ndarray) else found

    def inputs(self, pictures: Sequence[Picture]) -> tuple[dict[str, Any], list[tuple[int, int]]]:
        """Pictures as the network takes them, and the height and width of each in there."""
        sizes = [fitted_size(picture.shape[0], picture.shape[1], self.settings['input_size']) for picture in pictures]
        small = [resize(picture, *size) for picture, size in zip(pictures, sizes, strict=True)]
        images = batched(small, self.settings['padding'], self.settings['size_divisor'])
        return {'images': images, 'sizes': np.array(sizes, dtype=np.float32)}, sizes

    def _run(self, inputs: dict[str, Any]) -> list[Any]:
        try:
            outputs: list[Any] = self.session.run(OUTPUTS, inputs)
        except Exception as error:  # of ONNX Runtime's own classes, which it does not export
            reason = str(error).partition('\n')[0]
            raise ConfigError(f'the model cannot be run: {reason}', where=self._where, fix=FIX) from error
        image_of, boxes, claimed, logits = outputs
        count = image_of.size
        shapes = image_of.shape, boxes.shape, claimed.shape, (*logits.shape[:1], logits.ndim)
        if shapes != ((count,), (count, 4), (count, len(self.names)), (count, 3)):
            what = (
                f'the model gives arrays of shapes {[output.shape for output in outputs]} for {len(self.names)} classes'
            )
            raise ConfigError(what, where=self._where, fix=FIX)
        return outputs

    def _find(self, pictures: Sequence[Picture]) -> list[Found]:
        inputs, sizes = self.inputs(pictures)
        image_of, *outputs = self._run(inputs)
        found, stride, threshold = [], self.settings['mask_stride'], self.settings['mask_threshold']
        for number, (picture, size) in enumerate(zip(pictures, sizes, strict=True)):
            height, width = picture.shape[:2]
            down, across = size[0] / height, size[1] / width
            boxes, claimed, logits = (output[image_of == number] for output in outputs)
            boxes = boxes * np.array([1 / across, 1 / down] * 2, dtype=np.float32)
            steps = (stride / across, stride / down)
            masks = run_lengths_in_boxes(logits, boxes, (height, width), steps=steps, threshold=threshold)
            labels = self._choose(claimed, **self._options)
            scores = claimed[np.arange(len(labels)), labels]
            found.append(Found((height, width), boxes, scores, labels, claimed, masks, self.names, self.parents))
        return found
