"""The border where files are read: what libraries raise at damaged or hostile content becomes one of our errors."""

from __future__ import annotations

import csv
import lzma
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike

from hierseg.errors import HiersegError, escaped

DAMAGE: tuple[type[Exception], ...] = (
    ValueError,  # of wrong encodings, of JSON, of Arrow, and of numbers with more than 4,300 digits
    OverflowError,
    RecursionError,
    MemoryError,
    EOFError,
    NotImplementedError,
    RuntimeError,  # zipfile's, of encrypted members
    SyntaxError,  # Pillow's, of broken PNG files
    csv.Error,
    struct.error,
    zlib.error,
    lzma.LZMAError,
    zipfile.BadZipFile,
)
LONGEST = 200


@contextmanager
def reading(
    path: str | PathLike[str],
    error: type[HiersegError],
    *,
    what: str = 'cannot be read',
    fix: str = '',
    also: tuple[type[Exception], ...] = (),
) -> Iterator[None]:
    """Turns what is raised at a file that is missing, damaged or hostile into one error.

    The block holds calls of a library alone, so that no fault of ours is taken for one of the file.

    Args:
        path: The file.
        error: To raise.
        what: What is wrong with the file, if the library raises.
        fix: What would be right.
        also: Exceptions of the library beside those of ``DAMAGE``.

    Raises:
        HiersegError: As ``error`` says.
    """
    kinds: tuple[type[Exception], ...] = (OSError, *DAMAGE, *also)
    try:
        yield
    except HiersegError:
        raise
    except kinds as fault:
        if isinstance(fault, OSError) and fault.strerror:
            what = 'cannot be read'
        raise error(f'{what} ({reason_of(fault)})', where=str(path), fix=fix) from None


def reason_of(fault: BaseException) -> str:
    """The message of a foreign exception, in one short line without control characters."""
    if isinstance(fault, RecursionError):
        return 'it is nested too deeply'
    if isinstance(fault, MemoryError):
        return 'it does not fit into memory'
    text = (isinstance(fault, OSError) and fault.strerror) or str(fault) or type(fault).__name__
    if 'set_int_max_str_digits' in text:
        return 'a number has more than 4,300 digits'
    return printable(' '.join(text.split()))


def shown(value: object, length: int = 60) -> str:
    """The beginning of a value's ``repr``, for messages; nesting may be too deep for ``repr`` itself."""
    try:
        return repr(value)[:length]
    except RecursionError:
        return f'a deeply nested {type(value).__name__}'


def printable(text: str, length: int = LONGEST) -> str:
    """The beginning of a text of a file, with escapes in place of what would act on a terminal."""
    return escaped(text[:length])


def leaves_folder(name: str) -> bool:
    """True for a path that may leave the folder that it is relative to: absolute, or with a step upwards."""
    parts = name.replace('\\', '/').split('/')
    return '..' in parts or '\0' in name or parts[0] == '' or parts[0].endswith(':')
