"""How a family is held to its original: the same weights, logits, gradients, in both modes.

`torchvision_model` and `timm_model` build an original with random weights and running statistics;
`assert_same` loads its state dict into ours and compares. The numbers of the random stream that
dropout and stochastic depth draw are the same where both draw them in the same order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from leadline.models.weights import load_weights

LOGITS = 1e-5  # relative to the largest logit
GRADIENTS = 1e-4  # of the norm of each parameter's gradient

Translate = Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]


def torchvision_model(name: str, **options: Any) -> nn.Module:
    """torchvision's model with weights and running statistics that are random, and different."""
    from torchvision.models import get_model  # its operators are declared by conftest, before

    torch.manual_seed(0)
    original: nn.Module = get_model(name, weights=None, **options)
    return randomised(original)


def timm_model(name: str, **options: Any) -> nn.Module:
    """timm's model with weights and running statistics that are random, and different."""
    from timm import create_model as timm_create

    torch.manual_seed(0)
    original: nn.Module = timm_create(name, pretrained=False, **options)
    return randomised(original)


def randomised(model: nn.Module) -> nn.Module:
    """No weight at 0 or 1, where a swap of two would not be seen; no layer scale near 0."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim < 2 or parameter.std() < 1e-3:
                parameter.copy_(parameter + 0.1 * torch.rand_like(parameter))
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                assert module.running_mean is not None
                assert module.running_var is not None
                module.running_mean.normal_(std=0.1)
                module.running_var.uniform_(0.5, 1.5)
    return model


def assert_same(
    ours: nn.Module,
    original: nn.Module,
    images: Tensor,
    *,
    translate: Translate = lambda state: state,
    first: Callable[[Any], tuple[Tensor, ...]] = lambda output: (
        (output,) if isinstance(output, Tensor) else tuple(output)
    ),
) -> None:
    """The original's state dict loads into ours, and both compute the same from then on.

    `translate` renames the keys where the names differ. `first` makes tensors of what a model
    returns. The gradients are those of the sum of squares of all outputs in training mode.
    """
    count = sum(parameter.numel() for parameter in original.parameters())
    assert sum(parameter.numel() for parameter in ours.parameters()) == count
    load_weights(ours, translate(original.state_dict()))
    for training in (False, True):
        with torch.no_grad():
            _assert_close(*(first(_run(m, images, training)) for m in (ours, original)))
    # running statistics have moved by now, in both alike
    theirs = translate(original.state_dict())
    for key, value in ours.state_dict().items():
        if key in theirs:
            torch.testing.assert_close(value, theirs[key], rtol=1e-4, atol=1e-5)
    for model in (ours, original):
        outputs = first(_run(model, images, True))
        sum((output.square().sum() for output in outputs), torch.zeros(())).backward()
    expected = translate({k: _gradient(p) for k, p in original.named_parameters()})
    for key, parameter in ours.named_parameters():
        difference = (_gradient(parameter) - expected[key]).norm()
        assert difference <= GRADIENTS * expected[key].norm() + 1e-12, (
            f"gradient of {key}: {difference.item()} beside {expected[key].norm().item()}"
        )


def _run(model: nn.Module, images: Tensor, training: bool) -> Any:
    torch.manual_seed(5)
    return model.train(training)(images)


def _gradient(parameter: nn.Parameter) -> Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


def _assert_close(ours: tuple[Tensor, ...], theirs: tuple[Tensor, ...]) -> None:
    assert len(ours) == len(theirs)
    for logits, expected in zip(ours, theirs, strict=True):
        assert logits.shape == expected.shape
        difference = (logits - expected).abs().max() / expected.abs().max()
        assert difference.item() < LOGITS, f"logits differ by {difference.item()}"
