"""Damages files, kills runs and reads what is being written, and tells what goes wrong.

Three tests in one: files damaged by mutation are read as a user's tools read them, runs are killed and gone on with,
and stores are read while they are replaced. Nothing but an error of hierseg's own may come of a damaged file, within
10 seconds and 2 GiB; where a format has checksums, damage may change no number without a word.

Example:
    python tools/chaos.py --minutes 60 --out chaos.json
    python tools/chaos.py --only stores --mutations 1000
    python tools/chaos.py --replay stores:17
    python tools/chaos.py --kills 60
    python tools/chaos.py --readers 3 --minutes 5
"""

from __future__ import annotations

import argparse
import itertools
import os
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

os.environ.setdefault('OMP_NUM_THREADS', '1')
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))  # of the package `chaos`

from hierseg.errors import exits_cleanly
from hierseg.files import write_json

if TYPE_CHECKING:
    from chaos.entries import Entry

MODEL_ENTRIES = ('configs', 'checkpoints', 'exports', 'logs', 'resumed')


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--minutes', type=float, help='how long to damage files; without it, --mutations ends it')
    parser.add_argument('--mutations', type=int, help='damage so many files (default without --minutes: 1000)')
    parser.add_argument('--kills', type=int, metavar='N', help='kill so many runs instead')
    parser.add_argument('--readers', type=int, metavar='N', help='read beside a writer instead, for --minutes')
    parser.add_argument('--only', nargs='+', metavar='ENTRY', help='kinds of files, or runs to kill; default: all')
    parser.add_argument('--seed', type=int, default=0, help='default: %(default)s')
    parser.add_argument('--workers', type=int, default=1, metavar='W', help='processes (default: %(default)s)')
    parser.add_argument('--replay', metavar='ENTRY:NUMBER', help='read one damaged file in this process')
    parser.add_argument('--corpus', type=Path, help='folder of the honest files, made if need be and kept')
    parser.add_argument('--crashers', type=Path, help='keep the files that something went wrong with there')
    parser.add_argument('--out', type=Path, metavar='JSON', help='write the figures as JSON, too')
    return parser.parse_args()


def known_entries(names: Sequence[str] | None) -> list[Entry]:
    """The entries of these names, or all; torch is imported for those that need it."""
    from chaos import data

    entries = list(data.ENTRIES)
    if names is None or set(names) & set(MODEL_ENTRIES):
        from chaos import trained

        entries += trained.ENTRIES
    if names is None:
        return entries
    unknown = sorted(set(names) - {entry.name for entry in entries})
    if unknown:
        raise SystemExit(f'error: no entry {", ".join(unknown)}; there are {", ".join(e.name for e in entries)}')
    return [entry for entry in entries if entry.name in names]


def tasks(entries: Sequence[Entry], *, mutations: int | None) -> Iterator[tuple[Entry, range]]:
    """Numbers of all entries in turn, some for a process, until there are enough."""
    given, share = 0, max(1, (mutations or sys.maxsize) // len(entries))
    for turn in itertools.count():
        for entry in entries:
            size = min(entry.at_once, share)
            count = size if mutations is None else min(size, mutations - given)
            if not count:
                return
            yield entry, range(turn * size, turn * size + count)
            given += count


def replay(name: str, corpus: Path, scratch: Path, seed: int) -> None:
    """Reads one damaged file with all that is said on the way."""
    from chaos.entries import digest, make_corpus
    from chaos.workers import prepare

    entry_name, _, number = name.rpartition(':')
    (entry,) = known_entries([entry_name])
    honest = make_corpus(corpus, [entry])[entry.name]
    case, path, how = prepare(entry, corpus, scratch / 'case', int(number), seed=seed)
    print(f'{path}: {how}; lenient: {case.lenient}')
    try:
        print('the same' if digest(entry.read(case)) == honest else 'something else came out')
    except BaseException:
        traceback.print_exc()


def fuzz(args: argparse.Namespace, corpus: Path, scratch: Path) -> int:
    """Damages files until time or numbers end it; returns the exit status."""
    from chaos.entries import make_corpus
    from chaos.report import Report
    from chaos.workers import Pool, prepare

    entries = known_entries(args.only)
    digests = make_corpus(corpus, entries)
    mutations = args.mutations or (None if args.minutes else 1000)
    damaged = partial(prepare, seed=args.seed)
    pool = Pool(corpus, digests, scratch=scratch, workers=args.workers, damaged=damaged)
    report = Report([entry.name for entry in entries], seed=args.seed, crashers=args.crashers)
    end = time.monotonic() + 60 * args.minutes if args.minutes else float('inf')
    # Ctrl-C ends it as time does.
    with report.bar(mutations) as bar, suppress(KeyboardInterrupt):
        for outcome in pool.run(tasks(entries, mutations=mutations)):
            report.add(outcome, next(entry for entry in entries if entry.name == outcome.entry), corpus, scratch)
            bar.update()
            if time.monotonic() > end:
                break
    print(report)
    if args.out:
        report.write(args.out)
    return 1 if report.faults else 0


def kill_runs(args: argparse.Namespace, folder: Path) -> int:
    """Kills runs and tells of each; returns the exit status."""
    from chaos.kills import ACTS, kill
    from tqdm import tqdm

    acts = [act for act in ACTS if args.only is None or act.name in args.only]
    if not acts:
        raise SystemExit(f'error: there are the runs {", ".join(repr(act.name) for act in ACTS)}')
    found = []
    with tqdm(total=args.kills, unit='kill', disable=None) as bar:
        for killed in kill(folder, acts, kills=args.kills, seed=args.seed):
            found.append(killed)
            bar.update()
            tqdm.write(('' if killed.right else 'WRONG: ') + str(killed), file=sys.stderr)
    for act in acts:
        mine = [one for one in found if one.act == act.name]
        right = sum(one.right for one in mine)
        print(f'{act.name:<40}{len(mine):>4} runs, {sum(one.killed for one in mine):>4} killed, {right:>4} as if not')
    if args.out:
        write_json({'seed': args.seed, 'kills': [vars(one) | {'right': one.right} for one in found]}, args.out)
    return 0 if all(one.right for one in found) else 1


def read_beside_a_writer(args: argparse.Namespace, folder: Path) -> int:
    """Reads a store while it is replaced; returns the exit status."""
    from chaos.readers import watch

    total = watch(folder, seconds=60 * (args.minutes or 1), readers=args.readers)
    for name, count in total.most_common():
        print(f'{count:>9,} {name}')
    if args.out:
        write_json(total, args.out)
    return 0 if {*total} == {'right', 'written'} else 1


@exits_cleanly()
def main() -> None:
    args = parse_arguments()
    folder = Path(tempfile.mkdtemp(prefix='hierseg-chaos-'))
    try:
        corpus = args.corpus or folder / 'corpus'
        if args.replay:
            replay(args.replay, corpus, folder, args.seed)
            return
        if args.kills:
            status = kill_runs(args, folder)
        elif args.readers:
            status = read_beside_a_writer(args, folder)
        else:
            status = fuzz(args, corpus, folder / 'scratch')
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    sys.exit(status)


if __name__ == '__main__':
    main()
