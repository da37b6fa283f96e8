"""A stand-in for Python that has the large packages imported: a command that takes seconds to begin takes none.

:func:`warm_python` gives a program that takes Python's arguments, for ``$PYTHON`` of the scripts of tools/. Each
command runs in a fresh copy of one process. That one has imported torch, MMDetection and the like, but nothing of
hierseg except its operators: what a tool forgets to import, it still misses. Arguments, environment, folder, input and
output, exit status and signals are as if Python had been called. Copies share the seed of Python's hashes and no other
random state.
"""

from __future__ import annotations

import atexit
import gc
import io
import json
import os
import random
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import redirect_stderr, redirect_stdout, suppress
from functools import cache
from importlib import import_module
from multiprocessing import context
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = (
    'hierseg.operators', 'torch.distributed.run', 'mmengine.runner', 'mmcv.ops', 'mmdet.apis', 'mmdet.evaluation',
    'mmdet.visualization', 'pycocotools.mask', 'duckdb', 'pandas', 'pyarrow.compute', 'networkx', 'matplotlib.pyplot',
    'jinja2', 'PIL.Image', 'yapf.yapflib.yapf_api',
)  # fmt: skip
LONGEST_MESSAGE = 1 << 20

# What a command talks to: hands over all that it has, passes signals on, and ends as the copy did.
CLIENT = """#!{python} -IS
import json, os, signal, socket, sys
with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
    server.connect({address!r})
    message = json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()
    socket.send_fds(server, [message], [0, 1, 2])
    pid = int(server.recv(64))
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda number, frame: os.kill(pid, number))
    status = int(server.recv(64))
if status < 0:
    if status != -signal.SIGKILL:
        signal.signal(-status, signal.SIG_DFL)
    os.kill(os.getpid(), -status)
sys.exit(status)
"""


def copies_for_fresh(patch: pytest.MonkeyPatch) -> None:
    """Lets multiprocessing copy this process where it would start a fresh one and import everything again."""
    patch.setitem(context._concrete_contexts, 'spawn', context._concrete_contexts['fork'])


@cache
def warm_python() -> Path:
    """The program; the process behind it is started the first time and ends with this one."""
    folder = tempfile.TemporaryDirectory(prefix='warm-')
    address, program = os.path.join(folder.name, 'socket'), Path(folder.name, 'python')
    program.write_text(CLIENT.format(python=sys.executable, address=address))
    program.chmod(0o755)
    variables = {**os.environ, 'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': '-1', 'PYTHONPATH': str(ROOT)}
    command = [sys.executable, __file__, address]
    server = subprocess.Popen(command, env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def end() -> None:
        server.communicate()
        folder.cleanup()

    atexit.register(end)
    assert server.stdout is not None
    assert server.stdout.read(6) == b'ready\n', 'the process that commands are copies of did not start'
    return program


def launched_warm() -> dict[str, str]:
    """The environment in which scripts, and PyTorch's launcher, take this program for Python."""
    return dict.fromkeys(('PYTHON', 'PYTHON_EXEC'), str(warm_python()))


def serve(address: str) -> None:
    """Runs each command that comes in, in a copy of this process, until the input ends."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(address)
    listener.listen()
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):  # notes of what is not installed
        for name in PACKAGES:
            import_module(name)
    gc.collect()
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    os.write(1, b'ready\n')
    while True:
        ready, _, _ = select.select([0, listener], [], [])
        if 0 in ready:
            os._exit(0)
        client, _ = listener.accept()
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            listener.close()
            attend(client)
            return
        client.close()


def attend(client: socket.socket) -> None:
    """Runs the command of a client and tells it how that ended; what comes back from here is the command's process."""
    message, files, _, _ = socket.recv_fds(client, LONGEST_MESSAGE, 3)
    pid = os.fork()
    if pid == 0:
        client.close()
        run(*json.loads(message), files)
        return
    with suppress(BrokenPipeError):  # the client was killed, as the copy is then
        client.send(str(pid).encode())
        end = os.pidfd_open(pid)
        if end not in select.select([client, end], [], [])[0]:
            os.kill(pid, signal.SIGKILL)
        client.send(str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])).encode())
    os._exit(0)


def run(arguments: list[str], folder: str, variables: dict[str, str], files: list[int]) -> None:
    """Does what Python does with these arguments: ``-u``, ``-c CODE``, ``-m MODULE`` or a script, and those of that."""
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(variables)
    random.seed()
    np.random.seed(None)  # noqa: NPY002 - which MMEngine draws its seeds from
    if arguments[0] == '-u':
        sys.stdout.reconfigure(write_through=True)
        del arguments[0]
    kind = arguments.pop(0) if arguments[0] in ('-c', '-m') else ''
    sys.argv = arguments
    named = [entry for entry in variables.get('PYTHONPATH', '').split(os.pathsep) if entry]
    sys.path[:] = [folder if kind else os.path.dirname(os.path.abspath(arguments[0])), *named, *OWN_PATH]
    if kind == '-c':
        code, sys.argv[0] = sys.argv[0], '-c'
        exec(code, {'__name__': '__main__'})
    elif kind == '-m':
        runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)
    else:
        runpy.run_path(sys.argv[0], run_name='__main__')


if __name__ == '__main__':
    # Without this file's folder and PYTHONPATH.
    OWN_PATH = [entry for entry in sys.path if entry not in (str(ROOT), str(ROOT / 'tests'))]
    serve(sys.argv[1])
