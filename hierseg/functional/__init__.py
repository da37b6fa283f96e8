"""Pure torch functions on hierarchical logits: no modules, no reduction, no configuration."""

from hierseg.functional.decisions import (
    deepest_confident_class,
    inclusion_matrix,
    least_expected_distance,
    most_probable_leaf,
    outcome_masses,
)
from hierseg.functional.losses import marginal_negative_log_likelihood, padded_descendants
from hierseg.functional.probabilities import class_probabilities, path_sum_logits

__all__ = [
    'class_probabilities',
    'deepest_confident_class',
    'inclusion_matrix',
    'least_expected_distance',
    'marginal_negative_log_likelihood',
    'most_probable_leaf',
    'outcome_masses',
    'padded_descendants',
    'path_sum_logits',
]
