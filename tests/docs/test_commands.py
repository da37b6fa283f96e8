"""Every command of README.md and docs/ runs, on small data and with small models; so do the examples of code.

A command that no rule covers fails: give it one in RULES.
"""

from __future__ import annotations

import json
import pickle
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
import torch
from documented import PAGES, ROOT, Command, all_commands, blocks
from mmengine.config import Config
from workshop import CLASSES, HIERARCHY, IMAGE, OFFICIAL, Workshop, make_farm, make_openimages, yaml_of_the_page

from hierseg.datasets import StoreDataset
from hierseg.errors import TaxonomyError
from hierseg.functional import SCHEMES
from hierseg.models.balance import BALANCES
from hierseg.registry import DATA_SAMPLERS, METRICS
from hierseg.store import Store
from hierseg.taxonomy import Taxonomy, read_taxonomy

pytestmark = pytest.mark.slow

TEDDY = Taxonomy.from_edges(['toy', 'teddy', 'car'], [('teddy', 'toy')])
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
    'FILE': IMAGE,
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
    'bash tools/setup.sh': Rule(skip='runs before this; tests/tools/test_setup.py'),
    'source .venv/bin/activate': Rule(skip='makes a shell ready'),
    'bash tools/run_tests.sh': Rule(skip='is what runs this'),
    'python -m pytest': Rule(skip='is what runs this'),
    'jupyter execute': Rule(skip='runs in tests/docs/test_notebook.py'),
    'pre-commit install': Rule(skip='changes the clone'),
    # Several processes run in tests/tools/test_train_and_test.py; here one does what each of them is told to.
    'bash tools/dist_train.sh': Rule(),
    'bash tools/dist_test.sh': Rule(),
    'pip install': Rule(skip='runs in tests/test_distribution.py'),
    'hierseg doctor': Rule(),
    'hierseg quickstart': Rule(skip='runs in tests/tools/test_train_and_test.py, as tools/quickstart.sh'),
    'hierseg taxonomy': Rule(),
    'hierseg convert coco': Rule(words={'STORE': 'data/farm/store/again'}, more=('--overwrite',)),
    'hierseg browse': Rule(),
    # The short config of the tests.
    'hierseg train': Rule(words={'hierseg::quickstart/hier_e2e.py': 'configs/quickstart/hier_e2e.py'}),
    'hierseg serve': Rule(skip='serves until it is ended; tests/prediction/test_serving.py opens the page'),
    'hierseg test': Rule(words={'hierseg::quickstart/hier_e2e.py': 'configs/quickstart/hier_e2e.py'}),
    'hierseg predict': Rule(
        words={
            'hierseg::hier_e2e.py': 'configs/hier_e2e.py',
            'hierseg::quickstart/hier_e2e.py': 'configs/quickstart/hier_e2e.py',
            **dict.fromkeys(('street.jpg', 'clip.mp4', 'camera:0'), IMAGE),
            **dict.fromkeys(('holiday/', 'photographs/'), 'data/openimages/validation'),
            'more/**/*.png': 'data/openimages/validation/*.jpg',
        },
        more=('--device', 'cpu'),
    ),
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
    'python -m hierseg.store': Rule(),
    'python tools/synthesize.py': Rule(more=('--images', '16', '--val-images', '4', '--size', '96')),
    'python tools/dataset_converters/coco.py': Rule(words={'STORE': 'data/farm/store/again'}, more=('--overwrite',)),
    'python tools/analysis_tools/browse_dataset.py': Rule(),
    'python tools/analysis_tools/calibrate.py': Rule(may_refuse='no name of them can be judged'),
    'python tools/analysis_tools/explain_ensemble.py': Rule(
        words={'CHECKPOINT': 'work_dirs/two_layer_ensemble/epoch_310.pth'}
    ),
    'python tools/analysis_tools/layer_report.py': Rule(),
    'python tools/analysis_tools/sampling_report.py': Rule(),
    'python tools/compare.py': Rule(
        words={
            'STORE': 'data/openimages/store/validation',
            'IMAGES': 'data/openimages/validation',
            'ensemble=ENSEMBLE.json': 'ensemble=results.json',
            'end-to-end=END_TO_END.json': 'end-to-end=results.json',
        },
        more=('--pictures', '1', '--timed-images', '1'),
    ),
    'python tools/dataset_converters/download_openimages.py': Rule(
        parse_only='needs a network; runs against a local server in tests/tools/test_download_openimages.py'
    ),
    'python tools/misc/merge_layers.py': Rule(),
    'python tools/export.py': Rule(
        parse_only='wants a model that has learnt something; runs in tests/apis/test_export.py'
    ),
    'python tools/chaos.py': Rule(parse_only='takes minutes; runs in tests/tools/test_chaos.py'),
    'python tools/benchmarks/exported.py': Rule(parse_only='wants the exports of a model that has learnt something'),
    'python tools/misc/browser_page.py': Rule(
        parse_only='wants onnxruntime-web; runs in tests/deploy/test_browser_page.py'
    ),
    'npm install': Rule(skip='needs a network'),
    'ovc model.onnx': Rule(skip='is a program of another project'),
    'python tools/benchmarks/losses.py': Rule(more=('--repeats', '1', '--rois', '64', '--num-classes', '300')),
    'python tools/benchmarks/interval_coverage.py': Rule(
        more=('--images', '10', '--samples', '2', '--population', '300', '--pairs', 'close')
    ),
    'python tools/benchmarks/conversion.py': Rule(
        more=(
            *('--size', '64', '48', '--masks', '2', '--images', '10', '--table-images', '10'),
            *('--workers', '1', '--repeats', '1'),
        )
    ),
    'python tools/benchmarks/store.py': Rule(
        parse_only='starts processes; runs in tests/tools/test_store_benchmark.py'
    ),
    'python tools/benchmarks/evaluator.py': Rule(
        parse_only='starts processes; runs in tests/tools/test_evaluator_benchmark.py'
    ),
    'python tools/benchmarks/loading.py': Rule(
        parse_only='draws large images; runs in tests/tools/test_loading_benchmark.py'
    ),
    'python tools/benchmarks/operators.py': Rule(
        parse_only='starts processes; runs in tests/tools/test_operators_benchmark.py'
    ),
    'python tools/benchmarks/sampling.py': Rule(more=('--images', '400', '--instances', '1000')),
    'python tools/benchmarks/soak.py': Rule(parse_only='trains for half an hour; tests/tools/test_soak.py'),
    'python tools/benchmarks/threads.py': Rule(parse_only='keeps all cores busy for minutes'),
    'python tools/benchmarks/latency.py': Rule(
        parse_only='times large models; runs in tests/tools/test_latency_benchmark.py'
    ),
    'python tools/benchmarks/training.py': Rule(
        parse_only='trains large models; runs in tests/tools/test_training_benchmark.py'
    ),
    'python tools/benchmarks/ablation.py': Rule(parse_only='trains for hours; runs in tests/tools/test_ablation.py'),
    'python tools/benchmarks/curves.py': Rule(parse_only='trains for days; runs in tests/tools/test_curves.py'),
}


# Pages whose commands build on those before.
WALKS = {'docs/guide_own_coco.md'}


def rule_of(words: tuple[str, ...]) -> Rule:
    for length in (3, 2):
        if ' '.join(words[:length]) in RULES:
            return RULES[' '.join(words[:length])]
    raise AssertionError(f'no rule in {Path(__file__).name} says how to run: {" ".join(words)}')


@pytest.fixture(scope='module')
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    workshop = Workshop(tmp_path_factory.mktemp('workshop'))
    workshop.furnish()
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
    page = command.place.partition(':')[0]
    if page in WALKS:
        steps = [step for step in COMMANDS if step.place.startswith(page)]
        for step in steps[: steps.index(command)]:
            follow(step, workshop)
    follow(command, workshop)


def follow(command: Command, workshop: Workshop) -> None:
    rule = rule_of(command.words)
    words = tuple({**PLACEHOLDERS, **rule.words}.get(word, word) for word in command.words) + rule.more
    if rule.parse_only:
        workshop.parse(words)
        return
    if words[0] == 'bash':
        words = workshop.words_of_each_process(words)
    workshop.run(*words, may_refuse=rule.may_refuse)


class TestTaxonomies:
    @pytest.mark.parametrize('name', ['wildlife', 'retail', 'litter'])
    def test_the_tree_is_that_of_the_page(self, name: str, workshop: Workshop) -> None:
        printed = workshop.run('python', '-m', 'hierseg.taxonomy', f'{name}.yaml')
        assert printed in [block.text for block in blocks(ROOT / 'docs/guide_taxonomies.md')]

    def test_the_mistakes_are_found(self, workshop: Workshop, tmp_path: Path) -> None:
        mistakes = {
            'bottle: [plastic bottle, glass bottle]': 'upside down',
            '{duck: bird, bird: animal, animal: duck}': 'cycle',
        }
        for text, told in mistakes.items():
            (tmp_path / 'mistake.yaml').write_text(text)
            with pytest.raises(TaxonomyError, match=told):
                read_taxonomy(tmp_path / 'mistake.yaml')
        (tmp_path / 'odd.yaml').write_text('{cola: drink, cola can: cola, fox: carnivore, badger: Carnivore}')
        printed = workshop.run('python', '-m', 'hierseg.taxonomy', str(tmp_path / 'odd.yaml'))
        assert 'warning: single-child chain drink › cola › cola can\n' in printed
        assert "warning: the names 'carnivore', 'Carnivore' differ by blanks or case only\n" in printed


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
        offsets = ldam.offsets(torch.zeros(3, 4), torch.tensor([0, 1, 3]), Relations.of(TEDDY.arrays))
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
        assert parts.names_of(predictions, taxonomy) == [
            image['pred_instances']['labels'].tolist() for image in predictions
        ]

    def test_the_reader_makes_a_store(self, parts: ModuleType, tmp_path: Path) -> None:
        parts.convert_squares(tmp_path, tmp_path / 'store')
        store = Store.open(tmp_path / 'store')
        assert [store.instances(row).areas.tolist() for row in range(len(store))] == [[600.0], [1500.0]]
        assert cv2.imread(str(tmp_path / '2.jpg')).shape == (64, 96, 3)

    def test_the_rule_is_chosen_by_its_name(self, parts: ModuleType) -> None:
        from hierseg.functional import Relations
        from hierseg.models.detections import Decision

        decision = Decision(Relations.of(TEDDY.arrays), rule='below_root')
        # Toy and teddy are claimed; car alone is.
        assert decision(torch.tensor([[0.9, 0.2, 0.0], [0.0, 0.0, 0.4]])).tolist() == [1, 2]


def test_pages_are_looked_at() -> None:
    assert {command.place.partition(':')[0] for command in COMMANDS} <= {str(page.relative_to(ROOT)) for page in PAGES}
    assert len(COMMANDS) > 40
