# Open Images instances from a store (docs: tools/dataset_converters/openimages.py).
# A config that builds on it may set data_root, scale and batch size; the file layout is
#   data_root/train/*.jpg  data_root/validation/*.jpg  data_root/store/{train,validation}/
data_root = 'data/openimages/'
taxonomy = data_root + 'store/train/taxonomy.json'
backend_args = None

meta_keys = (
    'img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor', 'flip', 'flip_direction',
    'verified_positive', 'verified_negative', 'not_exhaustive')

train_pipeline = [
    dict(type='LoadImageFromFile', color_type='color_ignore_orientation', backend_args=backend_args),
    dict(type='hierseg.LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='Resize', scale=(1333, 800), keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='hierseg.PackDetInputs', meta_keys=meta_keys),
]
test_pipeline = [
    dict(type='LoadImageFromFile', color_type='color_ignore_orientation', backend_args=backend_args),
    dict(type='Resize', scale=(1333, 800), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='PackDetInputs', meta_keys=meta_keys),
]

train_dataloader = dict(
    batch_size=4,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='hierseg.StreamSampler'),
    batch_sampler=dict(type='AspectRatioBatchSampler'),
    dataset=dict(
        type='hierseg.StoreDataset',
        store=data_root + 'store/train',
        taxonomy=taxonomy,
        data_root=data_root,
        data_prefix=dict(img='train/'),
        filter_cfg=dict(filter_empty_gt=True, min_size=32),
        pipeline=train_pipeline,
        backend_args=backend_args))
# After every epoch, over other images each time.
validation_loss = dict(
    type='hierseg.ValidationLossHook',
    num_batches=50,
    dataloader=dict(
        batch_size=4,
        num_workers=2,
        persistent_workers=True,
        dataset=dict(
            type='hierseg.StoreDataset',
            store=data_root + 'store/validation',
            taxonomy=taxonomy,
            data_root=data_root,
            data_prefix=dict(img='validation/'),
            filter_cfg=dict(filter_empty_gt=True, min_size=32),
            pipeline=[step for step in train_pipeline if step['type'] != 'RandomFlip'],
            backend_args=backend_args)))
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='hierseg.StoreDataset',
        store=data_root + 'store/validation',
        taxonomy=taxonomy,
        data_root=data_root,
        data_prefix=dict(img='validation/'),
        test_mode=True,
        pipeline=test_pipeline,
        backend_args=backend_args))
test_dataloader = val_dataloader

val_evaluator = dict(type='hierseg.OpenImagesInstanceMetric', store=data_root + 'store/validation')
test_evaluator = val_evaluator
