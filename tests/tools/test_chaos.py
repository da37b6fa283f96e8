"""The mutation fuzzer at small numbers, its own marksmanship, and the files that once went wrong.

A crasher is a damaged file in ``crashers/ENTRY/NAME/PATH``: laid over the honest files of its entry, it must be read
or refused. At length: ``python tools/chaos.py --minutes 60``.
"""

from __future__ import annotations

import json
import runpy
import shutil
import sys
from functools import partial
from pathlib import Path
from random import Random

import pytest

from hierseg.errors import HiersegError

TOOLS = Path(__file__).parents[2] / 'tools'
CRASHERS = Path(__file__).with_name('crashers')
LIGHT = ('taxonomies', 'class-lists', 'tables', 'encoded-tables', 'masks', 'zips', 'images', 'pictures', 'coco', 'lvis')
LIGHT = (*LIGHT, 'stores', 'store-check', 'work', 'submissions', 'results', 'ground-truth')

pytestmark = pytest.mark.skipif(sys.platform != 'linux', reason='reads /proc')
sys.path.insert(0, str(TOOLS))

from chaos import data, trained, workers  # noqa: E402
from chaos.entries import Case, Entry, make_corpus  # noqa: E402
from chaos.mutations import mutated, zeros_zlib  # noqa: E402

ENTRIES = {entry.name: entry for entry in (*data.ENTRIES, *trained.ENTRIES)}


@pytest.fixture(scope='module')
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp('corpus')


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, 'argv', [str(TOOLS / 'chaos.py'), *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        runpy.run_path(str(TOOLS / 'chaos.py'), run_name='__main__')
    return caught.value.code


@pytest.mark.slow
def test_nothing_goes_wrong(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / 'chaos.json'
    status = run(monkeypatch, '--corpus', corpus, '--mutations', 320, '--only', *LIGHT, '--out', out)
    document = json.loads(out.read_text())
    assert document['faults'] == [], capsys.readouterr().out
    assert status == 0
    assert document['damaged'] == 320
    for counts in document['entries'].values():
        assert counts['accepted'] + counts['refused'] == 20


def test_a_mutation_follows_from_its_seed() -> None:
    content = b'{"a": [1, 2, {"b": 3}], "c": "x"}'
    first, second = (mutated(content, '.json', Random(7), [content]) for _ in range(2))
    assert first == second
    assert len({mutated(content, '.json', Random(seed), [content])[0] for seed in range(50)}) > 30


def test_a_bomb_is_small() -> None:
    assert len(zeros_zlib()) < 4 << 20


def _die(case: Case) -> None:
    workers.os.kill(workers.os.getpid(), 11)


def _eat(case: Case) -> int:
    return len(b'1' * (5 << 30))


def _fail(case: Case) -> None:
    raise KeyError((case.folder / 'a').name)


def _refuse(case: Case) -> None:
    raise HiersegError('is damaged')


def _run_code(case: Case) -> None:
    Path(workers.MARKER).touch()


def _spin(case: Case) -> None:
    while True:
        pass


@pytest.mark.parametrize(
    ('read', 'expected'),
    [
        (_die, 'died'), (_eat, 'memory'), (_fail, 'foreign'), (_refuse, 'refused'), (_run_code, 'ran code'),
        (_spin, 'time'), (lambda case: 1, 'silent'),
    ],
    ids=['die', 'eat', 'fail', 'refuse', 'run code', 'spin', 'change a number'],
)  # fmt: skip
def test_each_fault_is_found(read: object, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, 'SECONDS', 0.5)
    entry = Entry('one', lambda folder: None, read, ('a',), sealed=True)
    (tmp_path / 'one').mkdir()
    (tmp_path / 'one/a').write_bytes(b'12345678')
    damaged = partial(workers.prepare, seed=0)
    digests = {'one': 'of something else'}
    pool = workers.Pool(tmp_path, digests, scratch=tmp_path / 'scratch', workers=2, damaged=damaged)
    found = [*pool.run(iter([(entry, range(2)), (entry, range(2, 3))]))]
    assert sorted(outcome.number for outcome in found) == [0, 1, 2]
    assert {outcome.what for outcome in found} == {expected}


def crashers() -> list[Path]:
    return sorted(path for path in CRASHERS.glob('*/*/**/*') if path.is_file())


@pytest.mark.parametrize('path', crashers(), ids=lambda path: str(path.relative_to(CRASHERS)))
def test_a_crasher_is_read_or_refused(path: Path, corpus: Path, tmp_path: Path) -> None:
    name, _, *file = path.relative_to(CRASHERS).parts
    entry = ENTRIES[name]
    honest = make_corpus(corpus, [entry])[name]

    def damaged(entry: Entry, corpus: Path, folder: Path, lenient: int) -> workers.Prepared:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(corpus / entry.name, folder)
        return Case(folder, corpus / name, bool(lenient)), Path(shutil.copy(path, folder.joinpath(*file))), 'crasher'

    pool = workers.Pool(corpus, {name: honest}, scratch=tmp_path, workers=1, damaged=damaged)
    found = [*pool.run(iter([(entry, range(2))]))]
    assert [outcome for outcome in found if outcome.what not in ('accepted', 'refused')] == []


def test_readers_beside_a_writer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / 'readers.json'
    status = run(monkeypatch, '--readers', 1, '--minutes', 0.03, '--out', out)
    total = json.loads(out.read_text())
    assert status == 0, total
    assert total.keys() == {'right', 'written'}
