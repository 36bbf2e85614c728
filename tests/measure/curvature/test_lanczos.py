"""Tests of Lanczos: matrices whose spectrum is known, and those that are awkward."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from leadline.core.errors import MeasurementError
from leadline.measure.curvature.lanczos import EigenPairs, Krylov, Search, eigenpairs


def matrix(spectrum: Tensor, *, seed: int = 0) -> Tensor:
    """A dense symmetric matrix of this spectrum in a random basis."""
    size = len(spectrum)
    generator = torch.Generator().manual_seed(seed)
    gauss = torch.randn(size, size, generator=generator, dtype=torch.float64)
    basis = torch.linalg.qr(gauss).Q
    return basis @ torch.diag(spectrum.double()) @ basis.T


def find(a: Tensor, count: int, *, order: object = torch.abs, **options: object) -> EigenPairs:
    search = Search(**{"count": count, "tolerance": 1e-8, **options})  # type: ignore[arg-type]
    return eigenpairs(lambda v: a @ v, order, search, like=a[0])  # type: ignore[arg-type]


def spread(size: int = 200) -> Tensor:
    """A bulk around zero and four that stand out, as networks have it."""
    bulk = torch.linspace(-1, 1, size - 4)
    return torch.cat([bulk, torch.tensor([9.0, -7.0, 5.0, 4.9])])


@pytest.mark.parametrize("seed", range(3))
def test_pairs_are_found_to_the_tolerance_with_true_residuals(seed: int) -> None:
    a = matrix(spread(), seed=seed)
    found = find(a, 4, seed=seed)
    assert found.converged
    assert torch.allclose(found.values, torch.tensor([9.0, -7.0, 5.0, 4.9]).double(), rtol=1e-8)
    for value, vector in zip(found.values, found.vectors, strict=True):
        assert (a @ vector - value * vector).norm() < 1e-3
    gram = found.vectors @ found.vectors.T
    assert torch.allclose(gram, torch.eye(4, dtype=torch.float64), atol=1e-10)


def test_the_residual_told_without_a_product_is_the_one_measured_with_it() -> None:
    a = matrix(spread())
    found = find(a, 3, tolerance=1e-6, look_again=False)
    measured = (a @ found.vectors.T - found.vectors.T * found.values).norm(dim=0)
    assert torch.allclose(measured, found.residuals, rtol=1e-4)
    exact = torch.tensor([9.0, -7.0, 5.0])
    assert bool(((found.values - exact).abs() <= found.residuals).all())


@pytest.mark.parametrize(
    ("order", "expected"),
    [(torch.clone, [9.0, 5.0, 4.9]), (torch.neg, [-7.0, -1.0]), (torch.abs, [9.0, -7.0])],
)
def test_either_end_can_be_asked_for(order: object, expected: list[float]) -> None:
    found = find(matrix(spread()), len(expected), order=order)
    assert found.values.tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_repeated_eigenvalues_count_as_often_as_they_are_there(seed: int) -> None:
    spectrum = torch.cat([torch.linspace(-1, 1, 150), torch.tensor([6.0] * 3 + [4.0] * 2 + [3.0])])
    found = find(matrix(spectrum, seed=seed), 6, seed=seed, tolerance=1e-6)
    assert found.values.tolist() == pytest.approx([6, 6, 6, 4, 4, 3], rel=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_a_repeated_eigenvalue_far_below_the_largest_is_found(seed: int) -> None:
    spectrum = torch.cat([torch.linspace(-1, 1, 150), torch.tensor([1e4, 90.0, 8.0, 8.0, 6.0])])
    found = find(matrix(spectrum, seed=seed), 5, seed=seed, tolerance=1e-4)
    assert found.values.tolist() == pytest.approx([1e4, 90, 8, 8, 6], rel=1e-3)


@pytest.mark.parametrize("value", [0.0, 3.0])
def test_a_multiple_of_the_identity_has_every_direction(value: float) -> None:
    found = find(value * torch.eye(20, dtype=torch.float64), 4)
    assert found.converged
    assert found.values.tolist() == pytest.approx([value] * 4)
    assert int(torch.linalg.matrix_rank(found.vectors)) == 4


def test_a_matrix_of_low_rank_is_filled_up_with_zeros() -> None:
    spectrum = torch.zeros(30)
    spectrum[:2] = torch.tensor([5.0, -2.0])
    found = find(matrix(spectrum), 4)
    assert found.values.tolist() == pytest.approx([5, -2, 0, 0], abs=1e-9)


@pytest.mark.parametrize("size", [1, 2, 7])
def test_all_eigenvalues_of_a_small_matrix_are_exact(size: int) -> None:
    a = matrix(torch.arange(1.0, size + 1))
    found = find(a, size)
    assert found.values.tolist() == pytest.approx(list(range(size, 0, -1)), rel=1e-12)


def test_a_small_basis_is_restarted_without_a_loss() -> None:
    a = matrix(spread(400))
    large, small = find(a, 4), find(a, 4, basis=10)
    assert torch.allclose(large.values, small.values, rtol=1e-8)
    assert small.products > 10  # so it was restarted
    assert small.converged


def test_a_budget_that_ends_first_is_told() -> None:
    found = find(matrix(torch.linspace(0, 1, 300)), 3, max_products=8)
    assert not found.converged
    assert found.products == 8
    assert len(found.values) == 3


def test_single_precision_reaches_its_own_rounding() -> None:
    a = matrix(spread()).float()
    found = find(a, 4, tolerance=1e-4)
    assert found.values.tolist() == pytest.approx([9, -7, 5, 4.9], rel=1e-5)


def test_orthogonality_is_kept_where_plain_lanczos_loses_it() -> None:
    a = matrix(torch.cat([torch.linspace(0, 1e-3, 190), torch.linspace(1, 1e4, 10)]))
    generator = torch.Generator().manual_seed(0)
    krylov = Krylov(lambda v: a @ v, a[0], size=150, generator=generator)
    while not krylov.full:
        krylov.grow()
    basis = krylov.basis[:150]
    assert (basis @ basis.T - torch.eye(150, dtype=torch.float64)).abs().max() < 1e-12


def test_the_same_seed_gives_the_same_pairs_and_draws_from_no_other_stream() -> None:
    a, state = matrix(spread()), torch.get_rng_state()
    assert torch.equal(find(a, 3, seed=5).vectors, find(a, 3, seed=5).vectors)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_product_that_is_not_finite_is_explained() -> None:
    with pytest.raises(MeasurementError, match="second derivative is infinite"):
        find(torch.full((4, 4), float("nan"), dtype=torch.float64), 2)
