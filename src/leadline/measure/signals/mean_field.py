"""Mean-field theory: what a wide, dense, random network does to size and likeness of its inputs.

With weights of variance sw2 / fan_in and biases of variance sb2, the sums that enter a wide layer
are Gaussian. Their variance q and the correlation c of those of two inputs obey

    q' = sw2 E[f(sqrt(q) z)^2] + sb2                the length map
    c' = (sw2 E[f(u) f(v)] + sb2) / q'              the correlation map, u, v ~ N(0, q), corr. c
    chi = sw2 E[f'(sqrt(q) z)^2]                    the slope of the correlation map at c = 1

chi also multiplies the gradient's mean square in every layer on the way back. Below 1 (ordered) all
inputs end up alike and gradients vanish; above 1 (chaotic) neighbours part and gradients explode;
at 1 (critical) both pass through any depth: the edge of chaos, where networks can be trained
(Poole et al. 2016, arXiv:1606.05340; Schoenholz et al. 2017, arXiv:1611.01232).

The surprising choice: fixed points are found by a sign change of q' - q and bisection, not by
iterating the map, which would take forever exactly where it matters, on the critical line.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from leadline.core.config import check, in_range
from leadline.core.errors import MeasurementError
from leadline.core.names import look_up
from leadline.core.profile import Profile
from leadline.measure.signals.gaussian_expectation import (
    Function,
    derivative,
    gaussian_mean,
    gaussian_pair_mean,
)
from leadline.nn.activations import activation_gain, make_activation

Phase = Literal["ordered", "critical", "chaotic"]

SMALLEST = 1e-12  # a variance below it counts as 0
LARGEST = 1e8  # a variance above it counts as infinite
PER_DECADE = 8  # places per factor of ten where a sign change of q' - q is looked for
CRITICAL = 1e-6  # a slope this near to 1 counts as 1
SAME = 1e-10  # a variance that one layer changes by less, relatively, is a fixed point


@dataclass(frozen=True, kw_only=True)
class FixedPoint:
    """Where size and likeness settle at great depth, and how many layers that takes.

    `variance` is q*: 0 where the signal dies out, infinity where it grows for ever. `correlation`
    is c*, to which the correlation of any two inputs tends; NaN where every correlation stays as it
    is, as in a linear network. `slope` is chi at q* and c = 1. After `variance_depth` layers the
    distance to q* has changed by a factor e, after `correlation_depth` that to c*, and after
    `gradient_depth` the gradient's mean square: infinite where it stays. Depths are in layers.
    """

    variance: float
    correlation: float
    slope: float
    phase: Phase
    variance_depth: float
    correlation_depth: float

    @property
    def gradient_depth(self) -> float:
        """Layers in which the mean square of the gradient changes by a factor e."""
        return _depth(self.slope)


@dataclass(frozen=True, kw_only=True)
class MeanField:
    """A dense random network: its activation, by name or as a function, and its two variances.

    `weight_variance` is sw2 = fan_in * var(weight), `bias_variance` is sb2 = var(bias). Raises
    ConfigError for a variance out of range, UnknownNameError for an unknown activation.

    >>> he = MeanField(activation="relu", weight_variance=2.0)
    >>> round(he.variance_map(3.0), 10), round(he.slope(3.0), 10)
    (3.0, 1.0)
    >>> he.fixed_point().phase
    'critical'
    >>> MeanField(activation="tanh", weight_variance=2.5**2).fixed_point().phase
    'chaotic'
    """

    activation: str | Callable[[Tensor], Tensor]
    weight_variance: float
    bias_variance: float = 0.0

    def __post_init__(self) -> None:
        check(
            self,
            in_range("weight_variance", self.weight_variance, 0, open_low=True, open_high=True),
            in_range("bias_variance", self.bias_variance, 0, open_high=True),
        )
        _function(self.activation)

    def variance_map(self, variance: float) -> float:
        """q of the next layer from q of this one."""
        return float(self._next_variances(torch.tensor([variance], dtype=torch.float64))[0])

    def correlation_map(self, correlation: float, *, variance: float) -> float:
        """c of the next layer from c of this one, for two inputs that both have the variance q."""
        passed = gaussian_pair_mean(
            _function(self.activation), variance=variance, correlation=correlation
        )
        together = self.weight_variance * passed + self.bias_variance
        return together / self.variance_map(variance)

    def slope(self, variance: float, *, correlation: float = 1.0) -> float:
        """sw2 E[f'(u) f'(v)], which at c = 1 is chi, the growth of the gradient's mean square."""
        slope = derivative(_function(self.activation))
        passed = gaussian_pair_mean(slope, variance=variance, correlation=correlation)
        return self.weight_variance * passed

    def fixed_point(self, *, start: float = 1.0) -> FixedPoint:
        """Where a signal ends up whose variance begins at `start` (there may be several ends)."""
        limit = self._limit(start)
        at = min(max(limit, SMALLEST), LARGEST)
        chi = self.slope(at)
        # Where the size itself still changes, the cosine is q / q' as steep as chi says.
        stretch = at / self.variance_map(at)
        correlation = self._correlation_limit(at, chi * stretch)
        around = self.slope(at, correlation=1.0 if math.isnan(correlation) else correlation)
        return FixedPoint(
            variance=limit,
            correlation=correlation,
            slope=chi,
            phase=_phase(chi),
            variance_depth=_depth(self._variance_slope(at)),
            correlation_depth=_depth(around * stretch),
        )

    def propagate(self, depth: int, *, variance: float = 1.0, correlation: float = 0.0) -> Profile:
        """The theory's profile: q and c of `depth` layers, from those of the first one's sums.

        The last column is the mean square of the gradient relative to that at the last layer.

        >>> he = MeanField(activation="relu", weight_variance=2.0)
        >>> [round(q, 10) for q in he.propagate(3).column("variance")]
        [1.0, 1.0, 1.0]
        """
        if problem := in_range("depth", depth, 1):
            raise MeasurementError(
                expected="one layer or more", received=problem, remedy="give the number of layers"
            )
        variances, correlations = [variance], [correlation]
        for _ in range(depth - 1):
            before = variances[-1]
            correlations.append(self.correlation_map(correlations[-1], variance=before))
            variances.append(self.variance_map(before))
        gradients = [1.0]
        for passed in reversed(variances[:-1]):
            gradients.append(gradients[-1] * self.slope(passed))
        return Profile(
            name="mean-field theory of a dense network",
            unit="1",
            reading="constant columns are an initialisation that any depth can be trained from; "
            "a correlation that tends to 1 means that the network no longer tells inputs apart",
            layers=tuple(f"layer {number}" for number in range(1, depth + 1)),
            values={
                "variance": tuple(variances),
                "correlation": tuple(correlations),
                "gradient": tuple(reversed(gradients)),
            },
        )

    def _next_variances(self, variances: Tensor) -> Tensor:
        function = _function(self.activation)
        passed = gaussian_mean(lambda x: function(x).square(), variances)
        return self.weight_variance * passed + self.bias_variance

    def _growth(self, variance: float) -> float:
        return self.variance_map(variance) / variance - 1

    def _limit(self, start: float) -> float:
        """The first fixed point of the length map in the direction in which it sets out."""
        if problem := in_range("start", start, SMALLEST, LARGEST):
            raise MeasurementError(
                expected="a variance to start from", received=problem, remedy="scale the inputs"
            )
        growth = self._growth(start)
        if abs(growth) < SAME:
            return start
        end = LARGEST if growth > 0 else SMALLEST
        count = 2 + math.ceil(PER_DECADE * abs(math.log10(end / start)))
        places = torch.logspace(math.log10(start), math.log10(end), count, dtype=torch.float64)
        moves = self._next_variances(places) / places - 1
        turned = (moves * growth <= 0).nonzero()
        if len(turned) == 0:
            return math.inf if growth > 0 else 0.0
        index = max(1, int(turned[0]))
        near, far = math.log(places[index - 1]), math.log(places[index])
        while abs(far - near) > 1e-14 * max(1.0, abs(far)):
            middle = (near + far) / 2
            if middle in (near, far):
                break
            near, far = (
                (middle, far) if self._growth(math.exp(middle)) * growth > 0 else (near, middle)
            )
        return math.exp((near + far) / 2)

    def _correlation_limit(self, variance: float, slope: float) -> float:
        """c*. The map is convex from c = 0 on, so that below 1 it crosses c' = c at most once."""
        unlike = self.correlation_map(0.0, variance=variance)
        if slope <= 1 + CRITICAL:
            return 1.0 if unlike > 1e-9 else math.nan
        low, high = 0.0, 1.0
        if unlike <= 1e-12:
            return 0.0
        for _ in range(52):
            middle = (low + high) / 2
            if self.correlation_map(middle, variance=variance) > middle:
                low = middle
            else:
                high = middle
        return low

    def _variance_slope(self, variance: float) -> float:
        """dq'/dq = sw2 E[f f' z] / sqrt(q): without f'', which a kink does not have."""
        function = _function(self.activation)
        slope = derivative(function)
        passed = gaussian_mean(lambda x: function(x) * slope(x) * x, variance)
        return self.weight_variance * float(passed) / variance


def edge_of_chaos(
    activation: str | Callable[[Tensor], Tensor], *, variance: float = 1.0
) -> MeanField:
    """The point of the critical line (chi = 1) whose fixed point is q* = `variance`.

        sw2 = 1 / E[f'(sqrt(q*) z)^2],  sb2 = q* - sw2 E[f(sqrt(q*) z)^2]

    Raises MeasurementError where that would take biases of negative variance.

    >>> relu = edge_of_chaos("relu")
    >>> round(relu.weight_variance, 10), relu.bias_variance
    (2.0, 0.0)
    """
    function = _function(activation)
    slope = derivative(function)
    weight = 1 / float(gaussian_mean(lambda x: slope(x).square(), variance))
    bias = variance - weight * float(gaussian_mean(lambda x: function(x).square(), variance))
    if bias < -1e-9 * variance:
        raise MeasurementError(
            expected=f"an activation that can be critical at the variance {variance}",
            received=f"{activation}, whose biases would need the variance {bias:.3g}",
            remedy="choose another variance",
        )
    return MeanField(
        activation=activation,
        weight_variance=weight,
        bias_variance=0.0 if bias < 1e-12 * variance else bias,
    )


def mean_field_of(
    scheme: str, *, activation: str, fan_in: int = 1, fan_out: int | None = None
) -> MeanField:
    """The theory of a dense network as `leadline.nn.initialisation.initialise` leaves it.

    Without `fan_out` layers are square; `fan_in` matters for the biases of `default` alone then.
    Raises UnknownNameError for an unknown scheme and for the two that are made for residual
    networks, of which this theory says nothing.

    >>> mean_field_of("he", activation="relu").fixed_point().phase
    'critical'
    >>> round(mean_field_of("xavier", activation="relu").variance_map(1.0), 10)
    0.5
    """
    gain, outputs = activation_gain(activation), fan_out or fan_in
    variances = {
        "xavier": 2 * fan_in / (fan_in + outputs),
        "he": gain**2,
        "lecun": 1.0,
        "trunc_normal": 0.02**2 * fan_in,
        "orthogonal": gain**2 * fan_in / max(fan_in, outputs),
        "default": 1 / 3,  # uniform within 1 / sqrt(fan_in), weights and biases
    }
    weight = look_up(scheme, variances, kind="initialisation with a mean-field theory")
    bias = 1 / (3 * fan_in) if scheme == "default" else 0.0
    return MeanField(activation=activation, weight_variance=weight, bias_variance=bias)


def _function(activation: str | Function) -> Function:
    return make_activation(activation) if isinstance(activation, str) else activation


def _phase(slope: float) -> Phase:
    if abs(slope - 1) <= CRITICAL:
        return "critical"
    return "ordered" if slope < 1 else "chaotic"


def _depth(factor: float) -> float:
    """Layers until a quantity multiplied by `factor` in each has changed by e."""
    change = abs(math.log(factor)) if factor > 0 else math.inf
    return math.inf if change < CRITICAL else 1 / change
