"""The notebook runs, and its committed outputs are what it gives."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from documented import ROOT

nbformat = pytest.importorskip('nbformat')
nbclient = pytest.importorskip('nbclient')
pytest.importorskip('ipykernel')

NOTEBOOK = ROOT / 'docs/notebooks/first_look.ipynb'


@pytest.fixture(scope='module')
def notebook() -> Any:
    return nbformat.read(NOTEBOOK, as_version=4)


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == 'code']


def texts(notebook: Any) -> list[str]:
    """What each cell of code says, without what mmdet prints where it is imported first."""
    said = []
    for cell in code_cells(notebook):
        printed = [output.get('text') or output.get('data', {}).get('text/plain', '') for output in cell.outputs]
        said.append(''.join(text for text in printed if 'Could not import' not in text))
    return said


def pictures(notebook: Any) -> list[int]:
    """Bytes of the picture of each cell of code, 0 without one."""
    return [
        sum(len(data) for output in cell.outputs for kind, data in output.get('data', {}).items() if 'image/' in kind)
        for cell in code_cells(notebook)
    ]


def test_has_ten_cells_and_stays_small(notebook: Any) -> None:
    assert len(code_cells(notebook)) == 10
    assert NOTEBOOK.stat().st_size < 400_000


def test_its_links_lead_somewhere(notebook: Any) -> None:
    prose = '\n'.join(cell.source for cell in notebook.cells if cell.cell_type == 'markdown')
    links = re.findall(r'\]\(([^()\s]+)\)', prose)
    assert links
    assert [link for link in links if not (NOTEBOOK.parent / link).exists()] == []


@pytest.mark.slow
def test_gives_what_is_committed(notebook: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('TMPDIR', str(tmp_path))
    again = nbformat.from_dict(notebook)
    for cell in code_cells(again):
        cell.outputs = []
    nbclient.NotebookClient(again, timeout=600, resources={'metadata': {'path': str(tmp_path)}}).execute()
    assert texts(again) == texts(notebook)
    for drawn, committed in zip(pictures(again), pictures(notebook), strict=True):
        assert drawn == pytest.approx(committed, rel=0.1)  # encoders differ by version
    assert sum(size > 0 for size in pictures(again)) == 3
