"""An exported model, run by ONNX Runtime: pictures in, :class:`~hierseg.found.Found` out.

Shape letters: B images, M detections of an image, C classes, H, W a picture.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any, overload

import numpy as np
import onnxruntime

from hierseg.deploy.masks import run_lengths_in_boxes
from hierseg.deploy.naming import Classes, FloatArray
from hierseg.deploy.pictures import Picture, batched, fitted_size, resize
from hierseg.errors import AnnotationError, ConfigError
from hierseg.found import Found

VERSION = 1
PREFIX = 'hierseg.'
"""Of the names of what an export says about itself, each a document of JSON in the file's metadata."""

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
        ConfigError: The file does not exist, is no ONNX model, or no such export.
    """
    if not Path(path).is_file():
        raise ConfigError('the model does not exist', where=str(path), fix='Check the path.')
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    available = onnxruntime.get_available_providers()
    chosen = providers or [provider for provider in PROVIDERS if provider in available]
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=list(chosen))
    except Exception as error:  # of ONNX Runtime's own classes, which it does not export
        reason = str(error).partition('\n')[0]
        raise ConfigError(f'the model cannot be opened: {reason}', where=str(path), fix='Export it anew.') from error
    return ExportedModel(session, where=str(path))


class ExportedModel:
    """A network with all that its file says about it: ``settings``, the metadata.

    Args:
        session: The open file.
        where: Its name, for errors.

    Attributes:
        names: Of the C classes.
        parents: Labels of the parents of each class, the preferred one first.
        rule: Name of the rule that names a class: ``back_off``, ``leaf`` or ``distance``.

    Raises:
        ConfigError: The file is no export of hierseg, or one of another version.
    """

    def __init__(self, session: onnxruntime.InferenceSession, *, where: str) -> None:
        found = session.get_modelmeta().custom_metadata_map
        self.settings: dict[str, Any] = {
            name.removeprefix(PREFIX): json.loads(text) for name, text in found.items() if name.startswith(PREFIX)
        }
        if self.settings.get('version') != VERSION:
            raise ConfigError(
                f'expected an export of version {VERSION}, found {self.settings.get("version", "none")}',
                where=where,
                fix='Make it with hierseg export, of the hierseg that is installed here.',
            )
        self.session = session
        classes = self.settings['taxonomy']['classes']
        label_of = {entry['id']: label for label, entry in enumerate(classes)}
        self.names = tuple(entry['name'] for entry in classes)
        self.parents = tuple(tuple(label_of[parent] for parent in entry['parents']) for entry in classes)
        options = dict(self.settings['decision'])
        self.rule: str = options.pop('rule')
        self._options = options if self.rule == 'back_off' else {}
        self._choose = getattr(Classes(self.parents), self.rule)

    @overload
    def __call__(self, images: Picture, *, batch_size: int = 1) -> Found: ...
    @overload
    def __call__(self, images: Sequence[Picture], *, batch_size: int = 1) -> list[Found]: ...
    def __call__(self, images: Picture | Sequence[Picture], *, batch_size: int = 1) -> Found | list[Found]:
        """Finds objects.

        Args:
            images: A picture, (H, W, 3) uint8 RGB, or a list of such.
            batch_size: Pictures of a list that the network sees at once. They are padded to one size, by which
                probabilities change a little.

        Returns:
            What was found on the picture, or on each of the list.

        Raises:
            AnnotationError: An array is no such picture.
        """
        pictures = [images] if isinstance(images, np.ndarray) else list(images)
        for number, picture in enumerate(pictures):
            array = np.asarray(picture)
            if array.ndim != 3 or array.shape[-1] != 3 or not array.size or array.dtype != np.uint8:
                raise AnnotationError(
                    f'is no RGB picture but {array.dtype} of shape {array.shape}',
                    where=f'image {number}',
                    fix='Give an array of uint8 of shape (height, width, 3).',
                )
        found = [
            one
            for start in range(0, len(pictures), batch_size)
            for one in self._find(pictures[start : start + batch_size])
        ]
        return found[0] if isinstance(images, np.ndarray) else found

    def inputs(self, pictures: Sequence[Picture]) -> tuple[dict[str, FloatArray], list[tuple[int, int]]]:
        """Pictures as the network takes them, and the height and width of each in there."""
        settings = self.settings
        sizes = [fitted_size(picture.shape[0], picture.shape[1], settings['input_size']) for picture in pictures]
        small = [resize(picture, *size) for picture, size in zip(pictures, sizes, strict=True)]
        images = batched(small, settings['padding'], settings['size_divisor'])
        return {'images': images, 'sizes': np.array(sizes, dtype=np.float32)}, sizes

    def _find(self, pictures: Sequence[Picture]) -> list[Found]:
        """What is on the pictures of a batch."""
        inputs, sizes = self.inputs(pictures)
        image_of, boxes, class_scores, logits = self.session.run(OUTPUTS, inputs)
        found = []
        for number, (picture, size) in enumerate(zip(pictures, sizes, strict=True)):
            rows = image_of == number
            found.append(self._named(picture, size, boxes[rows], class_scores[rows], logits[rows]))
        return found

    def _named(
        self, picture: Picture, size: tuple[int, int], boxes: FloatArray, class_scores: FloatArray, logits: FloatArray
    ) -> Found:
        """Detections of one picture from what the network says in its own pixels."""
        height, width = picture.shape[:2]
        down, across = size[0] / height, size[1] / width
        boxes = boxes * np.array([1 / across, 1 / down] * 2, dtype=np.float32)
        labels = self._choose(class_scores, **self._options)
        stride = self.settings['mask_stride']
        masks = run_lengths_in_boxes(
            logits,
            boxes,
            (height, width),
            steps=(stride / across, stride / down),
            threshold=self.settings['mask_threshold'],
        )
        scores = class_scores[np.arange(len(labels)), labels]
        return Found((height, width), boxes, scores, labels, class_scores, masks, self.names, self.parents)
