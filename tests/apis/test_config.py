"""The text of a config: formatted once, and again when the config has changed."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
from mmengine.config import Config
from yapf.yapflib import yapf_api

from hierseg.apis.configs import load_config


def test_text_is_formatted_when_it_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / 'a.py').write_text('model = dict(type="A", depth=50)\nepochs = 3\n')
    config = load_config(tmp_path / 'a.py', work_dir='w')
    text = Config(config.to_dict()).pretty_text
    formatted, original = [], yapf_api.FormatCode
    monkeypatch.setattr(
        yapf_api, 'FormatCode', lambda *words, **options: formatted.append(1) or original(*words, **options)
    )
    assert config.pretty_text == text
    # The runner's copy knows it, too; both change apart.
    other = copy.deepcopy(config)
    assert other.pretty_text == config.pretty_text == text
    assert len(formatted) == 1
    other.model.depth = 101
    assert other.pretty_text == text.replace('depth=50', 'depth=101')
    assert len(formatted) == 2
    assert config.pretty_text == text
    other.dump(tmp_path / 'b.py')
    assert Config.fromfile(tmp_path / 'b.py').model.depth == 101
    assert len(formatted) == 2
