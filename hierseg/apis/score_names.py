"""What the scores of a system and the kinds of its errors are called, and what they mean, for people."""

from __future__ import annotations

from collections.abc import Iterable

from hierseg.report.comparison import ErrorKind, Metric

OPEN_IMAGES, SIZE, NAMES, COCO = 'Open Images, masks', 'By size of object', 'Names of found objects', 'COCO, masks'

_METRICS = (
    Metric('mAP', 'mAP@0.5', OPEN_IMAGES, 'Mean average precision at mask IoU 0.5, Open Images Challenge.'),
    Metric('mAP_layer0', 'root classes', OPEN_IMAGES, 'The mean over classes without a parent.'),
    Metric('mAP_layer1', 'deeper classes', OPEN_IMAGES, 'The mean over all classes with a parent.'),
    Metric('exact', 'exact names', NAMES, 'Part of the names that are the annotated class.'),
    Metric('mAP_rare', 'rare classes', OPEN_IMAGES, 'The third of the classes with the fewest training images.'),
    Metric('mAP_common', 'common classes', OPEN_IMAGES, 'The middle third.'),
    Metric('mAP_frequent', 'frequent classes', OPEN_IMAGES, 'The third with the most training images.'),
    Metric('mAP50_95', 'mAP@0.5:0.95', OPEN_IMAGES, 'The mean over IoU 0.5, 0.55, …, 0.95: how well masks fit.'),
    Metric('mAP_small', 'small objects', SIZE, 'Masks of up to 32² pixels.'),
    Metric('mAP_medium', 'medium objects', SIZE, 'Masks of 32² to 96² pixels.'),
    Metric('mAP_large', 'large objects', SIZE, 'Masks of 96² pixels and more.'),
    Metric('match_rate', 'objects found', NAMES, 'Part of the objects that a detection lies on, whatever its name.'),
    Metric('correctness', 'right names', NAMES, 'Part of the names that are the annotated class or an ancestor of it.'),
    Metric('hierarchical_f', 'hierarchical F', NAMES, 'Agreement of the ancestors of name and annotated class.'),
    Metric('hierarchical_precision', 'hierarchical precision', NAMES, "Part of the name's ancestors that are right."),
    Metric('hierarchical_recall', 'hierarchical recall', NAMES, "Part of the class's ancestors that are named."),
    Metric('information_precision', 'information precision', NAMES, 'Part of what a name says that is right.'),
    Metric('information_recall', 'information recall', NAMES, 'Part of what is to be said that a name says rightly.'),
    Metric('recall_at_90', 'recall at 90 %', NAMES, 'Largest information recall at which 90 % of the names are right, '
           'over all thresholds of the back-off rule.'),
    Metric('recall_at_95', 'recall at 95 %', NAMES, 'The same with 95 % right.'),
    Metric('distance', 'distance', NAMES, 'Edges between name and annotated class.', 'edges', higher_is_better=False),
    Metric('distance_at_5', 'distance of the best 5', NAMES, 'The mean over the five most probable classes.', 'edges',
           higher_is_better=False),
    Metric('severity', 'severity of mistakes', NAMES, 'Height of the common ancestor, over names that are not exact; '
           'to be read beside exact names.', 'edges', higher_is_better=False),
    Metric('path_consistency', 'consistent paths', NAMES, 'Part of the names with a path on which no parent is less '
           'probable than its child.'),
    Metric('coco_AP', 'AP', COCO, 'By pycocotools under the most specific label, IoU 0.5 to 0.95.'),
    Metric('coco_AP50', 'AP50', COCO, 'At IoU 0.5.'),
    Metric('coco_AP75', 'AP75', COCO, 'At IoU 0.75.'),
    Metric('coco_APs', 'AP, small', COCO, 'Masks of up to 32² pixels.'),
    Metric('coco_APm', 'AP, medium', COCO, 'Masks of 32² to 96² pixels.'),
    Metric('coco_APl', 'AP, large', COCO, 'Masks of 96² pixels and more.'),
    Metric('coco_AR100', 'AR', COCO, 'Average recall with 100 detections of a class per image.'),
)  # fmt: skip
"""In the order of the page; the first four are its large numbers."""

SHOWN_KINDS = (
    ErrorKind('correct', 'correct', 'Found an object and named its class.'),
    ErrorKind('coarser', 'coarser', 'Found an object and named an ancestor of its class.'),
    ErrorKind('finer', 'finer', 'Found an object annotated coarsely and named what it may be: unknown, not wrong.'),
    ErrorKind('duplicate', 'duplicate', 'Fits an object that another detection found.'),
    ErrorKind('sibling', 'sibling', 'Lies on an object, and names a sibling of its class.'),
    ErrorKind('cousin', 'cousin', 'Lies on an object, and names another class of its branch.'),
    ErrorKind('far', 'far', 'Lies on an object of another root class.'),
    ErrorKind('localisation', 'localisation', 'The right name, but the mask overlaps the object by 0.1 to 0.5 only.'),
    ErrorKind('background', 'background', 'Lies on nothing that is annotated, or hardly.'),
    ErrorKind('missed', 'missed', 'An object that no detection found.'),
)
"""What counts against nobody is not shown."""


def shown_metrics(keys: Iterable[str]) -> list[Metric]:
    """The metrics of a comparison that has scores of these names, by depth too."""
    found = set(keys)
    depths = sorted(
        (key for key in found if key.startswith('mAP_depth')), key=lambda key: int(key.removeprefix('mAP_depth'))
    )
    by_depth = [
        Metric(key, f'depth {key.removeprefix("mAP_depth")}', 'By depth', 'Classes so many edges below a root class.')
        for key in depths
    ]
    return [metric for metric in _METRICS if metric.key in found] + by_depth
