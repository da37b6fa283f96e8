"""What is written beside an instance."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from hierseg.taxonomy import Taxonomy

SEPARATOR = ' › '


def path_steps(
    taxonomy: Taxonomy,
    label: int,
    *,
    class_scores: npt.NDArray[np.floating] | None = None,
    score: float | None = None,
) -> tuple[str, ...]:
    """The preferred path of a class, one text per step, root class first.

    Args:
        taxonomy: The classes.
        label: The decided class.
        class_scores: (C,) probability of every class; a step that the detection does not claim (0) stays bare.
        score: Probability of the decided class, where only that is known.

    Returns:
        Such as ``('Animal 0.98', 'Dog 0.71')``, ``('Animal', 'Dog 0.71')`` or ``('Animal', 'Dog')``.
    """
    path = taxonomy.preferred_path(label)
    scores = {label: score} if score is not None else {}
    if class_scores is not None:
        scores |= {step: float(class_scores[step]) for step in path if class_scores[step] > 0}
    return tuple(
        f'{taxonomy.names[step]} {scores[step]:.2f}' if step in scores else taxonomy.names[step] for step in path
    )


def label_variants(steps: tuple[str, ...], *, mark: str = '') -> tuple[str, ...]:
    """A label's text from its longest to its shortest form: root steps give way first.

    Args:
        steps: From :func:`path_steps`.
        mark: A remark that every form keeps, such as ``(group)``.

    Example:
        >>> label_variants(('Animal', 'Carnivore', 'Dog'), mark='(group)')
        ('Animal › Carnivore › Dog (group)', '… › Carnivore › Dog (group)', 'Dog (group)')
    """
    behind = f' {mark}' if mark else ''
    whole = [SEPARATOR.join(steps)]
    cut = [SEPARATOR.join(('…', *steps[start:])) for start in range(1, len(steps) - 1)]
    last = [steps[-1]] if len(steps) > 1 else []
    return tuple(text + behind for text in (*whole, *cut, *last))
