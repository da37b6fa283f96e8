"""Pure torch functions on hierarchical logits: no modules, no reduction, no configuration."""

from hierseg.functional.balance import (
    equalization_offsets,
    expanded_counts,
    gradient_ratio_factors,
    log_prior_offsets,
    seesaw_offsets,
)
from hierseg.functional.decisions import (
    deepest_confident_class,
    inclusion_matrix,
    least_expected_distance,
    most_probable_leaf,
    outcome_masses,
)
from hierseg.functional.losses import (
    hierarchical_cross_entropy,
    marginal_negative_log_likelihood,
    path_sum_negative_log_likelihood,
    soft_label_cross_entropy,
    soft_max_margin,
)
from hierseg.functional.probabilities import class_probabilities, most_probable_leaf_or_background, path_sum_logits
from hierseg.functional.relations import Relations, max_at_or_below, min_at_or_above
from hierseg.functional.schemes import (
    SCHEMES,
    Scheme,
    complete_options,
    find_scheme,
)
from hierseg.functional.sibling_losses import conditional_cross_entropy, path_product_probabilities, sibling_log_softmax
from hierseg.functional.sigmoid_losses import (
    ancestor_positive_bce,
    max_below_probabilities,
    max_constraint_bce,
    min_above_probabilities,
    prior_shifted_logits,
    tree_min_bce,
)

__all__ = [
    'SCHEMES',
    'Relations',
    'Scheme',
    'ancestor_positive_bce',
    'class_probabilities',
    'complete_options',
    'conditional_cross_entropy',
    'deepest_confident_class',
    'equalization_offsets',
    'expanded_counts',
    'find_scheme',
    'gradient_ratio_factors',
    'hierarchical_cross_entropy',
    'inclusion_matrix',
    'least_expected_distance',
    'log_prior_offsets',
    'marginal_negative_log_likelihood',
    'max_at_or_below',
    'max_below_probabilities',
    'max_constraint_bce',
    'min_above_probabilities',
    'min_at_or_above',
    'most_probable_leaf',
    'most_probable_leaf_or_background',
    'outcome_masses',
    'path_product_probabilities',
    'path_sum_logits',
    'path_sum_negative_log_likelihood',
    'prior_shifted_logits',
    'seesaw_offsets',
    'sibling_log_softmax',
    'soft_label_cross_entropy',
    'soft_max_margin',
    'tree_min_bce',
]
