"""JSON files of COCO: read with words on what is wrong, and the ids and numbers in them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, NoReturn, TypeGuard

from hierseg.errors import HiersegError


def read_json(path: str | PathLike[str], *, error: type[HiersegError], fix: str) -> Any:
    """The document in a JSON file.

    Args:
        path: The file.
        error: Raised if it cannot be read, is no JSON, repeats a key, or holds half a character.
        fix: The right file, for a document that is none of a sensible depth.

    Raises:
        HiersegError: As ``error`` says.
    """

    def refuse(what: str, right: str) -> NoReturn:
        raise error(what, where=str(path), fix=right)

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            key = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
            refuse(f'the key {key!r} stands twice in one object', 'Keep the one that is meant.')
        return found

    try:
        content = Path(path).read_bytes()
        document = json.loads(content, object_pairs_hook=unique)
        if rb'\ud' in content or rb'\uD' in content:
            json.dumps(document, ensure_ascii=False).encode()
    except OSError as fault:
        refuse(f'cannot be read ({fault.strerror})', 'Check the path.')
    except RecursionError:
        refuse('is nested too deeply to be a COCO file', fix)
    except UnicodeEncodeError as fault:
        refuse(f'holds half of a character ({fault.object[fault.start]!r})', 'Write the file again as UTF-8.')
    except HiersegError:
        raise
    except ValueError as fault:
        refuse(f'is not JSON ({fault})', 'Is the file cut off?')
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
    """True for the text of a whole number from 0, without zeros in front."""
    return text.isascii() and text.isdecimal() and str(int(text)) == text
