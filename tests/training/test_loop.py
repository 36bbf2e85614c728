"""The loop against arithmetic done by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from leadline.core.errors import NonFiniteError, TrainingError
from leadline.training.execution import Execution
from leadline.training.loop import steps
from leadline.training.setup import Setup
from leadline.training.state import TrainingState


def make_setup(batches, **changes) -> Setup:
    options = {
        "model": lambda: nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)),
        "batches": batches,
        "loss": nn.functional.cross_entropy,
        "optimizer": lambda model: torch.optim.SGD(model.parameters(), lr=0.1),
    }
    return Setup(**{**options, **changes})


def make_batches(sizes: list[int], *, seed: int = 0) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(n, 3, generator=generator), torch.randint(0, 2, (n,), generator=generator))
        for n in sizes
    ]


def train_to_end(setup: Setup) -> TrainingState:
    state = TrainingState(setup, Execution())
    for _ in steps(setup, Execution(), state=state):
        pass
    return state


def test_every_batch_gives_one_step_and_epochs_end_where_the_batches_do() -> None:
    setup = make_setup(make_batches([4, 4, 2]), epochs=2)
    records = list(steps(setup, Execution()))
    assert [r.index for r in records] == [1, 2, 3, 4, 5, 6]
    assert [r.epoch for r in records] == [1, 1, 1, 2, 2, 2]
    assert [r.ends_epoch for r in records] == [False, False, True] * 2
    assert [r.examples for r in records] == [4, 4, 2] * 2


def test_one_step_is_plain_gradient_descent() -> None:
    ((inputs, targets),) = batches = make_batches([5])
    setup = make_setup(batches)
    before = TrainingState(setup, Execution()).model
    loss = nn.functional.cross_entropy(before(inputs), targets)
    loss.backward()
    expected = [p.detach() - 0.1 * p.grad for p in before.parameters()]
    after = train_to_end(setup).model
    for value, wanted in zip(after.parameters(), expected, strict=True):
        torch.testing.assert_close(value, wanted)


@pytest.mark.parametrize("sizes", [[4, 4, 4, 4], [4, 4, 4, 1], [3, 2, 3, 2, 1]])
def test_accumulated_gradient_is_that_of_the_whole_window_ragged_end_included(
    sizes: list[int],
) -> None:
    batches = make_batches(sizes)
    accumulate = 2
    windows = [batches[i : i + accumulate] for i in range(0, len(batches), accumulate)]
    whole = [tuple(torch.cat(parts) for parts in zip(*window, strict=True)) for window in windows]
    double = {"model": lambda: nn.Linear(3, 2).double()}
    to_double = [(x.double(), y) for x, y in batches], [(x.double(), y) for x, y in whole]
    accumulated = train_to_end(make_setup(to_double[0], accumulate=accumulate, **double))
    at_once = train_to_end(make_setup(to_double[1], **double))
    assert accumulated.counters.step == at_once.counters.step == len(windows)
    for a, b in zip(accumulated.model.parameters(), at_once.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_clipping_bounds_the_update_and_reports_the_norm_before() -> None:
    setup = make_setup(make_batches([5]), clip_grad=1e-3)
    before = [p.detach().clone() for p in TrainingState(setup, Execution()).model.parameters()]
    state = TrainingState(setup, Execution())
    (record,) = steps(setup, Execution(), state=state)
    moved = torch.cat(
        [(p.detach() - q).flatten() for p, q in zip(state.model.parameters(), before, strict=True)]
    )
    assert record.grad_norm > 1e-3
    assert moved.norm() == pytest.approx(0.1 * 1e-3, rel=1e-3)


def test_the_learning_rate_of_a_step_is_the_one_it_used() -> None:
    setup = make_setup(
        make_batches([2, 2, 2]),
        schedule=lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda step: 1 / (step + 1)),
    )
    assert [r.lr for r in steps(setup, Execution())] == pytest.approx([0.1, 0.05, 0.1 / 3])


class Poison(nn.Module):
    """Turns its output to NaN at its third call in training."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return x * torch.where(self.calls >= 3, torch.nan, 1.0)


def test_a_nan_loss_stops_before_the_update_and_names_step_and_layer() -> None:
    setup = make_setup(
        make_batches([4] * 5),
        model=lambda: nn.Sequential(nn.Linear(3, 4), Poison(), nn.Linear(4, 2)),
    )
    state = TrainingState(setup, Execution())
    seen = []
    with pytest.raises(NonFiniteError, match=r"at step 3 \(epoch 1\).*layer '1'"):
        for record in steps(setup, Execution(), state=state):
            seen.append(record.index)
            weights = {k: v.clone() for k, v in state.model.named_parameters()}
    assert seen == [1, 2]
    for name, value in state.model.named_parameters():
        assert torch.equal(value, weights[name])


def test_nan_inputs_are_named_as_such() -> None:
    batches = make_batches([4, 4])
    batches[1][0][2, 1] = torch.nan
    with pytest.raises(NonFiniteError, match=r"at step 2 .*input itself is not finite"):
        list(steps(make_setup(batches), Execution()))


def test_an_infinite_loss_of_finite_outputs_is_laid_to_the_loss_function() -> None:
    setup = make_setup(make_batches([4]), loss=lambda outputs, targets: outputs.sum() / 0.0)
    with pytest.raises(NonFiniteError, match="began in the loss function"):
        list(steps(setup, Execution()))


@pytest.mark.parametrize("clip_grad", [0.0, 1.0])
def test_a_gradient_that_is_not_finite_never_reaches_the_weights(clip_grad: float) -> None:
    setup = make_setup(
        make_batches([4]),
        loss=lambda outputs, targets: (outputs * 0).sum().sqrt(),
        clip_grad=clip_grad,
    )
    state = TrainingState(setup, Execution())
    with pytest.raises(
        NonFiniteError, match=r"at step 1 .*loss is finite, but the gradient is not"
    ):
        list(steps(setup, Execution(), state=state))
    assert all(bool(torch.isfinite(p).all()) for p in state.model.parameters())


class Logarithm(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.abs().log()


@pytest.mark.parametrize("seed", range(6))
def test_the_layer_is_found_under_the_same_dropout_mask(seed: int) -> None:
    setup = make_setup(
        [(torch.ones(2, 3), torch.zeros(2, dtype=torch.int64))] * 50,
        model=lambda: nn.Sequential(nn.Dropout(0.1), Logarithm(), nn.Linear(3, 2)),
        seed=seed,
    )
    with pytest.raises(NonFiniteError, match="began in the output of layer '1'"):
        list(steps(setup, Execution()))


class Miscounting:
    def __init__(self, batches, claimed: int) -> None:
        self.batches, self.claimed = batches, claimed

    def __len__(self) -> int:
        return self.claimed

    def __iter__(self):
        return iter(self.batches)


@pytest.mark.parametrize(
    ("claimed", "message"), [(3, "an end after 2 of 3"), (1, "more than the 1")]
)
def test_batches_that_miscount_themselves_are_refused(claimed: int, message: str) -> None:
    setup = make_setup(Miscounting(make_batches([2, 2]), claimed))
    with pytest.raises(TrainingError, match=message):
        list(steps(setup, Execution()))


def test_a_plain_dataloader_trains() -> None:
    data = TensorDataset(torch.randn(20, 3), torch.randint(0, 2, (20,)))
    setup = make_setup(DataLoader(data, batch_size=8, shuffle=True), epochs=3)
    assert len(list(steps(setup, Execution()))) == 9


def test_the_model_is_in_training_mode_at_every_step_whatever_the_reader_does() -> None:
    modes = []

    class Spy(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            modes.append(self.training)
            return super().forward(x)

    setup = make_setup(make_batches([2, 2, 2]), model=lambda: Spy(3, 2))
    state = TrainingState(setup, Execution())
    for _ in steps(setup, Execution(), state=state):
        state.model.eval()
    assert modes == [True, True, True]
