"""How often each class occurs in a real data set, read from a CSV."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np

from hierseg.errors import AnnotationError
from hierseg.synthetic.outlines import FloatArray
from hierseg.taxonomy import Taxonomy


def read_counts(path: Path, taxonomy: Taxonomy) -> FloatArray:
    """Objects per class, (C,) float64, from a CSV with the columns ``class`` and ``count``.

    Classes that the file leaves out have 0.

    Raises:
        AnnotationError: If the file is missing, lacks a column, repeats a class or has no number.
        TaxonomyError: If the taxonomy has no such class.
    """
    counts = np.zeros(taxonomy.num_classes)
    seen: set[int] = set()
    try:
        file = path.open(newline='', encoding='utf-8-sig')
    except OSError as error:
        raise AnnotationError(f'cannot be read ({error.strerror})', where=str(path)) from None
    with file:
        reader = csv.DictReader(file)
        missing = sorted({'class', 'count'} - set(reader.fieldnames or ()))
        if missing:
            raise AnnotationError(f'no column {missing[0]!r}', where=str(path), fix='The header is "class,count".')
        for row in reader:
            where = f'{path}, line {reader.line_num}'
            label = taxonomy.label(row['class'], where=where)
            if label in seen:
                raise AnnotationError(f'class {row["class"]} occurs twice', where=where, fix='Give it one row.')
            seen.add(label)
            counts[label] = _number(row['count'], where)
    return counts


def _number(text: str | None, where: str) -> float:
    try:
        value = float(text or '')
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise AnnotationError(f'the count is {text!r}', where=where, fix='It is a number, 0 or more.')
    return value
