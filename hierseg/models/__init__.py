"""Model parts that know the hierarchy; everything else is mmdet's."""

from hierseg.models.hierarchical_loss import HierarchicalLoss
from hierseg.models.roi_head import HierarchicalRoIHead
from hierseg.models.two_layer_ensemble import TwoLayerEnsemble

__all__ = ['HierarchicalLoss', 'HierarchicalRoIHead', 'TwoLayerEnsemble']
