"""Options that several tools share."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from hierseg.arguments import add_config_options

TOOLS = Path(__file__).parents[1] / 'tools'


def test_config_options_are_values_by_dotted_key(capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    add_config_options(parser, of='both configs')
    words = ['--cfg-options', 'model.depth=18', 'steps=[1,2]', 'pairs=[(1,2),(3,4)]', 'name=None']
    assert parser.parse_args(words).cfg_options == {
        'model.depth': 18,
        'steps': [1, 2],
        'pairs': [(1, 2), (3, 4)],
        'name': None,
    }
    assert parser.parse_args([]).cfg_options is None
    parser.print_help()
    assert 'override values of both configs' in capsys.readouterr().out


def test_no_tool_words_them_itself() -> None:
    texts = {path: path.read_text() for path in TOOLS.rglob('*.py')}
    assert [path for path, text in texts.items() if 'DictAction' in text] == []
    assert sum('add_config_options(parser' in text for text in texts.values()) > 5
