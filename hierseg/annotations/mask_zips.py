"""Mask PNGs in the official zip archives, read without unpacking.

``zipfile`` lists an archive once; what is needed to find a member later, 32 bytes of it, lies in a memory-mapped
array that all workers share. Shape letter: M members of all archives.
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
from os import PathLike
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hierseg.errors import AnnotationError

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
