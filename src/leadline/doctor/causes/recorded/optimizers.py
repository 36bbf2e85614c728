"""Optimizers of a recorded loop: made anew, of another model, without some weights; models too."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping

from leadline.doctor.causes.training_loop import frozen_given
from leadline.doctor.finding import Evidence, Finding, counted
from leadline.doctor.recording.objects import ModelCard, OptimizerCard
from leadline.doctor.recording.rerun_surroundings import models_kept
from leadline.doctor.recording.rerun_updates import optimizers_kept
from leadline.doctor.recording.tape import Tape
from leadline.doctor.remedy import Remedy


def signs(tape: Tape) -> Iterator[Finding]:
    """What the tape says of who holds which weights, and for how long."""
    yield from _remade(tape)
    yield from _models_remade(tape)
    yield from _missing(tape)
    yield from _frozen(tape)


def _remade(tape: Tape) -> Iterator[Finding]:
    """The same settings for the same weights again and again; another rate is another stage."""
    alike: dict[tuple[object, ...], list[OptimizerCard]] = defaultdict(list)
    for card in tape.optimizers:
        alike[card.name, card.ids, str(_settings(card))].append(card)
    for cards in alike.values():
        steps = [len(tape.of("step", subject=card.number)) for card in cards]
        used = [count for count in steps if count]
        if len(used) < 3 or not cards[0].remembers:
            continue
        often = sum(used) / len(used)
        severity = "error" if often < 5 else "warning"
        yield Finding(
            cause="optimizer_recreated",
            severity="error" if severity == "error" else "warning",
            summary=f"{cards[0].name} is made anew every {often:.0f} steps: its moments begin at "
            "zero each time, and a schedule has nothing to hold on to",
            evidence=(
                Evidence(
                    quantity=f"times that {cards[0].name} was made for the same weights",
                    measured=float(len(cards)),
                    expected="1",
                ),
                Evidence(
                    quantity="steps that each of them took",
                    measured=often,
                    expected=f"{sum(steps)}, all of them",
                ),
            ),
            remedy="make the optimizer once, before the loop",
            proven=True,
            change=Remedy(
                title="make the optimizer once, before the loop",
                lines=(
                    f"+ optimizer = {cards[0].name}(...)",
                    "  for ...:",
                    f"-     optimizer = {cards[0].name}(...)",
                ),
                rerun=optimizers_kept,
            ),
        )


def _settings(card: OptimizerCard) -> list[tuple[str, object]]:
    return sorted((k, v) for k, v in card.groups[0].items() if isinstance(v, int | float | tuple))


def _models_remade(tape: Tape) -> Iterator[Finding]:
    """Models of one kind, each trained on one pass over the same data: a factory inside the loop.

    Folds and searches train each model for several epochs, on data or with settings of its own.
    """
    trained: dict[tuple[str, int], list[ModelCard]] = defaultdict(list)
    for number in sorted({n for e in tape.of("backward") for n in e["models"] or ()}):
        card = tape.models[number]
        trained[card.name, len(card.parameters)].append(card)
    drawn = _sources(tape)
    for cards in trained.values():
        spans = [_span(tape, card, drawn) for card in cards]
        sources = {source for _, source, _ in spans}
        settings = {str(_settings(o)) for c in cards for o in tape.optimizers if _holds(o, c)}
        alike = len(sources) == 1 and len(settings) < 2
        if len(cards) < 3 or not alike or max(epochs for _, _, epochs in spans) > 1:
            continue
        steps = sum(count for count, _, _ in spans) / len(spans)
        yield Finding(
            cause="model_recreated",
            severity="error" if steps < 5 else "warning",
            summary=f"{cards[0].name} is made anew every {steps:.0f} steps: what it has learned is "
            "lost each time",
            evidence=(
                Evidence(
                    quantity=f"models of the class {cards[0].name} that were trained",
                    measured=float(len(cards)),
                    expected="1",
                ),
            ),
            remedy="make the model and the optimizer once, before the loop",
            proven=steps < 5,
            change=Remedy(
                title="make the model once, before the loop",
                lines=(
                    f"+ model = {cards[0].name}(...)",
                    "  for ...:",
                    f"-     model = {cards[0].name}(...)",
                ),
                rerun=models_kept,
            ),
        )


def _holds(optimizer: OptimizerCard, model: ModelCard) -> bool:
    return bool(optimizer.ids & set(model.parameters))


Source = tuple[object, ...]
"""What batches are drawn from, equal for two loaders of the same examples."""


def _span(tape: Tape, card: ModelCard, drawn: Mapping[int, Source]) -> tuple[int, Source, int]:
    """Backward passes, what their batches came from, and the epochs a model was trained in."""
    passes = [e for e in tape.of("backward") if card.number in (e["models"] or ())]
    forwards = [tape.events[n] for e in passes for n in e["forwards"]]
    first, last = passes[0].index, passes[-1].index
    source = drawn.get(forwards[0]["loader"], ()) if forwards else ()
    begun = [e for e in tape.of("epoch_begun") if first < e.index < last]
    return len(passes), source, 1 + sum(drawn[e.subject] == source for e in begun)


def _sources(tape: Tape) -> dict[int, Source]:
    """What each loader drew from in its first epoch; itself where the contents are not known."""
    found: dict[int, Source] = {}
    for event in tape.of("epoch_begun"):
        if event.subject not in found:
            card = tape.loaders[event.subject]
            contents = tuple(sorted(event["data"].items())) or (card.number,)
            found[card.number] = (card.examples, card.batch_size, card.part, *contents)
    return found


def _missing(tape: Tape) -> Iterator[Finding]:
    if not tape.of("step"):
        return
    stepped = {event.subject for event in tape.of("step")}
    held = frozenset().union(*(tape.optimizers[n].ids for n in stepped))
    known = {serial for card in tape.models for serial in card.parameters}
    for number in sorted({n for e in tape.of("backward") for n in e["models"] or ()}):
        card = tape.models[number]
        free = {s: name for s, name in card.parameters.items() if name not in card.frozen}
        missing = [name for serial, name in free.items() if serial not in held]
        nothing = len(missing) == len(free)
        if not missing or (nothing and tape.moved(number) and not held - known):
            continue  # a loop that updates by hand
        partly = {name.split(".")[0] for s, name in free.items() if s in held}
        chosen = not nothing and not partly & {name.split(".")[0] for name in missing}
        yield _missing_finding(missing, nothing=nothing, chosen=chosen, strangers=held - known)


def _missing_finding(
    missing: list[str], *, nothing: bool, chosen: bool, strangers: frozenset[int]
) -> Finding:
    """`chosen` parts, left out whole, may be meant: a head that is trained alone."""
    return Finding(
        cause="optimizer_missing_params",
        severity="warning" if chosen else "error",
        summary="the optimizer was made for another model: it holds none of the weights that get "
        "gradients"
        if nothing
        else counted(len(missing), "parameter that gets", "parameters that get")
        + " gradients "
        + ("is" if len(missing) == 1 else "are")
        + " in no optimizer: no step changes what it does not hold",
        layers=tuple(missing),
        evidence=(
            Evidence(
                quantity="trainable parameters outside of every optimizer",
                measured=float(len(missing)),
                expected="0",
            ),
            Evidence(
                quantity="parameters in an optimizer that no model in use has",
                measured=float(len(strangers)),
                expected="0",
            ),
        ),
        remedy="make the optimizer after the model is complete, moved and wrapped, from "
        "model.parameters(); freeze with requires_grad_(False) what is not to learn",
        source="pytorch/pytorch#149205",
        proven=not chosen,
        change=Remedy(
            title="give the optimizer the parameters of the model that is trained",
            lines=(
                "  model = ...",
                "+ optimizer = Optimizer(model.parameters(), ...)  # behind the model",
            ),
        ),
    )


def _frozen(tape: Tape) -> Iterator[Finding]:
    for optimizer in tape.optimizers:
        names = [
            name
            for card in tape.models
            for serial, name in card.parameters.items()
            if serial in (optimizer.frozen or ())
        ]
        if names:
            yield frozen_given(names)
            return
