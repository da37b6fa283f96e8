"""Every command of README.md and docs/ runs, on small data and with small models; so do the examples of code.

They run in one folder that has the repository's tools, configs of the repository's names that build on the real ones,
and the data sets that the pages speak of. A command that no rule covers fails: give it one in RULES.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import runpy
import subprocess
import sys
import tempfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
import torch
from documented import PAGES, ROOT, Command, all_commands, blocks, written_files
from mmengine.config import Config
from tiny_runs import SMALL

from hierseg.annotations import Store
from hierseg.datasets import StoreDataset
from hierseg.functional import SCHEMES
from hierseg.models.balance import BALANCES
from hierseg.registry import DATA_SAMPLERS, METRICS
from hierseg.report import HierLocalVisualizer
from hierseg.taxonomy import Taxonomy, read_taxonomy

pytestmark = pytest.mark.slow

TEDDY = Taxonomy.from_edges(['toy', 'teddy', 'car'], [('teddy', 'toy')])
OFFICIAL = 'data/openimages/challenge-2019'
HIERARCHY = f'{OFFICIAL}-label300-segmentable-hierarchy.json'
CLASSES = f'{OFFICIAL}-classes-description-segmentable.csv'
PLACEHOLDERS = {
    'H.json': HIERARCHY,
    'HIERARCHY.json': HIERARCHY,
    'hierarchy.json': HIERARCHY,
    'C.csv': CLASSES,
    'CLASSES.csv': CLASSES,
    'class-descriptions.csv': CLASSES,
    'B.csv': f'{OFFICIAL}-validation-segmentation-bbox.csv',
    'L.csv': f'{OFFICIAL}-validation-segmentation-labels.csv',
    'M.csv': f'{OFFICIAL}-validation-segmentation-masks-rle.csv',
    'MASKS': 'data/openimages/train-masks',
    'IMAGES': 'data/farm/train',
    'STORE': 'data/farm/store/train',
    'instances.json': 'data/farm/train.json',
    'FILE': 'data/openimages/validation/first.jpg',
    'CONFIG': 'configs/quickstart/hier_e2e.py',
    'CHECKPOINT': 'work_dirs/hier_e2e/epoch_4.pth',
    'LAYER0.pth': 'work_dirs/layer0/epoch_150.pth',
    'LAYER1.pth': 'work_dirs/layer1/epoch_160.pth',
}


@dataclass(frozen=True)
class Rule:
    """How a command becomes one that takes seconds.

    Attributes:
        words: Instead of words of these names, before PLACEHOLDERS.
        more: Words to add.
        skip: Why it does not run here.
        parse_only: Why its arguments are only parsed.
        may_refuse: What it may say at the end instead of doing its job, with a model that has learnt nothing.
    """

    words: Mapping[str, str] = field(default_factory=dict)
    more: tuple[str, ...] = ()
    skip: str = ''
    parse_only: str = ''
    may_refuse: str = ''


# By the first words.
RULES = {
    'bash tools/quickstart.sh': Rule(skip='runs in tests/tools/test_train_and_test.py'),
    'bash tools/run_tests.sh': Rule(skip='is what runs this'),
    # Several processes run in tests/tools/test_train_and_test.py; here one does what each of them is told to.
    'bash tools/dist_train.sh': Rule(),
    'bash tools/dist_test.sh': Rule(),
    'python -m hierseg.taxonomy': Rule(),
    'python tools/train.py': Rule(),
    'python tools/test.py': Rule(),
    'python tools/eval_openimages.py': Rule(),
    # The training split, whose masks are not encoded.
    'python tools/dataset_converters/openimages.py': Rule(
        words={
            'B.csv': f'{OFFICIAL}-train-segmentation-bbox.csv',
            'L.csv': f'{OFFICIAL}-train-segmentation-labels.csv',
            'M.csv': f'{OFFICIAL}-train-segmentation-masks.csv',
        },
        more=('--overwrite', '--workers', '1'),
    ),
    'python tools/dataset_converters/coco.py': Rule(words={'STORE': 'data/farm/store/again'}, more=('--overwrite',)),
    'python tools/analysis_tools/browse_dataset.py': Rule(),
    'python tools/analysis_tools/calibrate.py': Rule(may_refuse='no name of them can be judged'),
    'python tools/analysis_tools/explain_ensemble.py': Rule(
        words={'CHECKPOINT': 'work_dirs/two_layer_ensemble/epoch_310.pth'}
    ),
    'python tools/analysis_tools/layer_report.py': Rule(),
    'python tools/analysis_tools/sampling_report.py': Rule(),
    'python tools/analysis_tools/side_by_side.py': Rule(),
    'python tools/misc/merge_layers.py': Rule(),
    'python tools/benchmarks/losses.py': Rule(more=('--repeats', '1', '--rois', '64')),
    'python tools/benchmarks/ablation.py': Rule(parse_only='trains for hours; runs in tests/tools/test_ablation.py'),
}

# Of the repository's configs, models that take a step in a fraction of a second, and a step or two.
SHORT = f"""
model_of_a_test = {SMALL}
model_of_a_test['backbone'].update(depth=18, init_cfg=None, frozen_stages=-1, norm_eval=False)
model_of_a_test['test_cfg'] = dict(rpn=dict(nms_pre=100, max_per_img=20), rcnn=dict(max_per_img=10))
train_pipeline, test_pipeline = _base_.train_pipeline, _base_.test_pipeline
for step in [*train_pipeline, *test_pipeline]:
    if step.type == 'Resize':
        step.scale = (64, 64)
loading = dict(batch_size=2, num_workers=0, persistent_workers=False)
of_training, of_validation = dict(dataset=dict(pipeline=train_pipeline)), dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(**loading, **of_validation)
del step
"""
END_TO_END = (
    SHORT
    + """
model_of_a_test['roi_head']['bbox_head']['num_classes'] = 22
model_of_a_test['roi_head']['mask_head']['num_classes'] = 8
model = model_of_a_test
train_dataloader = dict(
    **loading, **of_training,
    batch_sampler=dict(_delete_=True, type='hierseg.StreamBatchSampler', iterations=2))
val_dataloader = test_dataloader
train_cfg = dict(max_epochs=1)
default_hooks = dict(validation_loss=dict(num_batches=1, dataloader=dict(**loading, **of_training)))
"""
)
ENSEMBLE = (
    SHORT
    + """
import copy
model = dict()
for layer, count in (('layer0', 8), ('layer1', 14)):
    model[layer] = copy.deepcopy(model_of_a_test)
    model[layer]['roi_head']['bbox_head']['num_classes'] = model[layer]['roi_head']['mask_head']['num_classes'] = count
train_dataloader = dict(
    **loading,
    layer0=dict(batch_sampler=dict(iterations=1), **of_training),
    layer1=dict(batch_sampler=dict(iterations=1), **of_training))
train_cfg = dict(max_epochs=dict(layer0=1, layer1=1))
default_hooks = dict(validation_loss=dict(
    num_batches=1, dataloader=dict(**loading, layer0=of_training, layer1=of_training)))
del layer, count
"""
)
CONFIGS = {
    'hier_e2e': END_TO_END,
    'quickstart/hier_e2e': END_TO_END,
    'two_layer_ensemble': ENSEMBLE,
    'quickstart/two_layer_ensemble': ENSEMBLE,
}
# What makes the pages' own configs as short.
SHORTER = {r'iterations=\d+': 'iterations=1', r'layer0=12, layer1=12': 'layer0=1, layer1=1'}

FARM = 'cow: animal\nhorse: animal\nsheep: animal\ntractor: null\n'


def rule_of(words: tuple[str, ...]) -> Rule:
    for length in (3, 2):
        if ' '.join(words[:length]) in RULES:
            return RULES[' '.join(words[:length])]
    raise AssertionError(f'no rule in {Path(__file__).name} says how to run: {" ".join(words)}')


class Workshop:
    """The folder, and what has been done in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._done: dict[tuple[str, ...], str] = {}

    def run(self, *words: str) -> str:
        """Runs a Python command of this folder, once, and gives back what it printed."""
        if words not in self._done:
            for word in words:
                self._provide(word)
            self._done[words] = self._run(words)
        return self._done[words]

    def _provide(self, word: str) -> None:
        """Trains or tests for the file that a command reads, unless an earlier command has left it."""
        if (self.folder / word.partition('=')[2]).is_file() or (self.folder / word).exists():
            return
        if match := re.fullmatch(r'work_dirs/(\w+)/epoch_\d+\.pth', word):
            self.run('python', 'tools/train.py', self.config(match[1]))
            if not (self.folder / word).exists():
                (self.folder / word).symlink_to((self.folder / word).with_name('last_checkpoint').read_text())
        elif match := re.search(r'work_dirs/(\w+)/results\.json$', word):
            self.run('python', 'tools/test.py', self.config(match[1]), f'work_dirs/{match[1]}/epoch_99.pth')
        elif word == 'submission.csv':
            options = ('--cfg-options', 'test_evaluator.submission_file=submission.csv')
            self.run('python', 'tools/test.py', 'configs/hier_e2e.py', 'work_dirs/hier_e2e/epoch_99.pth', *options)

    def config(self, name: str) -> str:
        """The config whose work directory has a name; of two, the one outside the quickstart."""
        (path, *_) = sorted((self.folder / 'configs').rglob(f'{name}.py'), key=lambda path: len(path.parts))
        return str(path.relative_to(self.folder))

    def _run(self, words: tuple[str, ...]) -> str:
        said, code = io.StringIO(), None
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(said), redirect_stderr(said):
            self._enter(patch, words)
            try:
                if words[1] == '-m':
                    runpy.run_module(words[2], run_name='__main__', alter_sys=True)
                else:
                    runpy.run_path(words[1], run_name='__main__')
            except SystemExit as exit:
                code = exit.code
        refusal = RULES.get(' '.join(words[:2]), Rule()).may_refuse
        refused = refusal and refusal in said.getvalue()
        assert code in (None, 0) or refused, f'{" ".join(words)}\n{said.getvalue()[-2000:]}'
        return said.getvalue()

    def parse(self, words: tuple[str, ...]) -> None:
        """Parses the arguments of a tool."""
        with pytest.MonkeyPatch.context() as patch:
            self._enter(patch, words)
            patch.setitem(sys.modules, 'parsed', ModuleType('parsed'))  # dataclasses look their module up
            tool = runpy.run_path(words[1], run_name='parsed')
            tool['parse_args']()

    def _enter(self, patch: pytest.MonkeyPatch, words: tuple[str, ...]) -> None:
        patch.chdir(self.folder)
        patch.syspath_prepend(self.folder)
        patch.setattr(sys, 'argv', [*words[2 if words[1] == '-m' else 1 :]])
        patch.setenv('CUDA_VISIBLE_DEVICES', '-1')
        patch.setenv('LOCAL_RANK', '0')
        # MMEngine would give the visualizer of the run before, which draws into that one's folder.
        patch.setattr(HierLocalVisualizer, '_instance_dict', OrderedDict())
        # MMEngine formats the config for log and checkpoints, which takes longer than a training here.
        patch.setattr(Config, 'pretty_text', property(lambda config: repr(config.to_dict())))

    def words_of_each_process(self, words: tuple[str, ...]) -> tuple[str, ...]:
        """What a launch script tells each process, as the command of a single one."""
        stand_in = self.folder / 'stand-in'
        stand_in.write_text('#!/bin/sh\nprintf "%s\\0" "$@"\n')
        stand_in.chmod(0o755)
        variables = {**os.environ, 'PYTHON': str(stand_in)}
        answer = subprocess.run(words, cwd=self.folder, env=variables, capture_output=True, text=True, check=True)
        started = answer.stdout.split('\0')[:-1]
        assert f'--nproc_per_node={words[3 if words[1].endswith("train.sh") else 4]}' in started
        (script,) = (index for index, word in enumerate(started) if re.search(r'/(train|test)\.py$', word))
        launcher = started.index('--launcher')
        assert started[launcher + 1] == 'pytorch'
        arguments = started[script + 1 : launcher] + started[launcher + 2 :]
        return ('python', f'tools/{Path(started[script]).name}', *arguments)


def make_openimages(workshop: Workshop) -> None:
    """The official files in ``data/openimages``, which also serve as the quickstart's."""
    folder = workshop.folder
    size = ('--images', '24', '--val-images', '4', '--size', '96', '--tail-ratio', '5')
    workshop.run('python', 'tools/synthesize.py', 'data/openimages', *size)
    for source, name in (('label-hierarchy.json', HIERARCHY), ('classes-description.csv', CLASSES)):
        (folder / name).symlink_to(folder / f'{OFFICIAL}-{source}')
    (folder / 'data/quickstart').symlink_to(folder / 'data/openimages')
    first = min((folder / 'data/openimages/validation').iterdir())
    (folder / PLACEHOLDERS['FILE']).symlink_to(first)
    for split in ('train', 'validation'):
        convert_openimages(workshop, 'data/openimages', f'{OFFICIAL}-{split}', split, HIERARCHY, CLASSES)


def convert_openimages(workshop: Workshop, data: str, official: str, split: str, hierarchy: str, classes: str) -> None:
    tables = ('boxes', 'bbox'), ('labels', 'labels'), ('masks', 'masks')
    workshop.run(
        'python', 'tools/dataset_converters/openimages.py', '--hierarchy', hierarchy, '--classes', classes,
        *(word for table, file in tables for word in (f'--{table}', f'{official}-segmentation-{file}.csv')),
        '--mask-dir', f'{data}/{split}-masks', '--images', f'{data}/{split}', '--out', f'{data}/store/{split}',
        '--workers', '1',
    )  # fmt: skip


def make_farm(workshop: Workshop) -> None:
    """The five classes of docs/your_data.md as COCO files, without a word of the hierarchy."""
    folder = workshop.folder
    (folder / 'farm.yaml').write_text(FARM)
    rates = ('--coarse-rate', '0', '--unannotated-rate', '0', '--negatives', '0')
    size = ('--images', '16', '--val-images', '4', '--size', '96', '--tail-ratio', '2')
    workshop.run('python', 'tools/synthesize.py', 'data/farm', '--taxonomy', 'farm.yaml', *size, *rates)
    official = 'data/farm/challenge-2019'
    for split in ('train', 'validation'):
        files = (f'{official}-label-hierarchy.json', f'{official}-classes-description.csv')
        convert_openimages(workshop, 'data/farm', f'{official}-{split}', split, *files)
        coco = folder / f'data/farm/{split}.json'
        workshop.run(
            'python', 'tools/dataset_converters/coco.py', 'from-store', f'data/farm/store/{split}',
            '--out', f'data/farm/{split}.json',
        )  # fmt: skip
        document = json.loads(coco.read_text())
        del document['taxonomy']
        categories = [entry for entry in document['categories'] if entry['name'] != 'animal']
        document['categories'] = [{'id': entry['id'], 'name': entry['name']} for entry in categories]
        images = [{key: image[key] for key in ('id', 'file_name', 'width', 'height')} for image in document['images']]
        coco.write_text(json.dumps(document | {'images': images}))
    (folder / 'data/farm/taxonomy.yaml').write_text(yaml_of_the_page())
    for split in ('train', 'validation'):
        workshop.run(
            'python', 'tools/dataset_converters/coco.py', 'to-store', f'data/farm/{split}.json', '--overwrite',
            '--taxonomy', 'data/farm/taxonomy.yaml', '--images', f'data/farm/{split}',
            '--out', f'data/farm/store/{split}',
        )  # fmt: skip


def yaml_of_the_page() -> str:
    (text,) = (block.text for block in blocks(ROOT / 'docs/your_data.md') if block.language == 'yaml')
    return text


@pytest.fixture(scope='module')
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    folder = tmp_path_factory.mktemp('workshop')
    (folder / 'tools').symlink_to(ROOT / 'tools')
    for name, short in CONFIGS.items():
        path = folder / f'configs/{name}.py'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'_base_ = {str(ROOT / "configs" / name) + ".py"!r}\n{short}')
    for layer in ('layer0', 'layer1'):
        path = folder / f'configs/two_layer/{layer}.py'
        path.parent.mkdir(exist_ok=True)
        path.write_text((ROOT / f'configs/two_layer/{layer}.py').read_text())
    for name, text in written_files().items():
        for pattern, short in SHORTER.items():
            text = re.sub(pattern, short, text)
        (folder / name).write_text(text)
    workshop = Workshop(folder)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    tables = (SCHEMES, BALANCES, DATA_SAMPLERS.module_dict, METRICS.module_dict)
    before = [dict(table) for table in tables]
    try:
        make_openimages(workshop)
        make_farm(workshop)
        yield workshop
    finally:
        # What the page on extending adds, no other test knows.
        for table, entries in zip(tables, before, strict=True):
            for name in table.keys() - entries.keys():
                del table[name]
        sys.modules.pop('own_parts', None)
        torch.set_num_threads(threads)


with tempfile.TemporaryDirectory() as _folder:
    COMMANDS = all_commands(Path(_folder))


def test_a_command_without_a_rule_is_told() -> None:
    with pytest.raises(AssertionError, match=r'no rule in test_commands\.py .*: python tools/new\.py --flag'):
        rule_of(('python', 'tools/new.py', '--flag'))


def test_no_rule_is_left_over() -> None:
    starts = [' '.join(command.words[:length]) for command in COMMANDS for length in (2, 3)]
    assert RULES.keys() <= {*starts}


@pytest.mark.parametrize('command', COMMANDS, ids=lambda command: f'{command.place} {" ".join(command.words[:3])}')
def test_command(command: Command, workshop: Workshop) -> None:
    rule = rule_of(command.words)
    if rule.skip:
        pytest.skip(rule.skip)
    words = tuple({**PLACEHOLDERS, **rule.words}.get(word, word) for word in command.words) + rule.more
    if rule.parse_only:
        workshop.parse(words)
        return
    if words[0] == 'bash':
        words = workshop.words_of_each_process(words)
    workshop.run(*words)


class TestYourData:
    def test_the_hierarchy_is_that_of_the_page(self, workshop: Workshop) -> None:
        files = ('data/farm/taxonomy.yaml', '--classes', 'data/farm/train.json')
        printed = workshop.run('python', '-m', 'hierseg.taxonomy', *files)
        shown = [
            block.text for block in blocks(ROOT / 'docs/your_data.md') if 'data/farm/taxonomy.yaml\n' in block.text
        ]
        assert printed in shown

    def test_csv_says_the_same_as_yaml(self, tmp_path: Path) -> None:
        (text,) = (block.text for block in blocks(ROOT / 'docs/your_data.md') if block.text.startswith('child,parent'))
        (tmp_path / 'taxonomy.csv').write_text(text)
        (tmp_path / 'taxonomy.yaml').write_text(yaml_of_the_page())
        csv, yaml = (read_taxonomy(tmp_path / f'taxonomy.{ending}') for ending in ('csv', 'yaml'))
        assert csv.to_json() == yaml.to_json()

    def test_the_config_says_nothing_of_other_data(self, workshop: Workshop) -> None:
        for name in ('farm', 'farm_ensemble'):
            config = Config.fromfile(workshop.folder / f'configs/{name}.py')
            used = ('model', 'default_hooks', *(f'{s}_{p}' for s in ('train', 'val', 'test')
                                                for p in ('dataloader', 'evaluator')))  # fmt: skip
            assert 'openimages' not in repr({key: config.get(key) for key in used})


class TestExtending:
    @pytest.fixture
    def parts(self, workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
        """own_parts.py, as the training has imported it."""
        workshop.run('python', 'tools/train.py', 'configs/farm_own_parts.py')
        return sys.modules['own_parts']

    def test_the_loss_is_its_formula(self, parts: ModuleType) -> None:
        from hierseg.models import HierarchicalLoss

        loss = HierarchicalLoss(TEDDY, scheme='focal_path_sum', options={'gamma': 2.0}, reduction='none')
        # Equal outcomes toy, teddy, car and background: P(toy) = 2/4.
        value = loss(torch.zeros(1, 4), torch.tensor([0]))
        assert value.item() == pytest.approx(0.5**2 * np.log(2))

    def test_the_balance_lowers_the_label_and_what_is_below(self, parts: ModuleType) -> None:
        from hierseg.functional import Relations

        ldam = BALANCES['ldam'](TEDDY, SCHEMES['path_sum'], class_counts=[16, 81, 1])
        offsets = ldam.offsets(torch.zeros(3, 4), torch.tensor([0, 1, 3]), Relations.of(TEDDY))
        # 1 / 16^(1/4) = 1/2; 1 / 81^(1/4) = 1/3; background is left alone.
        expected = [[-1 / 2, -1 / 2, 0, 0], [0, -1 / 3, 0, 0], [0, 0, 0, 0]]
        torch.testing.assert_close(offsets, torch.tensor(expected))

    def test_the_sampler_shows_images_by_the_root_of_their_objects(self, parts: ModuleType, workshop: Workshop) -> None:
        store = workshop.folder / 'data/farm/store/train'
        dataset = StoreDataset(
            store=str(store), pipeline=[], data_prefix={'img': str(workshop.folder / 'data/farm/train')}
        )
        sampler = parts.CrowdedSampler(dataset, seed=0)
        passes = 200
        drawn = np.bincount(list(sampler.draw(0, passes * len(sampler))), minlength=len(dataset))
        objects = np.maximum(Store.open(store).num_instances_per_image, 1)
        np.testing.assert_allclose(drawn / passes, np.sqrt(objects), rtol=0.05)

    def test_the_metric_is_reported(self, parts: ModuleType, workshop: Workshop) -> None:
        workshop.run('python', 'tools/test.py', 'configs/farm_own_parts.py', 'work_dirs/farm_own_parts/epoch_12.pth',
                     '--out', 'predictions.pkl')  # fmt: skip
        scores = json.loads((workshop.folder / 'work_dirs/farm_own_parts/results.json').read_text())
        taxonomy = Store.open(workshop.folder / 'data/farm/store/validation').taxonomy
        predictions = pickle.loads((workshop.folder / 'predictions.pkl').read_bytes())
        named = np.concatenate([image['pred_instances']['labels'] for image in predictions])
        assert scores['names/leaf_share'] == pytest.approx(np.isin(named, taxonomy.leaves).mean())
        assert len(parts.names_of(predictions, taxonomy)) == len(predictions)

    def test_the_reader_makes_a_store(self, parts: ModuleType, tmp_path: Path) -> None:
        parts.convert_squares(tmp_path, tmp_path / 'store')
        store = Store.open(tmp_path / 'store')
        assert [store.instances(row).areas.tolist() for row in range(len(store))] == [[600.0], [1500.0]]
        assert cv2.imread(str(tmp_path / '2.jpg')).shape == (64, 96, 3)

    def test_the_rule_can_be_built_in(self, parts: ModuleType) -> None:
        (diff,) = (block.text for block in blocks(ROOT / 'docs/extending.md') if block.language == 'diff')
        source = (ROOT / 'hierseg/models/decision.py').read_text()
        for hunk in diff.split('@@\n')[1:]:
            old, new = (
                ''.join(f'{line[1:]}\n' for line in hunk.splitlines() if line[0] in kept) for kept in (' -', ' +')
            )
            assert source.count(old) == 1, f'no longer in decision.py:\n{old}'
            source = source.replace(old, new)
        changed = ModuleType('changed')
        changed.most_probable_below_root = parts.most_probable_below_root
        exec(compile(source, 'decision.py', 'exec'), changed.__dict__)
        decision = changed.Decision(TEDDY.arrays, rule='below_root')
        # Toy and teddy are claimed; car alone is.
        assert decision(torch.tensor([[0.9, 0.2, 0.0], [0.0, 0.0, 0.4]])).tolist() == [1, 2]


def test_pages_are_looked_at() -> None:
    assert {command.place.partition(':')[0] for command in COMMANDS} <= {str(page.relative_to(ROOT)) for page in PAGES}
    assert len(COMMANDS) > 40
