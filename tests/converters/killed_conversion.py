"""Kills conversions at every chosen moment and goes on with them; prints what happened as JSON.

Run as ``killed_conversion.py ROOT WHAT SEED COUNT``: WHAT is ``convert`` or ``overwrite``. ROOT
has the files of one split. A moment is an event at which Python opens, renames or removes something in the output.
Processes are forked from this one, which has no threads and has done all importing.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hierseg.converters import open_images
from hierseg.converters.open_images import OpenImagesFiles, convert_open_images
from hierseg.taxonomy import Taxonomy

IMAGES_PER_BATCH = 8
EVENTS = {'open', 'os.rename', 'os.remove', 'os.mkdir', 'os.rmdir'}
TAXONOMY = Taxonomy.from_edges(
    ['/m/person', '/m/man', '/m/car'], [('/m/man', '/m/person')], names=['Person', 'Man', 'Car']
)


def fork(act: Callable[[], None], out: Path, *, kill_at: int) -> tuple[bool, int, int]:
    """Whether it was killed, how many moments it had, how many images it opened."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        moments = 0

        def watch(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal moments
            if event not in EVENTS or not isinstance(arguments[0], (str, os.PathLike)):
                return
            path = os.fspath(arguments[0])
            if path.endswith('.jpg'):
                os.write(writer, b'i')
            elif str(out.parent) in path:
                moments += 1
                os.write(writer, b'm')
                if moments == kill_at:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(watch)
        try:
            act()
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, 'rb') as pipe:
        told = pipe.read()
    _, status = os.waitpid(child, 0)
    if not os.WIFSIGNALED(status) and os.waitstatus_to_exitcode(status):
        raise SystemExit('a conversion failed')
    return os.WIFSIGNALED(status), told.count(b'm'), told.count(b'i')


def contents(folder: Path) -> dict[str, str]:
    if not folder.exists():
        return {}
    return {path.name: path.read_bytes().hex() for path in folder.iterdir() if path.name != 'begun.json'}


def main(root: Path, what: str, seed: int, count: int) -> None:
    open_images.IMAGES_PER_BATCH = IMAGES_PER_BATCH
    files = OpenImagesFiles(
        *[root / f'{name}.csv' for name in ('box', 'label', 'mask')], root / 'images', root / 'masks'
    )
    out = root / 'work' / 'out'

    def act() -> None:
        convert_open_images(files, TAXONOMY, out=out, overwrite=what == 'overwrite')

    def prepare() -> None:
        shutil.rmtree(out.parent, ignore_errors=True)
        out.parent.mkdir()
        if what == 'overwrite':
            shutil.copytree(root / 'old', out)

    prepare()
    _, moments, images = fork(act, out, kill_at=0)
    expected = contents(out)
    found = []
    for moment in sorted(random.Random(seed).sample(range(1, moments + 1), min(count, moments))):
        prepare()
        before = contents(out)
        was_killed, _, opened = fork(act, out, kill_at=moment)
        seen = contents(out)
        there_all_along = seen in ({}, before, expected)
        # Killed when the output had its name already, there is nothing to go on with.
        again = 0 if seen == expected else fork(act, out, kill_at=0)[2]
        found.append(
            {
                'killed': was_killed,
                'whole or not there': there_all_along,
                'equal': contents(out) == expected,
                'opened twice': opened + again - images,
                'left over': [path.name for path in out.parent.iterdir() if path != out],
            }
        )
    print(json.dumps({'moments': moments, 'images': images, 'runs': found}))


if __name__ == '__main__':
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
