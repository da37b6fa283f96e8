"""Which images the tables of a split name, for some classes or for all."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from hierseg.errors import AnnotationError, TaxonomyError
from hierseg.taxonomy import read_taxonomy
from hierseg.taxonomy.draft import AnyPath, parse_class_list, read_text

BLOCK_BYTES = 1 << 24
IMAGE_ID = re.compile('[0-9a-f]{16}')


def class_ids(names: Sequence[str], *, hierarchy: AnyPath, classes: AnyPath) -> frozenset[str]:
    """The ids of classes and of all their descendants.

    Args:
        names: Names or ids; without any, all classes of the hierarchy.
        hierarchy: Any taxonomy file, whose classes are ids or names of the list. Part edges are ignored.
        classes: Class descriptions (``id,name``). It may have classes that the hierarchy lacks.

    Raises:
        TaxonomyError: If a file is not what it should be, or nobody knows a class of that name.
    """
    taxonomy = read_taxonomy(hierarchy, ignore_parts=True)
    class_list = parse_class_list(read_text(classes), where=str(classes))
    ids = [class_list.find(known, where=str(hierarchy)) or known for known in taxonomy.ids]
    if not names:
        return frozenset(ids)
    wanted: set[str] = set()
    for name in names:
        found = class_list.find(name, where='--classes') or (name if name in ids else None)
        if found is None:
            close = difflib.get_close_matches(name, class_list.names, n=3)
            raise TaxonomyError(
                f'no class is called {name!r}',
                where=str(classes),
                fix=f'Is it {" or ".join(map(repr, close))}?' if close else 'Give names or ids of that list.',
            )
        wanted.add(found)
        for label in [label for label, class_id in enumerate(ids) if class_id == found]:
            wanted |= {ids[below] for below in taxonomy.descendants(label)}
    return frozenset(wanted)


def image_ids(tables: Iterable[Path], *, classes: Collection[str] | None) -> list[str]:
    """The images that any of the tables names, ascending.

    Args:
        tables: CSV files with the columns ImageID and LabelName; read a block at a time.
        classes: Only rows of these classes; None for all rows.

    Raises:
        AnnotationError: If a file is no such table, or names an image by something other than 16 hex digits.
    """
    wanted = None if classes is None else pa.array(sorted(classes), pa.string())
    found: set[str] = set()
    for path in tables:
        found.update(_ids_in(path, wanted))
    return sorted(found)


def _ids_in(path: Path, wanted: pa.Array | None) -> set[str]:
    columns = {'ImageID': pa.string(), 'LabelName': pa.string()}
    found: set[str] = set()
    try:
        with pa.csv.open_csv(
            str(path),
            read_options=pa.csv.ReadOptions(block_size=BLOCK_BYTES),
            convert_options=pa.csv.ConvertOptions(include_columns=list(columns), column_types=columns),
        ) as reader:
            for batch in reader:
                ids = batch['ImageID']
                if wanted is not None:
                    ids = ids.filter(pc.is_in(batch['LabelName'], value_set=wanted))
                found.update(pc.unique(ids).to_pylist())
    except (OSError, pa.ArrowException) as error:
        raise AnnotationError(
            f'cannot be read as a table ({error})', where=str(path), fix='Remove it, and it is fetched again.'
        ) from None
    for image_id in found:
        # It becomes a path and an address.
        if not IMAGE_ID.fullmatch(image_id):
            raise AnnotationError(
                f'image {image_id!r} is not named by 16 hex digits', where=str(path), fix='Give the official file.'
            )
    return found


def sample(ids: Sequence[str], count: int, *, seed: int) -> list[str]:
    """Some of the ids, ascending; a smaller sample with the same seed is part of a larger one."""
    order = np.random.default_rng(seed).permutation(len(ids))
    return sorted(ids[position] for position in order[:count])
