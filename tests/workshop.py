"""A folder in which the documentation's commands take seconds: small data under the names that the pages give them.

It has the repository's tools, configs of the repository's names that build on the real ones, and the data sets.
"""

from __future__ import annotations

import io
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from collections import OrderedDict
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from types import ModuleType

import pytest
from documented import ROOT, blocks, written_files
from mmengine.config import Config
from mmengine.visualization import Visualizer
from tiny_runs import SMALL
from warm_python import copies_for_fresh

from hierseg.__main__ import main
from hierseg.report import HierLocalVisualizer

OFFICIAL = 'data/openimages/challenge_2019/challenge-2019'
HIERARCHY = f'{OFFICIAL}-label300-segmentable-hierarchy.json'
CLASSES = f'{OFFICIAL}-classes-description-segmentable.csv'
IMAGE = 'data/openimages/validation/first.jpg'

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
WHOLE = """
model = model_of_a_test
train_dataloader = dict(
    **loading, **of_training,
    batch_sampler=dict(_delete_=True, type='hierseg.StreamBatchSampler', iterations=2))
val_dataloader = test_dataloader
train_cfg = dict(max_epochs=1)
default_hooks = dict(validation_loss=dict(num_batches=1, dataloader=dict(**loading, **of_training)))
"""
END_TO_END = (
    SHORT
    + """
model_of_a_test['roi_head']['bbox_head']['num_classes'] = 22
model_of_a_test['roi_head']['mask_head']['num_classes'] = 8
"""
    + WHOLE
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
BOXES = (
    SHORT
    + """
del model_of_a_test['rpn_head'], model_of_a_test['roi_head']
model_of_a_test['bbox_head'] = dict(in_channels=16, feat_channels=64, stacked_convs=1, num_classes=22)
model_of_a_test['test_cfg'] = dict(score_thr=0.001, max_per_img=10)
"""
    + WHOLE
)
REAL_TIME = """
model = dict(
    backbone=dict(deepen_factor=0.167, widen_factor=0.125, init_cfg=None),
    neck=dict(in_channels=[32, 64, 128], out_channels=16),
    bbox_head=dict(in_channels=16, feat_channels=16, num_classes=22, verified=dict(num_negatives=4)))
train_pipeline = [
    *_base_.loading, dict(type='Resize', scale=(64, 64), keep_ratio=True), dict(type='RandomFlip', prob=0.5),
    _base_.packing]
test_pipeline = _base_.test_pipeline
for step in test_pipeline:
    if step.type == 'Resize':
        step.scale = (64, 64)
loading_of_a_test = dict(batch_size=2, num_workers=0, persistent_workers=False)
train_dataloader = dict(
    **loading_of_a_test,
    dataset=dict(pipeline=train_pipeline),
    batch_sampler=dict(_delete_=True, type='hierseg.StreamBatchSampler', iterations=2))
val_dataloader = dict(**loading_of_a_test, dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
train_cfg = dict(max_epochs=1)
custom_hooks = []
default_hooks = dict(validation_loss=dict(
    num_batches=1, dataloader=dict(**loading_of_a_test, dataset=dict(pipeline=train_pipeline))))
del step
"""
CONFIGS = {
    'hier_retinanet': BOXES,
    'hier_rtmdet_s': REAL_TIME,
    'hier_e2e': END_TO_END,
    'quickstart/hier_e2e': END_TO_END,
    'two_layer_ensemble': ENSEMBLE,
    'quickstart/two_layer_ensemble': ENSEMBLE,
}
# What makes the pages' own configs as short.
SHORTER = {r'iterations=\d+': 'iterations=1', r'layer0=12, layer1=12': 'layer0=1, layer1=1'}

FARM = 'cow: animal\nhorse: animal\nsheep: animal\ntractor: null\n'


class Workshop:
    """The folder, and what has been done in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._done: dict[tuple[str, ...], str] = {}

    def furnish(self) -> None:
        """Lays out tools, configs and the files that the pages say to write."""
        folder = self.folder
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

    def run(self, *words: str, may_refuse: str = '') -> str:
        """Runs a Python command of this folder, once, and gives back what it printed.

        It must succeed, or say ``may_refuse``.
        """
        if words not in self._done:
            for before, word in zip(('', *words), words, strict=False):
                if before == '--coco-results':  # which it writes
                    continue
                # NAME=CONFIG,CHECKPOINT and NAME=FILE
                for part in re.split('[=,]', word) if words[1] == 'tools/compare.py' else [word]:
                    self._provide(part)
            self._done[words] = self._run(words, may_refuse)
        return self._done[words]

    def _provide(self, word: str) -> None:
        """Trains or tests for the file that a command reads, unless an earlier command has left it."""
        if (self.folder / word).exists():
            return
        if match := re.fullmatch(r'work_dirs/(\w+)/epoch_\d+\.pth', word):
            self.run('python', 'tools/train.py', self.config(match[1]))
            if not (self.folder / word).exists():
                (self.folder / word).symlink_to((self.folder / word).with_name('last_checkpoint').read_text())
        elif word == 'submission.csv':
            options = ('--cfg-options', 'test_evaluator.submission_file=submission.csv')
            self.run('python', 'tools/test.py', 'configs/hier_e2e.py', 'work_dirs/hier_e2e/epoch_99.pth', *options)
        elif word == 'results.json':
            options = ('--coco-results', 'results.json')
            self.run('python', 'tools/test.py', 'configs/hier_e2e.py', 'work_dirs/hier_e2e/epoch_99.pth', *options)

    def config(self, name: str) -> str:
        """The config whose work directory has a name; of two, the one outside the quickstart."""
        (path, *_) = sorted((self.folder / 'configs').rglob(f'{name}.py'), key=lambda path: len(path.parts))
        return str(path.relative_to(self.folder))

    def _run(self, words: tuple[str, ...], may_refuse: str) -> str:
        said, code = io.StringIO(), None
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(said), redirect_stderr(said):
            self._enter(patch, words)
            try:
                if words[0] == 'hierseg':
                    code = main(words[1:])
                elif words[1] == '-m':
                    runpy.run_module(words[2], run_name='__main__', alter_sys=True)
                else:
                    runpy.run_path(words[1], run_name='__main__')
            except SystemExit as exit:
                code = exit.code
        refused = bool(may_refuse) and may_refuse in said.getvalue()
        assert code in (None, 0) or refused, f'{" ".join(words)}\n{said.getvalue()[-2000:]}'
        return said.getvalue()

    def parse(self, words: tuple[str, ...]) -> None:
        """Parses the arguments of a tool."""
        with pytest.MonkeyPatch.context() as patch:
            self._enter(patch, words)
            patch.setitem(sys.modules, 'parsed', ModuleType('parsed'))  # dataclasses look their module up
            tool = runpy.run_path(words[1], run_name='parsed')
            tool['parse_arguments']()

    def _enter(self, patch: pytest.MonkeyPatch, words: tuple[str, ...]) -> None:
        patch.chdir(self.folder)
        patch.syspath_prepend(self.folder)
        patch.setattr(sys, 'argv', [*words[2 if words[1] == '-m' else 1 :]])
        patch.setenv('CUDA_VISIBLE_DEVICES', '-1')
        patch.setenv('LOCAL_RANK', '0')
        # MMEngine would give the visualizer of a run before, with that one's folder and classes.
        for kind in (HierLocalVisualizer, Visualizer):
            patch.setattr(kind, '_instance_dict', OrderedDict())
        copies_for_fresh(patch)
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
    tables = folder / OFFICIAL
    tables.parent.mkdir()
    for file in (folder / 'data/openimages').glob('challenge-2019-*'):
        (tables.parent / file.name).symlink_to(file)
    for split in ('train', 'validation'):
        masks = folder / f'data/openimages/{split}-masks'
        shutil.make_archive(str(tables.parent / f'{split}-masks/masks-0'), 'zip', masks)
    for source, name in (('label-hierarchy.json', HIERARCHY), ('classes-description.csv', CLASSES)):
        (folder / name).symlink_to(folder / f'{OFFICIAL}-{source}')
    (folder / 'data/quickstart').symlink_to(folder / 'data/openimages')
    first = min((folder / 'data/openimages/validation').iterdir())
    (folder / IMAGE).symlink_to(first)
    for split in ('train', 'validation'):
        convert_open_images(workshop, 'data/openimages', f'{OFFICIAL}-{split}', split, HIERARCHY, CLASSES)


def convert_open_images(workshop: Workshop, data: str, official: str, split: str, hierarchy: str, classes: str) -> None:
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
        convert_open_images(workshop, 'data/farm', f'{official}-{split}', split, *files)
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
