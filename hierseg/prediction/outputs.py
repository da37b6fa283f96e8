"""What ``hierseg predict`` leaves in a folder: tables of detections, pictures and videos with paths."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import Any, TextIO

import cv2
import numpy as np
from tqdm import tqdm

from hierseg.errors import AnnotationError, ConfigError, HiersegError
from hierseg.files import write_json
from hierseg.found import Found, coco_document
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
        progress: Whether to show a bar.
        **options: What else :func:`~hierseg.prediction.load_model` takes.

    Raises:
        ConfigError: An input does not exist, a format is unknown, ``out`` is a file, or as of
            :func:`~hierseg.prediction.load_model`; nothing was written then.
    """
    unknown = sorted(set(formats) - FORMATS.keys())
    if unknown:
        raise ConfigError(f'unknown format {", ".join(unknown)}', fix=f'Use {", ".join(FORMATS)}.')
    if max_frames is not None and max_frames < 1:
        raise ConfigError(f'max_frames={max_frames}', fix='Look at one frame or more.')
    folder, names = Path(out), expand(inputs)
    if folder.exists() and not folder.is_dir():
        raise ConfigError('the output folder is a file', where=str(out), fix='Name another folder.')
    model = load_model(config, checkpoint, orientation=orientation, **options)
    folder.mkdir(parents=True, exist_ok=True)
    summary = Summary()
    with ExitStack() as stack:
        bar = stack.enter_context(tqdm(total=0, unit='image', disable=None if progress else True))
        shots = Shots(names, orientation, max_frames=max_frames, bar=bar, summary=summary)
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
        bar: tqdm[Any],
        summary: Summary,
    ) -> None:
        self.names, self.orientation, self.max_frames = names, orientation, max_frames
        self.bar, self.summary = bar, summary
        self.fps: dict[str, float] = {}
        bar.total = sum(not is_moving(name) for name in names)

    def __iter__(self) -> Iterator[Shot]:
        for name in self.names:
            try:
                if is_moving(name):
                    yield from self._frames(name)
                else:
                    yield read_shot(name, self.orientation)
            except HiersegError as error:
                self.summary.unreadable.append(str(error))
                self.bar.total -= not is_moving(name)

    def _frames(self, name: str) -> Iterator[Shot]:
        video = Video(name, max_frames=self.max_frames)
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
    """A line of JSON for each image, written at once, so that others can follow."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> JsonLines:
        self._file: TextIO = self.path.open('w', encoding='utf-8')
        return self

    def __exit__(self, *failure: object) -> None:
        self._file.close()

    def add(self, found: Found) -> None:
        """Writes the detections of an image."""
        self._file.write(json.dumps(found.to_json(), ensure_ascii=False, allow_nan=False) + '\n')
        self._file.flush()


class Csv(JsonLines):
    """A row for each detection, the columns of :meth:`Found.to_pandas`."""

    _header = True

    def add(self, found: Found) -> None:
        """Writes the detections of an image."""
        found.to_pandas().to_csv(self._file, index=False, header=self._header, lineterminator='\n')
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
        self._source: str | None = None
        self._video: cv2.VideoWriter | None = None

    def __enter__(self) -> Gallery:
        return self

    def __exit__(self, *failure: object) -> None:
        if self._video is not None:
            self._video.release()

    def add(self, found: Found) -> None:
        """Draws the detections of an image or a frame."""
        if found.frame is None:
            found.draw(self._path('pictures', str(found.source), '.jpg'))
            return
        drawn = found.draw()
        if self._video is None or found.frame == 0:
            self.__exit__()
            path = self._path('videos', str(found.source).replace(CAMERA, 'camera'), '.mp4')
            path.parent.mkdir(exist_ok=True)
            fps = self._shots.fps[str(found.source)]
            self._video = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*'mp4v'), fps, drawn.shape[1::-1])
            if not self._video.isOpened():
                raise ConfigError('OpenCV cannot write the video', where=str(path), fix='Use --no-pictures.')
        self._video.write(np.ascontiguousarray(drawn[..., ::-1]))

    def _path(self, kind: str, source: str, ending: str) -> Path:
        """A file that no input before had."""
        stem, number = Path(source).stem, 1
        path = self.folder / kind / f'{stem}{ending}'
        while path in self._used:
            number += 1
            path = self.folder / kind / f'{stem}_{number}{ending}'
        self._used.add(path)
        return path
