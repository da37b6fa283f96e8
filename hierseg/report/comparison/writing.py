"""Writes a comparison: the page, everything it shows as JSON, and the scores as a Markdown table."""

from __future__ import annotations

from pathlib import Path

from hierseg.errors import HiersegError
from hierseg.files import write_atomically, write_json
from hierseg.report.comparison.document import Comparison
from hierseg.report.comparison.numbers import NONE
from hierseg.report.comparison.page import render_page
from hierseg.report.comparison.scores import cost_rows, score_groups

PAGE, RESULTS, TABLE = 'index.html', 'results.json', 'table.md'


def write_comparison(document: Comparison, folder: str | Path) -> Path:
    """Writes ``index.html``, ``results.json`` (all but the pictures) and ``table.md``, each whole or not at all.

    Args:
        document: The comparison.
        folder: Is made if need be.

    Returns:
        The page.

    Raises:
        HiersegError: If a file cannot be written.
    """
    folder = Path(folder)
    page, table = render_page(document), scores_table(document)
    try:
        write_atomically(table.encode('utf-8'), folder / TABLE)
        write_json(document.to_json(), folder / RESULTS)
        write_atomically(page.encode('utf-8'), folder / PAGE)
    except OSError as fault:
        raise HiersegError(f'cannot write the comparison ({fault.strerror})', where=str(folder)) from None
    return folder / PAGE


def scores_table(document: Comparison) -> str:
    """Scores and costs in Markdown: a row each, a column for each system and for each difference to the first.

    Where the interval of a difference lies on one side of 0, the better score is bold.
    """
    first, others = document.systems[0], document.systems[1:]
    titles = ['', *(system.name for system in document.systems)]
    titles += [f'{system.name} against {first.name}' for system in others]
    lines = [_line(titles), _line(['---', *['---:'] * (len(titles) - 1)])]
    for group, rows in score_groups(document).items():
        lines.append(_line([f'*{_escaped(group)}*', *[''] * (len(titles) - 1)], escaped=True))
        for row in rows:
            cells = [
                _with_interval(f'**{cell.text}**' if cell.wins else cell.text, cell.interval) for cell in row.cells
            ]
            cells += [_with_interval(cell.text, cell.interval) for cell in row.differences]
            label = f'{row.metric.label} ({row.metric.unit})' if row.metric.unit else row.metric.label
            lines.append(_line([_escaped(label), *cells], escaped=True))
    costs = cost_rows(document)
    if costs:
        lines.append(_line(['*Costs*', *[''] * (len(titles) - 1)], escaped=True))
    for cost_row in costs:
        ratios = [cell.ratio or NONE for cell in cost_row.cells[1:]]
        lines.append(_line([cost_row.label, *(cell.text for cell in cost_row.cells), *ratios]))
    notes = f'In brackets: {document.head.confidence:.0%} intervals by bootstrap over images.'
    if others:
        notes += f' Bold: better than {first.name}, or {first.name} better than all others, where 0 is outside the'
        notes += f' interval of the difference. Multiples of costs are those of {first.name}.'
    return '\n'.join([*lines, '', _escaped(notes), ''])


def _line(cells: list[str], *, escaped: bool = False) -> str:
    return '| ' + ' | '.join(cells if escaped else map(_escaped, cells)) + ' |'


def _escaped(text: str) -> str:
    """Text that means nothing to Markdown and stays in its cell."""
    for character in '\\`*_[]<>|':
        text = text.replace(character, '\\' + character)
    return ' '.join(text.split())


def _with_interval(text: str, interval: str) -> str:
    return f'{text} ({interval})' if interval else text
