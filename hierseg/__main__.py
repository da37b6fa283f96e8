"""The command ``hierseg``: the tools of tools/ by short names, wherever hierseg is installed.

A tool runs as the script that it is and has its own options. The tools and the configs lie in ``.mim``, where
MMDetection keeps its own: as files of the wheel, and in the repository as links to tools/ and configs/. In arguments,
``hierseg::hier_e2e.py`` names the config of that name wherever hierseg is installed.
"""

from __future__ import annotations

import argparse
import os
import runpy
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from hierseg import __version__

TOOLS, CONFIGS = ((Path(__file__).parent / '.mim' / name).resolve() for name in ('tools', 'configs'))
# Name → a script of tools/, or a module whose `main` takes the arguments; and what it is for.
COMMANDS = {
    'quickstart': ('quickstart.sh', 'make data, train and test three systems, compare them: minutes on two cores'),
    'taxonomy': ('hierseg.taxonomy.__main__', 'show a class hierarchy, and what is odd in it'),
    'convert open-images': ('dataset_converters/openimages.py', 'official Open Images files to a store'),
    'convert coco': ('dataset_converters/coco.py', 'COCO JSON to a store, and a store to COCO JSON'),
    'browse': ('analysis_tools/browse_dataset.py', 'pictures of a data set with the class paths of its instances'),
    'train': ('train.py', 'train the model of a config'),
    'test': ('test.py', 'test a checkpoint: scores, pictures, a submission'),
    'predict': ('predict.py', 'apply a model to images, folders, videos and cameras'),
    'serve': ('serve.py', 'a page on this machine: drop a photograph, see instances, click one'),
    'export': ('export.py', 'a trained real-time model as an ONNX file that knows its classes'),
    'compare': ('compare.py', 'compare systems on the same images, on one page'),
    'doctor': ('hierseg.doctor', 'say what is installed, what is missing, and how to get it'),
}


def main(arguments: Sequence[str] | None = None) -> int | None:
    """Runs a command and returns its exit status; of ``sys.argv`` without arguments."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    for length in (2, 1):
        name = ' '.join(words[:length])
        if name in COMMANDS:
            return run(name, words[length:])
    parser = argparse.ArgumentParser(
        prog='hierseg',
        usage='hierseg [--help] [--version] COMMAND ...',
        description='Instance segmentation with a class hierarchy and a long tail, on MMDetection.',
        epilog='commands:\n'
        + '\n'.join(f'  {name:<21}{purpose}' for name, (_, purpose) in COMMANDS.items())
        + '\n\nhierseg COMMAND --help lists the options of a command. In arguments, hierseg::hier_e2e.py is'
        + f'\n{CONFIGS}/hier_e2e.py, and so on.',
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('--version', action='version', version=f'hierseg {__version__}')
    parser.add_argument('words', nargs='*', help=argparse.SUPPRESS)
    given = parser.parse_known_args(words)[0].words
    return parser.error(f'there is no command {" ".join(given)!r}; see hierseg --help' if given else 'name a command')


def run(name: str, arguments: Sequence[str]) -> int | None:
    """Runs the command of a name and returns its exit status; the quickstart takes this process's place."""
    tool, _ = COMMANDS[name]
    if tool.endswith('.sh'):
        # What it installs in the repository, pip has installed here.
        variables = {**os.environ, 'HIERSEG_SKIP_SETUP': '1', 'PYTHON': sys.executable}
        os.execvpe('bash', ['bash', str(TOOLS / tool), *arguments], variables)
    if not tool.endswith('.py'):
        status: int = import_module(tool).main(arguments)
        return status
    sys.argv = [f'hierseg {name}', *(word.replace('hierseg::', f'{CONFIGS}/') for word in arguments)]
    runpy.run_path(str(TOOLS / tool), run_name=Path(tool).stem)['main']()
    return None


if __name__ == '__main__':
    sys.exit(main())
