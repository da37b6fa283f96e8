"""The language of the pages: sentences that a tired reader understands at once."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from documented import PAGES, ROOT, prose

MOST_WORDS = 25
# Records, not explanations.
RECORDS = {ROOT / 'docs' / name for name in ('changelog.md', 'lab_notebook.md')}


def sentences(text: str) -> Iterator[str]:
    """Sentences of paragraphs and list items; no tables, headings, formulas, pictures, comments or raw HTML."""
    text = re.sub(r'<!--.*?-->|\$\$.*?\$\$', '', text, flags=re.DOTALL)
    lines = [re.sub(r'^\s*(?:[-*+>]|\d+\.)\s+', '\n', line) for line in text.splitlines()]
    kept = ['\n' if re.match(r'\s*(\||#|!\[|<|\(.*\)=|:::)', line) else line for line in lines]
    for paragraph in re.split(r'\n\s*\n', '\n'.join(kept)):
        flowing = re.sub(r'!?\[([^\]]*)\]\([^()\s]*\)', r'\1', paragraph)
        flowing = re.sub(r'`[^`]*`|\$[^$]*\$', 'code', flowing).replace('*', '')
        for sentence in re.split(r'(?<=[.!?:])["\')]*\s+(?=["\'(]*[A-Z]|code)', ' '.join(flowing.split())):
            if sentence:
                yield sentence


def words(sentence: str) -> int:
    return len(re.findall(r"\w[\w.,'’/%×-]*", sentence))


def long_sentences(page: Path) -> list[str]:
    return [f'{words(sentence)}: {sentence}' for sentence in sentences(prose(page)) if words(sentence) > MOST_WORDS]


@pytest.mark.parametrize(
    'page', [page for page in PAGES if page not in RECORDS], ids=lambda page: str(page.relative_to(ROOT))
)
def test_sentences_are_short(page: Path) -> None:
    assert long_sentences(page) == []


def test_a_long_sentence_is_found(tmp_path: Path) -> None:
    page = tmp_path / 'page.md'
    fits = ' '.join(['word'] * 24)
    page.write_text(
        f'# A {fits} heading {fits}\n- Short `{fits}`\n  and {fits[:-10]}.\n- Too {fits} [long](x.md).\n\n'
        f'One {fits}. Two\n{fits}.\n\n| a | {fits} {fits} |\n\nThis $a + {fits}$ {fits} too.\n'
    )
    assert [sentence.partition(':')[0] for sentence in long_sentences(page)] == ['26', '27']
