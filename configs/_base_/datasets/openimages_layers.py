# Open Images for the two-layer ensemble: each layer has its own view of the same stores, and the ensemble is tested
# like the end-to-end model.
_base_ = './openimages_instance.py'

train_pipeline = [
    dict(type='LoadImageFromFile', color_type='color_ignore_orientation', backend_args=_base_.backend_args),
    # Layer 1: root classes with children, so that no Man who is labelled Person counts as background.
    dict(type='hierseg.PaintBoxes', value=128),
    dict(type='hierseg.LoadAnnotations', with_bbox=True, with_mask=True),
    # The report was trained on masks alone.
    dict(type='hierseg.IgnoreMaskless'),
    dict(type='Resize', scale=(1333, 800), keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='hierseg.PackDetInputs', meta_keys=_base_.meta_keys),
]
train_dataset = _base_.train_dataloader.dataset
train_dataset.pipeline = train_pipeline
validation_dataset = _base_.validation_loss.dataloader.dataset
validation_dataset.pipeline = [step for step in train_pipeline if step['type'] != 'RandomFlip']

# The report: 8 images a step on 4 GPUs. An epoch is a fixed number of steps, not a pass over the data.
train_dataloader = dict(
    _delete_=True,
    batch_size=2,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='hierseg.StreamSampler'),
    layer0=dict(
        batch_sampler=dict(type='hierseg.StreamBatchSampler', iterations=700),
        dataset=dict(layer=0, images_per_class=1500, **train_dataset)),
    layer1=dict(
        batch_sampler=dict(type='hierseg.StreamBatchSampler', iterations=280),
        dataset=dict(layer=1, images_per_class=1500, **train_dataset)))
# The report: 50 batches of 8 images after every epoch, and others each time.
validation_loss = dict(
    num_batches=50,
    dataloader=dict(
        _delete_=True,
        batch_size=2,
        num_workers=2,
        persistent_workers=True,
        layer0=dict(dataset=dict(layer=0, **validation_dataset)),
        layer1=dict(dataset=dict(layer=1, **validation_dataset))))
del train_dataset, validation_dataset
