"""Times setting up and each loss scheme, forward and backward, against cross-entropy and mmdet's SeesawLoss."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from mmdet.models.losses import SeesawLoss
from torch import Tensor

from hierseg.errors import exits_cleanly
from hierseg.functional import SCHEMES
from hierseg.machine import describe_machine
from hierseg.models import HierarchicalLoss
from hierseg.taxonomy import Taxonomy, read_taxonomy

BALANCES = ('seesaw', 'eql', 'logit_adjustment')


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--taxonomy', type=Path, help='taxonomy file; else random trees')
    parser.add_argument('--classes', type=Path, help='class list that the taxonomy file goes with')
    parser.add_argument('--num-classes', type=int, nargs='+', default=[300, 1203, 13204], help='of each random tree')
    parser.add_argument('--deep', action='store_true', help='random trees of some fifteen levels instead of three')
    parser.add_argument('--losses', nargs='+', help='measure only these, beside cross_entropy')
    parser.add_argument('--rois', type=int, default=1024)
    parser.add_argument('--background', type=float, default=0.75, help='share of RoIs without an object')
    parser.add_argument('--repeats', type=int, default=50, help='at 300 classes; fewer where there are more')
    parser.add_argument('--threads', type=int, default=1)
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--out', type=Path, help='write the figures as JSON')
    options = parser.parse_args()
    if min(*options.num_classes, options.rois, options.repeats, options.threads) < 1:
        parser.error('--num-classes, --rois, --repeats and --threads must be at least 1')
    known = {*SCHEMES, *(f'path_sum, {kind}' for kind in BALANCES), 'mmdet SeesawLoss'}
    if options.losses and (unknown := set(options.losses) - known):
        parser.error(f'unknown losses {", ".join(sorted(unknown))}; there are {", ".join(sorted(known))}')
    return options


def random_tree(num_classes: int, seed: int) -> Taxonomy:
    """A fifteenth root classes, a third below them, the rest below those."""
    generator = np.random.default_rng(seed)
    roots, middles = max(num_classes // 15, 1), max(num_classes // 3, 1)
    upper = generator.integers(0, roots, size=middles - roots)
    lower = generator.integers(min(roots, middles - 1), middles, size=num_classes - middles)
    return _tree([*[-1] * roots, *upper, *lower])


def deep_tree(num_classes: int, seed: int) -> Taxonomy:
    """An eighth internal classes, each below one of those before it; the leaves below few of them more often."""
    generator = np.random.default_rng(seed)
    internal = max(num_classes // 8, 1)
    roots = max(internal // 50, 1)
    parents = [-1 if label < roots else generator.integers(label // 4, label) for label in range(internal)]
    shares = generator.zipf(1.6, size=internal).clip(max=400).astype(float)
    return _tree([*parents, *generator.choice(internal, size=num_classes - internal, p=shares / shares.sum())])


def _tree(parents: Sequence[int]) -> Taxonomy:
    edges = [(f'c{label}', f'c{parent}') for label, parent in enumerate(parents) if parent >= 0]
    return Taxonomy.from_edges([f'c{label}' for label in range(len(parents))], edges)


def make_taxonomy(options: argparse.Namespace, num_classes: int) -> Taxonomy:
    if options.taxonomy:
        return read_taxonomy(options.taxonomy, classes=options.classes)
    return (deep_tree if options.deep else random_tree)(num_classes, options.seed)


def set_up(options: argparse.Namespace, num_classes: int) -> tuple[float, float]:
    """Builds a taxonomy and the loss, and tells seconds and the growth of the peak memory in MB."""
    Path('/proc/self/clear_refs').write_text('5')  # the peak begins anew, below that of the imports
    before, start = _memory('VmRSS'), time.perf_counter()
    HierarchicalLoss(make_taxonomy(options, num_classes))
    return time.perf_counter() - start, _memory('VmHWM') - before


def _memory(name: str) -> float:
    (line,) = (line for line in Path('/proc/self/status').read_text().splitlines() if line.startswith(f'{name}:'))
    return int(line.split()[1]) / 1024


def measure_set_up(options: argparse.Namespace, num_classes: int) -> tuple[float, float]:
    """Seconds and MB, in a process that has imported everything and built nothing yet."""
    # A process that dies is an error here; a queue would wait for it without end.
    with ProcessPoolExecutor(max_workers=1, mp_context=multiprocessing.get_context('spawn')) as pool:
        return pool.submit(set_up, options, num_classes).result()


def subjects(taxonomy: Taxonomy, chosen: Sequence[str] | None) -> dict[str, tuple[int, Callable[..., Tensor]]]:
    """Name → channels of the head and the loss."""
    count = taxonomy.num_classes
    several = any(len(parents) > 1 for parents in taxonomy.parents)
    found: dict[str, tuple[int, Callable[..., Tensor]]] = {
        'cross_entropy': (count + 1, torch.nn.functional.cross_entropy),
        'mmdet SeesawLoss': (count + 2, SeesawLoss(num_classes=count, return_dict=False)),
    }
    for name, scheme in SCHEMES.items():
        if not (scheme.trees_only and several):
            found[name] = (scheme.channels(count), HierarchicalLoss(taxonomy, scheme=name))
    for kind in BALANCES:
        extra = {'class_counts': [1.0] * count} if kind == 'logit_adjustment' else {}
        found[f'path_sum, {kind}'] = (count + 1, HierarchicalLoss(taxonomy, balance={'type': kind, **extra}))
    return {name: one for name, one in found.items() if not chosen or name in ('cross_entropy', *chosen)}


def measure(options: argparse.Namespace, taxonomy: Taxonomy) -> dict[str, float]:
    """The fastest forward and backward pass of each, in ms; all take turns, so that all see the same machine."""
    generator = torch.Generator().manual_seed(options.seed)
    labels = torch.randint(0, taxonomy.num_classes, (options.rois,), generator=generator)
    labels[torch.rand(options.rois, generator=generator) < options.background] = taxonomy.num_classes
    labels = labels.to(options.device)
    runs = subjects(taxonomy, options.losses)
    fastest = dict.fromkeys(runs, float('inf'))
    repeats = max(options.repeats * 300 // max(taxonomy.num_classes, 300), min(options.repeats, 3))
    for _ in range(repeats + 1):
        for name, (channels, loss) in runs.items():
            logits = torch.randn(options.rois, channels, generator=generator).to(options.device).requires_grad_()
            synchronise(options.device)
            start = time.perf_counter()
            loss(logits, labels).backward()
            synchronise(options.device)
            fastest[name] = min(fastest[name], (time.perf_counter() - start) * 1000)
    return fastest


def synchronise(device: str) -> None:
    if device.startswith('cuda'):
        torch.cuda.synchronize()


@exits_cleanly()
def main() -> None:
    options = parse_arguments()
    torch.set_num_threads(options.threads)
    machine = torch.cuda.get_device_name() if options.device.startswith('cuda') else describe_machine()['processor']
    print(f'{options.rois} RoIs, torch {torch.__version__}, {machine}, {options.threads} thread(s)')
    figures = []
    for size in [0] if options.taxonomy else options.num_classes:
        seconds, megabytes = measure_set_up(options, size)
        taxonomy = make_taxonomy(options, size)
        pairs = taxonomy.arrays.ancestor_pairs.shape[1]
        fastest = measure(options, taxonomy)
        print(
            f'\n{taxonomy.num_classes} classes, {pairs} pairs of a class and an ancestor; '
            f'setting up takes {seconds:.2f} s and {megabytes:.0f} MB'
        )
        print(f'{"loss":28}{"ms":>9}{"× cross-entropy":>18}')
        for name, milliseconds in fastest.items():
            print(f'{name:28}{milliseconds:9.2f}{milliseconds / fastest["cross_entropy"]:18.2f}')
        figures.append(
            {
                'num_classes': taxonomy.num_classes,
                'ancestor_pairs': pairs,
                'seconds': seconds,
                'megabytes': megabytes,
                'milliseconds': fastest,
            }
        )
    if options.out:
        settings = {key: str(value) if isinstance(value, Path) else value for key, value in vars(options).items()}
        document = {'settings': settings, 'device': machine, 'machine': describe_machine(), 'figures': figures}
        options.out.write_text(json.dumps(document, indent=2))


if __name__ == '__main__':
    main()
