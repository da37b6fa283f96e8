# The smallest real-time model; all but its size, and mix-up on every other image, is hier_rtmdet_s.py.
#   bash tools/dist_train.sh configs/hier_rtmdet_tiny.py 4
#   python tools/test.py configs/hier_rtmdet_tiny.py work_dirs/hier_rtmdet_tiny/epoch_40.pth
_base_ = './hier_rtmdet_s.py'

pretrained = 'https://mmassets.onedl.ai/mmdetection/v3.0/rtmdet/cspnext_rsb_pretrain/cspnext-tiny_imagenet_600e.pth'
model = dict(
    backbone=dict(deepen_factor=0.167, widen_factor=0.375, init_cfg=dict(checkpoint=pretrained)),
    neck=dict(in_channels=[96, 192, 384], out_channels=96, num_csp_blocks=1),
    bbox_head=dict(in_channels=96, feat_channels=96))

train_pipeline = _base_.train_pipeline
for step in train_pipeline:
    if step.type == 'hierseg.MixUp':
        step.prob = 0.5
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
del step
