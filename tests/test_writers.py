"""Every way in which hierseg writes a file: on a full disk, over what is there, and through links."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from small_disk import small_files
from small_store import PETS, instances

from hierseg.converters.coco import write_coco
from hierseg.errors import HiersegError
from hierseg.files import write_json
from hierseg.found import Found
from hierseg.pictures import write_picture
from hierseg.prediction.outputs import Coco, Csv, Film, JsonLines
from hierseg.store import ImageRow, Store, StoreWriter
from hierseg.taxonomy import __main__ as taxonomy_tool

ROOT = Path(__file__).parents[1]
LIMIT = 200  # bytes of a file, fewer than any of these writes
NOISE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
FOUND = Found(
    image_size=(8, 9),
    boxes=np.tile(np.array([[1.0, 2.0, 3.0, 4.0]]), (30, 1)),
    scores=np.full(30, 0.5),
    labels=np.zeros(30, dtype=np.int64),
    class_scores=np.full((30, 4), 0.5),
    masks=None,
    names=('a', 'b', 'c', 'd'),
    parents=((), (), (), ()),
    source='picture.jpg',
)


def write_checkpoint(path: Path) -> None:
    from hierseg.engine.checkpoints import AtomicLocalBackend

    AtomicLocalBackend().put(NOISE.tobytes(), str(path))


def write_submission(path: Path) -> None:
    from hierseg.evaluation.predictions import SubmissionWriter

    writer = SubmissionWriter(path, class_ids=['p'])
    try:
        span = writer.write('row\n' * 1000)
        writer.close()
        writer.merge([span], by_mask=False)
    finally:
        writer.remove_part()


def write_dumped_results(path: Path) -> None:
    from hierseg.evaluation.dumped_results import DumpedResults

    DumpedResults(str(path)).compute_metrics([{'x': NOISE}])


def write_video(path: Path) -> None:
    with Film(path, fps=5.0, size=(64, 64)) as film:
        for _ in range(5):
            film.add(NOISE)


def write_store_as_coco(path: Path) -> None:
    store = path.parents[1] / 'store'
    if not store.exists():
        boxes = instances([(3, (4, 5, 14, 15), b'', False)])
        with StoreWriter(store, taxonomy=PETS) as writer:
            writer.add(ImageRow('a', 'a.jpg', 40, 30), boxes, np.array([], np.int64), np.array([], np.int64))
    write_coco(Store.open(store), path, overwrite=True)


def write_coco_results_of_predict(path: Path) -> None:
    with Coco(path) as table:
        table.add(FOUND)


def write_taxonomy(path: Path) -> None:
    source = path.parents[1] / 'taxonomy.json'
    if not source.exists():
        write_json({'LabelName': 'animal', 'Subcategory': [{'LabelName': f'dog {i}'} for i in range(20)]}, source)
    with pytest.MonkeyPatch.context() as patch:
        # The tool would say it in one line and exit.
        patch.setattr(taxonomy_tool, 'exits_cleanly', None)
        taxonomy_tool.main.__wrapped__([str(source), '--json', str(path)])


WRITERS: dict[str, tuple[str, Callable[[Path], None]]] = {
    'JSON': ('out.json', lambda path: write_json(['x'] * 1000, path)),
    'picture': ('out.png', lambda path: write_picture(NOISE, path)),
    'checkpoint': ('out.pth', write_checkpoint),
    'submission': ('out.csv', write_submission),
    'results of a test': ('out.pkl', write_dumped_results),
    'video': ('out.mp4', write_video),
    'COCO': ('out.json', write_store_as_coco),
    'predictions as COCO': ('out.json', write_coco_results_of_predict),
    'taxonomy': ('out.json', write_taxonomy),
}


@pytest.fixture(params=WRITERS)
def writer(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Callable[[Path], None]]:
    """Where to write, in a folder of its own, and how."""
    name, write = WRITERS[request.param]
    (tmp_path / 'out').mkdir()
    # What a writer reads is made beforehand, while there is room.
    write(tmp_path / 'out' / name)
    (tmp_path / 'out' / name).unlink()
    return tmp_path / 'out' / name, write


def entries(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.parent.iterdir())


@pytest.mark.parametrize('is_there', [True, False])
def test_a_full_disk_is_one_error_and_leaves_what_was_there(writer, is_there):
    path, write = writer
    if is_there:
        path.write_text('old')
    with pytest.raises(HiersegError) as caught, small_files(LIMIT):
        write(path)
    assert str(caught.value).startswith(f'{path}: ')
    assert ' free' in str(caught.value)
    assert entries(path) == [path.name] * is_there
    assert not is_there or path.read_text() == 'old'
    write(path)
    assert path.stat().st_size > LIMIT
    assert entries(path) == [path.name]


def test_a_link_to_nothing_is_refused_and_one_to_a_file_stays(writer, tmp_path):
    path, write = writer
    path.symlink_to(tmp_path / 'elsewhere')
    with pytest.raises(HiersegError, match=r'is a link to .*elsewhere, which is not there'):
        write(path)
    assert entries(path) == [path.name]
    (tmp_path / 'elsewhere').write_text('old')
    write(path)
    assert path.is_symlink()
    assert (tmp_path / 'elsewhere').stat().st_size > LIMIT
    assert entries(path) == [path.name]


def test_links_that_someone_laid_out_are_not_followed(writer, tmp_path):
    path, write = writer
    (tmp_path / 'precious').write_text('mine')
    laid = [f'.{path.name}.partial', f'.{path.name}.rank0.part', f'.{path.name}.tmp', f'.hierseg-{0:016x}.partial']
    for name in laid:
        path.with_name(name).symlink_to(tmp_path / 'precious')
    write(path)
    assert (tmp_path / 'precious').read_text() == 'mine'
    assert entries(path) == sorted([*laid, path.name])


@pytest.mark.parametrize('table', [JsonLines, Csv])
def test_of_a_table_that_others_follow_whole_lines_stay(tmp_path, table):
    path = tmp_path / 'found'
    message = r'found: cannot be written .* needed'
    with table(path) as out, small_files(20_000), pytest.raises(HiersegError, match=message):
        list(map(out.add, [FOUND] * 1000))
    text = path.read_text()
    assert 10_000 < len(text) <= 20_000
    assert text.endswith('\n')


# Files that write by themselves, and why nothing half-written can keep a name there.
ALLOWED = {
    'hierseg/files.py': 'what the others go through',
    'hierseg/apis/costs.py': 'a switch of the kernel',
    'hierseg/converters/open_images_progress.py': 'the folder of work, which the next run checks',
    'hierseg/downloads/fetch.py': 'parts of large files, which the next run goes on with',
    'hierseg/evaluation/predictions.py': 'a hidden file of hierseg.files',
    'hierseg/prediction/outputs.py': 'tables that others follow, and a video under a hidden name',
    'hierseg/store/writer.py': 'within a hidden folder',
    'hierseg/synthetic/writer.py': 'within a hidden folder',
    'tools/setup_environment.py': 'before hierseg is installed',
}


def writes_by_name(source: str) -> bool:
    """Tells whether code opens a file to write, or calls what does."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            name = getattr(node.func, 'attr', getattr(node.func, 'id', ''))
            values = [*node.args, *(word.value for word in node.keywords)]
            texts = [
                value.value for value in values if isinstance(value, ast.Constant) and isinstance(value.value, str)
            ]
            opens = name == 'open' and any(text and set(str(text)) <= set('wax+bt') for text in texts)
            if opens or name in {'write_text', 'write_bytes', 'imwrite', 'VideoWriter'}:
                return True
    return False


def test_all_writing_goes_through_hierseg_files():
    sources = [*(ROOT / 'hierseg').rglob('*.py'), *(ROOT / 'tools').rglob('*.py')]
    names = {str(path.relative_to(ROOT)) for path in sources if writes_by_name(path.read_text(encoding='utf-8'))}
    assert {name for name in names if not name.startswith(('tools/benchmarks/', 'tools/chaos'))} == ALLOWED.keys()


@pytest.mark.parametrize(
    'source', ["open(path, 'w')", "path.open('ab')", "open(path, mode='xb')", 'x.write_text(text)']
)
def test_and_other_writing_is_found(source):
    assert writes_by_name(source)
