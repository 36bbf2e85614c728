"""Models: their outermost calls, their switches between training and evaluation, their states."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.loss import _Loss

from leadline.core.taps import tensors_in
from leadline.doctor.recording.objects import noisy
from leadline.doctor.recording.points import in_backward
from leadline.doctor.recording.recorder import Flight, Recorder

COMPARISONS = frozenset(
    {"gt", "ge", "lt", "le", "__gt__", "__ge__", "__lt__", "__le__", "round", "greater", "less"}
)
"""Functions that turn outputs into yes or no."""

LOSSES = frozenset(
    {
        "cross_entropy",
        "nll_loss",
        "binary_cross_entropy",
        "binary_cross_entropy_with_logits",
        "mse_loss",
        "l1_loss",
        "smooth_l1_loss",
        "huber_loss",
        "kl_div",
        "poisson_nll_loss",
        "gaussian_nll_loss",
        "hinge_embedding_loss",
        "margin_ranking_loss",
        "multi_margin_loss",
        "multilabel_margin_loss",
        "multilabel_soft_margin_loss",
        "soft_margin_loss",
        "triplet_margin_loss",
        "cosine_embedding_loss",
        "ctc_loss",
    }
)
"""torch's own losses, all of which are to become small."""


class ModelListener:
    """Hears of calls, modes and states of modules."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._states: dict[int, Any] = {}  # kept, so that no other object has their number
        self._inside = 0  # depth of train(), state_dict() and the like in each other

    def listen(self) -> None:
        """Stand beside `nn.Module`."""
        points = self._recorder.points
        points.around(nn.Module, "__call__", self._call)
        points.around(nn.Module, "train", self._train)
        points.around(nn.Module, "parameters", self._parameters)
        points.around(nn.Module, "state_dict", self._state_dict)
        points.around(nn.Module, "load_state_dict", self._load_state_dict)

    def heard(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        output: Any,
    ) -> None:
        """A function of torch that the loop called itself."""
        recorder = self._recorder
        if recorder.in_loader:
            return
        name = getattr(function, "__name__", "")
        if name in COMPARISONS:
            self._threshold(name, args)
        elif name in LOSSES and not torch.is_grad_enabled():
            self._evaluated(args)
        recorder.trace.add_call(function, args, kwargs, output)

    # ---------------------------------------------------------------------------------- calls

    def _call(
        self, original: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        recorder = self._recorder
        if recorder.in_model or recorder.in_loader or self._inside or in_backward():
            return original(*args, **kwargs)
        module, given = args[0], args[1:]
        if isinstance(module, _Loss) or next(module.parameters(), None) is None:
            return original(*args, **kwargs)  # its functions are heard of one by one
        derived = any(
            (node := recorder.trace.node_of(t)) is not None and node.forwards
            for t in tensors_in((given, kwargs))
        )
        flight = self._take_off(module, given, kwargs)
        recorder.in_model = True
        try:
            with recorder.unheard():
                output = original(*args, **kwargs)
        finally:
            recorder.in_model = False
        if derived:  # a second model on top of the first: one more function of the formula
            recorder.trace.add_call(module, given, kwargs, output)
            self._also(output, flight.event)
        else:
            recorder.trace.add_output(output, event=flight.event)
        return output

    def _also(self, output: Any, event: int) -> None:
        trace = self._recorder.trace
        for tensor in tensors_in(output):
            node = trace.node_of(tensor)
            if node is not None:
                node.forwards = node.forwards | {event}

    def _take_off(
        self, module: nn.Module, given: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Flight:
        recorder = self._recorder
        with recorder.unheard():
            card = recorder.model(module)
            inputs = tuple(tensors_in((given, kwargs)))
            grad = torch.is_grad_enabled()
            length = recorder.known_length(inputs)
            batch = recorder.batch if recorder.batch and len(recorder.batch[0]) == length else ()
            kept = recorder.examples.keep(
                given, kwargs, model=card.number, epoch=recorder.epoch, grad=grad
            )
            event = recorder.emit(
                "forward",
                card.number,
                training=module.training,
                grad=grad,
                examples=length,
                kept=kept,
                loader=recorder.loader if batch else -1,
                rows=recorder.examples.number_rows((given, kwargs)),
                drawn=recorder.drawn if batch else -1,
                autocast=_autocast(inputs),
                **self._noise(module),
            )
        flight = Flight(
            event=event.index,
            model=card.number,
            inputs=inputs,
            batch=batch,
            kept=kept,
            length=length,
        )
        if not grad:
            if len(batch) > 1 and kept is not None and not module.training:
                recorder.examples.complete(kept, batch[recorder.target_item])
            recorder.flights = {k: v for k, v in recorder.flights.items() if v.batch is batch}
        recorder.flights[event.index] = flight
        return flight

    def _noise(self, module: nn.Module) -> dict[str, int]:
        """How many dropout and batch norm layers are in training and in evaluation mode."""
        on = off = 0
        for part in module.modules():
            if noisy(part):
                on += part.training
                off += not part.training and not _frozen(part)
        return {"noisy": on, "quiet": off}

    # ------------------------------------------------------------------------------ evaluation

    def _threshold(self, name: str, args: tuple[Any, ...]) -> None:
        tensors = [a for a in args if isinstance(a, Tensor)]
        value = (
            0.5 if name == "round" else next((a for a in args if not isinstance(a, Tensor)), None)
        )
        if not tensors or not isinstance(value, int | float):
            return
        forward = self._recorder.trace.forward_of(tensors[0])
        if forward is not None and tensors[0].is_floating_point() and tensors[0].numel():
            model = self._recorder.events[forward].subject
            self._recorder.emit(
                "threshold",
                model,
                value=float(value),
                function=name,
                lowest=float(tensors[0].min()),
                highest=float(tensors[0].max()),
            )

    def _evaluated(self, args: tuple[Any, ...]) -> None:
        """A loss without gradients: it tells the targets of an evaluation."""
        if len(args) < 2 or not all(isinstance(a, Tensor) for a in args[:2]):
            return
        forward = self._recorder.trace.forward_of(args[0])
        flight = None if forward is None else self._recorder.flights.get(forward)
        if flight is not None:
            self._recorder.examples.complete(flight.kept, args[1])

    # ------------------------------------------------------------------------- modes and states

    def _train(
        self, original: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        recorder, module = self._recorder, args[0]
        mode = bool(args[1]) if len(args) > 1 else bool(kwargs.get("mode", True))
        if self._inside == 0 and not recorder.in_model and not recorder.in_loader:
            recorder.know_root(module)
            card = recorder.models.find(module)
            recorder.emit("mode", -1 if card is None else card.number, training=mode)
        return self._deeper(original, args, kwargs)

    def _parameters(
        self, original: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if not self._recorder.in_model and self._inside == 0 and args[0]._modules:
            self._recorder.know_root(args[0])
        return original(*args, **kwargs)

    def _state_dict(
        self, original: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        outermost = self._inside == 0
        state = self._deeper(original, args, kwargs)
        card = self._recorder.models.find(args[0])
        if outermost and card is not None:
            if self._shares(args[0], state):  # it costs no memory of its own
                self._states[id(state)] = state
            self._recorder.emit("state_taken", card.number, state=id(state))
        return state

    def _load_state_dict(
        self, original: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        state = args[1] if len(args) > 1 else kwargs.get("state_dict")
        card = self._recorder.models.find(args[0])
        if self._inside == 0 and card is not None and isinstance(state, Mapping):
            own = self._shares(args[0], state)
            known = id(state) if id(state) in self._states else 0
            self._recorder.emit("state_loaded", card.number, own=own, state=known)
        return self._deeper(original, args, kwargs)

    def _shares(self, module: nn.Module, state: Mapping[str, Any]) -> bool:
        """Whether a state is the model's own memory rather than a copy."""
        own = dict(module.named_parameters())
        pairs = [(own[k], v) for k, v in state.items() if k in own and isinstance(v, Tensor)]
        return bool(pairs) and all(a.data_ptr() == b.data_ptr() for a, b in pairs if a.numel())

    def _deeper(
        self, original: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        self._inside += 1
        try:
            return original(*args, **kwargs)
        finally:
            self._inside -= 1


def _frozen(layer: nn.Module) -> bool:
    """Whether a layer has parameters and none of them learns: then evaluation mode is meant."""
    learns = [parameter.requires_grad for parameter in layer.parameters()]
    return bool(learns) and not any(learns)


def _autocast(inputs: tuple[Tensor, ...]) -> str:
    """The type that autocast computes in, empty where it is off."""
    device = inputs[0].device.type if inputs else "cpu"
    if not torch.is_autocast_enabled(device):
        return ""
    return str(torch.get_autocast_dtype(device)).removeprefix("torch.")
