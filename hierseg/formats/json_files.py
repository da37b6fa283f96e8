"""JSON files of COCO: read with words on what is wrong, and the ids and numbers in them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, TypeGuard

from hierseg.errors import HiersegError
from hierseg.formats.reading import reading, reason_of, shown


def read_json(path: str | PathLike[str], *, error: type[HiersegError], fix: str) -> Any:
    """The document in a JSON file.

    Args:
        path: The file.
        error: Raised if it cannot be read, is no JSON, repeats a key, or holds half a character.
        fix: The right file, for a document that is none of a sensible depth.

    Raises:
        HiersegError: As ``error`` says.
    """
    with reading(path, error, fix='Check the path.'):
        content = Path(path).read_bytes()
    return parse_json(content, where=str(path), error=error, fix=fix)


def parse_json(text: str | bytes, *, where: str, error: type[HiersegError], fix: str = '') -> Any:
    """The document in a text of JSON; arguments and errors as of :func:`read_json`."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            key = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
            raise error(
                f'the key {shown(key)} stands twice in one object', where=where, fix='Keep the one that is meant.'
            )
        return found

    halves = (b'\\ud', b'\\uD') if isinstance(text, bytes) else ('\\ud', '\\uD')
    try:
        document = json.loads(text, object_pairs_hook=unique)
        if any(text.find(half) >= 0 for half in halves):  # type: ignore[arg-type]
            json.dumps(document, ensure_ascii=False).encode()
    except HiersegError:
        raise
    except RecursionError:
        raise error('is nested too deeply for a file of this kind', where=where, fix=fix) from None
    except UnicodeEncodeError as fault:
        half = repr(fault.object[fault.start])
        raise error(f'holds half of a character ({half})', where=where, fix='Write the file again as UTF-8.') from None
    except json.JSONDecodeError as fault:
        what, fix = f'is not JSON ({fault.msg})', 'Is the file cut off?'
        raise error(what, where=f'{where}, line {fault.lineno}', fix=fix) from None
    except (ValueError, MemoryError) as fault:
        raise error(f'is not JSON ({reason_of(fault)})', where=where, fix='Is the file cut off?') from None
    return document


def key_of(value: object) -> str | None:
    """An id as text: 17, 17.0 and ``'17'`` are the same. None for what can be no id."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value) if isinstance(value, (int, str)) and not isinstance(value, bool) and value != '' else None


def is_number(value: object) -> TypeGuard[float]:
    """True for finite numbers that a float can hold."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -1e300 < value < 1e300


def is_quadruple(value: object) -> TypeGuard[list[float]]:
    """True for a list of four numbers."""
    return isinstance(value, list) and len(value) == 4 and all(map(is_number, value))


def numbers_of(ids: Iterable[str]) -> Sequence[int]:
    """The ids as whole numbers if they are such, each once; 1, 2, 3 … otherwise."""
    texts = list(ids)
    whole = [int(text) for text in texts if is_whole(text)]
    return whole if len(set(whole)) == len(texts) else range(1, len(texts) + 1)


def is_whole(text: str) -> bool:
    """True for the text of a whole number of 64 bits from 0, without zeros in front."""
    return text.isascii() and text.isdecimal() and len(text) < 19 and str(int(text)) == text
