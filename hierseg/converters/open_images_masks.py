"""Images and masks from their files, one image at a time; it runs in worker processes.

Nothing is raised here for a bad image or mask: problems are given back in the order of masks, and the caller's verdict
is an error or a line in the summary.

The released masks have one bit a pixel. Rows of such a picture are those of one with eight bits and an eighth of the
width, filters and all, so that under a header that says so OpenCV decodes them without ever making a byte of a pixel.
Masks of eight bits it decodes as they are; whatever else a picture can be goes through Pillow. Mask PNGs lie in folders
or in the official zip archives, which are read without unpacking.

Shape letters: I instances of an image, H height and W width of a mask, S = ⌈W / 8⌉ bytes of a row, M members of all
archives.
"""

from __future__ import annotations

import hashlib
import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from os import PathLike
from pathlib import Path
from threading import Lock

import cv2
import numpy as np
import numpy.typing as npt

from hierseg.errors import AnnotationError
from hierseg.formats import BoolArray, FloatArray, IntArray, run_lengths
from hierseg.formats.reading import reading
from hierseg.formats.run_lengths import Mask
from hierseg.limits import MAX_PIXELS, excess
from hierseg.pictures import opened
from hierseg.store.store import ImageRow, Instances

# The first chunk: its length and name, then width, height, depth, colour type, three methods; then its checksum.
SIGNATURE = b'\x89PNG\r\n\x1a\n'
HEADER = struct.Struct('>8sI4sIIBBBBBI')
GREY, NOT_INTERLACED = 0, 0


@dataclass(frozen=True, eq=False)
class PackedMask:
    """A mask of one bit a pixel: (H, S) uint8, the highest bit first; bits behind the last pixel mean nothing."""

    rows: Mask
    width: int

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        return len(self.rows), self.width

    @classmethod
    def of(cls, pixels: Mask) -> PackedMask:
        """From one byte a pixel; every value but 0 is inside."""
        return cls(np.packbits(pixels, axis=1), pixels.shape[1])

    def runs(self) -> IntArray:
        """As ``run_lengths.runs_of``."""
        return run_lengths.runs_of_packed(self.rows, self.width)

    def pixels(self) -> Mask:
        """(H, W) uint8 of 0 and 1."""
        return np.unpackbits(self.rows, axis=1, count=self.width)


def read_mask(content: bytes, *, path: str = '', max_pixels: int = MAX_PIXELS) -> PackedMask:
    """A mask PNG; black is outside, every other value is inside.

    Raises:
        AnnotationError: If the picture is damaged or cut off, or has more than ``max_pixels``; it names the path.
    """
    fix = 'Get the file again.'
    if len(content) >= HEADER.size:
        signature, *_, width, height, depth, colour, _, _, interlace, checksum = HEADER.unpack_from(content)
        simple = signature == SIGNATURE and colour == GREY and interlace == NOT_INTERLACED
        if simple and depth in (1, 8) and b'tRNS' not in content and b'acTL' not in content:
            if checksum != zlib.crc32(content[12:29]):
                raise AnnotationError('the header is damaged', where=path, fix=fix)
            what = excess(height, width, max_pixels)
            if what:
                raise AnnotationError(what, where=path, fix='Leave it out, or raise the limit.')
            if depth == 8:
                return PackedMask.of(_decode(content, (height, width), path))
            row_bytes = -(-width // 8)
            header = content[12:16] + struct.pack('>I', row_bytes) + content[20:24] + b'\x08' + content[25:29]
            as_bytes = content[:12] + header + struct.pack('>I', zlib.crc32(header)) + content[HEADER.size :]
            return PackedMask(_decode(as_bytes, (height, row_bytes), path), width)
    with opened(path, content, formats=('PNG',), max_pixels=max_pixels) as file:
        return PackedMask.of(np.asarray(file if file.mode in ('1', 'L') else file.convert('L')))


def _decode(content: bytes, shape: tuple[int, int], path: str) -> Mask:
    with reading(path, AnnotationError, fix='Get the file again.', also=(cv2.error,)):
        decoded = cv2.imdecode(np.frombuffer(content, dtype=np.uint8), cv2.IMREAD_UNCHANGED)
    if decoded is None or decoded.shape != shape:
        raise AnnotationError('the PNG data is damaged or cut off', where=path, fix='Get the file again.')
    return np.asarray(decoded, dtype=np.uint8)


def most_bytes(max_pixels: int) -> int:
    """The largest file of a mask: two bits a pixel, which none comes near to, and some more."""
    return max_pixels // 4 + (1 << 20)


# The key is eight bytes of a hash of the member's name without folders.
MEMBER = np.dtype([('key', 'u8'), ('archive', 'u2')])
# zipfile keeps some 700 bytes of each member of an open archive; the official ones have 133,000 each.
MEMBERS_AT_ONCE = 300_000
# Other methods unpack to thousands of times as much before anyone can say stop.
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)

Located = tuple[str, Callable[[int], bytes] | None]
"""Where a mask is in words, and how to read that many bytes of it at most; None if it is not there.

Reading raises AnnotationError if the mask is damaged or longer.
"""


def find_zips(paths: Sequence[str | PathLike[str]]) -> list[Path]:
    """The archives: files as they are given, and all ``*.zip`` of folders in the order of their names."""
    found: list[Path] = []
    for path in map(Path, paths):
        inside = sorted(path.glob('*.zip')) if path.is_dir() else [path] if path.is_file() else []
        if not inside:
            what = 'is neither a zip archive nor a folder of *.zip'
            raise AnnotationError(what, where=str(path), fix='Give the archives of the masks.')
        found += inside
    if len({path.resolve() for path in found}) < len(found):
        raise AnnotationError('an archive is given twice', where=', '.join(map(str, found)), fix='Give each once.')
    return found


@dataclass(frozen=True)
class ZipIndex:
    """The archive of every member.

    Attributes:
        members: (M,) of ``MEMBER``, ascending by key; of equal names, the first archive's comes first.
        digests: For each archive its file name and the SHA-256 of its members' names, checksums and sizes.
    """

    members: npt.NDArray[np.void]
    digests: tuple[tuple[str, str], ...]

    @classmethod
    def build(cls, archives: Sequence[Path], pool: Executor | None = None) -> ZipIndex:
        """Lists the archives, each in one process of the pool; AnnotationError if one is damaged."""
        listed = list(pool.map(_list, archives) if pool else map(_list, archives))
        sizes = [len(keys) for keys, _ in listed]
        members = np.empty(sum(sizes), dtype=MEMBER)
        members['key'] = np.concatenate([keys for keys, _ in listed])
        members['archive'] = np.repeat(np.arange(len(archives)), sizes)
        digests = tuple((path.name, digest) for path, (_, digest) in zip(archives, listed, strict=True))
        return cls(members[np.argsort(members['key'], kind='stable')], digests)


def _list(path: Path) -> tuple[npt.NDArray[np.uint64], str]:
    digest = hashlib.sha256()
    with _open_zip(path) as archive:
        infos = _members(archive)
    for info in infos:
        digest.update(f'{info.filename}\0{info.CRC}\0{info.file_size}\n'.encode())
    return np.array([_key(info.filename) for info in infos], dtype=np.uint64), digest.hexdigest()


def _open_zip(path: Path) -> zipfile.ZipFile:
    with reading(path, AnnotationError, what='is no whole zip archive', fix='Get it again.'):
        return zipfile.ZipFile(path)


def _members(archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    # is_dir() fails at an empty name.
    return [info for info in archive.infolist() if info.filename and not info.is_dir()]


def _key(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(_base(name).encode(), digest_size=8).digest(), 'little')


def _base(name: str) -> str:
    return name.rsplit('/', 1)[-1]


class MaskZips:
    """Reads members; it travels to workers as its paths: of archives, and of the saved ``members`` of their index.

    Each worker opens an archive when it needs it. Images are converted in the order of their ids, and the official
    archives go by the first digit of the id: each is opened about once by a worker.
    """

    def __init__(self, archives: Sequence[Path], index: Path) -> None:
        self.archives, self.index = tuple(archives), index
        self._members = np.load(index, mmap_mode='r')
        self._kept: dict[Path, tuple[zipfile.ZipFile, dict[str, zipfile.ZipInfo]]] = {}
        self._lock = Lock()

    def __reduce__(self) -> tuple[Callable[..., MaskZips], tuple[tuple[Path, ...], Path]]:
        return _mask_zips, (self.archives, self.index)

    def locate(self, name: str, image_id: str) -> Located:
        """As of a folder, but neither folders nor the image matter; AnnotationError if no archive can be opened."""
        key = _key(name)
        at = int(np.searchsorted(self._members['key'], np.uint64(key)))
        if at == len(self._members) or int(self._members['key'][at]) != key:
            return name if len(self.archives) > 1 else f'{self.archives[0]}/{name}', None
        path = self.archives[self._members['archive'][at]]
        archive, members = self._open(path)
        info = members.get(_base(name))

        where = f'{path}/{name}'

        def read(most: int) -> bytes:
            if info is None:
                raise AnnotationError('it is not where the directory of the archive says', where=where)
            if info.compress_type not in METHODS:
                what = f'it cannot be unpacked: compression method {info.compress_type}'
                raise AnnotationError(what, where=where, fix='Members are stored or deflated.')
            _check_bytes(info.file_size, most, where)
            # What is packed may be more than the directory says: no more than that and a byte is unpacked.
            with (
                reading(where, AnnotationError, what='it cannot be unpacked', fix='Get the archive again.'),
                archive.open(info) as member,
            ):
                return member.read(info.file_size + 1)

        return where, read

    def _open(self, path: Path) -> tuple[zipfile.ZipFile, dict[str, zipfile.ZipInfo]]:
        """An archive and its members by name, of which the first counts; the ones used least lately are let go."""
        with self._lock:
            found = self._kept.pop(path, None)
            if found is None:
                archive = _open_zip(path)
                found = archive, {_base(info.filename): info for info in reversed(_members(archive))}
            kept = len(found[1])
            for other, (_, members) in reversed(list(self._kept.items())):
                kept += len(members)
                if kept > MEMBERS_AT_ONCE:
                    del self._kept[other]
            self._kept[path] = found
            return found


@lru_cache(maxsize=1)
def _mask_zips(archives: tuple[Path, ...], index: Path) -> MaskZips:
    """One for all the tasks of a worker."""
    return MaskZips(archives, index)


def _check_bytes(size: int, most: int, where: str) -> None:
    if size > most:
        raise AnnotationError(f'it has {size:,} bytes, and a mask at most {most:,}', where=where)


IMAGE_SUFFIX = '.jpg'


class Trouble(Enum):
    """Faults of an image or a mask; the value is the reason in the summary."""

    IMAGE_MISSING = 'images without a file, left out'
    IMAGE_BROKEN = 'images that cannot be read, left out'
    MASK_MISSING = 'masks without a file, kept as box'
    MASK_BROKEN = 'masks that cannot be read, kept as box'
    MASK_EMPTY = 'masks without a pixel, kept as box'


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: with a file, with a row of the mask table (-1 for none), or with both."""

    trouble: Trouble
    image_id: str
    what: str
    path: str = ''
    mask_row: int = -1


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder or leads to one; its own ``is_dir`` fails on a link in a circle."""
    return os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()


@dataclass(frozen=True)
class Folder:
    """Files in one folder, or spread over sub-folders, ``parts``, by the first hex digit of the image id.

    The official archives unpack to such sub-folders (``0`` … ``f``, ``train_0`` …, ``train-masks-0`` …).
    """

    root: str
    parts: tuple[str, ...]

    @classmethod
    def scan(cls, root: str | PathLike[str]) -> Folder:
        """Lists the sub-folders, once for all workers."""
        if not os.path.isdir(root):
            raise AnnotationError('is no folder', where=str(root), fix='Give the folder that holds the files.')
        with os.scandir(root) as entries:
            return cls(str(Path(root)), tuple(sorted(entry.name for entry in entries if _is_folder(entry))))

    def find(self, name: str, image_id: str) -> str | None:
        """The path of a file relative to ``root``, or None; AnnotationError if the folder is not there."""
        parts = (part for part in self.parts if part[-1:].lower() == image_id[:1].lower())
        for candidate in (name, *(os.path.join(part, name) for part in parts)):
            if os.path.isfile(os.path.join(self.root, candidate)):
                return candidate
        if not os.path.isdir(self.root):
            raise AnnotationError('is no folder', where=self.root, fix='All workers must see the same folders.')
        return None

    def locate(self, name: str, image_id: str) -> Located:
        """The path of a file, and how to read it."""
        found = self.find(name, image_id)
        if found is None:
            return os.path.join(self.root, name), None
        path = Path(self.root, found)

        def read(most: int) -> bytes:
            with reading(path, AnnotationError):
                _check_bytes(path.stat().st_size, most, str(path))
                return path.read_bytes()

        return str(path), read


@dataclass(frozen=True, eq=False)
class ImageTask:
    """The table rows of one image.

    Attributes:
        image_id: Its id.
        labels: (I,) int64.
        boxes: (I, 4) float64; xyxy as fractions of the image.
        group_of: (I,) bool.
        annotation_ids: I BoxIDs, '' for none.
        references: I times the mask's PNG path or its encoded text; None without a mask.
        mask_sizes: (I, 2) int64; height and width of an encoded mask, 0 for a path or none.
        mask_rows: (I,) int64; row of the mask table, -1 for none.
        has_box: (I,) bool; off for a mask that found no row of the box table.
        positive: Labels verified as present, ascending, each once.
        negative: Labels verified as absent; likewise.
    """

    image_id: str
    labels: IntArray
    boxes: FloatArray
    group_of: BoolArray
    annotation_ids: Sequence[str]
    references: Sequence[str | None]
    mask_sizes: IntArray
    mask_rows: IntArray
    has_box: BoolArray
    positive: IntArray
    negative: IntArray


@dataclass(frozen=True, eq=False)
class ImageResult:
    """An :class:`ImageTask` converted; ``image`` is None if there is no readable image."""

    image: ImageRow | None
    instances: Instances
    problems: tuple[Problem, ...]
    num_resized: int


@dataclass(frozen=True)
class ImageConverter:
    """Opens images and mask PNGs (None if masks are text) where they lie; it travels to the workers.

    Those of more than ``max_pixels`` are a problem, before memory is taken for them.
    """

    images: Folder
    masks: Folder | MaskZips | None
    max_pixels: int = MAX_PIXELS

    def __call__(self, task: ImageTask) -> ImageResult:
        """Converts one image."""
        image = self._image(task.image_id)
        if isinstance(image, Problem):
            return ImageResult(None, Instances.empty(), (image,), 0)
        boxes = task.boxes * np.array([image.width, image.height, image.width, image.height], dtype=np.float64)
        areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        counts = [b''] * len(task.labels)
        problems, num_resized = [], 0
        for i in np.flatnonzero(task.mask_rows >= 0):
            found = self._mask(task, int(i), image)
            if isinstance(found, Problem):
                problems.append(found)
            else:
                counts[i], areas[i], resized = found
                num_resized += resized
        has_mask = np.array([bool(mask) for mask in counts], dtype=bool)
        instances = Instances(task.labels, boxes, counts, has_mask, task.group_of, areas, task.annotation_ids)
        return ImageResult(image, instances, tuple(problems), num_resized)

    def _image(self, image_id: str) -> ImageRow | Problem:
        """Reads the size from the header, which costs microseconds; the pixels are not looked at."""
        name = self.images.find(image_id + IMAGE_SUFFIX, image_id)
        path = os.path.join(self.images.root, name or image_id + IMAGE_SUFFIX)
        if name is None:
            return Problem(Trouble.IMAGE_MISSING, image_id, 'there is no such image', path)
        try:
            with opened(path, max_pixels=self.max_pixels) as file:
                width, height = file.size
        except AnnotationError as error:
            return Problem(Trouble.IMAGE_BROKEN, image_id, f'the image cannot be read: it {error.what}', path)
        return ImageRow(image_id, name, width, height)

    def _mask(self, task: ImageTask, i: int, image: ImageRow) -> tuple[bytes, float, bool] | Problem:
        """Counts at image size, number of pixels, and whether it took resizing; or what is wrong."""
        reference, row = task.references[i] or '', int(task.mask_rows[i])
        if self.masks is None:
            return _mask_of_text(reference, task.mask_sizes[i], image, row)
        path, read = self.masks.locate(reference, task.image_id)
        if read is None:
            return Problem(Trouble.MASK_MISSING, image.id, 'there is no such mask', path, row)
        try:
            mask = read_mask(read(most_bytes(self.max_pixels)), path=path, max_pixels=self.max_pixels)
        except AnnotationError as error:
            return Problem(Trouble.MASK_BROKEN, image.id, f'the mask cannot be read ({error.what})', path, row)
        return _at_image_size(mask, image, Problem(Trouble.MASK_EMPTY, image.id, 'the mask is empty', path, row))


def _mask_of_text(text: str, size: IntArray, image: ImageRow, row: int) -> tuple[bytes, float, bool] | Problem:
    empty = Problem(Trouble.MASK_EMPTY, image.id, 'the mask is empty', mask_row=row)
    if not text:
        return empty
    height, width = size.tolist()
    try:
        counts = run_lengths.counts_of_text(text, height * width)
        area = run_lengths.check_counts(counts, height, width)
    except run_lengths.MalformedMaskError as error:
        return Problem(Trouble.MASK_BROKEN, image.id, f'the mask is malformed: {error}', mask_row=row)
    if (height, width) == (image.height, image.width):
        return (counts, float(area), False) if area else empty
    return _at_image_size(PackedMask.of(run_lengths.mask_of_counts(counts, height, width)), image, empty)


def _at_image_size(mask: PackedMask, image: ImageRow, empty: Problem) -> tuple[bytes, float, bool] | Problem:
    resize = mask.shape != (image.height, image.width)
    if resize:
        mask = PackedMask.of(run_lengths.resize_nearest(mask.pixels(), image.height, image.width))
    runs = mask.runs()
    area = int(runs[1::2].sum())
    return (run_lengths.compress_runs(runs), float(area), resize) if area else empty
