"""Tests of check as a whole: it reads any setup, changes nothing, and its errors are clear."""

from __future__ import annotations

import copy
import inspect
import json
import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel
from torch.optim import SGD, Adam, AdamW
from torch.optim.lr_scheduler import LambdaLR

import leadline
from leadline.core.errors import ConfigError, MeasurementError
from leadline.core.taps import Taps
from leadline.doctor.check import FAMILIES, check
from leadline.doctor.vocabulary import family_of
from leadline.training.setup import Setup

LOSS = nn.CrossEntropyLoss()


def test_it_is_leadlines_own_word(mlp: Any, rows: Any) -> None:
    assert leadline.check is check
    assert leadline.check(mlp(), rows, LOSS).findings == ()


# ------------------------------------------------------------------- what it leaves as it was found


@pytest.mark.parametrize("kind", [SGD, Adam, AdamW, torch.optim.RMSprop, torch.optim.NAdam])
def test_the_optimizer_in_the_middle_of_a_training_is_left_as_found(
    mlp: Any, rows: Any, left_as_found: Any, kind: Any
) -> None:
    network = mlp()
    optimizer = kind(network.parameters(), lr=1e-3)
    schedule = LambdaLR(optimizer, lambda step: 1 / (1 + step))
    for _ in range(3):
        optimizer.zero_grad()
        LOSS(network(rows[0]), rows[1]).backward()
        optimizer.step()
        schedule.step()
    twin, twins = copy.deepcopy((network, optimizer))
    unchanged = left_as_found(network, optimizer)
    check(network, rows, LOSS, optimizer=optimizer)
    unchanged()
    for model, steps in ((network, optimizer), (twin, twins)):  # and so it goes on
        steps.zero_grad()
        LOSS(model(rows[0]), rows[1]).backward()
        steps.step()
    for mine, its in zip(network.parameters(), twin.parameters(), strict=True):
        assert torch.equal(mine, its)


def test_an_optimizer_that_has_not_stepped_keeps_an_empty_state(mlp: Any, rows: Any) -> None:
    network = mlp()
    optimizer = Adam(network.parameters())
    check(network, rows, LOSS, optimizer=optimizer)
    assert len(optimizer.state) == 0
    assert list(optimizer.state_dict()["state"]) == []


def test_a_hook_on_the_optimizer_is_not_called(mlp: Any, rows: Any) -> None:
    network, steps = mlp(), []
    optimizer = SGD(network.parameters(), lr=0.1)
    optimizer.register_step_post_hook(lambda *args: steps.append(1))
    check(network, rows, LOSS, optimizer=optimizer)
    assert steps == []


def test_dropout_batch_norm_and_modes_of_single_layers_are_left_as_found(
    conv_net: Any, images: Any, left_as_found: Any
) -> None:
    network = conv_net(nn.Dropout(0.3))
    network[1].eval()
    unchanged = left_as_found(network)
    check(network, images, LOSS)
    unchanged()


def test_noise_from_every_generator_leaves_the_streams_where_they_were(
    mlp: Any, rows: Any, left_as_found: Any
) -> None:
    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = mlp()

        def forward(self, x: Tensor) -> Tensor:
            x = x + torch.randn_like(x) + random.random() + float(np.random.rand())
            return self.network(x)

    network = Noisy()
    unchanged = left_as_found(network)
    check(network, rows, LOSS)
    unchanged()


class Fails(nn.Module):
    """A network that fails in its n-th call, in its forward or on its way back."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(20, 16), nn.BatchNorm1d(16), nn.Linear(16, 5)
        self.at, self.calls = at, 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        x = self.norm(self.first(x))
        if self.calls == self.at:
            raise RuntimeError("in the middle")
        return self.last(functional.relu(x))


@pytest.mark.parametrize("at", [1, 2, 3, 4, 5, 6, 7])
def test_whatever_call_fails_everything_is_left_as_found(
    rows: Any, left_as_found: Any, at: int
) -> None:
    network = Fails(at)
    optimizer = Adam(network.parameters())
    unchanged = left_as_found(network, optimizer)
    if at == 1:
        with pytest.raises(MeasurementError, match="in the middle"):
            check(network, rows, LOSS, optimizer=optimizer)
    else:  # a question that fails later costs its answer only
        assert check(network, rows, LOSS, optimizer=optimizer).findings == ()
    unchanged()


def test_a_failing_backward_pass_leaves_everything_as_found(rows: Any, left_as_found: Any) -> None:
    class Wrong(torch.autograd.Function):
        @staticmethod
        def forward(context: Any, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(context: Any, gradient: Tensor) -> Tensor:
            raise RuntimeError("on the way back")

    network = Fails(0)
    network.last = nn.Sequential(nn.Linear(16, 5), _Apply(Wrong))
    unchanged = left_as_found(network)
    with pytest.raises(RuntimeError, match="on the way back"):
        check(network, rows, LOSS)
    unchanged()


class _Apply(nn.Module):
    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function.apply(x)


def test_the_batch_is_left_as_found_by_a_network_that_writes_into_it(mlp: Any, rows: Any) -> None:
    class Scales(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = mlp()

        def forward(self, x: Tensor) -> Tensor:
            return self.network(x.mul_(0.5))

    inputs = rows[0].clone()
    checkup = check(Scales(), (inputs, rows[1]), LOSS, optimizer=None)
    assert [finding.cause for finding in checkup.findings] == ["data_modified_in_place"]
    assert not inputs.requires_grad
    assert torch.equal(inputs, rows[0])


# ----------------------------------------------------------------------------- networks of any kind


def test_a_compiled_network_gives_what_the_eager_one_gives(
    verdict: Any, mlp: Any, rows: Any
) -> None:
    network = mlp()
    double = nn.Sequential(network, nn.Softmax(dim=1))
    compiled = torch.compile(double, backend="eager")
    compiled(rows[0])
    assert verdict(compiled, rows, LOSS) == ["error double_softmax"]
    assert verdict(torch.compile(network, backend="eager"), rows, LOSS) == []
    assert check(compiled, rows, LOSS).model == "Sequential"


@pytest.fixture
def alone(tmp_path: Any) -> Iterator[None]:
    """A group of one process."""
    store = dist.FileStore(str(tmp_path / "store"), 1)
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_a_network_wrapped_for_several_processes_is_named_as_the_one_inside(
    verdict: Any, mlp: Any, rows: Any, alone: None
) -> None:
    network = mlp()
    wrapped = DistributedDataParallel(network)
    optimizer = SGD(wrapped.parameters(), lr=0.1)
    assert verdict(wrapped, rows, LOSS, optimizer=optimizer) == []
    dead = mlp()
    with torch.no_grad():
        dead[2].bias.fill_(-100)
    checkup = check(DistributedDataParallel(dead), rows, LOSS)
    assert checkup.findings[0].layers == ("3",)
    assert checkup.profile is not None
    assert checkup.profile.layers == ("0", "1", "2", "3", "4")


def test_tied_weights_are_one_parameter(
    verdict: Any, gpt: Any, text: Any, language_loss: Any
) -> None:
    network = gpt()
    network.head.weight = network.tokens.weight
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
    optimizer = AdamW(network.parameters(), lr=3e-4)
    assert verdict(network, text, language_loss, optimizer=optimizer) == []


def test_a_module_that_is_called_twice_is_healthy(verdict: Any, rows: Any) -> None:
    class Reused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.again = nn.Linear(20, 32), nn.Linear(32, 32)
            self.last, self.relu = nn.Linear(32, 5), nn.ReLU(inplace=True)

        def forward(self, x: Tensor) -> Tensor:
            x = self.relu(self.first(x))
            return self.last(self.relu(self.again(self.relu(self.again(x)))))

    assert verdict(Reused(), rows, LOSS) == []


def test_a_network_with_lazy_layers_has_to_run_once_first(mlp: Any, rows: Any) -> None:
    network = nn.Sequential(nn.LazyLinear(32), nn.ReLU(), nn.LazyLinear(5))
    with pytest.raises(MeasurementError, match="lazy") as caught:
        check(network, rows, LOSS)
    assert "run" in caught.value.remedy
    assert all(nn.parameter.is_lazy(p) for p in network.parameters()), "left as it was found"
    network(rows[0])
    assert check(network, rows, LOSS).findings == ()


def test_a_mapping_with_a_model_that_returns_its_own_loss(verdict: Any) -> None:
    @dataclass
    class Answer:
        loss: Tensor
        logits: Tensor

    class OwnLoss(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens, self.head = nn.Embedding(50, 16), nn.Linear(16, 3)

        def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor) -> Answer:
            hidden = self.tokens(input_ids) * attention_mask[..., None]
            logits = self.head(hidden.mean(dim=1))
            return Answer(loss=functional.cross_entropy(logits, labels), logits=logits)

    batch = {
        "input_ids": torch.randint(0, 50, (8, 12)),
        "attention_mask": torch.ones(8, 12),
        "labels": torch.arange(8) % 3,
    }
    assert verdict(OwnLoss(), batch) == []


def test_several_inputs_and_outputs(verdict: Any, mlp: Any, rows: Any) -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right = mlp(), mlp(10)

        def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
            answer = self.left(x) + self.right(y)
            return answer, answer.mean()

    def loss(outputs: tuple[Tensor, Tensor], targets: Tensor) -> Tensor:
        return functional.cross_entropy(outputs[0], targets)

    second = torch.randn(64, 10)
    assert verdict(Two(), (rows[0], second, rows[1]), loss) == []
    assert verdict(Two(), ((rows[0], second), rows[1]), loss) == []


def test_a_network_on_a_graph(verdict: Any) -> None:
    class Graph:
        """Nodes and edges, as graph libraries hold them."""

        def __init__(self) -> None:
            self.x = torch.randn(30, 8)
            self.edges = torch.randint(0, 30, (2, 90))
            self.y = torch.arange(30) % 4

    class Convolution(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(8, 16), nn.Linear(16, 4)

        def forward(self, graph: Graph) -> Tensor:
            x = functional.relu(self.first(graph.x))
            source, target = graph.edges
            return self.last(x.index_add(0, target, x[source]) / 4)

    def loss(outputs: Tensor, graph: Graph) -> Tensor:
        return functional.cross_entropy(outputs, graph.y)

    assert verdict(Convolution(), Graph(), loss) == []


def test_an_autoencoder_a_regression_and_many_labels_are_healthy(verdict: Any, mlp: Any) -> None:
    inputs = torch.randn(64, 20)
    assert verdict(mlp(outputs=20), (inputs, inputs), nn.MSELoss()) == []
    for loss in (nn.MSELoss(), nn.L1Loss(), nn.SmoothL1Loss(), nn.HuberLoss()):
        assert verdict(mlp(outputs=1), (inputs, inputs[:, :1]), loss) == []
    labels = (torch.rand(64, 6) > 0.7).float()
    for loss in (nn.BCEWithLogitsLoss(), nn.MultiLabelSoftMarginLoss()):
        assert verdict(mlp(outputs=6), (inputs, labels), loss) == []


@pytest.mark.parametrize(
    "loss",
    [
        nn.CrossEntropyLoss(label_smoothing=0.1),
        nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2, 3, 4, 5])),
        nn.MultiMarginLoss(),
        lambda outputs, targets: functional.cross_entropy(outputs / 0.5, targets),
    ],
    ids=["smoothing", "weights", "margin", "temperature"],
)
def test_losses_of_every_kind_are_healthy(
    verdict: Any, mlp: Any, rows: Any, loss: Callable[..., Tensor]
) -> None:
    assert verdict(mlp(), rows, loss) == []


def test_sparse_gradients_are_read(verdict: Any) -> None:
    class Bag(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.last = nn.Embedding(100, 16, sparse=True), nn.Linear(16, 4)

        def forward(self, tokens: Tensor) -> Tensor:
            return self.last(self.words(tokens).mean(dim=1))

    network = Bag()
    batch = torch.randint(0, 100, (32, 12)), torch.arange(32) % 4
    optimizer = SGD(network.parameters(), lr=0.1)
    assert verdict(network, batch, LOSS, optimizer=optimizer) == []


def test_complex_weights_are_read(verdict: Any) -> None:
    class Spectral(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(9, 16, dtype=torch.complex64) * 0.2)
            self.last = nn.Linear(16, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.last((torch.fft.rfft(x) @ self.weight).abs())

    network = Spectral()
    batch = torch.randn(32, 16), torch.arange(32) % 4
    optimizer = Adam(network.parameters(), lr=1e-3)
    assert verdict(network, batch, LOSS, optimizer=optimizer) == []


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_precisions_are_healthy(
    verdict: Any, mlp: Any, rows: Any, dtype: torch.dtype
) -> None:
    network = mlp().to(dtype)
    assert verdict(network, (rows[0].to(dtype), rows[1]), LOSS) == []
    double = nn.Sequential(network, nn.Softmax(dim=1))
    assert verdict(double, (rows[0].to(dtype), rows[1]), LOSS) == ["error double_softmax"]


def test_one_example_is_enough(verdict: Any, mlp: Any) -> None:
    batch = torch.randn(1, 20), torch.zeros(1, dtype=torch.long)
    assert verdict(mlp(), batch, LOSS) == []


# ------------------------------------------------------------------------------------ a whole Setup


@pytest.fixture
def setup(mlp: Any, rows: Any) -> Callable[..., Setup]:
    """A healthy setup, with changes."""

    def build(**changes: Any) -> Setup:
        parts: dict[str, Any] = {
            "model": mlp,
            "batches": [rows],
            "loss": LOSS,
            "optimizer": lambda model: SGD(model.parameters(), lr=0.1),
        }
        return Setup(**parts | changes)

    return build


def test_a_setup_is_built_as_its_training_would(setup: Any, rows: Any, mlp: Any) -> None:
    before = torch.get_rng_state()
    assert check(setup()).findings == ()
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(3)
    with torch.no_grad():
        expected = LOSS(mlp()(rows[0]), rows[1]).item()
    assert check(setup(seed=3)).loss == pytest.approx(expected, rel=1e-6)
    assert check(setup(seed=4)).loss != pytest.approx(expected, rel=1e-6)


def test_the_faults_of_a_setups_optimizer_are_found(setup: Any, mlp: Any) -> None:
    stray = setup(optimizer=lambda model: SGD(mlp().parameters(), lr=0.1))
    assert [f.cause for f in check(stray).findings] == ["optimizer_missing_params"]
    fast = setup(optimizer=lambda model: Adam(model.parameters(), lr=3.0))
    assert [f.cause for f in check(fast).findings] == ["lr_too_high"]


def test_a_rate_of_0_that_a_schedule_will_raise_is_healthy(setup: Any) -> None:
    warm_up = setup(schedule=lambda optimizer: LambdaLR(optimizer, lambda step: step / 100))
    assert check(warm_up).findings == ()


def test_a_setup_without_batches_is_refused(setup: Any) -> None:
    with pytest.raises(MeasurementError, match="batches that are empty"):
        check(setup(batches=[]))


# -------------------------------------------------------------------------- what cannot be measured


def test_a_model_alone_is_refused(mlp: Any) -> None:
    with pytest.raises(MeasurementError, match=r"a Sequential alone") as caught:
        check(mlp())
    assert caught.value.remedy == "check(model, next(iter(loader)), loss)"


def test_a_network_that_fails_names_the_layer_and_what_it_was_given(mlp: Any, rows: Any) -> None:
    with pytest.raises(MeasurementError, match=r"Linear '0', given .*\(64, 7\)"):
        check(mlp(), (torch.randn(64, 7), rows[1]), LOSS)


def test_a_network_without_parameters_is_refused(rows: Any) -> None:
    with pytest.raises(MeasurementError, match="Flatten, which has no parameters"):
        check(nn.Flatten(), rows, LOSS)


def test_a_network_that_is_frozen_entirely_is_refused(mlp: Any, rows: Any) -> None:
    with pytest.raises(MeasurementError, match="6 parameters are all frozen"):
        check(mlp().requires_grad_(False), rows, LOSS)


def test_a_loss_for_each_example_is_refused(mlp: Any, rows: Any) -> None:
    with pytest.raises(MeasurementError, match=r"shape \(64,\)") as caught:
        check(mlp(), rows, nn.CrossEntropyLoss(reduction="none"))
    assert "mean" in caught.value.remedy


def test_a_loss_that_is_a_plain_number_is_refused(mlp: Any, rows: Any) -> None:
    def plain(outputs: Tensor, targets: Tensor) -> Any:
        return functional.cross_entropy(outputs, targets).item()

    with pytest.raises(MeasurementError, match="one number"):
        check(mlp(), rows, plain)


def test_a_missing_loss_is_asked_for(mlp: Any, rows: Any) -> None:
    with pytest.raises(MeasurementError, match="no loss"):
        check(mlp(), rows)


def test_an_empty_batch_is_refused(mlp: Any) -> None:
    empty = torch.randn(0, 20), torch.zeros(0, dtype=torch.long)
    with pytest.raises(MeasurementError, match="empty"):
        check(mlp(), empty, LOSS)


def test_whole_numbers_for_a_dense_layer_name_the_layer(mlp: Any, rows: Any) -> None:
    with pytest.raises(MeasurementError, match="Linear '0'"):
        check(mlp(), (torch.randint(0, 9, (64, 20)), rows[1]), LOSS)


# -------------------------------------------------------------------------------------- the checkup


def test_the_checkup_as_plain_values_is_json(mlp: Any, rows: Any) -> None:
    double = nn.Sequential(mlp(), nn.Softmax(dim=1))
    plain = json.loads(json.dumps(check(double, rows, LOSS).to_plain(), allow_nan=False))
    assert set(plain) == {
        "model", "healthy", "findings", "loss", "expected_loss", "seconds", "profile"
    }  # fmt: skip
    assert plain["healthy"] is False
    (finding,) = plain["findings"]
    assert (finding["cause"], finding["family"]) == ("double_softmax", "activation")
    assert plain["expected_loss"] == pytest.approx(math.log(5))
    assert len(plain["profile"]["layers"]) == 6


def test_a_checkup_of_what_is_not_finite_is_json_too(mlp: Any, rows: Any) -> None:
    network = mlp()
    with torch.no_grad():
        network[0].weight[0, 0] = math.nan
    for batch in (rows, (rows[0].clone().fill_(math.inf), rows[1])):
        plain = json.dumps(check(network, batch, LOSS).to_plain(), allow_nan=False)
        assert json.loads(plain)["loss"] == "nan"


def test_the_expected_loss_of_a_sum_is_that_of_all_targets(mlp: Any, rows: Any) -> None:
    checkup = check(mlp(), rows, nn.CrossEntropyLoss(reduction="sum"))
    assert checkup.expected_loss == pytest.approx(64 * math.log(5))
    assert check(mlp(), rows, LOSS).expected_loss == pytest.approx(math.log(5))


@pytest.mark.parametrize(
    ("change", "received"),
    [
        ({"model": [nn.Linear(20, 5)]}, "list"),
        ({"model": nn.Linear}, "the class Linear"),
        ({"loss": 3.0}, "float"),
        ({"optimizer": "adam"}, "str"),
        ({"optimizer": Adam}, "the class Adam"),
        ({"optimizer": [Adam([nn.Parameter(torch.ones(1))])]}, "list"),
    ],
)
def test_an_argument_of_another_type_is_refused_by_name(
    mlp: Any, rows: Any, change: dict[str, Any], received: str
) -> None:
    given: dict[str, Any] = {"model": mlp(), "loss": LOSS, "optimizer": None} | change
    plain = inspect.unwrap(check)  # without the types that the tests look at by themselves
    with pytest.raises(ConfigError, match=f"received {received}") as caught:
        plain(given["model"], rows, given["loss"], optimizer=given["optimizer"])
    assert next(iter(change)) in caught.value.expected


def test_a_network_that_is_all_in_a_python_list_is_told_so(verdict: Any, rows: Any) -> None:
    class Listed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = [nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 5)]

        def forward(self, x: Tensor) -> Tensor:
            for layer in self.layers:
                x = layer(x)
            return x

    network = Listed()
    assert verdict(network, rows, LOSS) == ["error params_unregistered"]
    every = [p for layer in network.layers for p in layer.parameters()]
    assert verdict(network, rows, LOSS, optimizer=SGD(every, lr=0.1)) == [
        "error params_unregistered"
    ]
    with pytest.raises(MeasurementError, match="no parameters"):
        check(nn.ReLU(), rows, LOSS)


def test_the_batch_is_left_as_found_when_a_failed_loss_is_explained() -> None:
    class Halves(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(20, 5)

        def forward(self, x: Tensor) -> Tensor:
            answer: Tensor = self.layer(x.mul_(0.5))
            return answer

    inputs = torch.randn(64, 20)
    before = inputs.clone()
    checkup = check(Halves(), (inputs, torch.arange(64) % 5 + 1), LOSS)
    assert checkup.findings[0].cause == "labels_shifted"
    assert torch.equal(inputs, before)


class OwnLabels(nn.Module):
    """A classifier that computes its own loss when it is given labels."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.head = nn.Embedding(50, 16), nn.Linear(16, 3)

    def forward(self, input_ids: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        logits = self.head(self.tokens(input_ids).mean(dim=1))
        if labels is None:
            return {"logits": logits}
        return {"loss": functional.cross_entropy(logits, labels), "logits": logits}


@pytest.mark.parametrize(
    ("shift", "cause"), [(0, None), (1, "labels_shifted"), (7, "output_units_wrong")]
)
def test_labels_out_of_range_inside_a_model_with_its_own_loss_are_told(
    verdict: Any, shift: int, cause: str | None
) -> None:
    batch = {"input_ids": torch.randint(0, 50, (9, 12)), "labels": torch.arange(9) % 3 + shift}
    assert verdict(OwnLabels(), batch) == ([f"error {cause}"] if cause else [])


def test_labels_out_of_range_that_a_loss_function_is_given_too_are_told(verdict: Any) -> None:
    def loss(outputs: dict[str, Tensor], labels: Tensor) -> Tensor:
        return functional.cross_entropy(outputs["logits"], labels)

    class Ignores(OwnLabels):
        def forward(self, input_ids: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
            return super().forward(input_ids)

    batch = {"input_ids": torch.randint(0, 50, (9, 12)), "labels": torch.arange(9) % 3 + 1}
    assert verdict(Ignores(), batch, loss) == ["error labels_shifted"]


def test_a_token_out_of_range_is_no_fault_of_the_labels() -> None:
    batch = {"input_ids": torch.full((9, 12), 50), "labels": torch.arange(9) % 3}
    with pytest.raises(MeasurementError, match="index out of range"):
        check(OwnLabels(), batch)


def test_a_note_alone_is_healthy(mlp: Any, rows: Any) -> None:
    network = nn.Module()
    network.trunk, network.spare = mlp(), nn.Linear(2, 2)
    network.forward = network.trunk.forward
    checkup = check(network, rows, LOSS)
    assert [f.severity for f in checkup.findings] == ["note"]
    assert checkup.healthy
    assert not check(nn.Sequential(mlp(), nn.ReLU()), rows, LOSS).healthy


def test_the_worst_comes_first(mlp: Any, rows: Any) -> None:
    network = nn.Sequential(mlp(), nn.Dropout(0.9), nn.Softmax(dim=1))
    severities = [f.severity for f in check(network, rows, LOSS).findings]
    assert severities == ["error", "warning"]


def test_the_loss_is_the_plain_one(mlp: Any, rows: Any) -> None:
    network = mlp()
    with torch.no_grad():
        expected = LOSS(network(rows[0]), rows[1]).item()
    assert check(network, rows, LOSS).loss == pytest.approx(expected, rel=1e-6)


def test_no_hook_is_left_while_another_one_stays(mlp: Any, rows: Any) -> None:
    network, calls = mlp(), []
    network[0].register_forward_hook(lambda *args: calls.append(1))
    check(network, rows, LOSS)
    assert len(network[0]._forward_hooks) == 1
    calls.clear()
    network(rows[0])
    assert calls == [1]


def test_a_check_inside_open_taps_disturbs_neither(mlp: Any, rows: Any) -> None:
    network, heard = mlp(), []
    with Taps(network) as taps:
        taps.on_output(lambda call, inputs, output: heard.append(call.name))
        assert check(network, rows, LOSS).findings == ()
        heard.clear()
        network(rows[0])
    assert heard == ["0", "1", "2", "3", "4", "(model)"]


def test_every_family_names_causes_of_the_vocabulary_only() -> None:
    names = {signs.__module__.rpartition(".")[2] for signs in FAMILIES}
    assert len(names) == len(FAMILIES) == 11
    assert family_of("double_softmax") == "activation"
