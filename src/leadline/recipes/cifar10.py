"""Natural images, 32x32 colour, 50,000 in ten classes: CIFAR-10.

leadline train cifar10

Not measured: the lossless images were not at hand. The same
network on a lossy JPEG copy of them: README, 'What it reaches'.
"""

from __future__ import annotations

from leadline.data.augment import Augmentation
from leadline.data.options import DataOptions
from leadline.models.architecture import Architecture
from leadline.optim.optimizers import OptimizerOptions
from leadline.optim.schedules import ScheduleOptions
from leadline.training.recipe import Budget, Recipe, Regularisation

RECIPE = Recipe(
    data=DataOptions(data="cifar10", val_fraction=0.02),
    model=Architecture(model="convnet", width=64),
    optimizer=OptimizerOptions(optimizer="sgd", lr=0.2, weight_decay=5e-4),
    schedule=ScheduleOptions(schedule="linear", warmup=0.2),
    regularisation=Regularisation(label_smoothing=0.1),
    augmentation=Augmentation(flip=True, crop=4, cutout=8),
    budget=Budget(epochs=15, batch_size=256),
)
