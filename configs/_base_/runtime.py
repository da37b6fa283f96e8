# How all hierseg models are trained: MMDetection's runtime, with runs that go on exactly where they were killed
# (--resume) and curves of the losses beside the log.
# For TensorBoard: pip install tensorboard, and in a config that builds on this one
#   visualizer = dict(vis_backends=[dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')])
_base_ = 'mmdet::_base_/default_runtime.py'

default_hooks = dict(
    checkpoint=dict(type='hierseg.AtomicCheckpointHook'),
    class_count=dict(type='hierseg.ClassCountHook'),
    load_from=dict(type='hierseg.LoadFromHook'),
    exact_resume=dict(type='hierseg.ExactResumeHook'),
    finite_loss=dict(type='hierseg.FiniteLossHook'),
    loss_curves=dict(type='hierseg.LossCurvesHook'))
vis_backends = [dict(type='LocalVisBackend')]
visualizer = dict(type='hierseg.HierLocalVisualizer', vis_backends=vis_backends, name='visualizer')
