# Data and schedule of the quickstart's models that are trained as a whole: one model, all classes.
_base_ = ['./datasets/openimages_instance.py', './runtime.py', './quickstart.py']

data_root = _base_.quickstart_root
taxonomy = data_root + 'store/train/taxonomy.json'

train_pipeline = _base_.train_pipeline
test_pipeline = _base_.test_pipeline
for step in [*train_pipeline, *test_pipeline]:
    if step.type == 'Resize':
        step.scale = _base_.quickstart_scale
dataset = dict(data_root=data_root, taxonomy=taxonomy)
train_dataloader = dict(
    **_base_.slim_loading,
    sampler=dict(type='hierseg.ClassAwareStreamSampler'),
    # 4 epochs of 140 steps, as many as both layers of the ensemble have together.
    batch_sampler=dict(_delete_=True, type='hierseg.StreamBatchSampler', iterations=140),
    dataset=dict(store=data_root + 'store/train', pipeline=train_pipeline, **dataset))
val_dataloader = dict(
    **_base_.slim_loading,
    dataset=dict(store=data_root + 'store/validation', pipeline=test_pipeline, **dataset))
test_dataloader = val_dataloader
val_evaluator = dict(store=data_root + 'store/validation')
test_evaluator = val_evaluator

train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=4, val_interval=2)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = _base_.slim_optim_wrapper
param_scheduler = _base_.slim_param_scheduler

validation_loss = _base_.validation_loss
validation_loss.update(num_batches=5)
validation_loss.dataloader.update(_base_.slim_loading)
validation_loss.dataloader.dataset.update(
    store=data_root + 'store/validation',
    pipeline=[step for step in train_pipeline if step.type != 'RandomFlip'],
    **dataset)
default_hooks = dict(
    logger=dict(interval=20), checkpoint=dict(interval=1, max_keep_ckpts=1), validation_loss=validation_loss)
randomness = dict(seed=0)
del step, dataset
