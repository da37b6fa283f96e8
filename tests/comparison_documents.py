"""Comparisons of systems that do not exist: made-up numbers in the shape of real ones, on synthetic scenes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from hierseg.metrics.average_precision import RECALLS
from hierseg.metrics.class_curves import THRESHOLDS, ClassCurve
from hierseg.metrics.declarations import CountedKind, Estimate, Metric
from hierseg.metrics.names import Confusion, OperatingCurve, OperatingPoint
from hierseg.metrics.system import Costs, System
from hierseg.report.comparison import ComparedImage, Comparison, Head, PanelInstance, draw_panel, photograph
from hierseg.synthetic import default_taxonomy
from hierseg.synthetic.scenes import Scene, ScenePainter
from hierseg.taxonomy import Taxonomy

NAMES = ('two-layer ensemble', 'end-to-end', 'end-to-end, flat loss')
CORRECT, LESS_DEEP, SIBLING, OTHER_NAME, MISSED = 'correct', 'less_deep', 'sibling', 'other_name', 'missed'
ERROR_KINDS = (
    CountedKind(CORRECT, 'Right name', 'Named as annotated.'),
    CountedKind(LESS_DEEP, 'Right, but less deep', 'Named by an ancestor of the true class.'),
    CountedKind(SIBLING, 'Wrong within its root class', 'Such as Man for Woman.'),
    CountedKind(OTHER_NAME, 'Wrong root class', 'Such as Tree for Person.'),
    CountedKind(MISSED, 'Missed', 'No detection overlaps the object by half.'),
)
METRICS = (
    Metric('mask_map', 'Mask mAP@0.5', 'Open Images protocol', 'Mean of the classes’ average precision by mask.'),
    Metric('mask_map_root', 'Mask mAP, root classes', 'Open Images protocol', 'Over classes without a parent.'),
    Metric('mask_map_deeper', 'Mask mAP, deeper classes', 'Open Images protocol', 'Over all other classes.'),
    Metric(
        'distance',
        'Distance of wrong names',
        'Names of found objects',
        'Mean number of edges between the name and the true class.',
        unit='edges',
        format='.2f',
        higher_is_better=False,
    ),
    Metric('map_rare', 'Mask mAP, rare classes', 'By frequency', 'The third with fewest training images.'),
    Metric('map_common', 'Mask mAP, common classes', 'By frequency', 'The middle third.'),
    Metric('map_frequent', 'Mask mAP, frequent classes', 'By frequency', 'The third with most training images.'),
    Metric(
        'found', 'Objects found', 'Names of found objects', 'Part of the objects that any detection overlaps by half.'
    ),
    Metric('top1', 'Exactly right', 'Names of found objects', 'Part of the names that are the annotated class.'),
    Metric(
        'consistency', 'Consistent paths', 'Names of found objects', 'Part of the paths along which no score rises.'
    ),
)
QUALITIES = (0.62, 0.74, 0.735)


def made_up(
    taxonomy: Taxonomy | None = None, *, systems: int = 2, images: int = 3, seed: int = 0, size: int = 240
) -> Comparison:
    """A comparison of up to three systems, the second better than the first and about as good as the third."""
    taxonomy = taxonomy or default_taxonomy()
    generator = np.random.default_rng(seed)
    train_images = np.sort(np.round(np.exp(generator.uniform(2.6, 8.5, taxonomy.num_classes))).astype(int))[::-1]
    objects = np.maximum(train_images // 40, 1)
    made = [_system(taxonomy, position, train_images, objects, generator) for position in range(systems)]
    return Comparison(
        head=Head(
            title='Ensemble or end-to-end?',
            date='25 November 2026',
            store='made-up data',
            images=200,
            objects=int(objects.sum()),
            training_images=1600,
            command='python tools/compare.py --store STORE --images IMAGES --out comparison',
            machine='no machine: these numbers are made up',
            seed=seed,
            versions={'hierseg': '0.1.0', 'torch': '2.9.1', 'numpy': np.__version__},
        ),
        taxonomy=taxonomy,
        objects=objects,
        train_images=train_images,
        metrics=METRICS,
        systems=made,
        differences={system.name: _differences(made[0], system, generator) for system in made[1:]},
        error_kinds=ERROR_KINDS,
        images=_images(taxonomy, [system.name for system in made], images, generator, size),
        panel_score='part of the objects named exactly right',
    )


def _system(
    taxonomy: Taxonomy, position: int, train_images: np.ndarray, objects: np.ndarray, generator: np.random.Generator
) -> System:
    quality = QUALITIES[position]
    depths = taxonomy.arrays.depths
    frequency = np.log(train_images) / 8.5
    # The ensemble suffers on deeper and on rare classes.
    class_ap = quality - (0.12, 0.03, 0.03)[position] * depths + (0.35, 0.2, 0.2)[position] * (frequency - 0.6)
    class_ap = np.clip(class_ap + generator.normal(0, 0.07, len(depths)), 0.01, 0.99)
    known = np.array([np.nan if generator.random() < 0.03 else round(float(value), 4) for value in class_ap])
    known[0] = round(float(class_ap[0]), 4)
    confusion = _confusion(taxonomy, objects, quality, generator)
    thirds = np.array_split(np.argsort(train_images), 3)
    scores = {
        'mask_map': _mean(known),
        'mask_map_root': _mean(known[depths == 0]),
        'mask_map_deeper': _mean(known[depths > 0]),
        'distance': Estimate(2.6 - 2.8 * quality, 2.5 - 2.8 * quality, 2.7 - 2.8 * quality),
        'map_rare': _mean(known[thirds[0]]),
        'map_common': _mean(known[thirds[1]]),
        'map_frequent': _mean(known[thirds[2]]),
        'found': _estimate(0.84 + 0.002 * position),
        'top1': _estimate(quality + 0.08),
        'consistency': Estimate((0.93, 1.0, 0.96)[position]),
    }
    recall = np.where(quality + 0.15 >= RECALLS, RECALLS, np.nan)
    steps = np.arange(10, 561, 10)

    def loss(start: float, end: float, noise: float) -> list[tuple[float, float]]:
        decay = end + (start - end) * np.exp(-steps / 140) + generator.normal(0, noise, len(steps))
        return list(zip(steps.tolist(), decay.tolist(), strict=True))

    curves = {'training loss': loss(3.4, 0.7, 0.06), 'validation loss': loss(3.3, 0.95, 0.02)}
    if position == 0:
        curves = {
            'layer 0, training loss': loss(2.9, 0.6, 0.06),
            'layer 0, validation loss': loss(2.8, 0.8, 0.02),
            'layer 1, training loss': loss(3.2, 1.1, 0.08),
            'layer 1, validation loss': loss(3.1, 1.35, 0.03),
        }
    thresholds = np.linspace(0, 1, 41)
    return System(
        name=NAMES[position],
        config=f'configs/made_up/{position}.py',
        weights=f'work_dirs/made_up/{position}.pth',
        scores=scores,
        class_ap=known,
        confusion=confusion_of(confusion, taxonomy.num_classes),
        costs=Costs(
            parameters=(7_980_000, 3_980_000, 3_970_000)[position],
            latency_ms=(96.0, 61.0, 60.0)[position],
            peak_memory_mb=(1432.0, 911.0, None)[position],
            training_seconds=(301.0, 296.0, 280.0)[position],
        ),
        precision_curves={
            group: np.clip(1 - (recall / (quality + spread)) ** 4 * 0.7, 0, 1)
            for group, spread in (('all classes', 0.2), ('root classes', 0.3), ('deeper classes', 0.1))
        },
        class_curves=[_curve(value) for value in known.tolist()],
        operating_curve=OperatingCurve(
            tuple(thresholds.tolist()),
            tuple(
                OperatingPoint(
                    correctness=quality + 0.08 + (0.98 - quality - 0.08) * threshold**0.7,
                    exact=quality, distance=1.0,
                    information=1 - 0.75 * threshold**1.8,
                    information_recall=quality, unknown=0.0,
                )
                for threshold in thresholds.tolist()
            ),
        ),
        errors=_errors(taxonomy, confusion),
        training_curves=curves,
    )  # fmt: skip


def _curve(average_precision: float) -> ClassCurve | None:
    """Of that area: all precise up to a recall."""
    if np.isnan(average_precision):
        return None
    f1 = average_precision * np.clip(1.5 - 2 * np.abs(THRESHOLDS - 0.5), 0, 1)
    return ClassCurve(np.array([average_precision]), np.array([1.0]), f1)


def confusion_of(cells: Sequence[tuple[int, int, int]], num_classes: int) -> Confusion:
    """From (true label, named label, count)."""
    true, named, counts = np.array(cells, dtype=np.int64).reshape(-1, 3).T
    return Confusion(true, named, counts, num_classes)


def _mean(values: np.ndarray) -> Estimate:
    known = values[~np.isnan(values)]
    return _estimate(float(known.mean())) if len(known) else Estimate()


def _estimate(value: float) -> Estimate:
    return Estimate(float(value), float(value) - 0.018, float(value) + 0.017)


def _differences(first: System, other: System, generator: np.random.Generator) -> dict[str, Estimate]:
    differences = {}
    for key, score in other.scores.items():
        before = first.scores[key]
        if score.value is not None and before.value is not None and score.low is not None:
            value = score.value - before.value
            half = 0.05 if key == 'distance' else float(generator.uniform(0.008, 0.02))
            differences[key] = Estimate(value, value - half, value + half)
    return differences


def _confusion(
    taxonomy: Taxonomy, objects: np.ndarray, quality: float, generator: np.random.Generator
) -> list[tuple[int, int, int]]:
    counts: Counter[tuple[int, int]] = Counter()
    for label, total in enumerate(objects.tolist()):
        family = [other for other in range(taxonomy.num_classes) if _related(taxonomy, label, other)]
        for draw in generator.random(total):
            named = label
            if draw > quality + 0.2:
                named = -1
            elif draw > quality + 0.12:
                named = int(generator.integers(taxonomy.num_classes))
            elif draw > quality:
                named = int(generator.choice(family))
            elif draw > quality - 0.08:
                named = taxonomy.preferred_path(label)[0]
            counts[label, named] += 1
    return [(true, named, count) for (true, named), count in sorted(counts.items())]


def _related(taxonomy: Taxonomy, label: int, other: int) -> bool:
    roots = taxonomy.arrays.preferred_roots
    return bool(roots[label] == roots[other])


def _kind(taxonomy: Taxonomy, true: int, named: int) -> str:
    if named < 0:
        return MISSED
    if named == true:
        return CORRECT
    if taxonomy.arrays.ancestor_mask[true, named]:
        return LESS_DEEP
    return SIBLING if _related(taxonomy, true, named) else OTHER_NAME


def _errors(taxonomy: Taxonomy, confusion: list[tuple[int, int, int]]) -> dict[str, int]:
    counts = dict.fromkeys((kind.key for kind in ERROR_KINDS), 0)
    for true, named, count in confusion:
        counts[_kind(taxonomy, true, named)] += count
    return counts


def _images(
    taxonomy: Taxonomy, names: list[str], count: int, generator: np.random.Generator, size: int
) -> list[ComparedImage]:
    painter = ScenePainter(taxonomy, size=size)
    images = []
    for index in range(count):
        labels = generator.integers(taxonomy.num_classes, size=int(generator.integers(1, 6))).tolist()
        scene = painter.paint(labels, [False] * len(labels), generator)
        picture = np.ascontiguousarray(scene.image[..., ::-1])
        true = [_instance(scene, place, label) for place, label in enumerate(labels) if scene.is_painted[place]]
        panels = {}
        for position, name in enumerate(names):
            found = [_found(taxonomy, entry, QUALITIES[position], generator) for entry in true]
            kinds = {
                _kind(taxonomy, entry.label, -1 if other is None else other.label)
                for entry, other in zip(true, found, strict=True)
            }
            right = sum(
                other is not None and other.label == entry.label for entry, other in zip(true, found, strict=True)
            )
            panels[name] = draw_panel(
                picture.shape[:2],
                [entry for entry in found if entry is not None],
                taxonomy=taxonomy,
                errors=[kind.key for kind in ERROR_KINDS[1:] if kind.key in kinds],
                score=right / len(true),
            )
        images.append(
            ComparedImage(
                image_id=f'id_{index:03d}',
                file_name=f'made_up_{index:03d}.jpg',
                classes=[entry.label for entry in true],
                photograph=photograph(picture),
                ground_truth=draw_panel(picture.shape[:2], true, taxonomy=taxonomy),
                panels=panels,
            )
        )
    return images


def _instance(scene: Scene, place: int, label: int) -> PanelInstance:
    mask = scene.owners == place
    rows, columns = np.nonzero(mask)
    return PanelInstance(label, np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]), mask)


def _found(
    taxonomy: Taxonomy, entry: PanelInstance, quality: float, generator: np.random.Generator
) -> PanelInstance | None:
    if generator.random() > quality + 0.15:
        return None
    label = entry.label
    if generator.random() > quality:
        label = int(generator.choice(taxonomy.num_classes))
    scores = np.zeros(taxonomy.num_classes)
    probability = 1.0
    for step in taxonomy.preferred_path(label):
        probability *= float(generator.uniform(0.8, 1))
        scores[step] = probability
    return PanelInstance(label, entry.box, entry.mask, scores)
