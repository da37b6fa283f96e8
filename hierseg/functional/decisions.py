"""From the probabilities of all classes on a box to the one class to name.

Shape letters: N detections, C classes.
"""

from __future__ import annotations

from torch import Tensor


def deepest_confident_class(
    probabilities: Tensor, ancestor_mask: Tensor, depths: Tensor, *, threshold: float
) -> Tensor:
    """Backs off from the leaves: the deepest class that holds enough of its root class's probability.

    The most probable root class is taken first; among the classes at or below it whose probability is at
    least ``threshold`` times the root's, the deepest wins, the more probable one where several are
    equally deep. Person 0.8, Man 0.6, Woman 0.15 gives Man; Person 0.8, Man 0.35, Woman 0.33 gives Person.

    Args:
        probabilities: (N, C) float, background left out.
        ancestor_mask: (C, C) bool; ``[v, a]`` says that a is v or an ancestor of v.
        depths: (C,) int64; 0 for root classes.
        threshold: In (0, 1]; at 1 a class needs all of its root's mass.

    Returns:
        (N,) int64 labels.
    """
    is_root = depths == 0
    root = probabilities.masked_fill(~is_root, -1).argmax(dim=1, keepdim=True)
    root_probability = probabilities.gather(1, root)
    eligible = ancestor_mask.T[root.squeeze(1)] & (probabilities >= threshold * root_probability)
    rank = depths + probabilities / probabilities.amax(dim=1, keepdim=True).clamp(min=1e-12) * 0.5
    return rank.masked_fill(~eligible, -1).argmax(dim=1)
