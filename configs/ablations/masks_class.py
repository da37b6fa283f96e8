# The quickstart's end-to-end model with a mask for each class, internal ones too, instead of one for all.
#   python tools/train.py configs/ablations/masks_class.py
#   python tools/test.py configs/ablations/masks_class.py work_dirs/masks_class/epoch_4.pth
_base_ = '../quickstart/hier_e2e.py'

model = dict(
    roi_head=dict(mask_channels='class', mask_head=dict(class_agnostic=False, num_classes=_base_.num_classes)))
