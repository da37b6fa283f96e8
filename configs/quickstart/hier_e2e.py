# The end-to-end model, slim enough to learn from scratch on two CPU cores in minutes.
#   bash tools/quickstart.sh        does everything; or, on its data,
#   python tools/train.py configs/quickstart/hier_e2e.py
#   python tools/test.py configs/quickstart/hier_e2e.py work_dirs/hier_e2e/epoch_4.pth
_base_ = ['../_base_/models/hier_mask_rcnn_r50_fpn.py', '../_base_/quickstart_whole.py']

num_classes = 22
num_root_classes = 8

model = _base_.slim_detector
model.roi_head.bbox_head.update(num_classes=num_classes, loss_cls=dict(taxonomy=_base_.taxonomy))
model.roi_head.mask_head.update(num_classes=num_root_classes)
# About as many of 22 as 50 are of 300.
model.roi_head.verified = dict(class_counts=_base_.data_root + 'store/train', num_negatives=4, power=0.5)
