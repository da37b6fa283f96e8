"""``python -m hierseg.taxonomy``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from taxonomies import random_taxonomies, teddy_taxonomy

from hierseg.errors import TaxonomyError
from hierseg.files import write_json
from hierseg.taxonomy import Taxonomy, read_taxonomy
from hierseg.taxonomy.__main__ import described, draw, lint, main, summary
from hierseg.taxonomy.graph import TaxonomyDraft


@pytest.fixture
def teddy(tmp_path: Path) -> Path:
    write_json(teddy_taxonomy().to_json(), tmp_path / 'teddy.json')
    return tmp_path / 'teddy.json'


def test_tree_and_report(teddy, capsys):
    assert main([str(teddy)]) == 0
    assert capsys.readouterr().out == (
        f'{teddy}\n'
        '├── Toy (toy)\n'
        '│   └── Teddy (teddy)  [also below Animal › Bear]\n'
        '├── Animal (animal)\n'
        '│   └── Bear (bear)\n'
        '│       └── Teddy (teddy)  [also below Toy (preferred)]\n'
        '└── Car (car)\n'
        '\n'
        '5 classes: 3 root classes (2 with children), 2 deeper classes; 2 leaves\n'
        'depth (longest path): 3 at 0, 1 at 1, 1 at 2; at most 2\n'
        'lint: 0 errors, 3 warnings\n'
        'warning: Teddy (teddy) has 2 parents: Toy (preferred), Animal › Bear\n'
        'warning: single-child chain Toy (toy) › Teddy (teddy)\n'
        'warning: single-child chain Animal (animal) › Bear (bear) › Teddy (teddy)\n'
    )


def test_what_is_below_a_class_of_two_parents_is_drawn_once(tmp_path, capsys):
    (tmp_path / 't.yaml').write_text('x: [a, b]\ny: x\nb: a\n')
    assert main([str(tmp_path / 't.yaml')]) == 0
    assert capsys.readouterr().out.splitlines()[1:6] == [
        '└── a',
        '    ├── x  [also below a › b]',
        '    │   └── y',
        '    └── b',
        '        └── x …  [also below a (preferred)]',
    ]


@given(random_taxonomies())
def test_each_class_is_drawn_once_per_parent(taxonomy):
    lines = list(draw(taxonomy))
    drawn = [line.split('── ')[1].split()[0] for line in lines]
    for label, class_id in enumerate(taxonomy.ids):
        assert drawn.count(class_id) == max(len(taxonomy.parents[label]), 1)


def test_json_is_written_and_read_again(teddy, tmp_path, capsys):
    assert main([str(teddy), '--preferred-parent', 'Teddy=bear', '--json', str(tmp_path / 'out.json')]) == 0
    taxonomy = read_taxonomy(tmp_path / 'out.json')
    assert taxonomy.path_name(3) == 'Animal › Bear › Teddy'
    assert 'also below Animal › Bear (preferred)' in capsys.readouterr().out


def test_an_unusable_hierarchy_tells_all_and_exits_with_1(tmp_path, capsys):
    (tmp_path / 't.csv').write_text('child,parent\na,b\nb,a\nc,d\nd,c\n')
    assert main([str(tmp_path / 't.csv'), '--json', str(tmp_path / 'out.json')]) == 1
    out = capsys.readouterr().out
    assert out.startswith('lint: 2 errors, 0 warnings\n')
    assert 'cycle a → b → a' in out
    assert 'cycle c → d → c' in out
    assert not (tmp_path / 'out.json').exists()


def test_part_edges(tmp_path, capsys):
    path = tmp_path / 't.json'
    path.write_text('{"LabelName": "t", "Subcategory": [{"LabelName": "a", "Part": [{"LabelName": "b"}]}]}')
    assert main([str(path)]) == 1
    assert "line 1: 'b' is a Part of 'a'" in capsys.readouterr().out
    assert main([str(path), '--ignore-parts']) == 0


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['none.json'], 'error: none.json: cannot be read'),
        (['{teddy}', '--preferred-parent', 'Teddy'], "error: --preferred-parent: 'Teddy' is no preferred parent"),
        (['{teddy}', '--json', 'none/out.json'], 'error: none/out.json: cannot be written (No such file or directory)'),
        (['{teddy}', '--classes', 'none.csv'], 'names its classes itself'),
    ],
)
def test_what_cannot_be_read_exits_with_2_in_one_line(teddy, capsys, arguments, message):
    with pytest.raises(SystemExit) as caught:
        main([argument.format(teddy=teddy) for argument in arguments])
    assert caught.value.code == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count('\n') == 1
    assert captured.out == ''


def run(command: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(['bash', '-c', f'set -o pipefail; {command}'], capture_output=True, check=False)


def test_a_reader_that_stops_early_and_a_terminal_without_box_characters(tmp_path):
    # More text than a pipe holds, so that the command is still writing when `head` has gone.
    rows = '\n'.join(f'some_rather_long_class_name_{i},' for i in range(4000))
    (tmp_path / 't.csv').write_text(f'child,parent\n{rows}\n')
    piped = run(f'{sys.executable} -m hierseg.taxonomy {tmp_path}/t.csv | head -n 1')
    assert piped.stderr == b''
    assert piped.returncode == 0
    ascii_only = run(f'PYTHONIOENCODING=ascii {sys.executable} -m hierseg.taxonomy {tmp_path}/t.csv')
    assert ascii_only.returncode == 0
    assert b'??? some_rather_long_class_name_0\n' in ascii_only.stdout


def test_real_files(test_data, capsys):
    folder = test_data / 'openimages'
    hierarchy = folder / 'challenge-2019-label300-segmentable-hierarchy.json'
    classes = folder / 'challenge-2019-classes-description-segmentable.csv'
    assert main([str(hierarchy), '--classes', str(classes)]) == 0
    out = capsys.readouterr().out
    assert '300 classes: 213 root classes (23 with children), 87 deeper classes; 275 leaves\n' in out
    assert '213 at 0, 82 at 1, 5 at 2; at most 2' in out
    assert 'warning: Teddy bear (/m/0kmg4) has 2 parents: Toy (preferred), Carnivore › Bear\n' in out
    assert out.count('parents') == 1
    assert out.count('── ') == 301  # Teddy bear stands in two places
    assert 'lint: 0 errors, 5 warnings' in out


def draft(ids: str, edges: list[tuple[str, str]], *, names: list[str] | None = None) -> TaxonomyDraft:
    return TaxonomyDraft('t.csv', tuple(ids), tuple(names or ids), tuple(edges))


def messages(ids: str, edges: list[tuple[str, str]], **options) -> list[str]:
    return lint(draft(ids, edges, **options).build())


def test_nothing_to_say():
    assert messages('abcd', [('b', 'a'), ('c', 'a')]) == []


def test_all_errors_are_told():
    # Two knots: a and b; c alone. d hangs from the first and is in no cycle. a is listed twice, z nowhere.
    errors = draft('abacd', [('a', 'b'), ('b', 'a'), ('c', 'c'), ('d', 'a'), ('d', 'z')]).errors()
    assert [str(error).partition('. ')[0] for error in errors] == [
        "t.csv: class 'a' is listed 2 times",
        "t.csv: unknown class 'z' in the edge d → z",
        't.csv: cycle a → b → a',
        't.csv: cycle c → c',
    ]


def test_several_parents():
    edges = [('c', 'b'), ('c', 'a'), ('d', 'c'), ('e', 'a'), ('f', 'b')]
    found = messages('abcdef', edges, names=['A', 'B', 'C', 'D', 'E', 'F'])
    assert 'C (c) has 2 parents: B (preferred), A' in found
    assert sum('parents' in message for message in found) == 1


def test_superfluous_edge():
    # c is below a directly and by way of b.
    found = messages('abcd', [('b', 'a'), ('c', 'b'), ('c', 'a'), ('d', 'b')])
    assert 'c is directly below a and again through another class' in found
    assert not any('again through' in message for message in messages('abc', [('c', 'a'), ('c', 'b')]))


def test_single_child_chains_are_told_once_and_whole():
    # a > b > c > d is one chain; x has two children, of which y has one.
    edges = [('b', 'a'), ('c', 'b'), ('d', 'c'), ('y', 'x'), ('z', 'x'), ('w', 'y')]
    assert messages('abcdxyzw', edges) == [
        'single-child chain a › b › c › d',
        'single-child chain y › w',
    ]


def test_shared_names():
    found = messages('abc', [], names=['bat', 'cat', 'bat'])
    assert found == ["the name 'bat' is that of 2 classes: a, c"]


def test_summary():
    # Root classes Toy, Animal (with children) and Car; Bear at depth 1, Teddy at 2 below Animal > Bear.
    assert summary(teddy_taxonomy()) == (
        '5 classes: 3 root classes (2 with children), 2 deeper classes; 2 leaves\n'
        'depth (longest path): 3 at 0, 1 at 1, 1 at 2; at most 2'
    )


def test_describe():
    assert described(teddy_taxonomy(), 3) == 'Teddy (teddy)'
    assert described(Taxonomy.from_edges(['a'], []), 0) == 'a'


@given(random_taxonomies())
def test_a_taxonomy_has_no_errors(taxonomy):
    edges = tuple((taxonomy.ids[c], taxonomy.ids[p]) for c, parents in enumerate(taxonomy.parents) for p in parents)
    built = TaxonomyDraft('t', taxonomy.ids, taxonomy.names, edges).build()
    assert built == taxonomy
    several = sum(len(parents) > 1 for parents in taxonomy.parents)
    assert sum('(preferred)' in message for message in lint(built)) == several


def test_names_that_differ_by_blanks_or_case_only():
    names = ['Ice cream', 'icecream', 'ICE  Cream', 'Car', 'Cars', 'car ']
    found = [message for message in lint(Taxonomy.from_edges(list('abcdef'), [], names=names)) if 'blanks' in message]
    assert found == [
        "the names 'Ice cream', 'icecream', 'ICE  Cream' differ by blanks or case only",
        "the names 'Car', 'car ' differ by blanks or case only",
    ]


class TestUpsideDown:
    """``parent: [children]`` where ``child: [parents]`` is meant."""

    def run(self, tmp_path, capsys, text, *arguments):
        (tmp_path / 't.yaml').write_text(text)
        status = main([str(tmp_path / 't.yaml'), *arguments])
        return status, capsys.readouterr().out

    @pytest.mark.parametrize(
        'text',
        [
            'animal: [cow, horse]\n',
            'tractor: null\nanimal: [cow, horse]\nmachine: [car]\n',
            'animal:\n  - mammal\n  - bird\nmammal:\n  - cow\n  - horse\n',
        ],
    )
    def test_that_groups_nothing_is_refused(self, tmp_path, capsys, text):
        status, out = self.run(tmp_path, capsys, text)
        assert status == 1
        assert "'animal' is read as a child of" in out
        assert 'no class has two children: the list is upside down. Write children before their parent: "' in out
        with pytest.raises(TaxonomyError, match=r't\.yaml, line \d: .*upside down'):
            read_taxonomy(tmp_path / 't.yaml')

    def test_that_may_be_is_a_warning(self, tmp_path, capsys):
        # A teddy bear stands in two lists; a single child stands alone.
        for text in ('toy: [teddy, ball]\nbear: [teddy, grizzly]\n', 'animal: [cow, horse]\nmachine: car\n'):
            status, out = self.run(tmp_path, capsys, text)
            assert status == 0
            assert 'if it is their parent, the list is upside down. Write children before their parent: "' in out

    @pytest.mark.parametrize(
        'text', ['cow: [animal]\nhorse: [animal]\n', 'a: [x, y]\nb: [x]\n', 'a: [b]\nb: [c]\n', 'a: null\n', '']
    )
    def test_that_is_upright(self, tmp_path, capsys, text):
        assert 'upside' not in self.run(tmp_path, capsys, text)[1]

    def test_a_list_of_classes_says_that_it_is_meant(self, tmp_path, capsys):
        (tmp_path / 'c.csv').write_text('teddy,Teddy\ntoy,Toy\nbear,Bear\n')
        status, out = self.run(tmp_path, capsys, 'teddy: [toy, bear]\n', '--classes', str(tmp_path / 'c.csv'))
        assert status == 0
        assert 'upside' not in out
