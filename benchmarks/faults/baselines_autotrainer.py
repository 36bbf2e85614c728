"""AUTOTRAINER's thresholds (Zhang et al., ICSE 2021, TDSC 2024; `monitor.py`, `repair.py`).

It judges as `IssueMonitor.judge_issue` does, and acts only on a training that explodes, misses its
target or no longer learns. A symptom means the causes that its repairs treat, in the order in which
it tries them. Its accuracy is Keras', for regression too: the tool cannot do without one.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

from baselines_watch import Look, Watched, watch

from leadline.training.execution import Execution
from leadline.training.setup import Setup

# All from monitor.py and its default parameters.
VANISHING_RATIO = 1e-3  # beta_1: gradient norm of the first layer over that of the last
VANISHING_NORM = 1e-4  # beta_2: gradient norm of the first layer
EXPLODING_RATIO = 70  # beta_3: the same ratio
DEAD_SHARE = 0.7  # gamma: of the gradient's numbers that are exactly 0
OSCILLATION = 0.03  # zeta: between a local maximum of the accuracy and a local minimum
OSCILLATING_SHARE = 0.2  # eta: of the epochs with such a pair
SLOWEST_GAIN = 0.01  # delta: of accuracy, the largest from one epoch to the next
TARGET = 0.6  # Theta: the accuracy to reach
LARGEST_LOSS = 1e3
LARGEST_OUTPUT = 10  # omega_1: mean |output| of a hidden layer
LARGEST_SUM = 1.1  # omega_2 + 0.1: the |outputs| of an example, which are to be probabilities
WIDEST_BINARY = 2  # outputs; with 2 either kind of loss is accepted

CAUSES: dict[str, tuple[str, ...]] = {
    # Its one repair normalises the data.
    "abnormal_data": ("input_not_normalized",),
    # Its one repair exchanges the last activation for the one that fits the loss.
    "activation_issue": ("output_activation_wrong",),
    # SELU, batch norm, initialisation, leaky ReLU.
    "relu": ("hidden_activation_wrong", "norm_missing", "init_bad_scale"),
    # SELU, ReLU, clipping, tanh, batch norm; there is no word for a missing clip.
    "explode": ("hidden_activation_wrong", "norm_missing"),
    # SELU, ReLU, batch norm.
    "vanish": ("hidden_activation_wrong", "norm_missing"),
    # Another optimizer, a higher rate, initialisation.
    "not_converge": ("optimizer_wrong", "lr_too_low", "init_bad_scale"),
    # Adam, a lower rate, a rate that falls, larger batches, momentum, noise, initialisation.
    "unstable": (
        *("optimizer_wrong", "lr_too_high", "batch_size_too_small"),
        *("optimizer_params_wrong", "init_bad_scale"),
    ),
    # Its one repair exchanges the loss for the one that fits the number of outputs.
    "loss_issue": ("loss_wrong",),
}
"""The tool's issues by its own names, and the causes that its repairs treat."""


def autotrainer(setup: Setup, *, execution: Execution | None = None) -> tuple[str, ...]:
    """The causes AUTOTRAINER would treat, in its order."""
    watched = watch(setup, execution or Execution(threads=1))
    return tuple(dict.fromkeys(cause for issue in _issues(watched) for cause in CAUSES[issue]))


def _issues(watched: Watched) -> Iterator[str]:
    looks = watched.looks
    improper, unfit = _loss_issue(watched)
    ends_wrong = unfit or any(look.largest_sum > LARGEST_SUM for look in looks)
    abnormal = not ends_wrong and any(
        layer.absolute >= LARGEST_OUTPUT for look in looks for layer in look.layers[:-1]
    )
    exploded = watched.diverged or any(_large(look) for look in looks)
    courses = [[look.accuracy for look in looks], [look.held_out_accuracy for look in looks]]
    courses = [course for course in courses if not math.isnan(course[0])]
    missed = all(max(course) < TARGET for course in courses)
    slow = all(_largest_gain(course) < SLOWEST_GAIN for course in courses)
    acts = bool(courses) and (missed or slow)
    if abnormal and (exploded or acts):
        yield "abnormal_data"
    if exploded:
        yield "explode"
    if exploded or not acts:
        return
    found = next(_of_layers(looks, ends_wrong=ends_wrong), None)
    if found is not None:
        yield found
    elif missed and slow and not abnormal:
        yield "not_converge"
    if _oscillates([look.accuracy for look in looks]):
        yield "activation_issue" if ends_wrong else "unstable"
    if improper and not ends_wrong:
        yield "loss_issue"


def _of_layers(looks: Sequence[Look], *, ends_wrong: bool) -> Iterator[str]:
    """The first of the issues that are read off layers and gradients."""
    ratios = [_first_over_last(look) for look in looks]
    if ends_wrong:
        yield "activation_issue"
    elif any(_dead(look) for look in looks):
        yield "relu"
    elif any(ratio > EXPLODING_RATIO for ratio, _ in ratios):
        yield "explode"
    elif any(ratio < VANISHING_RATIO and norm < VANISHING_NORM for ratio, norm in ratios):
        yield "vanish"


def _loss_issue(watched: Watched) -> tuple[bool, bool]:
    """Whether the loss does not fit the number of outputs, and whether the last layer not it."""
    fits = (watched.width <= WIDEST_BINARY and watched.binary) or (
        watched.width >= WIDEST_BINARY and watched.categorical
    )
    if not fits or watched.from_logits:
        return not fits, False
    return False, watched.ending != ("sigmoid" if watched.binary else "softmax")


def _large(look: Look) -> bool:
    return any(math.isinf(loss) or loss >= LARGEST_LOSS for loss in (look.loss, look.held_out_loss))


def _first_over_last(look: Look) -> tuple[float, float]:
    """The gradient norm of the first layer over that of the last, and the first one."""
    norms = [weight.gradient_norm for weight in look.weights if weight.kernel]
    norms = norms or [weight.gradient_norm for weight in look.weights]
    if not norms:
        return math.nan, math.nan
    if norms[-1] == 0:
        return (math.inf if norms[0] else math.nan), norms[0]
    return norms[0] / norms[-1], norms[0]


def _dead(look: Look) -> bool:
    size = sum(weight.size for weight in look.weights)
    return size > 0 and sum(weight.gradient_zeros for weight in look.weights) >= DEAD_SHARE * size


def _largest_gain(course: Sequence[float]) -> float:
    return max((now - before for before, now in itertools.pairwise(course)), default=0.0)


def _oscillates(course: Sequence[float]) -> bool:
    """Pairs of local extrema, the n-th maximum with the n-th minimum, that lie far apart."""
    inner = [(course[i - 1], course[i], course[i + 1]) for i in range(1, len(course) - 1)]
    maxima = [now for before, now, after in inner if now >= before and now >= after]
    minima = [now for before, now, after in inner if now <= before and now <= after]
    wide = sum(
        high - low >= OSCILLATION for high, low in zip(maxima, minima, strict=False)
    )  # the longer list is cut, as there
    return wide > 0 and wide >= OSCILLATING_SHARE * len(course)
