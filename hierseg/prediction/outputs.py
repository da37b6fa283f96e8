"""What ``hierseg predict`` leaves in a folder: tables of detections, pictures and videos with paths."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from hierseg.errors import AnnotationError, ConfigError, HiersegError, OutputError
from hierseg.files import (
    disk_faults,
    free_bytes,
    in_words,
    make_folder,
    output_file,
    output_folder,
    whole_path,
    write_json,
)
from hierseg.found import Found, coco_document
from hierseg.limits import MAX_PIXELS
from hierseg.locks import locked
from hierseg.pictures import Orientation
from hierseg.prediction.inputs import CAMERA, Shot, Video, expand, is_moving, read_shot
from hierseg.prediction.predictor import load_model

FORMATS = {'jsonl': 'found.jsonl', 'coco': 'found.json', 'csv': 'found.csv'}
"""The formats of tables, and the names of their files."""


@dataclass
class Summary:
    """What a prediction did.

    Attributes:
        images: Images and frames that were looked at.
        instances: Detections on them.
        unreadable: Why each input was left out that could not be read.
    """

    images: int = 0
    instances: int = 0
    unreadable: list[str] = field(default_factory=list)


def predict(
    config: str | PathLike[str],
    checkpoint: str | PathLike[str] | None,
    inputs: Sequence[str | PathLike[str]],
    out: str | PathLike[str],
    *,
    formats: Sequence[str] = ('jsonl',),
    pictures: bool = True,
    max_frames: int | None = None,
    orientation: Orientation = 'turned',
    max_pixels: int = MAX_PIXELS,
    progress: bool = True,
    **options: Any,
) -> Summary:
    """Applies a model to files and cameras and writes what it found.

    An input that cannot be read is counted and left out. Ctrl-C ends a camera or the whole run; what was found until
    then is written.

    Args:
        config: As of :func:`~hierseg.prediction.load_model`.
        checkpoint: As of :func:`~hierseg.prediction.load_model`.
        inputs: As of :func:`~hierseg.prediction.inputs.expand`.
        out: Folder of the tables, ``pictures/`` and ``videos/``; made if need be, files in it are replaced.
        formats: Tables to write, of :data:`FORMATS`: ``jsonl``, a line for each image; ``coco``; ``csv``.
        pictures: Whether images and videos are drawn.
        max_frames: Of each video or camera at most so many.
        orientation: As of :func:`~hierseg.prediction.load_model`.
        max_pixels: Of an image or a frame; larger ones count as unreadable.
        progress: Whether to show a bar.
        **options: What else :func:`~hierseg.prediction.load_model` takes.

    Raises:
        ConfigError: An input does not exist, a format is unknown, or as of :func:`~hierseg.prediction.load_model`;
            nothing was written then.
        OutputError: ``out`` is a file or a link to nothing, another run writes there, or the disk is full.
    """
    unknown = sorted(set(formats) - FORMATS.keys())
    if unknown:
        raise ConfigError(f'unknown format {", ".join(unknown)}', fix=f'Use {", ".join(FORMATS)}.')
    if max_frames is not None and max_frames < 1:
        raise ConfigError(f'max_frames={max_frames}', fix='Look at one frame or more.')
    folder, names = output_folder(out), expand(inputs)
    model = load_model(config, checkpoint, orientation=orientation, **options)
    make_folder(folder)
    summary = Summary()
    with ExitStack() as stack:
        stack.enter_context(locked(folder))
        bar = stack.enter_context(tqdm(total=0, unit='image', disable=None if progress else True))
        shots = Shots(names, orientation, max_frames=max_frames, max_pixels=max_pixels, bar=bar, summary=summary)
        tables = [stack.enter_context(TABLES[name](folder / FORMATS[name])) for name in dict.fromkeys(formats)]
        gallery = stack.enter_context(Gallery(folder, shots)) if pictures else None
        try:
            for found in model.stream(shots):
                for table in tables:
                    table.add(found)
                if gallery is not None:
                    gallery.add(found)
                summary.images += 1
                summary.instances += len(found)
                bar.update()
        except KeyboardInterrupt:
            print('stopped', file=sys.stderr)
    return summary


class Shots:
    """Shots of all inputs in turn; those that cannot be read are noted in the summary.

    Attributes:
        fps: Frames a second of each video that was begun.
    """

    def __init__(
        self,
        names: Sequence[str],
        orientation: Orientation,
        *,
        max_frames: int | None,
        max_pixels: int,
        bar: tqdm[Any],
        summary: Summary,
    ) -> None:
        self.names, self.orientation = names, orientation
        self.max_frames, self.max_pixels = max_frames, max_pixels
        self.bar, self.summary = bar, summary
        self.fps: dict[str, float] = {}
        bar.total = sum(not is_moving(name) for name in names)

    def __iter__(self) -> Iterator[Shot]:
        for name in self.names:
            try:
                if is_moving(name):
                    yield from self._frames(name)
                else:
                    yield read_shot(name, self.orientation, max_pixels=self.max_pixels)
            except HiersegError as error:
                self.summary.unreadable.append(str(error))
                self.bar.total -= not is_moving(name)

    def _frames(self, name: str) -> Iterator[Shot]:
        video = Video(name, max_frames=self.max_frames, max_pixels=self.max_pixels)
        self.fps[name] = video.fps
        self.bar.total = None if video.count is None or self.bar.total is None else self.bar.total + video.count
        read = 0
        for shot in video:
            read += 1
            yield shot
        if not read:
            raise AnnotationError('the video has no readable frame', where=name)
        if video.count is not None and read < video.count:
            self.summary.unreadable.append(f'{name}: it says {video.count} frames, {read} could be read')


class JsonLines:
    """A line of JSON for each image, written at once, so that others can follow; of a full disk, whole lines stay."""

    def __init__(self, path: Path) -> None:
        self.path = output_file(path)

    def __enter__(self) -> JsonLines:
        with disk_faults(self.path):
            self._file = self.path.open('wb', buffering=0)
        return self

    def __exit__(self, *failure: object) -> None:
        self._file.close()

    def add(self, found: Found) -> None:
        """Writes the detections of an image."""
        self._write(json.dumps(found.to_json(), ensure_ascii=False, allow_nan=False) + '\n')

    def _write(self, text: str) -> None:
        content, start = memoryview(text.encode('utf-8')), self._file.tell()
        with disk_faults(self.path, needed=len(content)):
            try:
                while content:
                    content = content[self._file.write(content) :]
            except OSError:
                self._file.truncate(start)
                raise


class Csv(JsonLines):
    """A row for each detection, the columns of :meth:`Found.to_pandas`."""

    _header = True

    def add(self, found: Found) -> None:
        """Writes the detections of an image."""
        self._write(found.to_pandas().to_csv(index=False, header=self._header, lineterminator='\n'))
        self._header = False


class Coco:
    """One COCO document, written at the end."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._found: list[Found] = []

    def __enter__(self) -> Coco:
        return self

    def __exit__(self, *failure: object) -> None:
        write_json(coco_document(self._found), self.path)

    def add(self, found: Found) -> None:
        """Keeps the detections of an image."""
        self._found.append(replace(found, image=None))


TABLES: Mapping[str, type[JsonLines | Coco]] = {'jsonl': JsonLines, 'coco': Coco, 'csv': Csv}


class Gallery:
    """Pictures as JPEG files in ``pictures/``, videos as MP4 in ``videos/``, named like what they show."""

    def __init__(self, folder: Path, shots: Shots) -> None:
        self.folder, self._shots = folder, shots
        self._used: set[Path] = set()
        self._film: Film | None = None

    def __enter__(self) -> Gallery:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        film, self._film = self._film, None
        if film is not None:
            film.__exit__(kind, error, traceback)

    def add(self, found: Found) -> None:
        """Draws the detections of an image or a frame."""
        if found.frame is None:
            found.draw(self._path('pictures', str(found.source), '.jpg'))
            return
        drawn = found.draw()
        if self._film is None or found.frame == 0:
            self.__exit__(None, None, None)
            path = self._path('videos', str(found.source).replace(CAMERA, 'camera'), '.mp4')
            make_folder(path.parent)
            film = Film(path, fps=self._shots.fps[str(found.source)], size=(drawn.shape[1], drawn.shape[0]))
            self._film = film.__enter__()
        self._film.add(drawn)

    def _path(self, kind: str, source: str, ending: str) -> Path:
        """A file that no input before had."""
        stem, number = Path(source).stem, 1
        path = self.folder / kind / f'{stem}{ending}'
        while path in self._used:
            number += 1
            path = self.folder / kind / f'{stem}_{number}{ending}'
        self._used.add(path)
        return path


class Film:
    """A video of (H, W, 3) uint8 RGB pictures, which takes its name when it is whole; ``size`` is (W, H)."""

    def __init__(self, path: Path, *, fps: float, size: tuple[int, int]) -> None:
        self.path, self.fps, self.size = path, fps, size
        self._num_frames = 0
        self._stack = ExitStack()

    def __enter__(self) -> Film:
        self._partial = self._stack.enter_context(whole_path(self.path))
        self._writer = cv2.VideoWriter(str(self._partial), cv2.VideoWriter.fourcc(*'mp4v'), self.fps, self.size)
        if not self._writer.isOpened():
            error = ConfigError('OpenCV cannot write the video', where=str(self.path), fix='Use --no-pictures.')
            self._stack.__exit__(type(error), error, None)
            raise error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._writer.release()
        if error is not None:
            self._stack.__exit__(kind, error, traceback)
            return
        with self._stack:
            # OpenCV does not tell what it could not write.
            whole = cv2.VideoCapture(str(self._partial))
            num_frames = int(whole.get(cv2.CAP_PROP_FRAME_COUNT))
            whole.release()
            if num_frames < self._num_frames:
                what = f'only {max(num_frames, 0)} of {self._num_frames} frames could be written'
                fix = f'{in_words(free_bytes(self.path))} are free there; make room, or use --no-pictures.'
                raise OutputError(what, where=str(self.path), fix=fix)

    def add(self, picture: npt.NDArray[np.uint8]) -> None:
        """Writes a frame."""
        self._writer.write(np.ascontiguousarray(picture[..., ::-1]))
        self._num_frames += 1
