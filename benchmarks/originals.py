"""Our model against the one it is held to: a training step's time and peak memory, side by side.

Both have the same weights, read the same batch and are stepped in turn (ours, theirs, theirs, ours)
in one process, plain eager float32, SGD with momentum. Printed are the median of the pairs' ratios
of time, its quartiles, the number of pairs, and the ratio of peak memory: live bytes at their
highest during one step, weights and optimizer included (torch's own tracker; on a GPU the
allocator's). The bar is 1.02 for both.

    python benchmarks/originals.py [--only resnet18,vgg11] [--pairs 15] [--batch 8] [--side 0]
        [--device cpu]

Needs torchvision and timm beside the environment's packages, as `make test` installs them.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed._tools.mem_tracker import MemTracker

from leadline.models.create import create_model
from leadline.models.weights import load_weights

sys.path.append(str(Path(sys.prefix) / "oracles"))
OPERATORS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
CLASSES = 10


@dataclass(frozen=True)
class Pair:
    """A model of ours, its original, and the side of the images on which they are compared."""

    ours: str
    library: str
    theirs: str
    side: int = 96


PAIRS = (
    Pair("alexnet", "torchvision", "alexnet"),
    Pair("vgg11", "torchvision", "vgg11", 64),
    Pair("vgg11_bn", "torchvision", "vgg11_bn", 64),
    Pair("googlenet", "torchvision", "googlenet"),
    Pair("inception_v3", "torchvision", "inception_v3", 299),
    Pair("resnet18", "torchvision", "resnet18"),
    Pair("resnet50", "torchvision", "resnet50"),
    Pair("wide_resnet50_2", "torchvision", "wide_resnet50_2"),
    Pair("resnext50_32x4d", "torchvision", "resnext50_32x4d"),
    Pair("seresnet50", "timm", "seresnet50"),
    Pair("densenet121", "torchvision", "densenet121"),
    Pair("mobilenet_v2", "torchvision", "mobilenet_v2"),
    Pair("efficientnet_b0", "torchvision", "efficientnet_b0"),
    Pair("convnext_tiny", "torchvision", "convnext_tiny"),
    Pair("vit_ti_16", "timm", "vit_tiny_patch16_224", 224),
    Pair("vit_b_16", "timm", "vit_base_patch16_224", 224),
    Pair("mixer_s_16", "timm", "mixer_s16_224", 224),
)


def original(pair: Pair, side: int) -> nn.Module:
    if pair.library == "timm":
        import timm

        sized = pair.theirs.startswith(("vit", "mixer"))
        options = {"img_size": side} if sized else {}
        return timm.create_model(pair.theirs, num_classes=CLASSES, **options)
    from torchvision.models import get_model

    inception = pair.theirs in ("googlenet", "inception_v3")
    options = {"init_weights": False} if inception else {}
    return get_model(pair.theirs, weights=None, num_classes=CLASSES, **options)


def loss_of(output: Any, targets: Tensor) -> Tensor:
    """The cross entropy of all logits that a model puts out, auxiliary ones alike on both sides."""
    if isinstance(output, Tensor):
        return nn.functional.cross_entropy(output, targets)
    return sum(loss_of(part, targets) for part in output)  # type: ignore[return-value]


class Side:
    """One of the two: a model with its optimizer."""

    def __init__(self, model: nn.Module, device: str) -> None:
        self.model = model.to(device).train()
        fused = {"fused": True}
        self.optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9, **fused)

    def step(self, images: Tensor, targets: Tensor) -> None:
        self.optimizer.zero_grad()
        loss_of(self.model(images), targets).backward()
        self.optimizer.step()

    def seconds(self, images: Tensor, targets: Tensor) -> float:
        _wait(images)
        begun = time.perf_counter()
        self.step(images, targets)
        _wait(images)
        return time.perf_counter() - begun

    def peak(self, images: Tensor, targets: Tensor) -> int:
        """Bytes alive at the highest point of a step."""
        if images.is_cuda:
            torch.cuda.reset_peak_memory_stats()
            self.step(images, targets)
            return torch.cuda.max_memory_allocated()
        tracker = MemTracker()
        tracker.track_external(self.model, self.optimizer, images, targets)
        with tracker:
            self.step(images, targets)
        return tracker.get_tracker_snapshot("peak")[torch.device("cpu")]["Total"]


def _wait(images: Tensor) -> None:
    if images.is_cuda:
        torch.cuda.synchronize()


def compare(pair: Pair, arguments: argparse.Namespace) -> str:
    side = arguments.side or pair.side
    torch.manual_seed(0)
    theirs = original(pair, side)
    ours = create_model(pair.ours, num_classes=CLASSES, image_size=side)
    load_weights(ours, theirs.state_dict())
    images = torch.randn(arguments.batch, 3, side, side, device=arguments.device)
    targets = torch.arange(arguments.batch, device=arguments.device) % CLASSES
    memory, sides = {}, {"ours": ours, "theirs": theirs}
    measured = {}
    for name, model in sides.items():
        measured[name] = Side(model, arguments.device)
        measured[name].step(images, targets)  # the optimizer's state is there from now on
    if arguments.device == "cpu":
        memory = {name: one.peak(images, targets) for name, one in measured.items()}
    else:
        memory = {name: _alone(model, arguments, images, targets) for name, model in sides.items()}
    ratios = []
    for number in range(arguments.pairs):
        order = ("ours", "theirs") if number % 2 == 0 else ("theirs", "ours")
        seconds = {name: measured[name].seconds(images, targets) for name in order}
        ratios.append(seconds["ours"] / seconds["theirs"])
    low, _, high = statistics.quantiles(ratios, n=4)
    return (
        f"{pair.ours:<18}{pair.library:<13}{statistics.median(ratios):>6.3f}  "
        f"{low:.3f} to {high:.3f}  n = {len(ratios)}   memory "
        f"{memory['ours'] / memory['theirs']:.4f}"
        f"  ({memory['theirs'] / 2**20:.0f} MiB)"
    )


def _alone(model: nn.Module, arguments: Any, images: Tensor, targets: Tensor) -> int:
    """The allocator's peak with nothing of the other model on the device."""
    one = Side(model, arguments.device)
    one.step(images, targets)
    found = one.peak(images, targets)
    model.cpu()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default=",".join(pair.ours for pair in PAIRS))
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--side", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    library = torch.library.Library("torchvision", "DEF")
    for operator in OPERATORS:
        library.define(operator)
    wanted = arguments.only.split(",")
    print("ours              held to        time  quartiles                memory")
    for pair in PAIRS:
        if pair.ours in wanted:
            print(compare(pair, arguments), flush=True)


if __name__ == "__main__":
    main()
