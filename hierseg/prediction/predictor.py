"""A model that is called on pictures, whichever program runs it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from os import PathLike, fspath
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from hierseg.errors import ConfigError
from hierseg.found import Found
from hierseg.limits import MAX_PIXELS
from hierseg.pictures import Orientation
from hierseg.prediction.inputs import Shot, Video, expand, holds_several, is_moving, read_shot

EXPORTED = '.onnx'
PROVIDERS = {'cpu': ['CPUExecutionProvider'], 'cuda': ['CUDAExecutionProvider', 'CPUExecutionProvider']}


class Finder(Protocol):
    """What runs a model: RGB pictures (H, W, 3) uint8 in, the detections of each with at least this score out."""

    def __call__(self, images: Sequence[npt.NDArray[np.uint8]], *, score_thr: float) -> list[Found]:
        """Computes them together."""


def load_model(
    config: str | PathLike[str],
    checkpoint: str | PathLike[str] | None = None,
    *,
    device: str | None = None,
    score_thr: float = 0.3,
    rule: str | None = None,
    threshold: float | None = None,
    batch_size: int = 1,
    orientation: Orientation = 'turned',
    max_pixels: int = MAX_PIXELS,
    options: Mapping[str, Any] | None = None,
) -> Predictor:
    """Loads a trained or exported model, ready to be called on pictures.

    Args:
        config: The config that the model was trained with; or an exported model, ``.onnx``.
        checkpoint: Its weights, a file or an address; none for an exported model.
        device: Such as ``cuda:0`` or ``cpu``; the first GPU, or the CPU without one, if omitted.
        score_thr: Detections whose class has a lower probability are left out; 0 keeps all that the model gives.
        rule: How the class to name is chosen: ``back_off``, ``leaf`` or ``distance``; the config's if omitted.
        threshold: What ``back_off`` needs of the root's probability, in (0, 1]; the config's if omitted.
        batch_size: Pictures that are computed together, where so many of one size follow each other.
        orientation: Pictures as EXIF data ``turned`` them for people, or as they are ``stored``, which is how Open
            Images counts pixels.
        max_pixels: Of an image file or a frame; larger ones are refused before memory is taken for them.
        options: Values by dotted key that override the config's.

    Raises:
        ConfigError: A file does not exist or cannot be read, checkpoint and config do not fit, or an option is out of
            range.
    """
    if not batch_size >= 1:
        raise ConfigError(f'batch_size={batch_size}', fix='Compute one picture or more at a time.')
    if orientation not in ('turned', 'stored'):
        raise ConfigError(f'orientation={orientation!r}', fix='Use turned or stored.')
    if fspath(config).endswith(EXPORTED):
        finder = _exported(fspath(config), checkpoint, device, rule, threshold, options)
    elif checkpoint is None:
        raise ConfigError('a config alone has no weights', where=fspath(config), fix='Name the checkpoint behind it.')
    else:
        from hierseg.apis.trained import TrainedModel

        finder = TrainedModel(
            config, fspath(checkpoint), device=device, rule=rule, threshold=threshold, options=options
        )
    return Predictor(finder, score_thr=score_thr, batch_size=batch_size, orientation=orientation, max_pixels=max_pixels)


def _exported(
    path: str, checkpoint: Any, device: str | None, rule: str | None, threshold: float | None, options: Any
) -> Finder:
    """An exported model, which has weights, rule and input size inside; a threshold of ``back_off`` may be changed."""
    kind = (device or 'cpu').partition(':')[0]
    if checkpoint is not None or options or rule not in (None, 'back_off') or kind not in PROVIDERS:
        raise ConfigError(
            'an exported model has its weights, its config and its rule inside',
            where=path,
            fix='Give it alone, with device=cpu or cuda and a threshold if need be; or export it with other options.',
        )
    if threshold is not None and not 0 < threshold <= 1:
        raise ConfigError(f'threshold={threshold!r}', fix='Give one in (0, 1].')
    try:
        from hierseg import deploy
    except ModuleNotFoundError as error:
        what = f'{error.name} is not installed, which runs exported models'
        raise ConfigError(what, where=path, fix="pip install 'hierseg[deploy]'") from error
    model = deploy.load_model(path, providers=None if device is None else PROVIDERS[kind])
    changed = 0.5 if threshold is None and rule is not None and model.rule != rule else threshold

    def find(images: Sequence[npt.NDArray[np.uint8]], *, score_thr: float) -> list[Found]:
        results = model(list(images), batch_size=len(images))
        if changed is not None:
            results = [found.back_off(changed) for found in results]
        return [found[found.scores >= score_thr] for found in results]

    return find


class Predictor:
    """A model that is called on pictures. :func:`load_model` makes one; arguments are its.

    Called on one picture (a path, an (H, W, 3) uint8 array with the channels red, green, blue, or an image of Pillow),
    it gives a :class:`~hierseg.found.Found`; on a list of pictures, a folder or a pattern such as ``'a/*.jpg'``, a list
    of them; on a video or ``'camera:0'``, an iterator, a Found for each frame as it is read.
    """

    def __init__(
        self,
        finder: Finder,
        *,
        score_thr: float = 0.3,
        batch_size: int = 1,
        orientation: Orientation = 'turned',
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        self.finder, self.score_thr, self.batch_size = finder, score_thr, batch_size
        self.orientation, self.max_pixels = orientation, max_pixels

    def __call__(
        self, inputs: Any, *, score_thr: float | None = None, batch_size: int | None = None
    ) -> Found | list[Found] | Iterator[Found]:
        """The detections of pictures; ``score_thr`` and ``batch_size`` instead of the model's own, if given.

        Raises:
            ConfigError: An input does not exist or is none, or a video is in a list.
            AnnotationError: A file is no readable image or video, or has more than ``max_pixels``.
        """
        if isinstance(inputs, (str, PathLike)):
            name = fspath(inputs)
            if is_moving(name):
                video = Video(*expand([name]), max_pixels=self.max_pixels)
                return self.stream(video, score_thr=score_thr, batch_size=batch_size)
            if not holds_several(name):
                return self([name], score_thr=score_thr)[0]  # type: ignore[index]
            inputs = expand([name])
        elif not isinstance(inputs, (list, tuple)):
            return self([inputs], score_thr=score_thr)[0]  # type: ignore[index]
        for given in inputs:
            if isinstance(given, (str, PathLike)) and (is_moving(fspath(given)) or holds_several(fspath(given))):
                what = 'a list holds images; this is a video, a camera or a folder'
                raise ConfigError(what, where=fspath(given), fix='Call the model on it alone.')
        shots = (read_shot(given, self.orientation, max_pixels=self.max_pixels) for given in inputs)
        return list(self.stream(shots, score_thr=score_thr, batch_size=batch_size))

    def stream(
        self, shots: Iterable[Shot], *, score_thr: float | None = None, batch_size: int | None = None
    ) -> Iterator[Found]:
        """The detections of shots, as they are read, a batch at a time; each knows where its picture came from."""
        lowest, size = self.score_thr if score_thr is None else score_thr, batch_size or self.batch_size
        for batch in _batches(shots, size):
            results = self.finder([shot.image for shot in batch], score_thr=lowest)
            for shot, found in zip(batch, results, strict=True):
                # A file can be read again when it is drawn; holding the pictures of a folder would fill the memory.
                is_file = shot.source is not None and shot.frame is None
                yield replace(
                    found,
                    source=shot.source,
                    frame=shot.frame,
                    image=None if is_file else shot.image,
                    orientation=shot.orientation,
                )


def _batches(shots: Iterable[Shot], size: int) -> Iterator[list[Shot]]:
    """Batches of up to ``size`` pictures that follow each other and have one shape.

    Beside a larger one a picture would be padded, which changes what is found on it; so no prediction depends on what
    else is in its batch.
    """
    batch: list[Shot] = []
    for shot in shots:
        if batch and shot.image.shape != batch[0].image.shape:
            yield batch
            batch = []
        batch.append(shot)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
