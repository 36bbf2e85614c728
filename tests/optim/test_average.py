"""The running average of the weights."""

import threading

import pytest
import torch
from torch import nn

from leadline.core.errors import ConfigError, ModelError
from leadline.core.state import flatten_state, restore_state
from leadline.optim.average import Average


def small_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 2))


def wander(model: nn.Module, seed: int) -> None:
    """Move every weight, and the statistics of the batch norm, to somewhere else."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator))
        model.train()(torch.randn(4, 1, 4, 4, generator=generator))


def test_the_average_is_the_closed_form_sum():
    model = small_model()
    average = Average(model, decay=0.5)
    history = [{k: v.detach().clone().double() for k, v in model.state_dict().items()}]
    for n in range(12):
        wander(model, n)
        average.update()
        history.append({k: v.detach().clone().double() for k, v in model.state_dict().items()})
    # weight of state k in the average: (1 - d_k) times the product of all later decays
    decays = [min(0.5, (1 + n) / (10 + n)) for n in range(12)]
    shares = [1.0, *(1 - d for d in decays)]
    for k in range(len(shares)):
        for later in decays[k:]:
            shares[k] *= later
    assert sum(shares) == pytest.approx(1.0)
    for name, value in average.model.state_dict().items():
        if name.endswith("num_batches_tracked"):
            assert value.item() == 12
            continue
        expected = sum(s * h[name] for s, h in zip(shares, history, strict=True))
        torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=1e-6)


def test_the_decay_rises_to_its_final_value():
    model = nn.Linear(1, 1, bias=False)
    average = Average(model, decay=0.3)
    for n, decay in enumerate([1 / 10, 2 / 11, 3 / 12, 0.3, 0.3]):
        nn.init.zeros_(average.model.weight)
        nn.init.ones_(model.weight)
        assert average.updates == n
        average.update()
        assert average.model.weight.item() == pytest.approx(1 - decay)


def test_weights_that_stand_still_are_their_own_average():
    model = small_model()
    average = Average(model, decay=0.9)
    for _ in range(20):
        average.update()
    for name, value in model.state_dict().items():
        assert torch.equal(average.model.state_dict()[name], value)


def test_buffers_with_infinities_are_copied_not_averaged():
    model = nn.Linear(2, 2)
    model.register_buffer("mask", torch.tensor([0.0, -torch.inf]))
    average = Average(model, decay=0.9)
    model.mask = torch.tensor([-torch.inf, 0.0])
    average.update()
    assert torch.equal(average.model.mask, model.mask)


def test_the_model_under_training_is_not_touched():
    model = small_model()
    average = Average(model, decay=0.9)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    average.update()
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert model.training
    assert all(p.requires_grad for p in model.parameters())
    assert not average.model.training
    assert not any(p.requires_grad for p in average.model.parameters())


def test_the_average_keeps_the_memory_layout():
    model = small_model().to(memory_format=torch.channels_last)
    average = Average(model, decay=0.9)
    assert average.model[0].weight.stride() == model[0].weight.stride()
    average.update()
    torch.testing.assert_close(average.model[0].weight, model[0].weight)


def test_resuming_gives_the_same_average_bit_for_bit():
    model = small_model()
    straight = Average(model, decay=0.99)
    for n in range(3):
        wander(model, n)
        straight.update()
    saved = restore_state(flatten_state(straight.state_dict()))
    saved["model"] = {k: v.clone() for k, v in saved["model"].items()}
    resumed = Average(model, decay=0.99)
    resumed.load_state_dict(saved)
    for n in range(3, 6):
        wander(model, n)
        straight.update()
        resumed.update()
    assert resumed.updates == straight.updates == 6
    for name, value in straight.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name])


def test_a_model_without_weights_can_be_averaged():
    average = Average(nn.ReLU(), decay=0.9)
    average.update()
    assert average.updates == 1


def test_the_state_of_another_model_is_refused():
    with pytest.raises(ModelError, match=r"averaged weights of this Linear(.|\n)*size mismatch"):
        Average(nn.Linear(2, 2), decay=0.9).load_state_dict(
            Average(nn.Linear(3, 2), decay=0.9).state_dict()
        )


@pytest.mark.parametrize("decay", [-0.1, 1.0, float("nan")])
def test_a_decay_outside_its_range_is_refused(decay: float):
    with pytest.raises(ConfigError, match="decay must be >= 0 and < 1, received"):
        Average(nn.Linear(1, 1), decay=decay)


def test_weights_of_low_precision_are_refused():
    with pytest.raises(ModelError, match=r"torch.bfloat16 in 'weight'(.|\n)*float32"):
        Average(nn.Linear(1, 1).to(torch.bfloat16), decay=0.9)


def test_a_model_that_cannot_be_copied_says_what_to_do():
    model = nn.Linear(1, 1)
    model.lock = threading.Lock()
    with pytest.raises(ModelError, match=r"cannot pickle '_thread.lock'(.|\n)*keep locks"):
        Average(model, decay=0.9)
