"""Pure torch functions on hierarchical logits: no modules, no reduction, no configuration.

A loss scheme is one function of ``softmax_losses`` or ``sigmoid_losses`` and its entry in ``schemes``; a decision rule
is one function of ``decisions`` and its entry there; ``balance`` helps rare classes with any scheme. What they ask of a
taxonomy they look up by label in its ``relations``.
"""

from hierseg.functional.relations import Relations
from hierseg.functional.schemes import SCHEMES, Scheme

__all__ = ['SCHEMES', 'Relations', 'Scheme']
