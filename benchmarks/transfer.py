"""What transfer is worth: a ResNet-56 trained on CIFAR-10, on 100 Fashion-MNIST images a class.

The same network, images, steps and order, from random weights and from those of the checkpoint; the
rate of each the best of three by the accuracy on 200 other images after a third of the epochs,
under seed 0. Accuracy is that on all 10,000 test images, over three seeds; the margin is that of
pairs with the same seed. A third row has everything but the head frozen, a fourth has rates that
fall with the depth.

    LEADLINE_DATA=... python benchmarks/transfer.py [--seeds 0,1,2] [--epochs 15] [--device cpu]
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import statistics
import tempfile
from pathlib import Path

from families import figures, load

from leadline.data.augment import Augmentation
from leadline.data.examples import Dataset
from leadline.data.options import DataOptions
from leadline.models.adopt import adopt, read_weights
from leadline.models.architecture import Architecture
from leadline.optim.optimizers import OptimizerOptions
from leadline.optim.schedules import ScheduleOptions
from leadline.training.build import build_setup
from leadline.training.execution import Execution
from leadline.training.loop import steps
from leadline.training.recipe import Budget, Recipe, Transfer
from leadline.training.state import TrainingState
from leadline.training.trained import Description, save_model

ARCHITECTURE = Architecture(model="resnet56")
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # as the checkpoint was trained
RATES = (0.01, 0.03, 0.1)
PER_CLASS = 100
SIDE = 32


def checkpoint(folder: Path) -> str:
    """The checkpoint as a model file, as leadline import writes it."""
    (source,) = (Path(os.environ["LEADLINE_DATA"]) / "resnet_checkpoints_dev").glob("resnet56-*.th")
    adopted = adopt(read_weights(source), "resnet56")
    mean, std = IMAGENET
    description = Description(
        architecture=adopted.architecture,
        shape=(3, SIDE, SIDE),
        mean=mean,
        std=std,
        class_names=tuple(f"cifar {number}" for number in range(10)),
    )
    save_model(folder / "resnet56.safetensors", adopted.model, description)
    return str(folder / "resnet56.safetensors")


def train(
    dataset: Dataset,
    transfer: Transfer,
    *,
    lr: float,
    epochs: int,
    seed: int,
    device: str,
    layer_decay: float = 1.0,
) -> TrainingState:
    recipe = Recipe(
        data=DataOptions(data=dataset.name),
        model=ARCHITECTURE,
        transfer=transfer,
        optimizer=OptimizerOptions(lr=lr, weight_decay=5e-4, layer_decay=layer_decay),
        schedule=ScheduleOptions(schedule="cosine", warmup=0.1),
        augmentation=Augmentation(flip=True, crop=2),
        budget=Budget(epochs=epochs, batch_size=50),
        seed=seed,
    )
    execution = Execution(device=device, precision="bfloat16", layout="channels_last")
    setup = build_setup(recipe, dataset, device=device)
    state = TrainingState(setup, execution)
    for _ in steps(setup, execution, state=state):
        pass
    return state


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    dataset = load("fashion_mnist", side=SIDE, examples=10 * PER_CLASS)
    with tempfile.TemporaryDirectory() as folder:
        start = Transfer(pretrained=checkpoint(Path(folder)))
        arms = {
            "from random weights": (Transfer(), 1.0),
            "from the checkpoint": (start, 1.0),
            "its features frozen": (dataclasses.replace(start, freeze="features"), 1.0),
            "rates x 0.9 a part": (start, 0.9),
        }
        found = {
            name: measure(name, dataset, transfer, decay, seeds, arguments)
            for name, (transfer, decay) in arms.items()
        }
    scratch = found["from random weights"]
    for name, accuracies in found.items():
        margins = [a - b for a, b in zip(accuracies, scratch, strict=True)]
        print(
            f"{name:<22}{statistics.mean(accuracies):.2f} ± {statistics.stdev(accuracies):.2f} %  "
            f"margin {statistics.mean(margins):+.2f} ({min(margins):+.2f} to {max(margins):+.2f}), "
            f"n = {len(seeds)}"
        )


def measure(
    name: str,
    dataset: Dataset,
    transfer: Transfer,
    decay: float,
    seeds: list[int],
    arguments: argparse.Namespace,
) -> list[float]:
    """The test accuracy of every seed, in percent."""
    kinds = {"device": arguments.device, "layer_decay": decay}
    tried = {}
    for lr in RATES:
        short = max(1, arguments.epochs // 3)
        state = train(dataset, transfer, lr=lr, epochs=short, seed=0, **kinds)
        tried[lr] = figures(state, dataset, "val")["accuracy"]
    lr = max(tried, key=lambda rate: tried[rate])
    accuracies = []
    for seed in seeds:
        state = train(dataset, transfer, lr=lr, epochs=arguments.epochs, seed=seed, **kinds)
        accuracies.append(100 * figures(state, dataset, "test")["accuracy"])
        print(
            f"{name:<22}seed {seed}  {accuracies[-1]:.2f} %  lr {lr}  "
            f"{state.counters.seconds:.0f} s",
            flush=True,
        )
    return accuracies


if __name__ == "__main__":
    main()
