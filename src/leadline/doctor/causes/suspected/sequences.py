"""Faults of sequences: targets at the wrong place, a state read behind the end, a head not tied.

Padding is told from content without a name for it: it is what stands again and again behind the
ends of sequences of different lengths, and nowhere else. Rows of pixels that are black at the
bottom are black at the top too, and are not taken for it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from leadline.core.taps import Call, Taps, plain_name, tensors_in
from leadline.doctor.causes.architecture import LEAK
from leadline.doctor.finding import Evidence, Finding
from leadline.doctor.patient import Patient
from leadline.doctor.remedies import sequences
from leadline.doctor.remedies.answers import behind_the_end
from leadline.measure.batch import main_output

RUN = 2
"""Places of filler at the end of a sequence from which on it is taken for padding."""

SHARE_OF_ROWS = 0.2
"""Share of the sequences that must end in padding before it is taken for such."""

ELSEWHERE = 0.02
"""Share of the filler that may stand before the end of a sequence."""

ASKED = 128
"""Sequences that a model is asked about."""

MOVES = 1e-3
"""Relative change of the answers, when padding is cut off, beyond what rounding makes."""

FORGOTTEN = 0.01
"""Share of the gradient that content keeps, below which a network reads padding only."""


def certain(patient: Patient) -> Iterator[Finding]:
    """Targets, states and weights that are where they cannot be meant to be."""
    yield from _targets(patient)
    yield from _read_at_padding(patient)
    yield from _tying(patient)


def suspicions(patient: Patient) -> Iterator[Finding]:
    """Nothing about sequences needs a trial: see `certain`."""
    yield from ()


def filler_of(rows: Tensor) -> Tensor | None:
    """What fills sequences [B, T, ...] behind their ends, None where nothing does.

    >>> filler_of(torch.tensor([[3, 4, 0, 0], [5, 6, 7, 8], [2, 0, 0, 0]]))
    tensor(0)
    >>> filler_of(torch.tensor([[3, 4, 5, 1], [5, 6, 7, 1], [2, 8, 9, 1]])) is None
    True
    """
    if rows.ndim < 2 or rows.shape[1] < 4 - (len(rows) < 4) or len(rows) < 2:
        return None
    rows = rows[: ASKED * 8]
    last, counts = torch.unique(rows[:, -1].flatten(1) if rows.ndim > 2 else rows[:, -1], dim=0,
                                return_counts=True)  # fmt: skip
    filler = last[counts.argmax()].reshape(rows.shape[2:])
    behind = behind_the_end(rows, filler)
    lengths = behind.sum(dim=1)
    padded = lengths >= RUN
    if float(padded.float().mean()) < SHARE_OF_ROWS or len(torch.unique(lengths)) < 2:
        return None
    same = rows == filler
    same = same.flatten(2).all(dim=2) if same.ndim > 2 else same
    elsewhere = float((same & ~behind).sum()) / float(same.sum())
    return filler if elsewhere <= ELSEWHERE else None


def filler_share(rows: Tensor, filler: Tensor) -> float:
    """The share of places [B, T] that are behind the end of a sequence."""
    return float(behind_the_end(rows, filler).float().mean())


def _tokens(patient: Patient) -> tuple[Tensor, Tensor] | None:
    """Inputs and targets [B, T] of one vocabulary, None for other problems."""
    seen = patient.seen
    if seen is None or patient.gathered is None or patient.problem.kind != "classes":
        return None
    inputs, targets = patient.gathered
    whole = not inputs.is_floating_point() and not targets.is_floating_point()
    if not whole or inputs.ndim != 2 or inputs.shape != targets.shape or inputs.shape[1] < 4:
        return None
    if int(inputs.max()) >= patient.problem.classes or seen.survey.outputs.ndim != 3:
        return None
    return inputs, targets


def data_shift(inputs: Tensor, targets: Tensor) -> int | None:
    """By how many places targets [B, T] are ahead of inputs [B, T], of -1 to 3; None if by none.

    >>> tokens = torch.arange(20).reshape(2, 10)
    >>> data_shift(tokens[:, :-2], tokens[:, 2:])
    2
    """
    length = inputs.shape[1]
    for shift in (1, 0, 2, -1, 3):
        if shift >= length - 1:
            continue
        shown = inputs[:, max(shift, 0) : length + min(shift, 0)]
        told = targets[:, max(-shift, 0) : length - max(shift, 0)]
        known = told >= 0
        if bool(known.any()) and bool((shown == told)[known].all()):
            distinct = torch.unique(told[known])
            return shift if len(distinct) > 2 else None
    return None


def loss_shift(patient: Patient) -> int | None:
    """By how many places the loss shifts targets by itself; None where it cannot be told.

    One target is changed: the answer whose gradient changes is the one it is held against.
    """
    seen = patient.seen
    assert seen is not None and seen.loss is not None, "asked of language models"
    targets = seen.targets
    if targets is None or targets.ndim != 2:
        return None
    axis, place = patient.problem.axis, targets.shape[1] // 2
    shape = (2, *seen.survey.outputs.shape[1:])
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(seen.survey.outputs)
    held = targets[:2].clamp_min(0)
    other = held.clone()
    other[:, place] = (held[:, place] + 1) % patient.problem.classes
    gradients = []
    for wanted in (held, other):
        leaf = noise.clone().requires_grad_()
        try:
            with torch.enable_grad():
                (gradient,) = torch.autograd.grad(seen.loss(leaf, wanted), leaf)
        except Exception:
            return None  # a loss that takes more than the tensor of the outputs cannot be asked
        gradients.append(gradient.movedim(axis, -1))
    moved = (gradients[0] - gradients[1]).abs().amax(dim=(0, 2))
    places = (moved > 1e-3 * float(moved.max())).nonzero().flatten().tolist()
    return place - places[0] if len(places) == 1 else None


def _targets(patient: Patient) -> Iterator[Finding]:
    found, seen = _tokens(patient), patient.seen
    if found is None or seen is None or seen.loss is None or seen.influence is None:
        return
    if seen.influence.future > LEAK:
        return  # it sees later tokens too: to give back what it is shown may be its task
    data = data_shift(*found)
    loss = loss_shift(patient) if data is not None else None
    if data is None or loss not in (0, 1) or data + loss == 1:
        return
    ahead = data + loss
    said = {
        0: "the token that it is shown at that place: it learns to copy",
        -1: "the token before: it learns to copy",
    }.get(ahead, f"the token {ahead} places on: the next one is left out")
    yield Finding(
        cause="labels_shifted",
        severity="error",
        summary=f"the target of each place is {said}",
        evidence=(
            Evidence(
                quantity="places from a token to what the answer to it is held against",
                measured=float(ahead),
                expected="1, the next token",
            ),
            Evidence(
                quantity="of these, shifted by the loss", measured=float(loss), expected="0 or 1"
            ),
        ),
        remedy="shift once: inputs tokens[:, :-1] and targets tokens[:, 1:]",
        source="huggingface/transformers: models that are given labels shift them by themselves",
        change=sequences.next_token_targets(data=data, loss=loss),
        proven=True,
    )


def _read_at_padding(patient: Patient) -> Iterator[Finding]:
    seen = patient.seen
    if seen is None or patient.gathered is None or len(seen.batch.inputs) != 1:
        return
    names = [plain_name(n) for n, m in seen.model.named_modules() if isinstance(m, nn.RNNBase)]
    inputs = patient.gathered[0]
    filler = filler_of(inputs) if names and inputs.ndim in (2, 3) else None
    if filler is None or seen.survey.outputs.ndim > 2:
        return
    lengths = sequences.lengths_of(inputs, filler)
    short = (lengths <= inputs.shape[1] - RUN).nonzero().flatten()[:ASKED]
    device = next(seen.model.parameters()).device
    examples = inputs[short].to(device)
    with Taps(seen.model):
        seen.model.eval()
        moved = _moved_by_cropping(seen.model, examples[:16], lengths[short][:16])
        if moved is None or not moved > MOVES or not _reads_last_only(seen.model, examples[:16]):
            return
        kept = _kept_of_content(seen.model, examples, filler)
    yield Finding(
        cause="state_read_at_padding",
        severity="error" if kept is not None and kept < FORGOTTEN else "warning",
        summary="the recurrent network is read at the last place of the batch, behind the ends of "
        "shorter sequences: what it answers depends on how much padding follows",
        layers=tuple(names),
        evidence=(
            Evidence(
                quantity="relative change of the answers when the padding is cut off",
                measured=moved,
                expected="0",
            ),
            Evidence(
                quantity="mean number of places of padding",
                measured=float((inputs.shape[1] - lengths).float().mean()),
                expected="0, or a state read before them",
            ),
            *_kept_evidence(kept),
        ),
        remedy="use pack_padded_sequence, or read the state at lengths - 1",
        source="torch.nn.utils.rnn.pack_padded_sequence",
        change=sequences.states_at_the_end(names, filler),
        proven=True,
    )


def _kept_evidence(kept: float | None) -> Iterator[Evidence]:
    if kept is not None:
        yield Evidence(
            quantity="share of the answers' gradient that is by content, not by padding",
            measured=kept,
            expected="1",
        )


def _moved_by_cropping(model: nn.Module, examples: Tensor, lengths: Tensor) -> float | None:
    """How far the answers move, relative to their size, when each example's padding is cut off."""
    far, size = 0.0, 0.0
    try:
        with torch.no_grad():
            for example, length in zip(examples, lengths.tolist(), strict=True):
                whole = main_output(model(example[None])).float()
                cropped = main_output(model(example[None, :length])).float()
                if whole.shape != cropped.shape:
                    return None
                far += float((whole - cropped).abs().sum())
                size += float(whole.abs().sum())
    except (RuntimeError, ValueError, TypeError, IndexError):
        return None  # a model of one fixed length cannot be asked so
    return far / size if size > 0 and math.isfinite(far) else None


def _reads_last_only(model: nn.Module, examples: Tensor) -> bool:
    """Whether the answers hear of the last recurrent layer's states at its last place alone."""
    states: list[Tensor] = []

    def ran(call: Call, inputs: tuple[object, ...], output: object) -> None:
        if isinstance(call.module, nn.RNNBase) and call.module.training is False:
            rows = next(iter(tensors_in(output)), None)
            packed = not isinstance(rows, Tensor) or rows.ndim != 3
            if not packed and rows is not None:
                states[:] = [rows if call.module.batch_first else rows.transpose(0, 1)]
            else:
                states.clear()

    with Taps(model) as taps, torch.enable_grad(), _cudnn_off():
        model.eval()
        taps.on_output(ran)
        answer = main_output(model(examples)).float().sum()
        if not states or not answer.requires_grad:
            return False
        gradient = _gradient(answer, states[0])
    if gradient is None:
        return True  # it is the final state that is read
    return not bool((gradient[:, :-1] != 0).any())


def _gradient(value: Tensor, of: Tensor) -> Tensor | None:
    """The gradient; None where the value does not depend on it."""
    return torch.autograd.grad(value, of, allow_unused=True)[0]


def _cudnn_off() -> AbstractContextManager[Any]:
    """cuDNN refuses a backward pass through a recurrent network in evaluation mode."""
    return torch.backends.cudnn.flags(enabled=False)


def _kept_of_content(model: nn.Module, examples: Tensor, filler: Tensor) -> float | None:
    """The content's share of the gradient of the answers with respect to what the network reads."""
    entering: list[Tensor] = []

    def enters(call: Call, inputs: tuple[object, ...]) -> None:
        if isinstance(call.module, nn.RNNBase) and not entering:
            entering.extend(t for t in tensors_in(inputs) if t.ndim == 3)
            first = call.module.batch_first
            entering[:] = [t.requires_grad_() if t.is_leaf else t for t in entering[:1]]
            if not first:
                entering.append(torch.empty(0))

    with Taps(model) as taps, torch.enable_grad(), _cudnn_off():
        model.eval()
        taps.on_input(enters)
        answer = main_output(model(examples.clone())).float()
        if not entering or not answer.requires_grad:
            return None
        weights = torch.randn(answer.shape, generator=torch.Generator().manual_seed(0))
        gradient = _gradient((answer * weights.to(answer)).sum(), entering[0])
    if gradient is None:
        return None
    sizes = gradient.norm(dim=2)
    sizes = sizes if len(entering) == 1 else sizes.transpose(0, 1)
    behind = behind_the_end(examples, filler.to(examples.device))
    if sizes.shape != behind.shape or not float(sizes.sum()) > 0:
        return None
    return float(sizes[~behind].sum() / sizes.sum())


def _tying(patient: Patient) -> Iterator[Finding]:
    """A head that begins as a copy of the embedding, and is another weight."""
    if patient.seen is None:
        return
    modules = [(plain_name(n), m) for n, m in patient.seen.model.named_modules()]
    tables = [(n, m) for n, m in modules if isinstance(m, nn.Embedding)]
    heads = [(n, m) for n, m in modules if isinstance(m, nn.Linear)]
    for name, table in tables:
        for other, head in heads:
            one, two = table.weight.detach(), head.weight.detach()
            same = one.shape == two.shape and one.data_ptr() != two.data_ptr()
            if not same or not bool((one == two).all()) or not float(one.std()) > 0:
                continue
            yield Finding(
                cause="weight_tying_broken",
                severity="warning",
                summary=f"{other} begins with the weights of {name}, but as a copy: they drift "
                "apart, where they were meant to be one",
                layers=(other, name),
                evidence=(
                    Evidence(
                        quantity="numbers that both begin with",
                        measured=float(one.numel()),
                        expected="one tensor, or others",
                    ),
                ),
                remedy=f"assign the parameter itself: {other}.weight = {name}.weight, and tie "
                "again after whatever copies or loads the model",
                source="Press & Wolf 2017, Using the Output Embedding",
                change=sequences.tied(name, other),
                proven=True,
            )
            return
