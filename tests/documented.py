"""What README.md and docs/ say to type, and the files that they say to write."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / 'README.md', ROOT / 'CONTRIBUTING.md', *sorted((ROOT / 'docs').glob('*.md'))]

# No command is found in an empty PATH, so that bash hands every one to this function, with all expansions done. What an
# environment's script would do is bash's own to do, and not wanted here.
RECORD = """command_not_found_handle() { printf "%s\\0" "$#" "$@" >&3; }
source() { command_not_found_handle source "$@"; }
exec 3>&1 >/dev/null
set -eu
"""


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        place: Page and line.
        language: What stands behind the fence.
        text: Its lines.
    """

    place: str
    language: str
    text: str


@dataclass(frozen=True)
class Command:
    """A command as the shell would start it.

    Attributes:
        place: Page and line of its block.
        words: Program and arguments.
    """

    place: str
    words: tuple[str, ...]


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page."""
    lines = page.read_text().splitlines()
    start = None
    for number, line in enumerate(lines):
        if not line.startswith('```'):
            continue
        if start is None:
            start = number
        else:
            place = f'{page.relative_to(ROOT)}:{start + 1}'
            yield Block(place, lines[start].removeprefix('```'), '\n'.join(lines[start + 1 : number]) + '\n')
            start = None
    assert start is None, f'{page}:{start}: the block does not end'


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return re.sub(r'^```.*?^```$', '', page.read_text(), flags=re.MULTILINE | re.DOTALL)


def commands(block: Block, folder: Path) -> Iterator[Command]:
    """What a block of bash starts: variables, loops and continued lines are bash's own to understand.

    Args:
        block: The block.
        folder: The current folder.

    Raises:
        AssertionError: The block is wrong to bash.
    """
    bash = shutil.which('bash')
    assert bash is not None
    answer = subprocess.run(
        [bash, '--noprofile', '--norc', '-c', RECORD + block.text],
        cwd=folder, env={'PATH': '/nowhere'}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert answer.returncode == 0, f'{block.place}: {answer.stderr}'
    words = answer.stdout.split('\0')[:-1]
    while words:
        count = int(words.pop(0))
        yield Command(block.place, tuple(words[:count]))
        del words[:count]


def all_commands(folder: Path) -> list[Command]:
    """Every command of every page, each once."""
    found: dict[tuple[str, ...], Command] = {}
    for page in PAGES:
        for block in blocks(page):
            if block.language == 'bash':
                for command in commands(block, folder):
                    found.setdefault(command.words, command)
    return list(found.values())


def written_files() -> dict[str, str]:
    """The files that blocks of Python or YAML begin with the name of; several blocks of one name are one file."""
    files: dict[str, str] = {}
    for page in PAGES:
        for block in blocks(page):
            match = re.match(r'# ([\w/]+\.(py|yaml))\n', block.text)
            if match and block.language == {'py': 'python', 'yaml': 'yaml'}[match[2]]:
                files[match[1]] = files.get(match[1], '') + block.text
    return files
