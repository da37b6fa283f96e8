"""Runs that are killed at any moment, repeated to their end, and compared with those that were not.

Half of the moments are at random in the time that a run takes; the others are those at which Python opens, renames or
removes something in the output, since there most can go wrong.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from chaos import data, trained
from chaos.entries import digest
from chaos.runs import inputs_of, make_data, train_here, trained_state
from hierseg.converters.open_images import convert_open_images
from hierseg.files import write_atomically
from hierseg.prediction.outputs import predict
from hierseg.store import Store
from hierseg.synthetic.options import default_taxonomy

EVENTS = ('open', 'os.rename', 'os.remove', 'os.mkdir', 'os.rmdir', 'os.symlink', 'os.link')


@dataclass(frozen=True)
class Act:
    """A run that is killed.

    Attributes:
        name: Unique.
        run: Does it, in a folder; the second time as one who goes on.
        result: What it made, in the folder; equal by ``==`` where it is the same bit for bit.
        processes: The run is so many processes, ranks of one training.
        takes_models: It needs a trained and an exported model.
    """

    name: str
    run: Callable[[Path, bool], None]
    result: Callable[[Path], Any]
    processes: int = 1
    takes_models: bool = False


def prepare(folder: Path, *, models: bool) -> None:
    """Data, configs, and models for all runs."""
    make_data(folder)
    if not models:
        return
    (folder / 'model').mkdir()
    trained.make_checkpoint(folder / 'model')
    (folder / 'exported').mkdir()
    trained.make_export(folder / 'exported')


def _files(folder: Path) -> dict[str, str]:
    """Digests of all files below a folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob('*'))
        if path.is_file()
    }


def _convert(folder: Path, again: bool) -> None:
    data.open_images.IMAGES_PER_BATCH = 2
    inputs = inputs_of(folder / 'data/quickstart', 'train')
    convert_open_images(inputs, default_taxonomy(), out=folder / 'out/store', overwrite=again)


def _overwrite(folder: Path, again: bool) -> None:
    inputs = inputs_of(folder / 'data/quickstart', 'validation')
    if not again:
        shutil.copytree(folder / 'data/quickstart/store/train', folder / 'out/store', symlinks=True)
    data.open_images.IMAGES_PER_BATCH = 2
    convert_open_images(inputs, default_taxonomy(), out=folder / 'out/store', overwrite=True)


def _store(folder: Path) -> Any:
    return digest(data.contents(Store.open(folder / 'out/store')))


def _train(config: str) -> Callable[[Path, bool], None]:
    return lambda folder, again: train_here(folder / f'{config}.py', folder / 'out/work')


def _weights(folder: Path) -> Any:
    work = folder / 'out/work'
    return digest(trained_state(work)), sorted(path.name for path in work.glob('*.pth'))


def _export(folder: Path, again: bool) -> None:
    config = trained.load_config(folder / 'model/model.py')
    model = trained.load_detector(config, str(folder / 'model/model.pth'), device='cpu')
    trained.write_graph(model, config, folder / 'traced.onnx', sample=str(_picture(folder)))
    write_atomically((folder / 'traced.onnx').read_bytes(), folder / 'out/model.onnx')
    (folder / 'traced.onnx').unlink()


def _picture(folder: Path) -> Path:
    return min((folder / 'data/quickstart/validation').iterdir())


def _predict(folder: Path, again: bool) -> None:
    pictures = folder / 'data/quickstart/validation'
    model = folder / 'exported/model.onnx'
    predict(model, None, [pictures], folder / 'out/found', formats=('jsonl', 'coco', 'csv'), score_thr=0.01,
            progress=False)  # fmt: skip


def _out(folder: Path) -> Any:
    return _files(folder / 'out')


ACTS = (
    Act('conversion', _convert, _store),
    Act('overwriting conversion', _overwrite, _store),
    Act('end-to-end training', _train('end_to_end'), _weights),
    Act('end-to-end training of two processes', _train('end_to_end'), _weights, processes=2),
    Act('ensemble training', _train('ensemble'), _weights),
    Act('ensemble training of two processes', _train('ensemble'), _weights, processes=2),
    Act('export', _export, _out, takes_models=True),
    Act('prediction', _predict, _out, takes_models=True),
)


@dataclass
class Killed:
    """What became of a run that was killed.

    ``aimed`` is the number of the event at which it was killed, or None for a moment of the clock.
    """

    act: str
    aimed: int | None
    seconds: float
    killed: bool
    equal: bool
    left: list[str]
    detail: str = ''

    @property
    def right(self) -> bool:
        """Whether it ended as the run that was not killed."""
        return self.equal and not self.left and not self.detail


def _start(act: Act, folder: Path, *, again: bool, aimed: int | None) -> list[int]:
    """The processes of a run; the last one kills itself at an event, and all of them write what they say down."""
    port = _free_port()
    processes = []
    for rank in range(act.processes):
        child = os.fork()
        if child:
            processes.append(child)
            continue
        code = 1
        try:
            said = os.open(folder / f'said{rank}', os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
            for stream in (1, 2):
                os.dup2(said, stream)
            os.chdir(folder)
            if act.processes > 1:
                os.environ |= {'RANK': str(rank), 'LOCAL_RANK': str(rank), 'WORLD_SIZE': str(act.processes)}
                os.environ |= {'MASTER_ADDR': '127.0.0.1', 'MASTER_PORT': port}
            if rank == 0:
                _count_events(folder, aimed)
            act.run(folder, again)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    return processes


def _count_events(folder: Path, aimed: int | None) -> None:
    """Writes a letter down for every event in the output, and kills this process at one of them."""
    counted, out = 0, str(folder / 'out')
    notes = os.open(folder / 'events', os.O_CREAT | os.O_WRONLY | os.O_TRUNC)

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal counted
        if event not in EVENTS or not isinstance(arguments[0], str | os.PathLike):
            return
        if event == 'open' and not (isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)):
            return
        if out in os.path.abspath(os.fspath(arguments[0])):
            counted += 1
            os.write(notes, b'e')
            if counted == aimed:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


def _free_port() -> str:
    with socket.socket() as held:
        held.bind(('127.0.0.1', 0))
        return str(held.getsockname()[1])


def _wait(processes: Sequence[int], *, kill_after: float | None) -> bool:
    """Waits for all; kills all at a moment, or as soon as one is killed. Whether one was."""
    left, began, was_killed = set(processes), time.monotonic(), False
    while left:
        for process in list(left):
            found, status = os.waitpid(process, os.WNOHANG)
            if found:
                left.discard(process)
                was_killed |= os.WIFSIGNALED(status)
        if (kill_after is not None and time.monotonic() - began > kill_after) or (was_killed and left):
            for process in left:
                os.kill(process, signal.SIGKILL)
            kill_after = None
        time.sleep(0.005)
    return was_killed


def _clear(folder: Path) -> None:
    shutil.rmtree(folder / 'out', ignore_errors=True)
    (folder / 'out').mkdir()


def _left_over(folder: Path) -> list[str]:
    """Hidden files in the output, and files in whose name is that they are no result."""
    found = [path for path in (folder / 'out').rglob('*') if path.name.startswith('.') or 'partial' in path.name]
    return sorted(str(path.relative_to(folder / 'out')) for path in found)


def _said(folder: Path) -> str:
    return ' '.join((folder / 'said0').read_text(errors='replace').strip().splitlines()[-1:])


def kill(folder: Path, acts: Sequence[Act], *, kills: int, seed: int) -> Iterator[Killed]:
    """Kills each act in turn until there were so many kills."""
    # In a process of its own: what it remembers is no business of those that are killed.
    models = any(act.takes_models for act in acts)
    preparation = Act('preparation', lambda folder, again: prepare(folder, models=models), lambda folder: None)
    (folder / 'out').mkdir()
    _wait(_start(preparation, folder, again=False, aimed=None), kill_after=None)
    if not (folder / ('exported/model.onnx' if models else 'ensemble.py')).exists():
        raise SystemExit(f'error: {_said(folder)}')
    generator = Random(seed)
    expected: dict[str, tuple[Any, float, int]] = {}
    for number in range(kills):
        act = acts[number % len(acts)]
        if act.name not in expected:
            _clear(folder)
            began = time.monotonic()
            _wait(_start(act, folder, again=False, aimed=None), kill_after=None)
            seconds = time.monotonic() - began
            expected[act.name] = act.result(folder), seconds, (folder / 'events').stat().st_size
        result, seconds, events = expected[act.name]
        aimed = generator.randint(1, events) if number // len(acts) % 2 == 0 and events else None
        moment = None if aimed else generator.uniform(0, seconds)
        _clear(folder)
        killed = _wait(_start(act, folder, again=False, aimed=aimed), kill_after=moment)
        detail = ''
        _wait(_start(act, folder, again=True, aimed=None), kill_after=None)
        try:
            equal = act.result(folder) == result
        except Exception as error:
            equal, detail = False, f'{type(error).__name__}: {error}; {_said(folder)}'
        yield Killed(act.name, aimed, round(moment or 0, 2), killed, equal, _left_over(folder), detail)
