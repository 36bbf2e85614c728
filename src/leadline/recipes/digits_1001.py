"""Digits by 1001 layers: a pre-activation ResNet so deep that only its shortcuts make it learn.

leadline train digits_1001

Test accuracy 97.2 % (seed 0, n = 1), 31 minutes of training on one busy core with AMX.

He et al. 2016 (arXiv:1603.05027): with a clean sum from the first block to the last, depth does no
harm. `digits_1001_plain` is the same network without its residual paths.
"""

from __future__ import annotations

from leadline.data.augment import Augmentation
from leadline.data.options import DataOptions
from leadline.models.architecture import Architecture
from leadline.optim.optimizers import OptimizerOptions
from leadline.optim.schedules import ScheduleOptions
from leadline.training.recipe import Budget, Recipe, Regularisation

RECIPE = Recipe(
    data=DataOptions(data="digits", val_fraction=0.1),
    model=Architecture(model="preresnet1001"),
    optimizer=OptimizerOptions(optimizer="sgd", lr=0.1, weight_decay=5e-4),
    schedule=ScheduleOptions(schedule="cosine", warmup=0.1),
    regularisation=Regularisation(label_smoothing=0.1, ema_decay=0.99),
    augmentation=Augmentation(crop=1, rotation=10.0),
    budget=Budget(epochs=40, batch_size=32),
)
