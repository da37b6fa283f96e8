"""The objects of a split and the annotated ones among them, planned before anything is painted.

Planning the whole split at once gives exact class counts (a long tail of which every class has an
object where there are enough objects), and makes images independent of each other, so that any number
of processes paints the same files. Shape letters: C classes, N images, M objects.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import networkx as nx
import numpy as np
from numpy.random import Generator

from hierseg.formats import BoolArray, FloatArray, IntArray
from hierseg.synthetic.options import SplitOptions
from hierseg.taxonomy import Taxonomy

RARE = 10
"""Classes of fewer objects are always verified: annotators go and look for them."""
MAX_OBJECTS = 12
NOT_ANNOTATED = -1


@dataclass(frozen=True, eq=False)
class Population:
    """The objects of a split, image by image."""

    first_objects: IntArray  # (N + 1,) int64; image n has the objects first_objects[n] to first_objects[n + 1] − 1
    labels: IntArray  # (M,) int64; what each object is: a class without children
    annotated_labels: IntArray  # (M,) int64; what it is annotated as, NOT_ANNOTATED where it is not
    group_of: BoolArray  # (M,) bool; the object is a cluster under one box
    has_mask: BoolArray  # (M,) bool; false for group-of and box-only objects


def long_tail_shares(taxonomy: Taxonomy, tail_ratio: float) -> FloatArray:
    """Shares (C,) of the objects, falling geometrically over the leaves; 0 for internal classes.

    Which leaf is frequent follows from a hash of its id: head and tail run through all families, and
    are the same for every seed and label order.
    """
    order = sorted(taxonomy.leaves, key=lambda leaf: hashlib.blake2b(taxonomy.ids[leaf].encode()).digest())
    shares = np.zeros(taxonomy.num_classes)
    shares[order] = tail_ratio ** -np.linspace(0, 1, len(order))
    return _normalised(shares)


def leaf_shares(taxonomy: Taxonomy, shares: FloatArray) -> FloatArray:
    """Shares (C,) with those of internal classes handed down to their leaves, in proportion to the leaves' own."""
    is_leaf = taxonomy.arrays.is_leaf
    result = np.where(is_leaf, shares, 0.0)
    for label in np.flatnonzero(~is_leaf & (shares > 0)).tolist():
        result += shares[label] * _leaf_distribution(taxonomy, label, shares)
    return _normalised(result)


def _leaf_distribution(taxonomy: Taxonomy, label: int, shares: FloatArray) -> FloatArray:
    """Probabilities (C,) of the leaves below an internal class."""
    below = taxonomy.arrays.ancestor_mask[:, label] & taxonomy.arrays.is_leaf
    weights = np.where(below, shares, 0.0)
    return _normalised(weights if weights.sum() > 0 else below.astype(np.float64))


def limited_shares(shares: FloatArray, tail_ratio: float) -> FloatArray:
    """Shares (C,) with the logarithm of their range compressed until head : tail is at most ``tail_ratio``."""
    positive = shares > 0
    ratio = shares[positive].max() / shares[positive].min()
    if ratio <= tail_ratio:
        return shares
    compressed = np.zeros_like(shares)
    compressed[positive] = shares[positive] ** (np.log(tail_ratio) / np.log(ratio))
    return _normalised(compressed)


def _normalised(weights: FloatArray) -> FloatArray:
    return weights / float(weights.sum())


def apportioned(shares: FloatArray, total: int) -> IntArray:
    """Whole numbers (C,) in proportion to shares that sum to ``total``, by largest remainders.

    Every class with a share gets at least one if there are enough for all.
    """
    positive = shares > 0
    counts: IntArray = np.where(total >= positive.sum(), positive, 0).astype(np.int64)
    total -= int(counts.sum())
    # The rest goes to whoever is furthest below its due.
    due = np.maximum(shares * (total + counts.sum()) - counts, 0)
    due *= total / due.sum() if due.sum() > 0 else 0
    whole = np.floor(due).astype(np.int64)
    counts += whole
    counts[np.argsort(-(due - whole), kind='stable')[: total - int(whole.sum())]] += 1
    return counts


def plan_population(
    taxonomy: Taxonomy, shares: FloatArray, split: SplitOptions, *, objects_per_image: float, generator: Generator
) -> Population:
    """Plans the objects of a split, ``objects_per_image`` on average, and their annotation.

    Shares, (C,) float64 and not all 0, say how the *annotated* classes are distributed. An internal class with a share
    gets objects of leaves below it that are annotated only as the internal class.
    """
    rates, num_images = split.rates, split.num_images
    sizes = np.minimum(1 + generator.poisson(objects_per_image - 1, num_images), MAX_OBJECTS)
    first_objects = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    images = np.repeat(np.arange(num_images), sizes)
    counts = apportioned(_normalised(shares), len(images))
    annotated = generator.permutation(np.repeat(np.arange(taxonomy.num_classes), counts))
    labels = _true_labels(taxonomy, shares, annotated, first_objects, generator)
    _annotate_coarsely(taxonomy, labels, annotated, images, rates.coarse, generator)
    _leave_unannotated(taxonomy, labels, annotated, images, rates.unannotated, generator)
    group_of = _chosen(labels, rates.group_of, generator)
    box_only = np.zeros_like(group_of)
    box_only[~group_of] = _chosen(labels[~group_of], rates.box_only, generator)
    return Population(first_objects, labels, annotated, group_of, ~group_of & ~box_only)


def _true_labels(
    taxonomy: Taxonomy, shares: FloatArray, annotated: IntArray, first_objects: IntArray, generator: Generator
) -> IntArray:
    """True classes of the objects (M,): a leaf below the class that they are annotated as.

    Where possible a leaf that is not annotated as itself in the same image, since a verified class has
    all its objects annotated.
    """
    labels = annotated.copy()
    internal = np.flatnonzero(~np.isin(annotated, taxonomy.leaves))
    chances = {label: _leaf_distribution(taxonomy, label, shares) for label in np.unique(annotated[internal]).tolist()}
    images = np.searchsorted(first_objects, internal, side='right') - 1
    for index, image in zip(internal.tolist(), images.tolist(), strict=True):
        among = chances[int(annotated[index])]
        others = among.copy()
        others[annotated[first_objects[image] : first_objects[image + 1]]] = 0
        among = others if others.sum() > 0 else among
        labels[index] = np.searchsorted(np.cumsum(among), generator.random() * among.sum(), side='right')
    return labels


def _chosen(keys: IntArray, rate: float, generator: Generator) -> BoolArray:
    """Marks (M,) a share of the items of every key, one item of each at least left unmarked (unless all are to go)."""
    order = np.lexsort((generator.random(len(keys)), keys))
    _, starts, counts = np.unique(keys[order], return_index=True, return_counts=True)
    quotas = np.floor(rate * counts + generator.random(len(counts))).astype(np.int64)
    quotas = np.minimum(quotas, counts - (rate < 1))
    ranks = np.arange(len(keys)) - np.repeat(starts, counts)
    chosen = np.zeros(len(keys), dtype=bool)
    chosen[order] = ranks < np.repeat(quotas, counts)
    return chosen


def _annotate_coarsely(
    taxonomy: Taxonomy, labels: IntArray, annotated: IntArray, images: IntArray, rate: float, generator: Generator
) -> None:
    """Moves annotated labels (M,) of some (image, deeper class) pairs to an ancestor, in place."""
    is_deeper = (annotated == labels) & np.isin(labels, taxonomy.deeper_classes)
    pairs, pair_of = np.unique(np.stack([labels[is_deeper], images[is_deeper]]), axis=1, return_inverse=True)
    targets = np.full(pairs.shape[1], NOT_ANNOTATED)
    ancestors = {label: sorted(taxonomy.ancestors(label)) for label in taxonomy.deeper_classes}
    for pair in np.flatnonzero(_chosen(pairs[0], rate, generator)).tolist():
        above = ancestors[int(pairs[0, pair])]
        targets[pair] = above[int(generator.integers(len(above)))]
    moved = targets[pair_of.ravel()]
    annotated[is_deeper] = np.where(moved == NOT_ANNOTATED, annotated[is_deeper], moved)


def _leave_unannotated(
    taxonomy: Taxonomy, labels: IntArray, annotated: IntArray, images: IntArray, rate: float, generator: Generator
) -> None:
    """Takes the annotation from all objects (M,) of some (image, family) pairs, in place."""
    family_of = np.zeros(taxonomy.num_classes, dtype=np.int64)
    for family, members in enumerate(nx.weakly_connected_components(taxonomy.graph)):
        family_of[list(members)] = family
    pairs, pair_of = np.unique(np.stack([images, family_of[labels]]), axis=1, return_inverse=True)
    is_rare = np.bincount(labels, minlength=taxonomy.num_classes)[labels] < RARE
    is_left_out = generator.random(pairs.shape[1]) < rate
    is_left_out[pair_of.ravel()[is_rare]] = False
    annotated[is_left_out[pair_of.ravel()]] = NOT_ANNOTATED


def verified_labels(
    taxonomy: Taxonomy, labels: IntArray, annotated: IntArray, *, negatives: int | None, generator: Generator
) -> tuple[IntArray, IntArray]:
    """Verified present and verified absent classes of one image, each ascending.

    Args:
        taxonomy: The classes.
        labels: (I,) what the objects in the picture are.
        annotated: (I,) what they are annotated as, NOT_ANNOTATED where they are not.
        negatives: How many absent classes to verify, relatives of present ones rather than others;
            None verifies every class, internal ones too.
        generator: Where chance comes from.
    """
    ancestor_mask = taxonomy.arrays.ancestor_mask
    is_present = ancestor_mask[labels].any(axis=0)
    absent = np.flatnonzero(~is_present)
    if negatives is None:
        return np.flatnonzero(is_present), absent
    # A class that shares a root class with something in the picture is the likelier mistake.
    root_mask = ancestor_mask & (taxonomy.arrays.preferred_parents < 0)
    is_relative = (root_mask[absent] & root_mask[labels].any(axis=0)).any(axis=1)
    weights = np.where(is_relative, 5.0, 1.0)
    count = min(negatives, len(absent))
    chosen = generator.choice(absent, count, replace=False, p=weights / weights.sum()) if count else absent[:0]
    return np.unique(annotated[annotated != NOT_ANNOTATED]), np.sort(chosen)
