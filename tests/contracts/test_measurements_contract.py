"""What every measurement keeps to, on every kind of network: it works, and it leaves no trace."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from leadline.core.errors import MeasurementError
from leadline.core.seeds import capture_random_state
from leadline.measure.catalogue import MEASUREMENTS, Measurement

CLASSES, EXAMPLES = 3, 6


class Residual(nn.Module):
    """Convolutions with batch norm, in-place ReLU, dropout, a reused module, a sum."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.norm, self.relu = nn.BatchNorm2d(4), nn.ReLU(inplace=True)
        self.drop, self.head = nn.Dropout(0.2), nn.Linear(4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.norm(self.first(x)))
        x = self.relu(x + self.second(x))
        return self.head(self.drop(x.mean(dim=(2, 3))))


class Attentive(nn.Module):
    """A transformer in functions, tied weights, its logits under a name."""

    def __init__(self) -> None:
        super().__init__()
        self.inward, self.qkv = nn.Linear(8, 8), nn.Linear(8, 24)
        self.outward = nn.Linear(8, 8)
        self.outward.weight = self.inward.weight
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.inward(x.reshape(len(x), 16, 8))
        q, k, v = self.qkv(functional.layer_norm(x, (8,))).chunk(3, dim=-1)
        x = x + functional.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])[:, 0]
        return {"logits": self.head(functional.gelu(self.outward(x)).mean(dim=1))}


class Recurrent(nn.Module):
    """An LSTM that returns its state along with its answer."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(8, 5, batch_first=True), nn.Linear(5, CLASSES)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        out, (state, _) = self.lstm(x.reshape(len(x), 16, 8))
        return self.head(torch.tanh(out[:, -1])), state


class Plain(nn.Module):
    """A dense network of raw parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.inward = nn.Parameter(torch.randn(8, 128) / 12)
        self.outward = nn.Parameter(torch.randn(CLASSES, 8) / 3)

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(torch.tanh(x.flatten(1) @ self.inward.T), self.outward)


def compiled() -> nn.Module:
    model: nn.Module = torch.compile(Residual(), backend="eager")  # type: ignore[assignment]
    return model


def distributed() -> nn.Module:
    """In DistributedDataParallel, alone in its group."""
    if not torch.distributed.is_initialized():
        store = torch.distributed.HashStore()
        torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    return nn.parallel.DistributedDataParallel(Residual())


@pytest.fixture(scope="module", autouse=True)
def _group_ends() -> Iterator[None]:
    yield
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "residual": Residual,
    "attentive": Attentive,
    "recurrent": Recurrent,
    "plain": Plain,
    "compiled": compiled,
    "distributed": distributed,
}

CONVOLUTIONAL = {"residual", "compiled", "distributed"}
ONLY = {  # what asks for a kind of network, and what says so of the others
    "predicted_propagation": {"plain"},
    "jacobian_chain": {
        "residual",
        "attentive",
        "recurrent",
        "compiled",
        "distributed",
    },  # it names modules
}


def inputs() -> Tensor:
    return torch.randn(EXAMPLES, 2, 8, 8, generator=torch.Generator().manual_seed(3))


def loss(outputs: Any, targets: Tensor) -> Tensor:
    if isinstance(outputs, dict):
        outputs = outputs["logits"]
    return functional.cross_entropy(outputs if isinstance(outputs, Tensor) else outputs[0], targets)


def call(entry: Measurement, model: nn.Module, *, loss: Any = loss) -> Any:
    """The measurement with the least that it asks for, in its smallest form."""
    batch = inputs(), torch.arange(EXAMPLES) % CLASSES
    more: dict[str, Any] = {
        "update_ratio": {"optimizer": torch.optim.Adam(model.parameters(), lr=1e-3)},
        "sharpness": {"lr": 0.1},
        "shattering": {"points": 8},
        "spectral_density": {"steps": 4},
        "trace": {"products": 6},
        "eigenvalues": {"count": 1, "tolerance": 1e-1},
        "critical_point": {"max_products": 60},
        "gradient_noise_scale": {"parts": 3},
        "loss_along": {"points": 3},
        "loss_on_plane": {"points": 3},
        "gradient_cost": {"sample": 2, "repeats": 1},
        "jacobian_spectrum": {"examples": 1},
        "jacobian_chain": {"examples": 1},
    }.get(entry.name, {})
    if entry.name == "loss_between":
        state = {key: value.clone() for key, value in model.state_dict().items()}
        more = {"start": state, "end": state, "points": 3}
    if entry.name == "gradient_alignment":
        return entry.function(model, [batch, batch], loss=loss)
    if entry.needs == "inputs":
        return entry.function(model, batch[0], **more)
    return entry.function(model, batch, loss=loss, **more)


def ready(name: str) -> nn.Module:
    """A network in the middle of a training: gradients, trained buffers, mixed modes."""
    torch.manual_seed(0)
    model = NETWORKS[name]()
    loss(model(inputs()), torch.zeros(EXAMPLES, dtype=torch.long)).backward()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.eval()
    return model


def fingerprint(model: nn.Module) -> list[Any]:
    """Everything a measurement must not change, as bytes."""
    tensors = [*model.parameters(), *model.buffers()]
    gradients = [p.grad for p in model.parameters()]
    assert all(gradient is not None for gradient in gradients)
    stated = capture_random_state().state_dict()
    return [
        [id(t) for t in tensors],
        [t.detach().numpy().tobytes() for t in tensors],
        [id(g) for g in gradients],
        [g.numpy().tobytes() for g in gradients if g is not None],
        [p.requires_grad for p in model.parameters()],
        [module.training for module in model.modules()],
        [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()],
        [value.tolist() if isinstance(value, Tensor) else value for value in stated.values()],
    ]


def applies(entry: Measurement, network: str) -> bool:
    if entry.name in ONLY:
        return network in ONLY[entry.name]
    if "receptive_field" in entry.name:
        return network in CONVOLUTIONAL
    return True


PAIRS = [
    pytest.param(entry, network, id=f"{entry.name}-{network}")
    for entry in MEASUREMENTS
    for network in NETWORKS
    if applies(entry, network)
]


@pytest.mark.parametrize(("entry", "network"), PAIRS)
def test_it_measures_and_leaves_everything_bit_identical(entry: Measurement, network: str) -> None:
    model = ready(network)
    np.random.seed(1)
    random.seed(1)
    before = fingerprint(model)
    result = call(entry, model)
    assert result is not None
    assert fingerprint(model) == before


@pytest.mark.parametrize("entry", MEASUREMENTS, ids=lambda entry: entry.name)
def test_it_gives_the_same_twice(entry: Measurement) -> None:
    if entry.name == "gradient_cost":
        pytest.skip("it measures times, which differ")
    model = ready("plain" if entry.name == "predicted_propagation" else "residual")
    assert repr(call(entry, model)) == repr(call(entry, model))


@pytest.mark.parametrize("entry", MEASUREMENTS, ids=lambda entry: entry.name)
def test_after_an_error_everything_is_as_it_was(entry: Measurement) -> None:
    model = ready("residual")

    def fail(module: nn.Module, args: Any, output: Any) -> None:
        torch.rand(1)
        raise RuntimeError("on purpose")

    handle = model.get_submodule("head").register_forward_hook(fail)
    before = fingerprint(model)
    with pytest.raises(MeasurementError, match="on purpose"):
        call(entry, model)
    assert fingerprint(model) == before
    handle.remove()


@pytest.mark.parametrize("entry", MEASUREMENTS, ids=lambda entry: entry.name)
def test_an_empty_batch_and_nan_are_named(entry: Measurement) -> None:
    model = ready("residual")
    function, more = entry.function, {}
    if entry.needs == "loss":
        more["loss"] = loss
    extra = {
        "update_ratio": {"optimizer": torch.optim.SGD(model.parameters(), lr=1e-3)},
        "sharpness": {"lr": 0.1},
        "loss_between": {"start": model.state_dict(), "end": model.state_dict()},
    }.get(entry.name, {})
    for bad, message in ((inputs()[:0], "at least one example"), (inputs() * float("nan"), "NaN")):
        if entry.name == "receptive_field" and message == "NaN":
            continue  # what can be seen does not depend on what is there
        targets = torch.zeros(len(bad), dtype=torch.long)
        batch: Any = (bad, targets) if entry.needs == "loss" else bad
        if entry.name == "gradient_alignment":
            batch, more["loss"] = [(bad, targets), (bad, targets)], loss
        with pytest.raises(MeasurementError, match=message):
            function(model, batch, **more, **extra)


@pytest.mark.parametrize(
    "entry", [e for e in MEASUREMENTS if e.needs == "loss"], ids=lambda entry: entry.name
)
def test_a_loss_that_is_not_one_number_is_named(entry: Measurement) -> None:
    model = ready("residual")
    with pytest.raises(MeasurementError, match="leave out reduction='none'"):
        call(entry, model, loss=lambda outputs, targets: outputs)


@pytest.mark.parametrize("entry", MEASUREMENTS, ids=lambda entry: entry.name)
def test_its_docstring_says_its_cost_and_how_to_read_it(entry: Measurement) -> None:
    text = (entry.function.__doc__ or "").lower()
    assert "cost" in text, "the cost in forward-backward passes"
    assert "read" in text, "how to read it"
    assert ">>>" in text, "an example that runs"


def test_a_model_is_measured_alike_before_and_after_a_copy() -> None:
    model = ready("residual")
    for entry in MEASUREMENTS:
        if entry.name in ("gradient_flow", "signal_propagation", "units"):
            assert repr(call(entry, model)) == repr(call(entry, copy.deepcopy(model)))
