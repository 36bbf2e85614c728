"""Curvature held to curvlinops: the same matrices, in the same convention of the mean."""

from __future__ import annotations

import warnings
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from leadline.measure.curvature.curvature import curvature_matrix
from leadline.measure.curvature.eigenvalues import eigenvalues
from leadline.measure.curvature.trace import trace

LOSSES: dict[str, nn.Module] = {
    "cross entropy": nn.CrossEntropyLoss(),
    "squared error": nn.MSELoss(),
    "binary cross entropy": nn.BCEWithLogitsLoss(),
}


@pytest.fixture(scope="module")
def curvlinops() -> ModuleType:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it uses torch.jit.script, which is deprecated
        return pytest.importorskip("curvlinops", reason="missing: curvlinops-for-pytorch")


def build(name: str) -> tuple[nn.Module, list[tuple[Tensor, Tensor]]]:
    """A convolutional net in evaluation mode and three batches of unequal size."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1),
        nn.BatchNorm2d(3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(48, 6),
        nn.Tanh(),
        nn.Linear(6, 3),
    )
    inputs = torch.randn(10, 1, 4, 4, dtype=torch.float64)
    targets = torch.randint(0, 3, (10,))
    if name == "squared error":
        targets = torch.randn(10, 3, dtype=torch.float64)
    elif name == "binary cross entropy":
        targets = torch.randint(0, 2, (10, 3)).double()
    parts = list(zip(inputs.split([5, 3, 2]), targets.split([5, 3, 2]), strict=True))
    return model.double().eval(), parts


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize(
    ("matrix", "operator"),
    [
        ("hessian", "HessianLinearOperator"),
        ("gauss_newton", "GGNLinearOperator"),
        ("fisher", "GGNLinearOperator"),
        ("empirical_fisher", "EFLinearOperator"),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
def test_products_are_those_of_curvlinops(
    curvlinops: ModuleType, name: str, matrix: Any, operator: str
) -> None:
    model, parts = build(name)
    theirs = getattr(curvlinops, operator)(
        model, LOSSES[name], list(model.parameters()), parts, check_deterministic=False
    )
    ours = curvature_matrix(model, parts, loss=LOSSES[name], matrix=matrix)
    for vector in torch.randn(2, ours.dimension, dtype=torch.float64):
        expected = theirs @ vector
        assert (ours @ vector - expected).norm() < 1e-10 * expected.norm()


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
def test_eigenvalues_and_trace_are_those_of_curvlinops_dense_hessian(
    curvlinops: ModuleType,
) -> None:
    model, parts = build("cross entropy")
    batch = tuple(torch.cat(column) for column in zip(*parts, strict=True))
    theirs = curvlinops.HessianLinearOperator(
        model, LOSSES["cross entropy"], list(model.parameters()), [batch], check_deterministic=False
    )
    dense = theirs @ torch.eye(theirs.shape[0], dtype=torch.float64)
    exact = sorted(torch.linalg.eigvalsh((dense + dense.T) / 2).tolist(), key=abs, reverse=True)
    found = eigenvalues(model, batch, loss=LOSSES["cross entropy"])
    assert found.values == pytest.approx(exact[:5], rel=1e-4)
    whole = trace(model, batch, loss=LOSSES["cross entropy"], products=theirs.shape[0])
    assert whole.value == pytest.approx(sum(exact), rel=1e-4)
