"""Writes a synthetic data set in the official Open Images files.

Example:
    python tools/synthesize.py data/synthetic --images 5000 --seed 0 --workers 2
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from hierseg.errors import ConfigError, exits_cleanly
from hierseg.synthetic import (
    VALIDATION_RATES,
    AnnotationRates,
    SplitOptions,
    SynthesisOptions,
    default_taxonomy,
    read_counts,
    synthesize,
)
from hierseg.taxonomy import read_taxonomy


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Write a synthetic data set in the official Open Images files.',
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument('out', type=Path, metavar='OUT', help='folder to write; must not exist')
    parser.add_argument('--images', type=int, required=True, metavar='N', help='training images')
    parser.add_argument(
        '--val-images', type=int, metavar='M', help='validation images, 0 for no such split; a fifth of N if not given'
    )
    parser.add_argument('--seed', type=int, default=0, help='everything random follows from it')
    parser.add_argument('--size', type=int, default=160, metavar='PX', help='longest side of the images')
    parser.add_argument('--objects', type=float, default=3.5, help='mean number of objects in an image')
    parser.add_argument('--taxonomy', type=Path, metavar='FILE', help='any taxonomy file; a built-in one if not given')
    parser.add_argument('--classes', type=Path, metavar='CSV', help='class descriptions that go with --taxonomy')
    parser.add_argument(
        '--counts', type=Path, metavar='CSV', help='class,count: real frequencies to be in proportion to'
    )
    parser.add_argument(
        '--tail-ratio', type=float, help='head to tail in training; 1500, or as in --counts, if not given'
    )
    parser.add_argument('--val-tail-ratio', type=float, default=10.0, help='at most this head to tail in validation')
    rates = parser.add_argument_group('shares of the training split')
    rates.add_argument(
        '--coarse-rate', type=float, help='annotated at an ancestor; 0.15, or as in --counts, if not given'
    )
    rates.add_argument('--unannotated-rate', type=float, default=0.2, help='class families left unverified in an image')
    rates.add_argument('--group-of-rate', type=float, default=0.05, help='clusters; in validation too')
    rates.add_argument('--box-only-rate', type=float, default=0.25, help='objects without a mask')
    rates.add_argument('--val-box-only-rate', type=float, default=0.1, help='the same in validation')
    rates.add_argument('--resized-mask-rate', type=float, default=0.1, help='mask files smaller than their image')
    rates.add_argument('--negatives', type=int, default=4, help='verified-absent labels in an image')
    parser.add_argument(
        '--workers', type=int, default=1, metavar='W', help='processes; the result does not depend on it'
    )
    return parser.parse_args()


def options_from(args: argparse.Namespace) -> SynthesisOptions:
    has_counts = args.counts is not None
    train_rates = AnnotationRates(
        coarse=args.coarse_rate if args.coarse_rate is not None else 0.0 if has_counts else 0.15,
        unannotated=args.unannotated_rate,
        group_of=args.group_of_rate,
        box_only=args.box_only_rate,
        resized_mask=args.resized_mask_rate,
        negatives=args.negatives,
    )
    validation_rates = AnnotationRates(
        **{**asdict(VALIDATION_RATES), 'group_of': args.group_of_rate, 'box_only': args.val_box_only_rate}
    )
    tail_ratio = args.tail_ratio if args.tail_ratio is not None else None if has_counts else 1500.0
    num_val_images = args.val_images if args.val_images is not None else -(-args.images // 5)
    splits = [SplitOptions('train', args.images, tail_ratio, train_rates)]
    if num_val_images != 0:
        splits.append(SplitOptions('validation', num_val_images, args.val_tail_ratio, validation_rates))
    return SynthesisOptions(
        splits=tuple(splits),
        seed=args.seed,
        size=args.size,
        objects_per_image=args.objects,
    )


def main() -> None:
    args = parse_arguments()
    with exits_cleanly():
        options = options_from(args)
        if args.classes is not None and args.taxonomy is None:
            raise ConfigError('--classes without --taxonomy', fix='Name the taxonomy file that they belong to.')
        taxonomy = default_taxonomy() if args.taxonomy is None else read_taxonomy(args.taxonomy, classes=args.classes)
        counts = None if args.counts is None else read_counts(args.counts, taxonomy)
        summaries = synthesize(
            args.out, options, taxonomy=taxonomy, counts=counts, workers=args.workers, show_progress=True
        )
        for name, summary in summaries.items():
            print(f'{name}: ' + ', '.join(f'{count} {what}' for what, count in asdict(summary).items()))
        print(f'written to {args.out}')


if __name__ == '__main__':
    main()
