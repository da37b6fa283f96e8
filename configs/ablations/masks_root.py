# The quickstart's end-to-end model with a mask for each of the eight root classes instead of one for all.
#   python tools/train.py configs/ablations/masks_root.py
#   python tools/test.py configs/ablations/masks_root.py work_dirs/masks_root/epoch_4.pth
_base_ = '../quickstart/hier_e2e.py'

model = dict(
    roi_head=dict(mask_channels='root', mask_head=dict(class_agnostic=False, num_classes=8)))
