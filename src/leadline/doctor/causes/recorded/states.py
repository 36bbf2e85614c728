"""States of a recorded loop: the best one kept without a copy."""

from __future__ import annotations

from collections.abc import Iterator

from leadline.doctor.finding import Evidence, Finding
from leadline.doctor.recording.rerun_surroundings import states_copied
from leadline.doctor.recording.tape import Tape
from leadline.doctor.remedy import Remedy


def signs(tape: Tape) -> Iterator[Finding]:
    """What was loaded, and whether it was ever another than what was there."""
    for event in tape.of("state_loaded"):
        if not event["own"]:
            continue
        taken = [e for e in tape.of("state_taken", subject=event.subject) if e.index < event.index]
        taken = [e for e in taken if e["state"] == event["state"]] or taken
        since = event.updates - max((e.updates for e in taken), default=0)
        if taken and not since:
            continue
        yield Finding(
            cause="best_state_by_reference",
            severity="error",
            summary="the state that is loaded is the model's own memory: state_dict() was kept "
            "without a copy, and training went on to change it",
            layers=(tape.models[event.subject].name,),
            evidence=(
                Evidence(
                    quantity="updates between state_dict() and load_state_dict()",
                    measured=float(since),
                    expected="any number, if the state is a copy",
                ),
                Evidence(
                    quantity="loaded tensors that are the model's own",
                    measured="all",
                    expected="none",
                ),
            ),
            remedy="keep copy.deepcopy(model.state_dict())",
            proven=True,
            change=Remedy(
                title="keep a copy of the best state",
                lines=(
                    "- best = model.state_dict()",
                    "+ best = copy.deepcopy(model.state_dict())",
                ),
                rerun=states_copied,
            ),
        )
        return
