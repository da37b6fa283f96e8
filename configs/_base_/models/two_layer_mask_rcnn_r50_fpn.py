# The two-layer ensemble of the seed report: one plain Mask R-CNN for root classes, one for all deeper classes.
# A config that builds on it sets `taxonomy` and `num_classes` of both; see configs/two_layer_ensemble.py.
_base_ = 'mmdet::_base_/models/mask-rcnn_r50_fpn.py'
custom_imports = dict(imports=['hierseg.registry'], allow_failed_imports=False)

detector = _base_.model
# Group-of boxes and boxes without a mask are ignored: a proposal that lies mostly inside one is neither positive
# nor negative.
detector.train_cfg.rpn.assigner.ignore_iof_thr = 0.5
detector.train_cfg.rcnn.assigner.ignore_iof_thr = 0.5

model = dict(
    _delete_=True,
    type='hierseg.TwoLayerEnsemble',
    layer0=detector,
    layer1=detector,
    # A layer-1 instance belongs to the layer-0 instance of an ancestor whose mask overlaps it most.
    merge=dict(iou_threshold=0.5, unmatched='drop', decision_thr=0.5))
# Each layer has its own wrapper: only one of them is trained at a time.
model_wrapper_cfg = dict(type='MMSeparateDistributedDataParallel')
del detector
