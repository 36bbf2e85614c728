"""The Jacobian of a chain of layers: each link's own, and that the whole is their product.

    J = J_L ... J_2 J_1,   J_l = d output of layer l / d output of layer l-1

A network passes on what each of its layers passes on, multiplied: ten layers at 0.9 leave
0.9^10 = 0.349 of a gradient. One forward pass is cut behind each layer, so that every link has a
graph of its own and costs no more than its layers.

The surprising choice is that the chain rule is measured, not assumed: random gradients are sent
back through all links one after the other, and through the whole network at once. Where something
flows past the named layers, an outer shortcut for example, the two differ and `product_error` says
by how much.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from leadline.core.errors import MeasurementError
from leadline.core.profile import Profile
from leadline.core.seeds import preserved_random_state
from leadline.core.taps import Call, Taps, plain_name
from leadline.measure.batch import read_batch
from leadline.measure.jacobians.jacobian import JacobianSpectrum, spectrum_of
from leadline.measure.jacobians.jacobian_map import INPUT, JacobianMap, jacobian_links

GRADIENTS = 8
"""How many random gradients are sent back through the chain."""


@dataclass(frozen=True, kw_only=True)
class JacobianChain:
    """The links of a chain, the whole, and how well their product is the whole.

    `profile` has a row for each link, the means over the examples: the `largest` and `smallest`
    singular value (NaN when randomised), `mean squared`, `variance squared`, `distance` from
    isometry, `condition`, and `gradient`: what is left of a random gradient of length 1 at the end
    when it arrives before this link. `product_error` is the relative difference of gradients sent
    through the links and through the whole: rounding (below 1e-4) where the layers are a chain.
    """

    profile: Profile
    links: tuple[JacobianSpectrum, ...]
    whole: JacobianSpectrum
    product_error: float


def jacobian_chain(
    model: nn.Module,
    inputs: Any,
    *,
    layers: Sequence[str] | None = None,
    start: str = INPUT,
    examples: int = 4,
    method: str = "auto",
    rank: int = 16,
    power_iterations: int = 3,
    double: bool = False,
    seed: int = 0,
) -> JacobianChain:
    """Measure the Jacobian of each layer of a chain, from `start` to the last of `layers`.

    `layers` are names of modules in the order in which they run; without them the model's children
    that the batch passes, behind `start`. The other arguments and the errors are those of
    `jacobian_spectrum`. Cost: 2 forward passes and the products of `jacobian_spectrum` once for
    each link, each through its own layers only, and once for the whole. Unit: 1.

    Read it: the links' distances are small where each layer is nearly an isometry; small ones add
    up over the depth, and the link with the largest is where to begin. `gradient` shrinking from
    the last row to the first is a gradient that vanishes, growing one that explodes.

    >>> scale = nn.Linear(2, 2, bias=False)
    >>> _ = nn.init.eye_(scale.weight).data.mul_(0.5)
    >>> chain = jacobian_chain(nn.Sequential(scale, nn.Identity(), scale), torch.ones(1, 2))
    >>> [round(value, 6) for value in chain.profile.column("gradient")]
    [0.25, 0.5, 0.5]
    >>> chain.product_error < 1e-6
    True
    """
    names = _children(model, inputs, start) if layers is None else tuple(layers)
    if not names or len(set(names)) < len(names):
        raise MeasurementError(
            expected="the names of layers, each once",
            received=f"layers={names}",
            remedy="name modules that run one after the other; 'name (call 2)' is a second call",
        )
    spectrum = partial(
        spectrum_of, method=method, rank=rank, power_iterations=power_iterations, seed=seed
    )
    links_of = partial(jacobian_links, model, inputs, examples=examples, double=double)
    with preserved_random_state(), links_of(places=(start, names[-1])) as (whole,):
        gradients = _random_gradients(whole, seed)
        whole_spectrum, at_once = spectrum(whole), whole.vjp(gradients)
    with links_of(places=(start, *names)) as links:  # with the same dropout again
        spectra = tuple(spectrum(link) for link in links)
        passed: list[float] = []
        for link in reversed(links):
            gradients = link.vjp(gradients)
            passed.insert(0, float(gradients.norm(dim=-1).square().mean().sqrt()))
    return JacobianChain(
        profile=_profile(names, spectra, passed),
        links=spectra,
        whole=whole_spectrum,
        product_error=_relative_difference(gradients, at_once),
    )


def _children(model: nn.Module, inputs: Any, start: str) -> tuple[str, ...]:
    """The model's children in the order in which this batch passes them, those behind `start`."""
    own = {plain_name(name) for name, _ in model.named_modules()}
    own = {name for name in own if "." not in name}
    seen: list[str] = []

    def note(call: Call, inputs: tuple[Any, ...], output: Any) -> None:
        if call.name in own and isinstance(call.module, nn.Module):
            seen.append(call.name if call.number == 0 else f"{call.name} (call {call.number + 1})")

    with Taps(model) as taps, torch.no_grad():
        taps.on_output(note)
        read_batch(inputs, model=model).first(1).forward(model)
    seen = seen[:-1]  # the whole model itself
    return tuple(seen[seen.index(start) + 1 :] if start in seen else seen)


def _random_gradients(whole: JacobianMap, seed: int) -> Tensor:
    """Random gradients of length 1 at the end, [K, E, M]."""
    generator = torch.Generator().manual_seed(seed)
    shape = (GRADIENTS, whole.examples, whole.shape[0])
    drawn = torch.randn(shape, generator=generator, dtype=torch.float64)
    return nn.functional.normalize(drawn, dim=-1).to(whole.target)


def _profile(
    names: tuple[str, ...], spectra: tuple[JacobianSpectrum, ...], passed: list[float]
) -> Profile:
    def means(values: list[tuple[float, ...]]) -> tuple[float, ...]:
        return tuple(statistics.fmean(row) for row in values)

    def smallest(spectrum: JacobianSpectrum) -> tuple[float, ...]:
        known = spectrum.method == "exact"
        return tuple(row[-1] if known else math.nan for row in spectrum.singular_values)

    return Profile(
        name="Jacobian of each layer",
        unit="1",
        reading="singular values near 1 keep signal and gradient; 'gradient' that shrinks from the "
        "last layer to the first vanishes, and explodes where it grows",
        layers=names,
        values={
            "largest": means([tuple(row[0] for row in s.singular_values) for s in spectra]),
            "smallest": means([smallest(s) for s in spectra]),
            "mean squared": means([s.mean_squared for s in spectra]),
            "variance squared": means([s.variance_squared for s in spectra]),
            "distance": means([s.distance for s in spectra]),
            "condition": means([s.condition for s in spectra]),
            "gradient": tuple(passed),
        },
    )


def _relative_difference(found: Tensor, expected: Tensor) -> float:
    difference = float((found - expected).norm())
    return difference / max(float(expected.norm()), torch.finfo(found.dtype).tiny)
