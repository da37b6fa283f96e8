"""Files that are whole or not there."""

from __future__ import annotations

import json
import os

import pytest

from hierseg.errors import EvaluationError, TaxonomyError
from hierseg.files import describe_machine, write_json


class TestWriting:
    def test_leaves_nothing_beside_the_file(self, tmp_path):
        write_json({'a': 'ä'}, tmp_path / 'out.json')
        write_json({'a': 'ö'}, tmp_path / 'out.json')
        assert [path.name for path in tmp_path.iterdir()] == ['out.json']
        assert json.loads((tmp_path / 'out.json').read_text(encoding='utf-8')) == {'a': 'ö'}

    def test_a_failed_write_keeps_what_was_there(self, tmp_path):
        write_json({'a': 1}, tmp_path / 'out.json')
        with pytest.raises(TypeError):
            write_json({'a': object()}, tmp_path / 'out.json')
        assert [path.name for path in tmp_path.iterdir()] == ['out.json']
        assert json.loads((tmp_path / 'out.json').read_text()) == {'a': 1}

    def test_a_folder_that_is_not_there(self, tmp_path):
        with pytest.raises(TaxonomyError, match=r'cannot write the file \(No such file'):
            write_json({}, tmp_path / 'none' / 'out.json', error=TaxonomyError)

    def test_a_failed_rename_leaves_no_temporary_file(self, tmp_path):
        (tmp_path / 'out.json').mkdir()
        with pytest.raises(TaxonomyError, match='cannot write the file'):
            write_json({}, tmp_path / 'out.json', error=TaxonomyError)
        assert [path.name for path in tmp_path.iterdir()] == ['out.json']


def test_results_are_written_whole_or_not_at_all(tmp_path):
    target = tmp_path / 'result.json'
    write_json({'mAP': None, 'AP': {'Größe': 0.5}}, target)
    assert json.loads(target.read_text('utf-8')) == {'mAP': None, 'AP': {'Größe': 0.5}}
    with pytest.raises(ValueError, match='JSON'):
        write_json({'mAP': float('nan')}, target)
    with pytest.raises(EvaluationError, match='cannot write'):
        write_json({}, tmp_path / 'missing' / 'result.json', error=EvaluationError)
    assert [path.name for path in tmp_path.iterdir()] == ['result.json']
    assert json.loads(target.read_text('utf-8'))['AP'] == {'Größe': 0.5}


def test_tells_kind_and_versions_and_no_name():
    found = describe_machine()
    assert found['cores'] == len(os.sched_getaffinity(0))
    assert found['memory_gib'] > 0
    assert {'numpy', 'torch'} <= found['versions'].keys()
    text = json.dumps(found)
    assert os.uname().nodename not in text
