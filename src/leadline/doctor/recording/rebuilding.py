"""Rebuilding: a Setup from a tape, with the sound loop that every Setup has.

The model is the copy from before its first call, the batches are those of the first epoch, the loss
is the one that was recorded, or its formula. The optimizer is made anew with the recorded settings,
parameter groups found again by the parameters' names. Learning rates are those of the recorded
steps, whoever set them. Faults of the loop are not in it: that is what a rerun is for.
"""

from __future__ import annotations

import copy
import inspect
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from leadline.core.errors import TrainingError
from leadline.core.taps import plain_name
from leadline.doctor.recording.epochs import epoch_length, trained_forwards
from leadline.doctor.recording.examples import RecordedBatch
from leadline.doctor.recording.objects import ModelCard, OptimizerCard
from leadline.doctor.recording.turns import Turn, turns_of
from leadline.training.setup import Setup

if TYPE_CHECKING:
    from leadline.doctor.recording.tape import Tape

Pair = tuple[Tensor, Tensor]


def rebuild(tape: Tape) -> Setup:
    """The recorded training as a Setup; a TrainingError names what the tape lacks for it."""
    card = _trained_model(tape)
    optimizer = _its_optimizer(tape, card)
    turns = turns_of(tape, optimizer.number)
    accumulate = max(1, round(statistics.median([len(t.backwards) for t in turns] or [1])))
    batches = _training_batches(tape, card)
    total = len(trained_forwards(tape, card.number))
    return Setup(
        model=_factory(card),
        batches=batches,
        loss=_loss(tape, turns, accumulate=accumulate),
        optimizer=_optimizer_factory(optimizer, card),
        schedule=_schedule(turns, optimizer),
        epochs=max(1, round(total / len(batches))),
        accumulate=min(accumulate, len(batches)),
        clip_grad=_clipping(turns),
        seed=_seed(tape),
        validation=_validation(tape, card) or None,
    )


def _refuse(expected: str, received: str, remedy: str = "") -> TrainingError:
    usual = "write the training as a leadline.Setup, or let the function run again with a remedy"
    return TrainingError(expected=expected, received=received, remedy=remedy or usual)


def _trained_model(tape: Tape) -> ModelCard:
    reached = [n for event in tape.of("backward") for n in event["models"] or ()]
    if not reached:
        received = "no backward pass at all" if not tape.of("backward") else "no gradient for any"
        raise _refuse(
            "a recording in which a model gets gradients",
            received,
            "record the part of the program that trains: forward, backward and step",
        )
    cards: list[ModelCard] = [tape.models[n] for n in sorted(set(reached))]
    kinds = {(card.name, len(card.parameters)) for card in cards}
    if len(kinds) > 1:
        names = ", ".join(sorted(card.name for card in cards))
        raise _refuse("one model that is trained", f"{len(cards)} that learn together: {names}")
    card = cards[0]
    if not card.whole:
        raise _refuse(
            "a model that the loop calls as a whole",
            f"calls of parts of {card.name} by themselves",
            "put what the loop does between the parts into the model's forward",
        )
    if card.initial is None:
        raise _refuse("a model that can be copied", f"{card.name}: {card.problem}")
    return card


def _its_optimizer(tape: Tape, card: ModelCard) -> OptimizerCard:
    stepped = [tape.optimizers[e.subject] for e in tape.of("step")]
    holding = [o for o in stepped if o.ids & card.parameters.keys()]
    chosen = holding or stepped or list(tape.optimizers)
    if not chosen:
        raise _refuse(
            "a recording in which an optimizer steps",
            "no optimizer of torch.optim",
            "use an optimizer of torch.optim, or write the training as a leadline.Setup",
        )
    several = {o.number for o in holding if o.made is None or o.ids != holding[0].ids}
    if len(several) > 1:
        raise _refuse("one optimizer for the model", f"{len(several)} that share its parameters")
    return chosen[0]


def _factory(card: ModelCard) -> Callable[[], nn.Module]:
    initial = card.initial
    return lambda: copy.deepcopy(initial)  # type: ignore[return-value]  # looked at before


# ------------------------------------------------------------------------------------- batches


def _training_batches(tape: Tape, card: ModelCard) -> list[Pair]:
    numbers = [event["kept"] for event in trained_forwards(tape, card.number)]
    length = epoch_length(tape, card.number)
    kept = [tape.batches[n] for n in numbers[:length] if n is not None]
    pairs = [pair for batch in kept if (pair := _pair(batch)) is not None]
    if pairs:
        return pairs
    if kept and all(batch.targets is None for batch in kept):
        raise _refuse("a loss that can be computed again", _problem(tape))
    given = kept[0] if kept else None
    received = "no batch was kept" if given is None else _described(given)
    raise _refuse("a model that is given one tensor", received)


def _pair(batch: RecordedBatch) -> Pair | None:
    single = len(batch.args) == 1 and not batch.kwargs and isinstance(batch.args[0], Tensor)
    return (batch.args[0], batch.targets) if single and batch.targets is not None else None


def _described(batch: RecordedBatch) -> str:
    names = [type(arg).__name__ for arg in batch.args]
    return f"{len(names)} arguments ({', '.join(names)}) and the keywords {list(batch.kwargs)}"


def _validation(tape: Tape, card: ModelCard) -> list[Pair]:
    """The batches of the first evaluation, those that were not trained on."""
    trained = {event.index for event in trained_forwards(tape, card.number)}
    found: list[Pair] = []
    for event in tape.of("forward", subject=card.number):
        if event.index in trained or event["kept"] is None or event["training"]:
            if found:
                break
            continue
        pair = _pair(tape.batches[event["kept"]])
        if pair is not None:
            found.append(pair)
    return found


# ---------------------------------------------------------------------------------------- loss


def _problem(tape: Tape) -> str:
    return next((f.problem for f in tape.formulas if f.problem), "no loss was seen")


def _loss(tape: Tape, turns: Sequence[Turn], *, accumulate: int) -> Callable[[Any, Any], Tensor]:
    formula = next((f.formula for f in tape.formulas if f.formula is not None), None)
    if formula is None:
        raise _refuse("a loss that can be computed again", _problem(tape))
    if tape.formula_fails:
        raise _refuse("a loss that can be computed again", tape.formula_fails)
    factors = [event["factor"] for turn in turns for event in turn.backwards[:1]]
    scaled = bool(factors) and abs(factors[0] * accumulate - 1) < 1e-3
    if accumulate > 1 and scaled:  # a Setup divides by itself
        return lambda outputs, targets: formula(outputs, targets) * accumulate
    return formula


# ----------------------------------------------------------------------------------- optimizer


def _optimizer_factory(card: OptimizerCard, model: ModelCard) -> Callable[[nn.Module], Optimizer]:
    """The same optimizer for another copy; one that holds nothing of the model gets all of it.

    Weights that the copy has beside the recorded ones, since a remedy put them in, join the first
    group.
    """
    known = set(model.parameters.values())
    names = [[model.parameters[i] for i in held if i in model.parameters] for held in card.held]
    groups = [dict(group) for group in card.groups]
    for group in groups:
        first = group.pop("initial_lr", None)
        if card.made is None and first is not None:  # a schedule has changed it already
            group["lr"] = first
    if not any(names):
        names, groups = [list(model.parameters.values())], groups[:1]

    def build(fresh: nn.Module) -> Optimizer:
        own = {plain_name(name): p for name, p in fresh.named_parameters()}
        held = [[own[name] for name in group if name in own] for group in names]
        held[0] += [p for name, p in own.items() if name not in known]
        accepted = inspect.signature(card.cls).parameters
        options = {k: v for k, v in groups[0].items() if k in accepted}
        given: list[Any] = [
            {"params": parameters, **group} for parameters, group in zip(held, groups, strict=True)
        ]
        try:
            return card.cls(held[0] if len(held) == 1 else given, **options)
        except Exception as error:  # a user's class may take other arguments than it keeps
            raise _refuse(
                "an optimizer that can be made from its settings",
                f"{card.name}: {type(error).__name__}: {error}",
            ) from error

    return build


def _schedule(
    turns: Sequence[Turn], card: OptimizerCard
) -> Callable[[Optimizer], LRScheduler] | None:
    """The learning rates of the recorded steps, as parts of the first; the last is held."""
    bases = [_base(group, turns, n) for n, group in enumerate(card.groups)]
    rates = [
        [turn.step["lr"][n] / base if base else 1.0 for turn in turns if len(turn.step["lr"]) > n]
        for n, base in enumerate(bases)
    ]
    if all(abs(rate - 1) < 1e-9 for group in rates for rate in group):
        return None

    def at(factors: list[float]) -> Callable[[int], float]:
        return lambda step: factors[min(step, len(factors) - 1)] if factors else 1.0

    def build(optimizer: Optimizer) -> LRScheduler:
        return LambdaLR(optimizer, [at(g) for g in rates[: len(optimizer.param_groups)]])

    return build


def _base(group: Mapping[str, Any], turns: Sequence[Turn], number: int) -> float:
    own = group.get("initial_lr", group.get("lr"))
    return float(own if own is not None else turns[0].step["lr"][number])


def _clipping(turns: Sequence[Turn]) -> float:
    norms = [e["most"] for turn in turns for e in turn.clips if e["method"] == "clip_grad_norm_"]
    return float(norms[0]) if norms and norms[0] < 1e6 else 0.0


def _seed(tape: Tape) -> int:
    seeds = [
        event["seed"]
        for event in tape.of("seeded")
        if not event["in_loader"] and 0 <= event["seed"] < 2**63
    ]
    return seeds[0] if seeds else 0
