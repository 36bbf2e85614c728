"""Execution: how a training is computed; it changes speed, never meaning.

Device, precision, memory layout, compilation and threads. Which one is fastest depends on the
machine, so `leadline.training.tune` measures it; this file only applies the one it is given.
Under bfloat16 or float16 the weights stay float32 and matrix products run in the narrow type
(autocast; Micikevicius et al., Mixed Precision Training, 2018).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from leadline.core.config import check, in_range


@dataclass(frozen=True, kw_only=True)
class Execution:
    """How to compute: the plain default is eager float32 on the CPU with torch's own threads."""

    device: str = "cpu"
    precision: Literal["float32", "bfloat16"] = "float32"
    layout: Literal["contiguous", "channels_last"] = "contiguous"
    compile: bool = False
    threads: int | None = None

    def __post_init__(self) -> None:
        check(self, in_range("threads", self.threads, 1))

    @property
    def settled(self) -> Execution:
        """The same with the number of threads it will use said outright, on a CPU."""
        if self.threads is not None or torch.device(self.device).type != "cpu":
            return self
        return replace(self, threads=torch.get_num_threads())

    @contextmanager
    def threads_scope(self) -> Iterator[None]:
        """The context in which torch uses this many threads; outside, as many as before."""
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads or before)
        try:
            yield
        finally:
            torch.set_num_threads(before)

    def place(self, model: nn.Module) -> nn.Module:
        """Move a model to the device and into the memory layout."""
        placed: nn.Module = cast(Any, model).to(
            device=self.device, memory_format=self.memory_format
        )
        return placed

    def place_batch(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Move a batch to the device; images also into the memory layout."""
        inputs = inputs.to(self.device, non_blocking=True)
        if inputs.ndim == 4:
            inputs = inputs.contiguous(memory_format=self.memory_format)
        return inputs, targets.to(self.device, non_blocking=True)

    def forward(self, model: nn.Module) -> nn.Module:
        """The model as it is called: compiled when asked; its weights are the same tensors."""
        return cast(nn.Module, torch.compile(model)) if self.compile else model

    def precision_scope(self) -> AbstractContextManager[Any]:
        """The context in which the forward pass runs."""
        if self.precision == "float32":
            return nullcontext()
        return torch.autocast(torch.device(self.device).type, dtype=torch.bfloat16)

    @property
    def memory_format(self) -> torch.memory_format:
        """torch's name for the layout."""
        wide = self.layout == "channels_last"
        return torch.channels_last if wide else torch.contiguous_format

    def describe(self) -> str:
        """One line for people.

        >>> Execution(precision="bfloat16", layout="channels_last", threads=2).describe()
        'cpu, bfloat16, channels_last, eager, 2 threads'
        """
        threads = (
            "" if self.threads is None else f", {self.threads} thread{'s' * (self.threads > 1)}"
        )
        mode = "compiled" if self.compile else "eager"
        return f"{self.device}, {self.precision}, {self.layout}, {mode}{threads}"


def widen(outputs: Any) -> Any:
    """What a model put out, in float32: a loss is computed so, whatever the forward pass ran in.

    >>> widen((torch.ones(1, dtype=torch.bfloat16), None))
    (tensor([1.]), None)
    """
    if isinstance(outputs, Tensor):
        return outputs.float() if outputs.is_floating_point() else outputs
    if isinstance(outputs, tuple):
        parts = [widen(part) for part in outputs]
        return type(outputs)(*parts) if hasattr(outputs, "_fields") else tuple(parts)
    return outputs
