"""False alarms of `leadline check`: every torchvision and timm family, freshly initialised.

    python benchmarks/false_alarms.py [--only WORD] [--library timm|torchvision] [--out FILE.json]

A network as its authors initialise it is healthy, so that a finding of severity 'error' is a false
alarm; warnings and notes are counted and listed too. From each family (a module of timm, a file of
torchvision) the model with the fewest parameters is taken, at the size of input it was made for,
with 8 random images and random labels, cross entropy and AdamW at its usual 1e-3.
"""

from __future__ import annotations

import argparse
import collections
import json
import re
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

sys.path.append(str(Path(sys.prefix) / "oracles"))
_OPERATORS = torch.library.Library("torchvision", "DEF")
for _name in ("nms", "qnms"):
    _OPERATORS.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

import timm  # noqa: E402
import torchvision  # noqa: E402

from leadline.core.errors import LeadlineError  # noqa: E402
from leadline.doctor.check import check  # noqa: E402

EXAMPLES = 8
LARGEST = 1024  # pixels a side: beyond it a batch takes minutes on two cores
MOST_PARAMETERS = 500_000_000


@dataclass(frozen=True, kw_only=True)
class Family:
    """One family: the library, its name, and how its smallest model is made."""

    library: str
    name: str
    model: str
    make: Callable[[], nn.Module]
    shape: tuple[int, int, int]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="")
    parser.add_argument("--library", default="")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--examples", type=int, default=EXAMPLES)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    rows: list[dict[str, Any]] = []
    for family in families():
        if arguments.only not in family.name or arguments.library not in family.library:
            continue
        row = examine(family, arguments.examples)
        rows.append(row)
        words = ", ".join(f"{f['severity']}:{f['cause']}" for f in row.get("findings", []))
        print(
            f"{family.library:<12}{family.name:<22}{family.model:<40}"
            f"{row['seconds']:>6.1f} s  {row.get('failed') or words or '-'}",
            flush=True,
        )
        if arguments.out:
            arguments.out.write_text(json.dumps(rows, indent=1))
    counts = collections.Counter(f["severity"] for row in rows for f in row.get("findings", []))
    failed = [row["model"] for row in rows if row.get("failed")]
    print(
        f"\n{len(rows)} families: {counts['error']} errors, {counts['warning']} warnings, "
        f"{counts['note']} notes; {len(failed)} could not be checked: {', '.join(failed) or '-'}"
    )
    sys.exit(1 if counts["error"] else 0)


def families() -> Iterator[Family]:
    for module, names in sorted(_torchvision().items()):
        model = _smallest(names, names, lambda name: torchvision.models.get_model(name))
        side = 299 if "inception" in model else 224
        yield Family(
            library="torchvision",
            name=module,
            model=model,
            make=lambda model=model: torchvision.models.get_model(model),
            shape=(3, side, side),
        )
    for module in sorted(timm.list_modules()):
        names = timm.list_models(module=module)
        if not names:
            continue
        hopeful = [name for name in names if SMALL.search(name)] or names
        model = _smallest(names, hopeful[:12], lambda name: timm.create_model(name))
        shape = timm.get_pretrained_cfg(model).input_size
        yield Family(
            library="timm",
            name=module,
            model=model,
            make=lambda model=model: timm.create_model(model),
            shape=tuple(shape),
        )


def _torchvision() -> dict[str, list[str]]:
    found: dict[str, list[str]] = collections.defaultdict(list)
    for name in torchvision.models.list_models(module=torchvision.models):
        builder = torchvision.models.get_model_builder(name)
        found[builder.__module__.rpartition(".")[2]].append(name)
    return found


SMALL = re.compile(
    r"(?<![a-z])(test|atto|femto|pico|nano|zepto|tiny|xxs|xs|xxt|small|micro|mini|lite|ti)(?![a-z])"
    r"|b0|_0\b|_s\b|s0|18|11$|121|0_5|_t\b|_n\b|50|14$|26"
)


def _smallest(names: list[str], asked: list[str], make: Callable[[str], nn.Module]) -> str:
    """The one with the fewest parameters, of those that are asked."""
    sizes = {}
    for name in asked:
        try:
            with torch.device("meta"):
                sizes[name] = sum(p.numel() for p in make(name).parameters())
        except Exception:  # some models compute while they are built
            continue
    return min(sizes, key=sizes.__getitem__) if sizes else names[0]


def examine(family: Family, examples: int) -> dict[str, Any]:
    begun = time.perf_counter()
    row: dict[str, Any] = {"library": family.library, "family": family.name, "model": family.model}
    try:
        torch.manual_seed(0)
        model = family.make().train()
        if sum(p.numel() for p in model.parameters()) > MOST_PARAMETERS:
            raise ValueError("too large for this machine")
        if family.shape[1] > LARGEST:
            raise ValueError(f"images of {family.shape[1]} pixels")
        inputs = torch.randn(examples, *family.shape)
        with torch.no_grad():
            classes = _logits(model.eval()(inputs[:2])).shape[-1]
        model.train()
        targets = torch.randint(0, classes, (examples,))
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        checkup = check(model, (inputs, targets), _loss, optimizer=optimizer)
        row["findings"] = [finding.to_plain() for finding in checkup.findings]
        row["loss"] = checkup.loss
    except (LeadlineError, RuntimeError, ValueError, TypeError, AssertionError) as error:
        row["failed"] = f"{type(error).__name__}: {str(error).splitlines()[0][:100]}"
    row["seconds"] = time.perf_counter() - begun
    return row


def _logits(outputs: Any) -> Tensor:
    if isinstance(outputs, Tensor):
        return outputs
    return outputs.logits if hasattr(outputs, "logits") else outputs[0]


def _loss(outputs: Any, targets: Tensor) -> Tensor:
    """Cross entropy; auxiliary heads as their papers weigh them, the average of several heads."""
    if isinstance(outputs, Tensor):
        return functional.cross_entropy(outputs, targets)
    heads = [head for head in outputs if isinstance(head, Tensor)]
    return torch.stack([functional.cross_entropy(head, targets) for head in heads]).mean()


if __name__ == "__main__":
    main()
