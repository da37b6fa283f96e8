"""What a user names, as RGB pictures: files, folders, patterns, videos, cameras, arrays and Pillow's images."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from hierseg.errors import AnnotationError, ConfigError
from hierseg.limits import MAX_PIXELS, excess
from hierseg.pictures import Orientation, read_picture

IMAGES = frozenset({'.jpg', '.jpeg', '.png', '.bmp', '.webp', '.tif', '.tiff', '.jp2', '.ppm', '.pgm'})
VIDEOS = frozenset({'.mp4', '.avi', '.mov', '.mkv', '.webm', '.m4v', '.mpg', '.mpeg', '.wmv'})
CAMERA = 'camera:'


@dataclass(frozen=True, eq=False)
class Shot:
    """One picture to look at.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        source: The file or camera; None for an array.
        frame: Number of the frame, from 0; None for an image.
        orientation: How the file was read.
    """

    image: npt.NDArray[np.uint8]
    source: str | None = None
    frame: int | None = None
    orientation: Orientation = 'turned'


def is_moving(name: str) -> bool:
    """Whether a name is that of a video, by its ending, or of a camera: ``camera:0``."""
    return name.startswith(CAMERA) or Path(name).suffix.lower() in VIDEOS


def holds_several(name: str) -> bool:
    """Whether a name is that of a folder or a pattern."""
    return Path(name).is_dir() or (glob.has_magic(name) and not Path(name).exists())


def expand(names: Sequence[str | PathLike[str]]) -> list[str]:
    """The files and cameras that names stand for.

    A folder stands for the images in it and below, in the order of their paths; a pattern such as ``a/*.jpg`` or
    ``a/**/*.png`` for the images and videos that match; ``camera:0`` for a camera; anything else for itself.

    Raises:
        ConfigError: A file does not exist, a folder has no image, a pattern matches nothing, or a camera has no number.
    """
    found: list[str] = []
    for name in map(fspath, names):
        if name.startswith(CAMERA):
            if not name.removeprefix(CAMERA).isdecimal():
                raise ConfigError('a camera is named by its number', where=name, fix='Name the first one camera:0.')
            found.append(name)
        elif Path(name).is_dir():
            files = sorted(str(path) for path in Path(name).rglob('*') if path.suffix.lower() in IMAGES)
            if not files:
                raise ConfigError('the folder has no image', where=name, fix=f'Images end in {_listed(IMAGES)}.')
            found += files
        elif holds_several(name):
            known = IMAGES | VIDEOS
            files = sorted(path for path in glob.glob(name, recursive=True) if Path(path).suffix.lower() in known)
            if not files:
                raise ConfigError('no image or video matches', where=name, fix='Check the pattern.')
            found += files
        elif not Path(name).is_file():
            raise ConfigError('the input does not exist', where=name, fix='Check the path.')
        else:
            found.append(name)
    return found


def read_shot(given: Any, orientation: Orientation, *, max_pixels: int = MAX_PIXELS) -> Shot:
    """A picture of an image file, an (H, W, 3) uint8 RGB array, or an image of Pillow.

    Raises:
        AnnotationError: The file is no readable image, or one of more than ``max_pixels``.
        ConfigError: The file does not exist, or it is something else.
    """
    if isinstance(given, (str, PathLike)):
        try:
            return Shot(read_picture(given, orientation, max_pixels=max_pixels), fspath(given), orientation=orientation)
        except OSError as error:
            what = f'the image cannot be read ({error.strerror})'
            raise ConfigError(what, where=fspath(given), fix='Check the path.') from error
    if isinstance(given, Image.Image):
        upright = ImageOps.exif_transpose(given) if orientation == 'turned' else given
        return Shot(np.asarray(upright.convert('RGB')))
    if isinstance(given, np.ndarray) and given.dtype == np.uint8 and given.ndim == 3 and given.shape[2] == 3:
        return Shot(given)
    kind = f'an array {given.shape} of {given.dtype}' if isinstance(given, np.ndarray) else f'a {type(given).__name__}'
    raise ConfigError(
        f'{kind} is no input',
        fix='Give a path, an (H, W, 3) uint8 array with the channels red, green, blue, an image of Pillow, or a list.',
    )


class Video:
    """The frames of a video or camera, each read once.

    Attributes:
        source: The file or camera.
        fps: Frames a second, as the file says; 25 where it does not.
        count: Frames, as the file says; None where it does not.

    Raises:
        AnnotationError: OpenCV cannot read it, or it says that a frame has more than ``max_pixels``.
    """

    def __init__(self, source: str, *, max_frames: int | None = None, max_pixels: int = MAX_PIXELS) -> None:
        self.source = source
        is_camera = source.startswith(CAMERA)
        self._capture = cv2.VideoCapture(int(source.removeprefix(CAMERA)) if is_camera else source)
        if not self._capture.isOpened():
            what = 'the camera cannot be opened' if is_camera else 'is no readable video'
            raise AnnotationError(what, where=source, fix='Is it connected and free?' if is_camera else '')
        height, width = (int(self._capture.get(side)) for side in (cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FRAME_WIDTH))
        if height * width > 0 and (what := excess(height, width, max_pixels)):
            self._capture.release()
            raise AnnotationError(what, where=source, fix='Leave it out, or raise the limit.')
        self.fps = self._capture.get(cv2.CAP_PROP_FPS) or 25.0
        stated = int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self.count = stated if stated > 0 else None
        self._max_frames = max_frames
        if max_frames is not None:
            self.count = max_frames if self.count is None else min(self.count, max_frames)

    def __iter__(self) -> Iterator[Shot]:
        number = 0
        try:
            while number != self._max_frames:
                there, frame = self._capture.read()
                if not there:
                    return
                yield Shot(np.ascontiguousarray(frame[..., ::-1]), self.source, number)
                number += 1
        finally:
            self._capture.release()


def _listed(endings: frozenset[str]) -> str:
    return ', '.join(sorted(endings))
