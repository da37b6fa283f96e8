"""Model parts that know the hierarchy; everything else is mmdet's."""

from hierseg.models.assigner import HierarchicalSoftLabelAssigner
from hierseg.models.dense_head import HierarchicalDenseHead
from hierseg.models.hierarchical_loss import HierarchicalLoss
from hierseg.models.propagated_loss import PropagatedCrossEntropy
from hierseg.models.quality_loss import HierarchicalQualityLoss
from hierseg.models.retina_head import HierarchicalRetinaHead
from hierseg.models.roi_head import HierarchicalRoIHead
from hierseg.models.rtmdet_head import HierarchicalRTMDetInsHead
from hierseg.models.two_layer_ensemble import TwoLayerEnsemble

__all__ = [
    'HierarchicalDenseHead',
    'HierarchicalLoss',
    'HierarchicalQualityLoss',
    'HierarchicalRTMDetInsHead',
    'HierarchicalRetinaHead',
    'HierarchicalRoIHead',
    'HierarchicalSoftLabelAssigner',
    'PropagatedCrossEntropy',
    'TwoLayerEnsemble',
]
