"""Every family at about 0.3 million parameters on two data sets, with an equal budget.

Each family is one model, its width chosen so that it has as many parameters as asked and no more.
All see the same pictures in the same order: `--examples` training images, `--epochs` passes, AdamW
with a linear warm-up and a cosine, the rate the best of three by the validation loss after one
epoch under seed 0 of other training images. Accuracy is that on the whole test set. Images are 32
pixels a side, or the smallest that a family reads. Rows are kept as they come, so that a run that
was interrupted goes on; `--table` writes docs/families.md.

    LEADLINE_DATA=... python benchmarks/families.py --out families.jsonl [--only mlp,resnet20]
        [--data fashion_mnist] [--seeds 0,1,2] [--device cpu] [--table docs/families.md]
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import itertools
import json
import lzma
import os
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from leadline.data.augment import Augmentation
from leadline.data.cifar import CIFAR10_CLASSES
from leadline.data.examples import ArrayExamples, Dataset
from leadline.data.load import load_dataset
from leadline.data.options import DataOptions
from leadline.measure.summary import summary
from leadline.models.architecture import Architecture
from leadline.models.create import FAMILIES, create_model
from leadline.models.scaling import fit_width, for_small_images
from leadline.optim.optimizers import OptimizerOptions
from leadline.optim.schedules import ScheduleOptions
from leadline.training.build import build_setup, evaluation_batches
from leadline.training.evaluate import evaluate
from leadline.training.execution import Execution
from leadline.training.loop import steps
from leadline.training.recipe import Budget, Recipe
from leadline.training.state import TrainingState

MODELS = {  # the model, and its depth where the original's would be all too thin
    "mlp": 3,
    "convnet": 2,
    "alexnet": None,
    "vgg11_bn": None,
    "googlenet": None,
    "inception_v3": None,
    "resnet20": None,
    "preresnet164": 29,
    "resnet18": None,
    "resnext50_32x4d": None,
    "seresnet18": None,
    "densenet121": None,
    "mobilenet_v2": None,
    "efficientnet_b0": None,
    "convnext_tiny": 6,
    "vit_ti_16": 6,
    "mixer_s_16": 4,
}
GROUPS = {"resnext50_32x4d": ("groups=8", "width_per_group=16")}  # 32 groups would be too thin
SIDE = 32
RATES = (1e-3, 3e-3, 1e-2)
AUGMENTATION = {
    "fashion_mnist": Augmentation(flip=True, crop=2),
    "cifar10_jpeg": Augmentation(flip=True, crop=4),
}


def load(name: str, *, side: int, examples: int) -> Dataset:
    """A data set with `examples` training images, as many classes alike, and its whole test set."""
    if name == "cifar10_jpeg":
        train, test = (_cifar(split) for split in ("train", "test"))
        classes = CIFAR10_CLASSES
    else:
        found = load_dataset(DataOptions(data=name))
        train, test = ((p.take(torch.arange(len(p))), p.targets) for p in (found.train, found.test))
        classes = found.class_names
    images, targets = train
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(len(targets), generator=generator)
    per_class = examples // len(classes)
    rank = torch.stack([(targets[order] == c).cumsum(0) for c in range(len(classes))])
    place = rank.gather(0, targets[order][None])[0]
    chosen, held = (
        order[place <= per_class],
        order[(place > per_class) & (place <= 1.2 * per_class)],
    )
    parts = [_resized(images[chosen], side), _resized(images[held], side), _resized(test[0], side)]
    scaled = parts[0].double() / 255
    return Dataset(
        name=name,
        train=ArrayExamples(parts[0], targets[chosen]),
        val=ArrayExamples(parts[1], targets[held]),
        test=ArrayExamples(parts[2], test[1]),
        class_names=tuple(classes),
        notes=(),
        mean=tuple(scaled.mean(dim=(0, 2, 3)).tolist()),
        std=tuple(scaled.std(dim=(0, 2, 3)).tolist()),
    )


def _cifar(split: str) -> tuple[torch.Tensor, torch.Tensor]:
    path = Path(os.environ["LEADLINE_DATA"]) / "cifar10_jpeg" / f"cifar10_jpeg_{split}.npz.xz"
    arrays = np.load(io.BytesIO(lzma.decompress(path.read_bytes())))
    stream, offsets = arrays["jpeg"].tobytes(), arrays["offset"]
    pictures = [
        np.asarray(Image.open(io.BytesIO(stream[begin:end])).convert("RGB"))
        for begin, end in itertools.pairwise(offsets)
    ]
    images = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous()
    return images, torch.from_numpy(arrays["label"].astype(np.int64))


def _resized(images: torch.Tensor, side: int) -> torch.Tensor:
    if images.shape[-1] == side:
        return images
    size = (side, side)
    larger = torch.nn.functional.interpolate(images.float(), size=size, mode="bilinear")
    return larger.round().clamp(0, 255).to(torch.uint8)


def plan(name: str, *, in_chans: int, parameters: float) -> tuple[Architecture, int]:
    """The architecture of this size, and the side of its images."""
    options = (*for_small_images(name, image_size=SIDE), *GROUPS.get(name, ()))
    architecture = Architecture(model=name, depth=MODELS[name], options=options)
    with torch.device("meta"):
        smallest = create_model(
            architecture, width=8, image_size=FAMILIES[name].image_size
        ).smallest
    side = max(SIDE, smallest)
    fit = fit_width(
        architecture,
        num_classes=10,
        in_chans=in_chans,
        image_size=side,
        parameters=parameters,
    )
    return dataclasses.replace(architecture, width=fit.width), side


def train(
    dataset: Dataset, architecture: Architecture, *, lr: float, epochs: int, seed: int, device: str
) -> tuple[TrainingState, float]:
    """Train; the state at the end and the seconds that its steps took."""
    recipe = Recipe(
        data=DataOptions(data=dataset.name),
        model=architecture,
        optimizer=OptimizerOptions(optimizer="adamw", lr=lr, weight_decay=0.05),
        schedule=ScheduleOptions(schedule="cosine", warmup=0.15),
        augmentation=AUGMENTATION[dataset.name],
        budget=Budget(epochs=epochs, batch_size=64, clip_grad=1.0),
        seed=seed,
    )
    execution = Execution(device=device, precision="bfloat16", layout="channels_last")
    setup = build_setup(recipe, dataset, device=device)
    state = TrainingState(setup, execution)
    for _ in steps(setup, execution, state=state):
        pass
    return state, state.counters.seconds


def figures(state: TrainingState, dataset: Dataset, split: str) -> dict[str, float]:
    examples = dataset.val if split == "val" else dataset.test
    task = state.setup.task
    assert task is not None
    batches = evaluation_batches(dataset, examples, device=state.execution.device)
    return evaluate(state.model, batches, task=task, execution=state.execution)


def best_rate(dataset: Dataset, architecture: Architecture, *, device: str) -> float:
    """The rate whose network is the best on the validation images after one epoch."""
    losses = {}
    for lr in RATES:
        try:
            state, _ = train(dataset, architecture, lr=lr, epochs=1, seed=0, device=device)
            losses[lr] = figures(state, dataset, "val")["loss"]
        except Exception as error:  # a rate at which it diverges is not the best
            print(f"  lr {lr}: {type(error).__name__}", flush=True)
    return min(losses, key=lambda lr: losses[lr])


def measure(
    name: str, data: str, rows: list[dict[str, Any]], arguments: argparse.Namespace
) -> None:
    """The rows of one family on one data set, each kept as soon as it is there."""
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    done = {row["seed"] for row in rows if row["model"] == name and row["data"] == data}
    if not set(seeds) - done:
        return
    in_chans = 3 if data == "cifar10_jpeg" else 1
    architecture, side = plan(name, in_chans=in_chans, parameters=arguments.parameters)
    dataset = load(data, side=side, examples=arguments.examples)
    with torch.device("meta"):
        model = create_model(architecture, num_classes=10, in_chans=in_chans, image_size=side)
    costs = summary(model, (in_chans, side, side))
    known = [row["lr"] for row in rows if row["model"] == name and row["data"] == data]
    lr = known[0] if known else best_rate(dataset, architecture, device=arguments.device)
    for seed in sorted(set(seeds) - done):
        state, seconds = train(
            dataset,
            architecture,
            lr=lr,
            epochs=arguments.epochs,
            seed=seed,
            device=arguments.device,
        )
        row = {
            "model": name,
            "data": data,
            "seed": seed,
            "accuracy": figures(state, dataset, "test")["accuracy"],
            "seconds": seconds,
            "lr": lr,
            "depth": architecture.depth or FAMILIES[name].defaults.depth,
            "width": architecture.width,
            "side": side,
            "parameters": costs.parameters,
            "flops": costs.flops,
            "examples": arguments.examples,
            "epochs": arguments.epochs,
            "device": arguments.device,
        }
        rows.append(row)
        with arguments.out.open("a") as stream:
            stream.write(json.dumps(row) + "\n")
        print(
            f"{name:<18}{data:<15}seed {seed}  {100 * row['accuracy']:.2f} %  {seconds:.0f} s  "
            f"{row['parameters']:,} parameters  lr {lr}",
            flush=True,
        )


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown, a line for each family, the most accurate on CIFAR-10 first."""
    datasets = list(dict.fromkeys(row["data"] for row in rows))
    head = ["model", "depth", "width", "parameters", "MFLOPs", "side"]
    for data in datasets:
        head += [f"{data}, %", "s"]
    lines = []
    for name in dict.fromkeys(row["model"] for row in rows):
        own = [row for row in rows if row["model"] == name]
        last = own[-1]
        cells = [f"`{name}`", last["depth"], last["width"], f"{last['parameters']:,}"]
        cells += [f"{last['flops'] / 1e6:.1f}", last["side"]]
        order = 0.0
        for data in datasets:
            found = [100 * row["accuracy"] for row in own if row["data"] == data]
            seconds = [row["seconds"] for row in own if row["data"] == data]
            if not found:
                cells += ["", ""]
                continue
            order = statistics.mean(found)
            spread = statistics.stdev(found) if len(found) > 1 else 0.0
            cells += [f"{order:.1f} ± {spread:.1f}", f"{statistics.median(seconds):.0f}"]
        lines.append((order, "| " + " | ".join(map(str, cells)) + " |"))
    rule = "|" + "---|" * len(head)
    body = [line for _, line in sorted(lines, key=lambda entry: -entry[0])]
    return "\n".join(["| " + " | ".join(head) + " |", rule, *body])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", default=",".join(MODELS))
    parser.add_argument("--data", default="fashion_mnist,cifar10_jpeg")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--parameters", type=float, default=300_000)
    parser.add_argument("--examples", type=int, default=5_000)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--table", type=Path)
    arguments = parser.parse_args()
    begun = time.perf_counter()
    kept = arguments.out.read_text().splitlines() if arguments.out.exists() else []
    rows = [json.loads(line) for line in kept]
    for name in arguments.only.split(","):
        for data in arguments.data.split(","):
            measure(name, data, rows, arguments)
    print(f"\n{table(rows)}\n\n{time.perf_counter() - begun:.0f} s")
    if arguments.table:
        write_page(arguments.table, rows)


def write_page(path: Path, rows: list[dict[str, Any]]) -> None:
    """Put the table between the two marks of the page."""
    begin, end = "<!-- table -->", "<!-- end of table -->"
    text = path.read_text()
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    path.write_text(f"{before}{begin}\n{table(rows)}\n{end}{after}")


if __name__ == "__main__":
    main()
