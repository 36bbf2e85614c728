"""Handwritten digits, 28x28 grey, 60,000 of them: MNIST.

leadline train mnist

Not yet measured over seeds.
"""

from __future__ import annotations

from leadline.data.augment import Augmentation
from leadline.data.options import DataOptions
from leadline.models.architecture import Architecture
from leadline.optim.optimizers import OptimizerOptions
from leadline.optim.schedules import ScheduleOptions
from leadline.training.recipe import Budget, Recipe, Regularisation

RECIPE = Recipe(
    data=DataOptions(data="mnist", val_fraction=0.05),
    model=Architecture(model="convnet", width=32),
    optimizer=OptimizerOptions(optimizer="sgd", lr=0.2, weight_decay=5e-4),
    schedule=ScheduleOptions(schedule="linear", warmup=0.2),
    regularisation=Regularisation(label_smoothing=0.1),
    augmentation=Augmentation(crop=2, rotation=10.0),
    budget=Budget(epochs=6, batch_size=256),
)
