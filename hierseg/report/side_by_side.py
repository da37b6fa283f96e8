"""The scores of several systems beside each other."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from terminaltables import AsciiTable

from hierseg.errors import ConfigError

Scores = Mapping[str, float | None]


def read_scores(path: Path) -> dict[str, float | None]:
    """Reads the ``results.json`` that ``tools/test.py`` wrote: metrics by name, null where there is no value.

    Raises:
        ConfigError: The file does not exist, or holds something else.
    """
    fix = 'Name the results.json of a run of tools/test.py.'
    try:
        scores = json.loads(path.read_text(encoding='utf-8'))
    except OSError as error:
        raise ConfigError(f'cannot be read ({error.strerror})', where=str(path), fix=fix) from None
    except ValueError as error:
        raise ConfigError(f'is not JSON ({error})', where=str(path), fix=fix) from None
    if not isinstance(scores, dict) or not all(isinstance(value, float | int | None) for value in scores.values()):
        raise ConfigError('holds no scores by name', where=str(path), fix=fix)
    return scores


def scores_table(systems: Mapping[str, Scores]) -> str:
    """A row for each metric that any system has, a column for each system; a dash where there is no value."""
    metrics = dict.fromkeys(metric for scores in systems.values() for metric in scores)
    rows = [[metric, *(_cell(scores.get(metric)) for scores in systems.values())] for metric in metrics]
    table = AsciiTable([['', *systems], *rows])
    for column in range(1, len(systems) + 1):
        table.justify_columns[column] = 'right'
    return str(table.table)


def _cell(value: float | None) -> str:
    if value is None:
        return '–'
    return f'{value:g}' if float(value).is_integer() and abs(value) > 1 else f'{value:.3f}'
