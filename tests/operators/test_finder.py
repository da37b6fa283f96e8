"""Finding of the stand-in: only where there are no compiled operators, and in every process."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(code: str, *, path: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    places = [str(place) for place in (path, ROOT) if place is not None]
    variables = {**os.environ, 'PYTHONPATH': os.pathsep.join(places), 'OMP_NUM_THREADS': '1', **environment}
    command = [sys.executable, '-c', textwrap.dedent(code)]
    return subprocess.run(command, env=variables, capture_output=True, text=True, check=False)


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A package mmcv that has nothing, in a folder of its own."""
    (tmp_path / 'mmcv').mkdir()
    (tmp_path / 'mmcv' / '__init__.py').touch()
    return tmp_path


def test_compiled_operators_win(package: Path) -> None:
    (package / 'mmcv' / '_ext.py').write_text('nms = "compiled"')
    answer = run('import hierseg, mmcv._ext; print(mmcv._ext.nms, hierseg.operators.backend())', path=package)
    assert answer.stdout == 'compiled compiled\n', answer.stderr


def test_compiled_roi_align_is_quickened_unless_somebody_insists(package: Path) -> None:
    (package / 'mmcv' / '_ext.py').write_text(
        textwrap.dedent(
            """
            def roi_align_forward(*tensors, **settings):
                print('compiled', tensors[0].shape[1], settings['pool_mode'])
            def roi_align_backward(*tensors, **settings):
                print('compiled gradient', tensors[0].shape[1])
            """
        )
    )
    code = """
        import hierseg, torch, mmcv._ext as operators
        rois, nothing = torch.tensor([[0.0, 1, 1, 6, 7]]), torch.zeros(0)
        settings = dict(aligned_height=2, aligned_width=2, spatial_scale=1.0, sampling_ratio=0, aligned=True)
        for channels, mode in (15, 1), (16, 1), (16, 0):
            output = torch.zeros(1, channels, 2, 2)
            operators.roi_align_forward(
                torch.ones(1, channels, 8, 8), rois, output, nothing, nothing, pool_mode=mode, **settings
            )
            if output.any():
                print('plain', channels, round(output.sum().item(), 4))
            gradient = torch.zeros(1, channels, 8, 8)
            operators.roi_align_backward(output + 1, rois, nothing, nothing, gradient, pool_mode=mode, **settings)
            if gradient.any():
                print('plain gradient', channels, round(gradient.sum().item(), 4))
    """
    # Each of four bins of 16 channels has the mean of ones, one; its gradient is two: 64 and 128 in all.
    lines = ['compiled 15 1', 'compiled gradient 15', 'plain 16 64.0', 'plain gradient 16 128.0']
    lines += ['compiled 16 0', 'compiled gradient 16']
    answer = run(code, path=package)
    assert answer.stdout.splitlines() == lines, answer.stderr
    late = run(
        code.replace('import hierseg, torch, mmcv._ext', 'import torch, mmcv._ext, hierseg, mmcv._ext'), path=package
    )
    assert late.stdout.splitlines() == lines, late.stderr
    insisted = run(code, path=package, HIERSEG_OPERATORS='compiled')
    assert [line for line in insisted.stdout.splitlines() if 'plain' in line] == [], insisted.stderr


def test_broken_ones_stay_a_loud_error(package: Path) -> None:
    (package / 'mmcv' / '_ext.py').write_text('raise ImportError("undefined symbol: _ZN2at")')
    answer = run('import hierseg, mmcv._ext', path=package)
    assert answer.returncode == 1
    assert 'undefined symbol' in answer.stderr


def test_importing_hierseg_does_not_import_torch() -> None:
    answer = run('import sys, hierseg.operators; print("torch" in sys.modules)')
    assert answer.stdout.startswith('False'), answer.stderr
    again = run('import sys, hierseg; before = len(sys.meta_path); hierseg.operators.install(); '
                'print(len(sys.meta_path) - before)')  # fmt: skip
    assert again.stdout == '0\n', again.stderr


def test_without_mmcv_there_are_none(tmp_path: Path) -> None:
    answer = run(
        """
        import sys
        class NoMmcv:
            def find_spec(self, name, path=None, target=None):
                if name.split('.')[0] == 'mmcv':
                    raise ModuleNotFoundError(name)
        sys.meta_path.insert(0, NoMmcv())
        import hierseg.operators
        print(hierseg.operators.backend())
        """
    )
    assert answer.stdout == 'none\n', answer.stderr


def test_a_detector_trains_and_predicts_and_says_what_is_missing() -> None:
    answer = run(
        """
            import hierseg.operators, torch
            from mmcv.ops import DeformConv2d, RoIAlign, batched_nms, nms, roi_pool
            from mmcv.utils import collect_env
            print(hierseg.operators.backend(), '|', collect_env()['MMCV Compiler'])
            layer, features = RoIAlign(3, 1.0, 0), torch.rand(1, 2, 8, 8, requires_grad=True)
            rois = torch.tensor([[0.0, 1, 1, 6, 7]])
            layer(features, rois).sum().backward()
            print('mean gradient', round(features.grad.sum().item(), 4))
            traced = torch.jit.trace(layer, (features.detach(), rois))
            print('traced', torch.equal(traced(features, rois), layer(features, rois)))
            for call in (lambda: DeformConv2d(2, 2, 3)(features, torch.zeros(1, 18, 6, 6)),
                         lambda: roi_pool(features, rois, 2),
                         lambda: RoIAlign(3, 1.0, 0, 'max')(features, rois)):
                try:
                    call()
                except RuntimeError as error:
                    print(error)
        """,
        HIERSEG_OPERATORS='torch',
    )
    lines = answer.stdout.splitlines()
    assert 'torch | none: operators by torch' in lines, answer.stderr
    # 2 channels × 9 bins, each a mean with weights that add to 1.
    assert 'mean gradient 18.0' in lines
    assert 'traced True' in lines
    assert any('deform_conv_forward is not here' in line and 'RepPoints' in line for line in lines)
    assert any('roi_pool_forward is not here' in line for line in lines)
    assert any('roi_align_forward with maxima is not here' in line for line in lines)


def test_an_unknown_backend_is_refused() -> None:
    answer = run('import hierseg, mmcv.ops', HIERSEG_OPERATORS='cuda')
    assert answer.returncode == 1
    assert "HIERSEG_OPERATORS is 'cuda'; it may be compiled, torchvision or torch" in answer.stderr


def test_who_insists_gets_it_or_an_error(package: Path) -> None:
    code = 'import hierseg; print(hierseg.operators.backend())'
    missing = run(code, path=package, HIERSEG_OPERATORS='compiled')
    assert 'asks for compiled operators, which the mmcv here does not have' in missing.stderr
    (package / 'mmcv' / '_ext.py').touch()
    for name in ('compiled', 'torch'):
        assert run(code, path=package, HIERSEG_OPERATORS=name).stdout == f'{name}\n'


def test_spawned_workers_find_it(tmp_path: Path) -> None:
    script = tmp_path / 'spawned.py'
    script.write_text(
        textwrap.dedent(
            """
            import hierseg, torch
            from torch.utils.data import DataLoader, Dataset

            class Kept(Dataset):
                def __len__(self):
                    return 2

                def __getitem__(self, index):
                    from mmcv.ops import nms
                    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [20, 20, 30, 30]])
                    return nms(boxes, torch.tensor([0.9, 0.8, 0.7]), 0.5)[1]

            if __name__ == '__main__':
                loader = DataLoader(Kept(), batch_size=None, num_workers=1, multiprocessing_context='spawn')
                print([kept.tolist() for kept in loader])
            """
        )
    )
    variables = {**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1', 'HIERSEG_OPERATORS': 'torch'}
    answer = subprocess.run([sys.executable, script], env=variables, capture_output=True, text=True, check=False)
    assert '[[0, 2], [0, 2]]' in answer.stdout, answer.stderr
