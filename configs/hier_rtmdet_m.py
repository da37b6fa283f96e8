# The largest real-time model; all but its size, and images scaled down to a tenth, is hier_rtmdet_s.py.
#   bash tools/dist_train.sh configs/hier_rtmdet_m.py 4
#   python tools/test.py configs/hier_rtmdet_m.py work_dirs/hier_rtmdet_m/epoch_40.pth
_base_ = './hier_rtmdet_s.py'

pretrained = (
    'https://download.openmmlab.com/mmdetection/v3.0/rtmdet/cspnext_rsb_pretrain/'
    'cspnext-m_8xb256-rsb-a1-600e_in1k-ecb3bbd9.pth')
model = dict(
    backbone=dict(deepen_factor=0.67, widen_factor=0.75, init_cfg=dict(checkpoint=pretrained)),
    neck=dict(in_channels=[192, 384, 768], out_channels=192, num_csp_blocks=2),
    bbox_head=dict(in_channels=192, feat_channels=192))

train_pipeline = _base_.train_pipeline
train_pipeline_stage2 = _base_.train_pipeline_stage2
for step in [*train_pipeline, *train_pipeline_stage2]:
    if step.type == 'hierseg.RandomResizeCrop':
        step.ratio_range = (0.1, 2.0)
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
custom_hooks = [
    _base_.averaging,
    dict(type='PipelineSwitchHook', switch_epoch=_base_.mixed_epochs, switch_pipeline=train_pipeline_stage2)]
del step
