"""Times each loss scheme, forward and backward, against cross-entropy and mmdet's SeesawLoss."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from mmdet.models.losses import SeesawLoss
from torch import Tensor

from hierseg.errors import exits_cleanly
from hierseg.files import describe_machine
from hierseg.functional import SCHEMES
from hierseg.models import HierarchicalLoss
from hierseg.taxonomy import Taxonomy, read_taxonomy

BALANCES = ('seesaw', 'eql', 'logit_adjustment')


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--taxonomy', type=Path, help='taxonomy file; else a random tree of three levels')
    parser.add_argument('--classes', type=Path, help='class list that the taxonomy file goes with')
    parser.add_argument('--num-classes', type=int, default=300, help='of the random tree')
    parser.add_argument('--rois', type=int, default=1024)
    parser.add_argument('--background', type=float, default=0.75, help='share of RoIs without an object')
    parser.add_argument('--repeats', type=int, default=50)
    parser.add_argument('--threads', type=int, default=1)
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--out', type=Path, help='write the figures as JSON')
    args = parser.parse_args()
    if min(args.num_classes, args.rois, args.repeats, args.threads) < 1:
        parser.error('--num-classes, --rois, --repeats and --threads must be at least 1')
    return args


def random_tree(num_classes: int, seed: int) -> Taxonomy:
    """A fifteenth root classes, a third below them, the rest below those."""
    generator = np.random.default_rng(seed)
    roots, middles = max(num_classes // 15, 1), max(num_classes // 3, 1)
    edges = []
    for label in range(roots, num_classes):
        parent = (
            generator.integers(0, roots) if label < middles else generator.integers(min(roots, middles - 1), middles)
        )
        edges.append((f'c{label}', f'c{parent}'))
    return Taxonomy.from_edges([f'c{label}' for label in range(num_classes)], edges)


def subjects(taxonomy: Taxonomy) -> dict[str, tuple[int, Callable[[Tensor, Tensor], Tensor]]]:
    """Name → channels of the head and the loss."""
    count = taxonomy.num_classes
    found: dict[str, tuple[int, Callable[[Tensor, Tensor], Tensor]]] = {
        'cross_entropy': (count + 1, torch.nn.functional.cross_entropy),
        'mmdet SeesawLoss': (count + 2, SeesawLoss(num_classes=count, return_dict=False)),
    }
    several = any(len(parents) > 1 for parents in taxonomy.parents)
    for name, scheme in SCHEMES.items():
        if not (scheme.trees_only and several):
            found[name] = (scheme.channels(count), HierarchicalLoss(taxonomy, scheme=name))
    for kind in BALANCES:
        options = {'class_counts': [1.0] * count} if kind == 'logit_adjustment' else {}
        balanced = HierarchicalLoss(taxonomy, balance={'type': kind, **options})
        found[f'path_sum, {kind}'] = (count + 1, balanced)
    return found


def measure(args: argparse.Namespace, taxonomy: Taxonomy) -> dict[str, float]:
    """The fastest forward and backward pass of each, in ms; all take turns, so that all see the same machine."""
    generator = torch.Generator().manual_seed(args.seed)
    labels = torch.randint(0, taxonomy.num_classes, (args.rois,), generator=generator)
    labels[torch.rand(args.rois, generator=generator) < args.background] = taxonomy.num_classes
    labels = labels.to(args.device)
    runs = {}
    for name, (channels, loss) in subjects(taxonomy).items():
        logits = torch.randn(args.rois, channels, generator=generator).to(args.device).requires_grad_()
        runs[name] = (logits, loss.to(args.device) if isinstance(loss, torch.nn.Module) else loss)
    fastest = dict.fromkeys(runs, float('inf'))
    for _ in range(args.repeats + 1):
        for name, (logits, loss) in runs.items():
            logits.grad = None
            synchronise(args.device)
            start = time.perf_counter()
            loss(logits, labels).backward()
            synchronise(args.device)
            fastest[name] = min(fastest[name], (time.perf_counter() - start) * 1000)
    return fastest


def synchronise(device: str) -> None:
    if device.startswith('cuda'):
        torch.cuda.synchronize()


@exits_cleanly()
def main() -> None:
    args = parse_arguments()
    torch.set_num_threads(args.threads)
    taxonomy = (
        read_taxonomy(args.taxonomy, classes=args.classes)
        if args.taxonomy
        else random_tree(args.num_classes, args.seed)
    )
    fastest = measure(args, taxonomy)
    machine = torch.cuda.get_device_name() if args.device.startswith('cuda') else describe_machine()['processor']
    print(
        f'{args.rois} RoIs, {taxonomy.num_classes} classes, {taxonomy.arrays.ancestor_pairs.shape[1]} pairs of a '
        f'class and an ancestor; torch {torch.__version__}, {machine}, {args.threads} thread(s)'
    )
    print(f'{"loss":28}{"ms":>8}{"× cross-entropy":>18}')
    for name, milliseconds in fastest.items():
        print(f'{name:28}{milliseconds:8.2f}{milliseconds / fastest["cross_entropy"]:18.1f}')
    if args.out:
        settings = {key: str(value) if isinstance(value, Path) else value for key, value in vars(args).items()}
        document = {'settings': settings, 'device': machine, 'machine': describe_machine(), 'milliseconds': fastest}
        args.out.write_text(json.dumps(document, indent=2))


if __name__ == '__main__':
    main()
