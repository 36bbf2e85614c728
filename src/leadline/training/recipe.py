"""Recipe: everything that defines a training, as a frozen dataclass, JSON there and back.

Two runs of one recipe on one machine with one execution give the same weights. What only changes
speed (device, precision, layout, threads) is not here: that is the `Execution`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from leadline.core.config import check, in_range
from leadline.data.augment import Augmentation
from leadline.data.options import DataOptions
from leadline.models.architecture import Architecture
from leadline.optim.freezing import Freezing
from leadline.optim.optimizers import OptimizerOptions
from leadline.optim.schedules import ScheduleOptions


@dataclass(frozen=True, kw_only=True)
class Regularisation:
    """What keeps a network from learning its training set by heart, beside weight decay."""

    label_smoothing: float = 0.0
    """share of the probability that is spread over all classes"""
    ema_decay: float = 0.0
    """memory of the running average of the weights that is evaluated and kept; 0: no average"""

    def __post_init__(self) -> None:
        check(
            self,
            in_range("label_smoothing", self.label_smoothing, 0, 1, open_high=True),
            in_range("ema_decay", self.ema_decay, 0, 1, open_high=True),
        )


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How long to train, and how the examples are cut into steps.

    One optimizer step sees `batch_size * accumulate` examples.
    """

    epochs: int = 10
    """passes over the training examples"""
    batch_size: int = 128
    """examples that are computed at once"""
    accumulate: int = 1
    """batches whose gradients make one optimizer step"""
    minutes: float | None = None
    """lowers the epochs, before the first step, to what this machine trains in that time"""
    patience: int = 0
    """epochs without a better validation after which to stop, keeping the best weights; 0: never"""
    clip_grad: float = 0.0
    """bound on the norm of the whole gradient; 0: none"""

    def __post_init__(self) -> None:
        check(
            self,
            in_range("epochs", self.epochs, 1),
            in_range("batch_size", self.batch_size, 1),
            in_range("accumulate", self.accumulate, 1),
            in_range("minutes", self.minutes, 0, open_low=True),
            in_range("patience", self.patience, 0),
            in_range("clip_grad", self.clip_grad, 0),
        )


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """What the weights begin as, and which of them may move.

    >>> Transfer(freeze="features").freezing(total_steps=100)
    Freezing(upto='features', thaw_steps=0)
    """

    pretrained: str = ""
    """a run, or a file of leadline import, whose weights are the start; --from for short"""
    freeze: str = ""
    """up to which part the weights stay: stem, features (all but the head), a layer's name"""
    unfreeze: float = 0.0
    """share of the training over which the frozen parts thaw, the last one first; 0: never"""

    def __post_init__(self) -> None:
        check(
            self,
            in_range("unfreeze", self.unfreeze, 0, 1),
            "unfreeze says how fast what is frozen thaws, and nothing is: add freeze='features'"
            if self.unfreeze and not self.freeze
            else None,
        )

    def freezing(self, *, total_steps: int) -> Freezing | None:
        """What is frozen in a training of so many steps; None where everything learns."""
        if not self.freeze:
            return None
        return Freezing(upto=self.freeze, thaw_steps=round(self.unfreeze * total_steps))


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that defines a training; `leadline.core.config` turns it to JSON and back.

    >>> from leadline.core.config import from_json, to_json
    >>> recipe = Recipe(data=DataOptions(data="digits"), seed=3)
    >>> from_json(Recipe, to_json(recipe)) == recipe
    True
    """

    data: DataOptions
    """What to learn from, and how it is split."""
    model: Architecture = field(default_factory=Architecture)
    """The network; None leaves a choice to the model's family."""
    transfer: Transfer = field(default_factory=Transfer)
    """What the weights begin as, and which of them may move."""
    task: Literal["classification"] = "classification"
    """what 'right' means"""
    optimizer: OptimizerOptions = field(default_factory=OptimizerOptions)
    """How the weights move."""
    schedule: ScheduleOptions = field(default_factory=ScheduleOptions)
    """How the learning rate changes; every length is a fraction of all steps."""
    regularisation: Regularisation = field(default_factory=Regularisation)
    """What keeps the network from learning its training set by heart."""
    augmentation: Augmentation = field(default_factory=Augmentation)
    """How training images are varied; 0 is off."""
    budget: Budget = field(default_factory=Budget)
    """How long to train; one optimizer step sees batch-size × accumulate examples."""
    seed: int = 0
    """where all chance begins, the choice of what is held out included; same seed, same weights"""

    def __post_init__(self) -> None:
        check(self, in_range("seed", self.seed, 0, 2**63 - 1))
