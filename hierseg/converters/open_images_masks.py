"""The part of the conversion that opens files, image by image; it runs in worker processes.

Nothing is raised here for bad input: problems are given back in the order of masks, and the caller's verdict is an
error or a line in the summary. Shape letter: I instances.

Mask PNGs into pixels.

The released masks have one bit a pixel. Rows of such a picture are those of one with eight bits and an eighth of the
width, filters and all, so that under a header that says so OpenCV decodes them without ever making a byte of a pixel.
Masks of eight bits it decodes as they are; whatever else a picture can be goes through Pillow.

Shape letters: H height and W width of a mask, S = ⌈W / 8⌉ bytes of a row.

Mask PNGs in the official zip archives, read without unpacking.

``zipfile`` lists an archive once; what is needed to find a member later, 32 bytes of it, lies in a memory-mapped
array that all workers share. Shape letter: M members of all archives.
"""

from __future__ import annotations

import hashlib
import io
import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from enum import Enum
from os import PathLike
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from hierseg.errors import AnnotationError
from hierseg.formats import BoolArray, FloatArray, IntArray, run_lengths
from hierseg.formats.run_lengths import Mask
from hierseg.store.store import ImageRow, Instances

# The first chunk: its length and name, then width, height, depth, colour type, three methods; then its checksum.
SIGNATURE = b'\x89PNG\r\n\x1a\n'
HEADER = struct.Struct('>8sI4sIIBBBBBI')
GREY, NOT_INTERLACED = 0, 0


@dataclass(frozen=True, eq=False)
class PackedMask:
    """A mask of one bit a pixel.

    Attributes:
        rows: (H, S) uint8; the first pixel is the highest bit, and what is behind the last one means nothing.
        width: W.
    """

    rows: Mask
    width: int

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        return len(self.rows), self.width

    def runs(self) -> IntArray:
        """As ``run_lengths.runs_of``."""
        return run_lengths.runs_of_packed(self.rows, self.width)

    def pixels(self) -> Mask:
        """(H, W) uint8 of 0 and 1."""
        return np.unpackbits(self.rows, axis=1, count=self.width)


@dataclass(frozen=True, eq=False)
class PlainMask:
    """A mask of one byte a pixel.

    Attributes:
        values: (H, W) uint8, 0 outside; every other value is inside.
    """

    values: Mask

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        height, width = self.values.shape
        return height, width

    def runs(self) -> IntArray:
        """As ``run_lengths.runs_of``."""
        return run_lengths.runs_of(self.values)

    def pixels(self) -> Mask:
        """The values."""
        return self.values


def read_mask(content: bytes) -> PackedMask | PlainMask:
    """A mask PNG; black is outside, every other value is inside.

    Raises:
        OSError, ValueError, SyntaxError or EOFError: If the picture is damaged or cut off.
    """
    if len(content) >= HEADER.size:
        signature, *_, width, height, depth, colour, _, _, interlace, checksum = HEADER.unpack_from(content)
        simple = signature == SIGNATURE and colour == GREY and interlace == NOT_INTERLACED
        if simple and depth in (1, 8) and b'tRNS' not in content:
            if checksum != zlib.crc32(content[12 : HEADER.size - 4]):
                raise OSError('the header is damaged')
            if depth == 8:
                return PlainMask(_decode(content, (height, width)))
            row_bytes = -(-width // 8)
            return PackedMask(_decode(_as_bytes(content, row_bytes), (height, row_bytes)), width)
    with Image.open(io.BytesIO(content)) as file:
        pixels = np.asarray(file if file.mode in ('1', 'L') else file.convert('L'))
    return PlainMask(pixels.view(np.uint8))


def _as_bytes(content: bytes, row_bytes: int) -> bytes:
    """A picture of one bit under the header of one of eight bits."""
    header = content[12:16] + struct.pack('>I', row_bytes) + content[20:24] + b'\x08' + content[25 : HEADER.size - 4]
    return content[:12] + header + struct.pack('>I', zlib.crc32(header)) + content[HEADER.size :]


def _decode(content: bytes, shape: tuple[int, int]) -> Mask:
    decoded = cv2.imdecode(np.frombuffer(content, dtype=np.uint8), cv2.IMREAD_UNCHANGED)
    if decoded is None or decoded.shape != shape:
        raise OSError('the PNG data is damaged or cut off')
    return np.asarray(decoded, dtype=np.uint8)


# The key is eight bytes of a hash of the member's name without folders; its header holds the name itself.
MEMBER = np.dtype(
    [('key', 'u8'), ('offset', 'u8'), ('packed', 'u8'), ('crc', 'u4'), ('method', 'u2'), ('archive', 'u2')]
)
# Signature, flags, sizes of name and extra field; what is left out between, the directory says better.
LOCAL_HEADER = struct.Struct('<4s2xH18xHH')
LOCAL_SIGNATURE = b'PK\x03\x04'
ENCRYPTED = 1
USUAL_NAME = 512


def find_zips(paths: Sequence[str | PathLike[str]]) -> list[Path]:
    """The archives: files as they are given, and all ``*.zip`` of folders in the order of their names.

    Raises:
        AnnotationError: If a path does not exist, a folder has none, or one is given twice.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        inside = sorted(path.glob('*.zip')) if path.is_dir() else [path] if path.is_file() else []
        if not inside:
            raise AnnotationError(
                'is neither a zip archive nor a folder of *.zip', where=str(path), fix='Give the archives of the masks.'
            )
        found += inside
    if len({path.resolve() for path in found}) < len(found):
        raise AnnotationError('an archive is given twice', where=', '.join(map(str, found)), fix='Give each once.')
    return found


@dataclass(frozen=True)
class ZipIndex:
    """Where every member of some archives lies.

    Attributes:
        members: (M,) of ``MEMBER``, ascending by key; of equal names, the first archive's comes first.
        digests: For each archive its file name and the SHA-256 of its members' names, checksums and sizes.
    """

    members: npt.NDArray[np.void]
    digests: tuple[tuple[str, str], ...]

    @classmethod
    def build(cls, archives: Sequence[Path], pool: Executor | None = None) -> ZipIndex:
        """Lists the archives, each in one process of the pool.

        Raises:
            AnnotationError: If one is damaged.
        """
        numbers = range(len(archives))
        listed = list(pool.map(_list, archives, numbers) if pool else map(_list, archives, numbers))
        members = np.concatenate([part for part, _ in listed])
        order = np.argsort(members['key'], kind='stable')
        digests = tuple((path.name, digest) for path, (_, digest) in zip(archives, listed, strict=True))
        return cls(members[order], digests)


def _list(path: Path, number: int) -> tuple[npt.NDArray[np.void], str]:
    digest = hashlib.sha256()
    try:
        with zipfile.ZipFile(path) as archive:
            infos = [info for info in archive.infolist() if not info.is_dir()]
    except (zipfile.BadZipFile, OSError, NotImplementedError) as error:
        raise AnnotationError(f'is no whole zip archive ({error})', where=str(path), fix='Get it again.') from None
    members = np.empty(len(infos), dtype=MEMBER)
    for at, info in enumerate(infos):
        digest.update(f'{info.filename}\0{info.CRC}\0{info.file_size}\n'.encode())
        place = (info.header_offset, info.compress_size, info.CRC, info.compress_type)
        members[at] = (_key(info.filename), *place, number)
    return members, digest.hexdigest()


def _key(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(_base(name).encode(), digest_size=8).digest(), 'little')


def _base(name: str) -> str:
    return name.rsplit('/', 1)[-1]


class MaskZips:
    """Reads members; it travels to workers as its paths, and each opens an archive when it first needs it.

    Args:
        archives: In the order of the index.
        index: File of the ``members`` of :class:`ZipIndex`, as ``numpy.save`` writes them.
    """

    def __init__(self, archives: Sequence[Path], index: Path) -> None:
        self.archives, self.index = tuple(archives), index
        self._members = np.load(index, mmap_mode='r')
        self._descriptors: dict[int, int] = {}

    def __reduce__(self) -> tuple[type[MaskZips], tuple[tuple[Path, ...], Path]]:
        return type(self), (self.archives, self.index)

    def __del__(self) -> None:
        for descriptor in getattr(self, '_descriptors', {}).values():
            os.close(descriptor)

    def place(self, name: str) -> str:
        """Where a member would be, in words."""
        return name if len(self.archives) > 1 else f'{self.archives[0]}/{name}'

    def locate(self, name: str, image_id: str) -> tuple[str, Callable[[], bytes]] | None:
        """A member's place in words and how to read it, which raises OSError if it is damaged; None if there is none.

        Args:
            name: Its name; folders do not matter.
            image_id: Not needed here.
        """
        key = _key(name)
        at = int(np.searchsorted(self._members['key'], np.uint64(key)))
        if at == len(self._members) or int(self._members['key'][at]) != key:
            return None
        member = self._members[at]
        return f'{self.archives[member["archive"]]}/{name}', lambda: self._read(name, member)

    def _read(self, name: str, member: np.void) -> bytes:
        number, offset, packed = int(member['archive']), int(member['offset']), int(member['packed'])
        if number not in self._descriptors:
            self._descriptors[number] = os.open(self.archives[number], os.O_RDONLY)
        # Names and extra fields are short, so that one call reads the whole member in nearly all cases.
        block = os.pread(self._descriptors[number], LOCAL_HEADER.size + USUAL_NAME + packed, offset)
        if len(block) < LOCAL_HEADER.size:
            raise OSError('the archive is cut off')
        signature, flags, name_size, extra_size = LOCAL_HEADER.unpack_from(block)
        start = LOCAL_HEADER.size + name_size + extra_size
        stored = block[LOCAL_HEADER.size : LOCAL_HEADER.size + name_size]
        if signature != LOCAL_SIGNATURE or _base(stored.decode('utf-8', 'replace')) != _base(name):
            raise OSError('it is not where the directory of the archive says')
        if flags & ENCRYPTED:
            raise OSError('it is encrypted')
        if start + packed > len(block):
            block = os.pread(self._descriptors[number], start + packed, offset)
        return _unpacked(block[start : start + packed], member)


def _unpacked(packed: bytes, member: np.void) -> bytes:
    if member['method'] == zipfile.ZIP_STORED:
        content = packed
    elif member['method'] == zipfile.ZIP_DEFLATED:
        try:
            content = zlib.decompress(packed, -zlib.MAX_WBITS)
        except zlib.error as error:
            raise OSError(f'it cannot be unpacked: {error}') from None
    else:
        raise OSError(f'it is packed by method {member["method"]}; stored and deflated members can be read')
    if zlib.crc32(content) != member['crc']:
        raise OSError('its checksum is wrong')
    return content


IMAGE_SUFFIX = '.jpg'
# What Pillow raises for damaged files.
UNREADABLE = (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError)


class Trouble(Enum):
    """What can be wrong with an image or a mask; the value is the reason in the summary."""

    IMAGE_MISSING = 'images without a file, left out'
    IMAGE_BROKEN = 'images that cannot be read, left out'
    MASK_MISSING = 'masks without a file, kept as box'
    MASK_BROKEN = 'masks that cannot be read, kept as box'
    MASK_EMPTY = 'masks without a pixel, kept as box'


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        trouble: Of what kind.
        image_id: On which image.
        what: In words.
        path: The file at fault; empty if it is the row of the mask table.
        mask_row: Row of the mask table, -1 if it is the image.
    """

    trouble: Trouble
    image_id: str
    what: str
    path: str = ''
    mask_row: int = -1


@dataclass(frozen=True)
class Folder:
    """Files in one folder, or spread over sub-folders by the first hex digit of the image id.

    The official archives unpack to such sub-folders (``0`` … ``f``, ``train_0`` …, ``train-masks-0`` …).

    Attributes:
        root: The folder.
        parts: Names of its sub-folders, ascending.
    """

    root: str
    parts: tuple[str, ...]

    @classmethod
    def scan(cls, root: Path) -> Folder:
        """Lists the sub-folders, once for all workers."""
        with os.scandir(root) as entries:
            return cls(str(root), tuple(sorted(entry.name for entry in entries if entry.is_dir())))

    def find(self, name: str, image_id: str) -> str | None:
        """The path of a file relative to ``root``, or None."""
        parts = (part for part in self.parts if part[-1:].lower() == image_id[:1].lower())
        for candidate in (name, *(os.path.join(part, name) for part in parts)):
            if os.path.isfile(os.path.join(self.root, candidate)):
                return candidate
        return None

    def place(self, name: str) -> str:
        """Where a file would be."""
        return os.path.join(self.root, name)

    def locate(self, name: str, image_id: str) -> tuple[str, Callable[[], bytes]] | None:
        """The path of a file and how to read it, or None."""
        found = self.find(name, image_id)
        if found is None:
            return None
        path = Path(self.root, found)
        return str(path), path.read_bytes


class MaskSource(Protocol):
    """Where mask PNGs are: a :class:`Folder` or ``MaskZips``."""

    def place(self, name: str) -> str:
        """Where a mask would be, in words."""

    def locate(self, name: str, image_id: str) -> tuple[str, Callable[[], bytes]] | None:
        """Where it is in words, and how to read it; None if it is not there."""


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
    """

    image_id: str
    labels: IntArray
    boxes: FloatArray
    group_of: BoolArray
    annotation_ids: Sequence[str]
    references: Sequence[str | None]
    mask_sizes: IntArray
    mask_rows: IntArray


@dataclass(frozen=True, eq=False)
class ImageResult:
    """What becomes of an :class:`ImageTask`; ``image`` is None if there is no readable image."""

    image_id: str
    image: ImageRow | None
    instances: Instances
    problems: tuple[Problem, ...]
    num_resized: int


@dataclass(frozen=True)
class ImageConverter:
    """Opens images and masks; it travels to the workers.

    Attributes:
        images: Where the images lie.
        masks: Where the mask PNGs lie; None if masks are text.
    """

    images: Folder
    masks: MaskSource | None

    def __call__(self, task: ImageTask) -> ImageResult:
        """Converts one image."""
        image = self._image(task.image_id)
        if isinstance(image, Problem):
            return ImageResult(task.image_id, None, Instances.empty(), (image,), 0)
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
        return ImageResult(task.image_id, image, instances, tuple(problems), num_resized)

    def _image(self, image_id: str) -> ImageRow | Problem:
        """Reads the size from the header, which costs microseconds; the pixels are not looked at."""
        name = self.images.find(image_id + IMAGE_SUFFIX, image_id)
        path = os.path.join(self.images.root, name or image_id + IMAGE_SUFFIX)
        if name is None:
            return Problem(Trouble.IMAGE_MISSING, image_id, 'there is no such image', path)
        try:
            with Image.open(path) as file:
                width, height = file.size
        except UNREADABLE as error:
            return Problem(Trouble.IMAGE_BROKEN, image_id, f'the image cannot be read ({error})', path)
        return ImageRow(image_id, name, width, height)

    def _mask(self, task: ImageTask, i: int, image: ImageRow) -> tuple[bytes, float, bool] | Problem:
        """Counts at image size, number of pixels, and whether it took resizing; or what is wrong."""
        reference, row = task.references[i] or '', int(task.mask_rows[i])
        if self.masks is None:
            return _mask_of_text(reference, task.mask_sizes[i], image, row)
        located = self.masks.locate(reference, task.image_id)
        if located is None:
            place = self.masks.place(reference)
            return Problem(Trouble.MASK_MISSING, image.id, 'there is no such mask', place, row)
        path, read = located
        try:
            mask = read_mask(read())
        except UNREADABLE as error:
            return Problem(Trouble.MASK_BROKEN, image.id, f'the mask cannot be read ({error})', path, row)
        return _at_image_size(mask, image, Problem(Trouble.MASK_EMPTY, image.id, 'the mask is empty', path, row))


def _mask_of_text(text: str, size: IntArray, image: ImageRow, row: int) -> tuple[bytes, float, bool] | Problem:
    empty = Problem(Trouble.MASK_EMPTY, image.id, 'the mask is empty', mask_row=row)
    if not text:
        return empty
    height, width = size.tolist()
    try:
        counts = run_lengths.counts_of_text(text)
        area = run_lengths.check_counts(counts, height, width)
    except run_lengths.MalformedMaskError as error:
        return Problem(Trouble.MASK_BROKEN, image.id, f'the mask is malformed: {error}', mask_row=row)
    if (height, width) == (image.height, image.width):
        return (counts, float(area), False) if area else empty
    return _at_image_size(PlainMask(run_lengths.mask_of_counts(counts, height, width)), image, empty)


def _at_image_size(
    mask: PackedMask | PlainMask, image: ImageRow, empty: Problem
) -> tuple[bytes, float, bool] | Problem:
    resize = mask.shape != (image.height, image.width)
    if resize:
        mask = PlainMask(run_lengths.resize_nearest(mask.pixels(), image.height, image.width))
    runs = mask.runs()
    area = int(runs[1::2].sum())
    return (run_lengths.compress_runs(runs), float(area), resize) if area else empty
