"""A WordNet of a few nouns in the files of the Princeton database, which NLTK reads (wndb(5WN), wninput(5WN))."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

LEXNAMES = '00\tadj.all\t3\n01\tadj.pert\t3\n02\tadv.all\t4\n03\tnoun.Tops\t1\n'
LICENCE = '  1 WordNet 3.0 Copyright 2006 by Princeton University.  All rights reserved.  \n'


def write_word_net(folder: Path, hypernyms: Mapping[str, Sequence[str]]) -> None:
    """Writes nouns, each with those above it; every one has one word and one sense."""
    folder.mkdir(parents=True)

    def line(word: str, offset_of: Mapping[str, int]) -> str:
        above = ''.join(f'@ {offset_of[parent]:08} n 0000 ' for parent in hypernyms[word])
        return f'{offset_of[word]:08} 03 n 01 {word} 0 {len(hypernyms[word]):03} {above}| a {word}  \n'

    # Offsets have eight digits each, so that the length of a line does not depend on them.
    offset_of, position = dict.fromkeys(hypernyms, 0), len(LICENCE)
    for word in hypernyms:
        length = len(line(word, offset_of))
        offset_of[word], position = position, position + length
    nouns = LICENCE + ''.join(line(word, offset_of) for word in hypernyms)
    index = LICENCE + ''.join(f'{word} n 1 1 @ 1 0 {offset_of[word]:08}  \n' for word in sorted(hypernyms))
    for part in ('adj', 'adv', 'noun', 'verb'):
        (folder / f'data.{part}').write_text(nouns if part == 'noun' else LICENCE)
        (folder / f'index.{part}').write_text(index if part == 'noun' else LICENCE)
        (folder / f'{part}.exc').write_text('')
    for name, text in (('lexnames', LEXNAMES), ('index.sense', ''), ('cntlist.rev', '')):
        (folder / name).write_text(text)
