"""The pages: links lead somewhere, commands stand where test_commands.py finds them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from documented import PAGES, ROOT, Block, blocks, commands, prose

LINK = re.compile(r'\]\(([^()\s]+)\)')


def headings(page: Path) -> set[str]:
    """The anchors of a page, as GitHub and MyST make them."""
    titles = re.findall(r'^#+ (.*)$', prose(page), flags=re.MULTILINE)
    return {re.sub(r'[^\w\- ]', '', title.lower()).replace(' ', '-') for title in titles}


def broken_links(page: Path) -> Iterator[str]:
    for link in LINK.findall(prose(page)):
        if '://' in link or link.startswith('mailto:'):
            continue
        name, _, anchor = link.partition('#')
        target = (page.parent / name).resolve() if name else page
        if not target.exists():
            yield f'{link}: no such file'
        elif anchor and target.suffix == '.md' and anchor not in headings(target):
            yield f'{link}: no such heading'


@pytest.mark.parametrize('page', PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    assert list(broken_links(page)) == []


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    page = tmp_path / 'page.md'
    page.write_text(
        '# One (and only) head-ing\n[a](page.md#one-and-only-head-ing) [b](#two) ![c](c.png) [d](https://x.y/z)\n'
        '```bash\n[e](f.md)\n```\n'
    )
    assert list(broken_links(page)) == ['#two: no such heading', 'c.png: no such file']


def test_every_page_is_linked_from_the_readme_or_the_index() -> None:
    linked = {
        (page.parent / link.partition('#')[0]).resolve()
        for page in (ROOT / 'README.md', ROOT / 'docs/index.md')
        for link in LINK.findall(prose(page))
    }
    assert {*PAGES} - linked <= {ROOT / 'README.md', ROOT / 'docs/index.md'}


@pytest.mark.parametrize('page', PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_stand_in_blocks_of_bash(page: Path) -> None:
    elsewhere = [
        block.place
        for block in blocks(page)
        if block.language != 'bash' and re.search(r'^\s*(python3?|bash|pip) ', block.text, flags=re.MULTILINE)
    ]
    assert elsewhere == []


def test_what_bash_would_start_is_found(tmp_path: Path) -> None:
    text = """
    for split in train validation; do  # a comment
        python tools/a.py --out "store/$split" \\
            --flag
    done
    export HERE=$PWD
    source here/activate
    MORE=1 bash b.sh 'one word' "$HERE"
    """
    found = [command.words for command in commands(Block('page.md:1', 'bash', text), tmp_path)]
    convert = [('python', 'tools/a.py', '--out', f'store/{split}', '--flag') for split in ('train', 'validation')]
    assert found == [*convert, ('source', 'here/activate'), ('bash', 'b.sh', 'one word', str(tmp_path))]


def test_a_wrong_block_is_told(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r'page\.md:7: .*unbound variable'):
        list(commands(Block('page.md:7', 'bash', 'python $NOWHERE'), tmp_path))
