# The real-time model, slim enough to learn from scratch on two CPU cores in minutes.
#   bash tools/quickstart.sh        does everything; or, on its data,
#   python tools/train.py configs/quickstart/hier_rtmdet.py
#   python tools/test.py configs/quickstart/hier_rtmdet.py work_dirs/hier_rtmdet/epoch_4.pth
_base_ = ['../_base_/models/hier_rtmdet_ins.py', '../_base_/quickstart_whole.py']

model = dict(
    backbone=dict(deepen_factor=0.167, widen_factor=0.375),
    neck=dict(in_channels=[96, 192, 384], out_channels=96),
    bbox_head=dict(
        in_channels=96,
        feat_channels=96,
        num_classes=22,
        # So few steps teach classes better where less is taken off the loss of what is half right.
        loss_cls=dict(taxonomy=_base_.taxonomy, beta=1.0),
        # About as many of 22 as 50 are of 300.
        verified=dict(class_counts=_base_.data_root + 'store/train', num_negatives=4, power=0.5)),
    test_cfg=dict(nms=dict(iou_threshold=0.5), max_per_img=30))

optim_wrapper = _base_.slim_optim_wrapper
optim_wrapper.optimizer.lr = 4e-3
# The full rate for the first half, as RTMDet has it.
param_scheduler = [
    dict(type='LinearLR', start_factor=0.05, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', by_epoch=True, begin=2, T_max=2, eta_min=1e-5, convert_to_iter_based=True),
]
