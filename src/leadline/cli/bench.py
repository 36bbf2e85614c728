"""leadline bench scaling: depth against width, what each family buys for a budget.

For every family, at several depths, the widest network that stays within the budget: parameters or
operations of one forward pass. Nothing is trained; with --time each is timed on this machine.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import time
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
import tyro

from leadline.cli.list import families
from leadline.cli.options import parse
from leadline.core.config import check, in_range
from leadline.core.errors import LeadlineError
from leadline.core.names import look_up
from leadline.measure.summary import operations, short, short_bytes, summary
from leadline.models.architecture import Architecture
from leadline.models.create import FAMILIES, create_model
from leadline.models.image_model import ImageModel
from leadline.models.scaling import count_parameters, depths, fit_width, for_small_images
from leadline.tasks.classification import Classification

TIMED = 5  # steps, after one to warm up
BATCH = 32  # images of a timed step


@dataclass(frozen=True, kw_only=True)
class BenchOptions:
    """The words after `leadline bench`."""

    what: Annotated[tyro.conf.Positional[Literal["scaling"]], tyro.conf.arg(metavar="WHAT")] = (
        "scaling"
    )
    """scaling: depth against width for a budget"""
    parameters: float = 300_000
    """the budget: numbers to learn"""
    flops: float | None = None
    """the budget in its place: multiplications and additions of one forward pass"""
    image_size: int = 32
    """side of the images in pixels; a family that reads larger ones only gets its smallest"""
    in_chans: int = 3
    """channels of the images"""
    num_classes: int = 10
    """classes to tell apart"""
    models: tuple[str, ...] = ()
    """these models; the first of every family unless given"""
    time: bool = False
    """time a training step of each on this machine"""

    def __post_init__(self) -> None:
        check(
            self,
            in_range("parameters", self.parameters, 1),
            in_range("flops", self.flops, 1),
            in_range("image_size", self.image_size, 1, 1024),
            in_range("in_chans", self.in_chans, 1),
            in_range("num_classes", self.num_classes, 2),
        )


def run(words: list[str], *, as_json: bool) -> int:
    """Print the table; the exit code."""
    options = parse(BenchOptions, words, verb="bench", caption=__doc__ or "")
    names = options.models or tuple(names[0] for names, _ in families())
    for name in names:
        look_up(name, FAMILIES, kind="model")
    rows, left_out = [], {}
    if not as_json:
        print(_line(COLUMNS if options.time else COLUMNS[:-1]))
    for name in names:
        for depth in depths(name):
            try:
                row = _row(name, depth, options)
            except LeadlineError as error:
                left_out[f"{name}, depth {depth}"] = error.received
                continue
            rows.append(row)
            if not as_json:
                print(_line(_cells(row)), flush=True)
    if as_json:
        print(json.dumps({"rows": rows, "left_out": left_out}))
        return 0
    for name, why in left_out.items():
        print(f"left out  {name}: {why}")
    return 0


COLUMNS = ("model", "depth", "width", "parameters", "FLOPs", "memory", "sees", "side", "step")


def _row(name: str, depth: int, options: BenchOptions) -> dict[str, Any]:
    small = for_small_images(name, image_size=options.image_size)
    architecture = Architecture(model=name, depth=depth, options=small)
    with torch.device("meta"):
        smallest = create_model(architecture, image_size=FAMILIES[name].image_size).smallest
    size = max(options.image_size, smallest)
    shape = (options.in_chans, size, size)

    fit = fit_width(
        architecture,
        num_classes=options.num_classes,
        in_chans=options.in_chans,
        image_size=size,
        parameters=options.parameters if options.flops is None else options.flops,
        cost=count_parameters if options.flops is None else lambda model: operations(model, shape),
    )
    chosen = dataclasses.replace(architecture, width=fit.width)
    kinds: dict[str, Any] = {"num_classes": options.num_classes, "in_chans": options.in_chans}
    with torch.device("meta"):
        model = create_model(chosen, image_size=size, **kinds)
    costs = summary(model, shape)
    row = {
        "model": name,
        "depth": depth,
        "width": fit.width,
        "parameters": costs.parameters,
        "flops": costs.flops,
        "memory": costs.memory,
        "receptive_field": costs.field,
        "image_size": size,
    }
    if options.time:
        row["step_seconds"] = _step_seconds(create_model(chosen, image_size=size, **kinds), shape)
    return row


def _step_seconds(model: ImageModel, shape: tuple[int, int, int]) -> float:
    """The median time of a training step of `BATCH` images."""
    task = Classification(max(2, model.num_classes))
    images, targets = torch.randn(BATCH, *shape), torch.zeros(BATCH, dtype=torch.long)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, fused=True)
    seconds = []
    for _ in range(TIMED + 1):
        begun = time.perf_counter()
        optimizer.zero_grad()
        task.loss(model(images), targets).backward()
        optimizer.step()
        seconds.append(time.perf_counter() - begun)
    return statistics.median(seconds[1:])


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    field = row["receptive_field"]
    cells = (
        row["model"],
        str(row["depth"]),
        str(row["width"]),
        f"{row['parameters']:,}",
        short(row["flops"]).strip(),
        short_bytes(row["memory"]),
        "" if field is None else f"{field:,.0f}",
        str(row["image_size"]),
    )
    if "step_seconds" not in row:
        return cells
    return (*cells, f"{1000 * row['step_seconds']:.0f} ms")


def _line(cells: tuple[str, ...]) -> str:
    first, *others = cells
    return f"{first:<18}" + "".join(f"{cell:>12}" for cell in others)
