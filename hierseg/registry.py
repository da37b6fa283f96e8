"""Child registries of mmdet's: ``type='hierseg.X'`` in a config finds our X, mmdet's names still work.

Modules register when their package is first asked for; importing this file imports nothing of ours.
"""

from mmdet.registry import DATA_SAMPLERS as MMDET_DATA_SAMPLERS
from mmdet.registry import DATASETS as MMDET_DATASETS
from mmdet.registry import HOOKS as MMDET_HOOKS
from mmdet.registry import LOOPS as MMDET_LOOPS
from mmdet.registry import METRICS as MMDET_METRICS
from mmdet.registry import MODELS as MMDET_MODELS
from mmdet.registry import OPTIM_WRAPPER_CONSTRUCTORS as MMDET_OPTIM_WRAPPER_CONSTRUCTORS
from mmdet.registry import TASK_UTILS as MMDET_TASK_UTILS
from mmdet.registry import TRANSFORMS as MMDET_TRANSFORMS
from mmdet.registry import VISUALIZERS as MMDET_VISUALIZERS
from mmengine.registry import Registry

DATASETS = Registry('dataset', parent=MMDET_DATASETS, scope='hierseg', locations=['hierseg.datasets'])
DATA_SAMPLERS = Registry('data sampler', parent=MMDET_DATA_SAMPLERS, scope='hierseg', locations=['hierseg.datasets'])
TRANSFORMS = Registry('transform', parent=MMDET_TRANSFORMS, scope='hierseg', locations=['hierseg.datasets'])
MODELS = Registry('model', parent=MMDET_MODELS, scope='hierseg', locations=['hierseg.models'])
TASK_UTILS = Registry('task util', parent=MMDET_TASK_UTILS, scope='hierseg', locations=['hierseg.models'])
METRICS = Registry('metric', parent=MMDET_METRICS, scope='hierseg', locations=['hierseg.evaluation'])
VISUALIZERS = Registry('visualizer', parent=MMDET_VISUALIZERS, scope='hierseg', locations=['hierseg.report'])
LOOPS = Registry('loop', parent=MMDET_LOOPS, scope='hierseg', locations=['hierseg.engine'])
HOOKS = Registry('hook', parent=MMDET_HOOKS, scope='hierseg', locations=['hierseg.engine', 'hierseg.report'])
OPTIM_WRAPPER_CONSTRUCTORS = Registry(
    'optimizer wrapper constructor',
    parent=MMDET_OPTIM_WRAPPER_CONSTRUCTORS,
    scope='hierseg',
    locations=['hierseg.engine'],
)
