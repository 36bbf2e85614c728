"""Updates: backward, zero_grad, clipping, optimizer and schedule steps, gradient scaling."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from leadline.core.taps import every_update, tensors_in
from leadline.doctor.recording.formula import Derivation, Formula, Surroundings, derive
from leadline.doctor.recording.gradients import PROBES, gradient_norm_of, spread
from leadline.doctor.recording.objects import Cards, ScheduleCard, schedule_card
from leadline.doctor.recording.recorder import Flight, Recorder

DIVISIONS = frozenset({"div", "truediv", "__truediv__", "true_divide"})
PRODUCTS = frozenset({"mul", "__mul__", "__rmul__", "multiply"})

MANY = 2_000
"""Events after which it is known whether the weights of a loop without an optimizer move."""

CHECKED = 4
"""Steps at which the formula of the loss is held against the loop's own value."""


class UpdateListener:
    """Hears of everything between the loss and the new weights.

    `formulas` are the losses followed back, one per backward pass of the first steps.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._constants: dict[int, Tensor] = {}  # kept alive, so that no other gets their identity
        self._leaves: dict[int, Tensor] = {}
        self._in_schedule = 0
        self._in_zero = 0
        self._look = False
        self._open: list[int] = []  # events of the steps that are under way
        self.formulas: list[Derivation] = []
        self.formula_fails = ""

    def listen(self, scopes: ExitStack) -> None:
        """Stand beside autograd, the optimizers, the schedules and the clipping."""
        points = self._recorder.points
        points.everywhere(torch.autograd, "backward", self._backward)
        points.around(nn.Module, "zero_grad", self._zero_grad)
        points.around_classes(Optimizer, "zero_grad", self._zero_grad)
        points.around(Optimizer, "__init__", self._make_optimizer)
        points.around_classes(LRScheduler, "__init__", self._make_schedule)
        points.around_classes(LRScheduler, "step", self._schedule)
        points.everywhere(clip_grad, "clip_grad_norm_", self._clip)
        points.everywhere(clip_grad, "clip_grad_value_", self._clip)
        points.around(torch.amp.GradScaler, "scale", self._scale)
        points.around(torch.amp.GradScaler, "unscale_", self._unscale)
        points.around(torch.amp.GradScaler, "update", self._scale_update)
        scopes.enter_context(every_update(before=self._before_step, after=self._after_step))

    # ------------------------------------------------------------------------------- backward

    def _backward(
        self, original: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        recorder = self._recorder
        loss = next(tensors_in((args, kwargs)), None)
        if loss is None:
            return original(*args, **kwargs)
        with recorder.unheard():
            found = self._derive(loss)
            flights = [recorder.flights[n] for n in sorted(found.forwards) if n in recorder.flights]
            stale = recorder.gradients.before_backward()
            factor, below = _factor(recorder, loss)
            event = recorder.emit(
                "backward",
                flights[0].model if flights else -1,
                loss=loss.detach(),
                connected=loss.requires_grad,
                stale=stale,
                names=found.names,
                forwards=tuple(sorted(found.forwards)),
                problem=found.problem,
                examples=flights[0].length if flights else None,
                factor=factor,
                below=below,
                weights=self._weights(),
            )
        result = original(*args, **kwargs)
        given = recorder.gradients.after_backward()
        recorder.amend(event.index, models=self._reached(given))
        with recorder.unheard():
            self._complete(found, flights, loss)
        return result

    def _weights(self) -> dict[int, float]:
        """A number for the weights of each model, at the steps that are looked at closely."""
        recorder = self._recorder
        if not recorder.close or len(recorder.events) > MANY:
            return {}
        alive = {card.number: card.reference() for card in recorder.models}
        return {
            number: recorder.gradients.weights(model.parameters())
            for number, model in alive.items()
            if model is not None
        }

    def _derive(self, loss: Tensor) -> Derivation:
        recorder = self._recorder
        flights = list(recorder.flights.values())
        around = Surroundings(
            batch=flights[-1].batch if flights else (),
            inputs=flights[-1].inputs if flights else (),
            constants=frozenset(self._constants),
            length=flights[-1].length if flights else 1,
        )
        found = derive(recorder.trace, loss, around)
        if not recorder.examples.full:
            self._learn_constants(found)
        return found

    def _learn_constants(self, found: Derivation) -> None:
        """What a loss used at two steps is no target: class weights, say."""
        now = {id(t): t for t in found.edge}
        for key, tensor in now.items():
            if self._leaves.get(key) is tensor:
                self._constants[key] = tensor
        self._leaves = now

    def _complete(self, found: Derivation, flights: list[Flight], loss: Tensor) -> None:
        if self._recorder.examples.full and self.formulas:
            return
        first = next((f.formula for f in self.formulas if f.formula is not None), None)
        if first is not None and len(self.formulas) <= CHECKED and len(flights) == 1:
            self._check(first, found, loss)
        if found.item is not None:
            self._recorder.target_item = found.item
        if found.target is not None and len(flights) == 1:
            self._recorder.examples.complete(flights[0].kept, found.target, loss.detach())
        self.formulas.append(found)

    def _check(self, formula: Formula, found: Derivation, loss: Tensor) -> None:
        """Hold what the first step's formula says of this step against what the loop computed."""
        output = next(
            node.output
            for node in self._recorder.trace.nodes
            if node.function is None and node.forwards == found.forwards
        )
        try:
            with torch.no_grad():
                again = float(formula(output, found.target))
        except Exception as error:  # whatever the user's functions raise for another batch
            self.formula_fails = f"computed again it fails: {type(error).__name__}: {error}"
            return
        value = float(loss.detach())
        if not abs(again - value) <= 1e-3 * max(abs(value), 1e-3) and math.isfinite(value):
            self.formula_fails = f"computed again it is {again:.4g}, where the loop had {value:.4g}"

    def _reached(self, given: list[Tensor]) -> tuple[int, ...]:
        numbers = {self._recorder.serials.of(parameter) for parameter in given}
        if not given:  # none of the few looked at: from now on all of them are
            for card in self._recorder.models:
                model = card.reference()
                if model is not None:
                    self._recorder.gradients.follow_all(list(model.parameters()))
        return tuple(
            card.number for card in self._recorder.models if numbers & card.parameters.keys()
        )

    # ------------------------------------------------------------------------------ zero_grad

    def _zero_grad(
        self, original: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        recorder, owner = self._recorder, args[0]
        if self._in_zero:
            return original(*args, **kwargs)
        if isinstance(owner, Optimizer):
            subject = recorder.optimizer(owner).number
            parameters = _held(owner)
        else:
            card = recorder.models.find(owner)
            subject = -1 if card is None else card.number
            parameters = list(owner.parameters())
        with recorder.unheard():
            lost = recorder.gradients.cleared(parameters)
            recorder.emit("zero_grad", subject, of=_kind(owner), lost=lost)
            self._in_zero += 1
            try:
                return original(*args, **kwargs)
            finally:
                self._in_zero -= 1

    # ----------------------------------------------------------------------------------- step

    def _make_optimizer(
        self, original: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        original(*args, **kwargs)
        card = self._recorder.optimizer(args[0], made=len(self._recorder.events))
        self._recorder.emit("optimizer_made", card.number)

    def _before_step(self, optimizer: Optimizer) -> None:
        recorder = self._recorder
        if recorder.points.foreign():
            return
        with recorder.unheard():
            card = recorder.optimizer(optimizer)
            if card.frozen is None:
                still = [p for p in _held(optimizer) if not p.requires_grad]
                card.frozen = frozenset(recorder.serials.of(p) for p in still)
            self._look = recorder.close
            facts = recorder.gradients.before_step(optimizer, look=self._look)
            norm = gradient_norm_of(optimizer) if self._look else None
            recorder.emit(
                "step",
                card.number,
                lr=tuple(_number(group.get("lr", 0.0)) for group in optimizer.param_groups),
                norm=norm,
                **facts,
            )
        self._open.append(recorder.events[-1].index)
        recorder.in_step += 1

    def _after_step(self, optimizer: Optimizer) -> None:
        recorder = self._recorder
        if recorder.points.foreign() or not recorder.in_step:
            return
        recorder.in_step -= 1
        with recorder.unheard():
            movement = recorder.gradients.after_step(optimizer, look=self._look)
        begun = self._open.pop()
        if movement is not None:
            recorder.amend(begun, changed=movement.changed, relative=movement.relative)
        recorder.updates += 1
        recorder.forget_step()

    # ------------------------------------------------------------------------------- schedules

    def _make_schedule(
        self, original: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self._in_schedule += 1
        try:
            original(*args, **kwargs)
        finally:
            self._in_schedule -= 1
        if not self._in_schedule:
            card = self._schedule_card(args[0], made=len(self._recorder.events))
            for inner in _schedules_in(args[0]):
                known = self._recorder.schedules.find(inner)
                if known is not None:
                    known.inside = True
            if card is not None:
                self._recorder.emit("scheduler_made", card.number, optimizer=card.optimizer)

    def _schedule(
        self, original: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        outermost = not self._in_schedule
        self._in_schedule += 1
        try:
            original(*args, **kwargs)
        finally:
            self._in_schedule -= 1
        card = self._schedule_card(args[0], made=None) if outermost else None
        if card is not None:
            lr = tuple(_number(g["lr"]) for g in args[0].optimizer.param_groups)
            self._recorder.emit("schedule", card.number, lr=lr)

    def _schedule_card(self, schedule: Any, *, made: int | None) -> ScheduleCard | None:
        recorder = self._recorder
        known: Cards[ScheduleCard] = recorder.schedules
        card = known.find(schedule)
        optimizer = getattr(schedule, "optimizer", None)
        if card is None and isinstance(optimizer, Optimizer):
            number = recorder.optimizer(optimizer).number
            card = schedule_card(schedule, number=len(known), optimizer=number, made=made)
            known.add(schedule, card)
        return card

    # ---------------------------------------------------------------------- clipping and scaling

    def _clip(
        self, original: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        recorder = self._recorder
        names = ("parameters", "max_norm" if "norm" in original.__name__ else "clip_value")
        values = dict(zip(names, args, strict=False)) | kwargs
        given = values["parameters"]
        parameters = [given] if isinstance(given, Tensor) else list(given)
        values["parameters"] = parameters
        extra = dict(zip(("norm_type", "error_if_nonfinite", "foreach"), args[2:], strict=False))
        with recorder.unheard():
            present = any(p.grad is not None for p in parameters)
            result = original(**extra | values)
            recorder.gradients.rewritten(parameters)
            recorder.emit(
                "clip",
                self._owner(parameters),
                method=original.__name__,
                most=float(values[names[1]]),
                norm=result.detach() if isinstance(result, Tensor) else None,
                present=present,
            )
        return result

    def _owner(self, parameters: Iterable[Tensor]) -> int:
        numbers = {self._recorder.serials.of(p) for p in spread(list(parameters), PROBES)}
        owners = [card.number for card in self._recorder.optimizers if numbers & card.ids]
        return owners[-1] if owners else -1

    def _scale(
        self, original: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        with self._recorder.unheard():
            result = original(*args, **kwargs)
            if len(args) == 2 and isinstance(args[1], Tensor) and result is not args[1]:
                self._recorder.trace.add_alias(result, args[1])
        return result

    def _unscale(
        self, original: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        recorder = self._recorder
        with recorder.unheard():
            result = original(*args, **kwargs)
            optimizer = args[1] if len(args) > 1 else kwargs["optimizer"]
            recorder.gradients.rewritten(_held(optimizer))
            recorder.emit("unscale", recorder.optimizer(optimizer).number)
        return result

    def _scale_update(
        self, original: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        with self._recorder.unheard():
            result = original(*args, **kwargs)
            scale = getattr(args[0], "_scale", None)  # a disabled one has none
            self._recorder.emit("scale_update", scale=None if scale is None else scale.clone())
        return result


def _schedules_in(schedule: Any) -> Iterator[Any]:
    """The schedules that another one steps: those of a sequence, the one behind a warm-up."""
    for value in vars(schedule).values():
        entries = value if isinstance(value, tuple | list) else (value,)
        yield from (entry for entry in entries if isinstance(entry, LRScheduler))


def _held(optimizer: Optimizer) -> list[Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def _kind(owner: Any) -> str:
    return "optimizer" if isinstance(owner, Optimizer) else "model"


def _number(value: Any) -> float:
    return float(value)


def _factor(recorder: Recorder, loss: Tensor) -> tuple[float, str]:
    """What the loop multiplied its loss by last (1/4 for `loss / 4`), and the function below."""
    factor, node = 1.0, recorder.trace.node_of(loss)
    while node is not None and node.function is not None:
        numbers = [a for a in node.args if type(a) in (int, float)]
        tensors = [a for a in node.args if isinstance(a, Tensor)]
        if node.name in ("neg", "negative", "__neg__"):
            factor = -factor
        elif node.name in DIVISIONS and numbers and isinstance(node.args[0], Tensor) and numbers[0]:
            factor /= numbers[0]
        elif node.name in PRODUCTS and numbers:
            factor *= numbers[0]
        else:
            return factor, node.name
        before = recorder.trace.node_of(tensors[0]) if len(tensors) == 1 else None
        if before is node:  # written in place
            return factor, node.name
        node = before
    return factor, "output" if node is not None else ""
