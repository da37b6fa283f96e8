"""What an error prints."""

from __future__ import annotations

import pickle

import pytest

from hierseg.errors import AnnotationError, HiersegError


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        ('naïve 🧸\n\ttwo lines', 'naïve 🧸\n\ttwo lines'),
        ('\x1b[31mred\x07', r'\x1b[31mred\x07'),
        ('a\x00b\rc\x9bd', r'a\x00b\rc\x9bd'),
        ('gnp.\u202eexe', r'gnp.\u202eexe'),
        ('\ud800', r'\ud800'),
    ],
)
def test_text_of_a_file_cannot_command_a_terminal(text: str, expected: str) -> None:
    assert str(HiersegError(text, where='a.csv', fix='Mend it.')) == f'a.csv: {expected}. Mend it.'


def test_an_error_survives_the_way_between_processes() -> None:
    error = AnnotationError('is\x1b', where='a', fix='b')
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is AnnotationError
    assert (again.what, again.where, again.fix, str(again)) == ('is\x1b', 'a', 'b', str(error))
