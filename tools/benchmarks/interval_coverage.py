"""Simulates how often the 95 % intervals hold the truth: of scores, and of paired differences between two systems.

A population of images is drawn with the long tail of the synthetic data and its hierarchy, with what two systems detect
on them. The truth is a score on all its images. Samples of a few images are drawn from it, and each sample is asked for
its intervals, by the same functions as in a comparison.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from hierseg.errors import ConfigError, exits_cleanly
from hierseg.files import write_json
from hierseg.formats import FloatArray, IntArray
from hierseg.machine import describe_machine
from hierseg.metrics.average_precision import class_groups, summarise
from hierseg.metrics.intervals import ImageEffects, ImageSums, mean_average_precision_effects
from hierseg.metrics.records import ImageMatches
from hierseg.synthetic import SplitOptions, default_taxonomy
from hierseg.synthetic.options import VALIDATION_RATES
from hierseg.synthetic.population import Population, long_tail_shares, plan_population
from hierseg.taxonomy import Taxonomy

OBJECTS_PER_IMAGE = 3.5
DEEPER = (6.0, 1.2)
"""Of the beta distribution of a child's probability as a part of its parent's."""
GROUPS = ('all', 'layer0', 'layer1', 'rare')
EXACT = 'exact names'


@dataclass(frozen=True)
class Detector:
    """A made-up system.

    Attributes:
        skill: Log-odds with which it finds an object of the most frequent class of an average image.
        tail: Fall of the skill for each factor e that a class is rarer.
        confusion: Part of the hardest objects that get the name of another class.
        background: False detections per image.
    """

    skill: float
    tail: float
    confusion: float
    background: float


PAIRS = {
    'far apart': (Detector(0.6, 0.25, 0.5, 2.0), Detector(1.2, 0.15, 0.25, 1.2)),
    'close': (Detector(0.9, 0.2, 0.3, 1.5), Detector(1.0, 0.15, 0.3, 1.5)),
}


@dataclass(frozen=True, eq=False)
class Detected:
    """What a system detected on N images: matches of each, and how many of its found objects it named exactly."""

    matches: Sequence[ImageMatches]
    exact: FloatArray
    found: FloatArray

    def results(self, images: Sequence[int], groups: Mapping[str, Sequence[int]]) -> dict[str, ImageEffects]:
        """The scores of some images."""
        chosen = [self.matches[image] for image in images]
        ids = tuple(match.image_id for match in chosen)
        means = mean_average_precision_effects(chosen, groups=groups)
        return {**means, EXACT: ImageSums(ids, self.exact[images], self.found[images]).effects}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        '--images', type=int, nargs='+', default=[30, 50, 200, 1000], help='of a sample; default: 30 50 200 1000'
    )
    parser.add_argument('--samples', type=int, default=1000, help='of each size and pair; default: %(default)s')
    parser.add_argument('--population', type=int, default=20_000, help='images; default: %(default)s')
    parser.add_argument('--tail', type=float, default=30.0, help='head to tail of the classes; default: %(default)s')
    parser.add_argument('--pairs', nargs='+', choices=PAIRS, default=list(PAIRS), help='of systems; default: all')
    parser.add_argument('--seed', type=int, default=0, help='default: %(default)s')
    parser.add_argument('--out', type=Path, help='write the figures as JSON, too')
    args = parser.parse_args()
    if min(args.images) < 2 or max(args.images) > args.population or args.samples < 1:
        raise ConfigError(
            f'{args.samples} samples of {args.images} from {args.population} images',
            fix='Draw at least one, of at least two images, from no fewer images than that.',
        )
    return args


def detect(
    taxonomy: Taxonomy, population: Population, detectors: Sequence[Detector], *, generator: np.random.Generator
) -> list[Detected]:
    """Draws what systems detect; images and objects are as hard for one as for the other."""
    num_images, labels = len(population.first_objects) - 1, population.labels
    images = np.repeat(np.arange(num_images), np.diff(population.first_objects))
    frequency = np.bincount(labels, minlength=taxonomy.num_classes) / len(labels)
    rarity = np.log(np.maximum(frequency, 1 / len(labels)) / frequency.max())
    ease_of_images = generator.normal(0, 0.6, num_images)
    ease = ease_of_images[images] + generator.normal(0, 0.8, len(labels))
    true_objects, true_labels = np.nonzero(taxonomy.arrays.ancestor_mask[labels])
    truth = _by_image(num_images, images[true_objects], true_labels)
    found = []
    for detector in detectors:
        skill = detector.skill + detector.tail * rarity + generator.normal(0, 0.3, taxonomy.num_classes)
        strength = skill[labels] + ease + generator.normal(0, 0.7, len(labels))
        found.append(
            _detected(taxonomy, images, labels, strength, frequency, detector, ease_of_images, truth, generator)
        )
    return found


def _detected(
    taxonomy: Taxonomy,
    images: IntArray,
    labels: IntArray,
    strength: FloatArray,
    frequency: FloatArray,
    detector: Detector,
    ease_of_images: FloatArray,
    truth: tuple[list[IntArray], ...],
    generator: np.random.Generator,
) -> Detected:
    mask, depths, num_images = taxonomy.arrays.ancestor_mask, taxonomy.arrays.depths, len(ease_of_images)
    hits = np.flatnonzero(strength > 0)
    wrong = generator.random(len(hits)) < detector.confusion * np.exp(-strength[hits] / 2)
    named = labels[hits].copy()
    named[wrong] = generator.choice(len(frequency), int(wrong.sum()), p=frequency)
    # False detections are more where objects are easy to see: such images are full of contrast.
    clutter = generator.poisson(detector.background * np.exp(0.3 * ease_of_images))
    ghosts = np.repeat(np.arange(num_images), clutter)
    named = np.concatenate([named, generator.choice(len(frequency), len(ghosts), p=frequency)])
    log_odds = np.concatenate([strength[hits], generator.normal(-1, 1, len(ghosts))])
    # A detection claims its class and all above it; a child is never surer than its parent.
    detections, claimed = np.nonzero(mask[named])
    step = generator.beta(*DEEPER, (len(named), int(depths.max()) + 1)).cumprod(axis=1)
    step = np.concatenate([np.ones((len(named), 1)), step], axis=1)
    scores = step[detections, depths[claimed]] / (1 + np.exp(-log_odds[detections]))
    is_object = detections < len(hits)
    weights = np.zeros(len(detections))
    weights[is_object] = mask[labels[hits][detections[is_object]], claimed[is_object]]
    where = np.concatenate([images[hits], ghosts])[detections]
    of_image = _by_image(num_images, where, claimed, scores, weights)
    matches = []
    for at, (mine, its_scores, its_weights, objects) in enumerate(zip(*of_image, truth[0], strict=True)):
        counted, counts = np.unique(objects, return_counts=True)
        matches.append(ImageMatches(f'{at:06}', mine, its_scores, its_weights, counted, counts.astype(np.float64)))
    exact, every = (np.bincount(images[hits], weights=of, minlength=num_images) for of in (~wrong, np.ones(len(hits))))
    return Detected(matches, exact, every)


def _by_image(num_images: int, images: IntArray, *columns: Any) -> tuple[list[Any], ...]:
    """Splits columns into one array for each image."""
    order = np.argsort(images, kind='stable')
    ends = np.searchsorted(images[order], np.arange(1, num_images))
    return tuple(np.split(column[order], ends) for column in columns)


def simulate(
    systems: Sequence[Detected], groups: Mapping[str, Sequence[int]], args: argparse.Namespace, *, size: int, title: str
) -> list[dict[str, Any]]:
    """Coverage of the intervals of each score of both systems and of the difference, on samples of one size.

    Of a sample, the truth of a mean is that over the classes which have objects in it: others have no value.
    """
    generator = np.random.default_rng([args.seed, size])
    num_classes = 1 + max(max(group) for group in groups.values())
    of_classes = [summarise(system.matches, num_classes).average_precision for system in systems]
    exact = [float(system.exact.sum() / system.found.sum()) for system in systems]
    rows: dict[tuple[str, str], list[tuple[float, ...]]] = {}
    for _ in tqdm(range(args.samples), desc=f'{title}, {size} images', unit='sample', disable=None):
        images = np.sort(generator.choice(args.population, size, replace=False))
        there = np.zeros(num_classes, dtype=bool)
        for image in images.tolist():
            there[systems[0].matches[image].counted_labels] = True
        first, second = (system.results(images, groups) for system in systems)
        for name in (*groups, EXACT):
            if name != EXACT and not there[list(groups[name])].any():
                continue
            shown = [label for label in groups.get(name, ()) if there[label]]
            truths = exact if name == EXACT else [float(values[shown].mean()) for values in of_classes]
            for what, result, truth in (
                ('first', first[name], truths[0]),
                ('second', second[name], truths[1]),
                ('difference', second[name] - first[name], truths[1] - truths[0]),
            ):
                low, high = result.interval()
                if np.isfinite(low):
                    rows.setdefault((name, what), []).append((truth, result.value, result.excess, low, high))
    return [
        {'systems': title, 'images': size, 'score': name, 'of': what, **_summary(np.array(found))}
        for (name, what), found in rows.items()
    ]


def _summary(found: FloatArray) -> dict[str, float]:
    """Means over samples, (K, 5) float64: truth, value, excess, and the interval's ends."""
    truth, value, excess, low, high = found.T
    return {
        'samples': len(found),
        'truth': float(truth.mean()),
        'coverage': float(((low <= truth) & (truth <= high)).mean()),
        'truth_below': float((truth < low).mean()),
        'value_outside': float(((value < low) | (value > high)).mean()),
        'decided': float(((low > 0) | (high < 0)).mean()),
        'width': float((high - low).mean()),
        'too_high_by': float((value - truth).mean()),
        'excess': float(excess.mean()),
    }


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Coverage in Markdown: a row for each pair of systems, score and estimate, a column for each size."""
    sizes = sorted({row['images'] for row in rows})
    cells = {(row['systems'], row['score'], row['of'], row['images']): row['coverage'] for row in rows}
    lines = ['| systems | score | of | ' + ' | '.join(f'{size:,} images' for size in sizes) + ' |']
    lines.append('|---|---|---|' + '---:|' * len(sizes))
    for systems, score, of in dict.fromkeys(key[:3] for key in cells):
        found = [cells.get((systems, score, of, size)) for size in sizes]
        texts = ['–' if value is None else f'{value:.1%}' for value in found]
        lines.append(f'| {systems} | {score} | {of} | {" | ".join(texts)} |')
    return '\n'.join(lines)


@exits_cleanly()
def main() -> None:
    args = parse_arguments()
    taxonomy = default_taxonomy()
    rates = replace(VALIDATION_RATES, group_of=0.0, box_only=0.0)
    split = SplitOptions('validation', args.population, args.tail, rates)
    shares = long_tail_shares(taxonomy, args.tail)
    groups = class_groups(taxonomy, train_images=_images_of(taxonomy, shares))
    rows = []
    for title in args.pairs:
        # A pair is drawn the same with and without the others.
        generator = np.random.default_rng([args.seed, list(PAIRS).index(title)])
        population = plan_population(taxonomy, shares, split, objects_per_image=OBJECTS_PER_IMAGE, generator=generator)
        systems = detect(taxonomy, population, PAIRS[title], generator=generator)
        for size in args.images:
            rows += simulate(systems, {name: groups[name] for name in GROUPS}, args, size=size, title=title)
    print(table(rows))
    if args.out is not None:
        settings = {name: value for name, value in vars(args).items() if name != 'out'}
        args.out.parent.mkdir(parents=True, exist_ok=True)
        write_json({**settings, 'machine': describe_machine(), 'rows': rows}, args.out)


def _images_of(taxonomy: Taxonomy, shares: FloatArray) -> IntArray:
    """(C,) int64; a count in proportion to the objects of each class or of one below it."""
    counts: IntArray = np.round(1e6 * shares @ taxonomy.arrays.ancestor_mask).astype(np.int64)
    return counts


if __name__ == '__main__':
    main()
