"""A training attended by the doctor: it speaks, or it heals and goes on, and writes down which.

    off      nobody looks
    advise   a symptom is said and written into the journal
    heal     a symptom is examined by a diagnosis; what it proves is applied to the recipe, and the
             training goes on from before the fault

Where nothing is proven, or a recipe cannot say the remedy, the training goes on as it was.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from leadline.core.errors import LeadlineError, NonFiniteError
from leadline.data.examples import Dataset
from leadline.doctor.attending import Attendant
from leadline.doctor.diagnose import diagnose
from leadline.doctor.diagnosis import Diagnosis
from leadline.doctor.diagnosis_words import verdict
from leadline.doctor.finding import Evidence
from leadline.doctor.symptoms import LATELY, Symptom
from leadline.recipes.go_on import prepare_to_go_on
from leadline.recipes.heal import Healed, heal_recipe, recipe_diff
from leadline.report.diagnosis import keep_diagnosis
from leadline.report.numbers import duration
from leadline.report.terminal import Terminal
from leadline.training.batches import positioned
from leadline.training.build import build_setup
from leadline.training.execution import Execution
from leadline.training.journal import Journal
from leadline.training.recipe import Recipe
from leadline.training.run import Run

Mode = Literal["off", "advise", "heal"]

MOST_HEALINGS = 2
"""Times that one run is healed: what needs more is for a person to look at."""


class Healing(Exception):
    """The training has to stop: its recipe is to be healed."""

    def __init__(self, symptom: Symptom, diagnosis: Diagnosis, healed: Healed) -> None:
        super().__init__(symptom.summary)
        self.symptom = symptom
        self.diagnosis = diagnosis
        self.healed = healed


@dataclass(kw_only=True, eq=False)
class Doctor:
    """Attends the training of one run; `recipe` is the one under way."""

    mode: Mode
    run: Run
    dataset: Dataset
    recipe: Recipe
    execution: Execution
    terminal: Terminal
    healings: int = 0
    attendant: Attendant | None = None

    def attend(self) -> Attendant | None:
        """Whoever looks at the steps of the training that is about to begin; None when off."""
        if self.mode == "off":
            return None
        setup = build_setup(self.recipe, self.dataset, device=self.execution.device)
        per_epoch = -(-len(positioned(setup.batches)) // setup.accumulate)
        metric = setup.task.main_metric if setup.task is not None else ""
        self.attendant = Attendant(
            self.examine, total_steps=setup.epochs * per_epoch, metric=metric
        )
        return self.attendant

    def examine(self, symptom: Symptom) -> None:
        """Say a symptom; under 'heal' look for its cause, and raise Healing where one is proven."""
        assert self.attendant is not None, "it is the attendant that asks"
        self.attendant.told.append(self._row(symptom))

    def failed(self, error: NonFiniteError) -> None:
        """The training broke off: examine that; returns where it cannot be helped."""
        if self.attendant is None:
            return
        self.attendant.read()
        step = self.attendant.vitals.step + 1
        symptom = Symptom(
            kind="not_finite",
            step=step,
            since=max(0, step - LATELY),
            summary=f"the training broke off at step {step:,}",
            evidence=(
                Evidence(quantity="what it said", measured=error.received, expected="nothing"),
            ),
        )
        row = self._row(symptom)
        Journal(self.run.journal).event(row.pop("event"), **row)

    def _row(self, symptom: Symptom) -> dict[str, Any]:
        evidence = "; ".join(map(str, symptom.evidence))
        self.terminal.say("doctor", f"step {symptom.step:,}: {symptom.summary} ({evidence})")
        if self.mode == "advise" or self.healings >= MOST_HEALINGS:
            said = f"find out why: leadline diagnose {self.run.folder}"
            if self.mode == "heal":
                said = f"the recipe was healed {self.healings} times already; {said}"
            return self._told(symptom, "advised", said)
        diagnosis = self._diagnose(symptom)
        if diagnosis is None:
            return self._told(symptom, "not examined", "it could not be examined; it goes on")
        healed = heal_recipe(self.recipe, diagnosis, dataset=self.dataset)
        if healed.applied:
            raise Healing(symptom, diagnosis, healed)
        reasons = "; ".join(f"{f.cause}: {reason}" for f, reason in healed.left)
        said = f"nothing is changed: {reasons or 'no cause was proven'}"
        return self._told(symptom, "nothing proven", said, diagnosis=diagnosis)

    def _diagnose(self, symptom: Symptom) -> Diagnosis | None:
        """A diagnosis of the recipe while its training stands still."""
        self.terminal.say("doctor", "examining it; the training stands still meanwhile")
        setup = build_setup(self.recipe, self.dataset, device=self.execution.device)
        try:
            found = diagnose(setup, execution=self.execution)
        except LeadlineError as error:
            self.terminal.say("doctor", f"the diagnosis failed: {error.received}")
            return None
        cost = f"{duration(found.seconds)}, {found.steps:,} steps; allowed: {found.allowance}"
        self.terminal.say("doctor", f"{verdict(found.to_plain())} ({cost})")
        when = f"step {symptom.step:,}: {symptom.summary}; this is of the recipe as it was then"
        keep_diagnosis(self.run, {**found.to_plain(), "history": [when]})
        return found

    def _told(
        self,
        symptom: Symptom,
        outcome: str,
        says: str,
        *,
        diagnosis: Diagnosis | None = None,
    ) -> dict[str, Any]:
        self.terminal.say("doctor", says)
        row = {"event": "doctor", "step": symptom.step, "at": symptom.step, "mode": self.mode}
        row |= {"outcome": outcome, "symptom": symptom.to_plain(), "says": says}
        return row | ({"diagnosis": _short(diagnosis)} if diagnosis is not None else {})

    def heal(self, healing: Healing) -> Recipe:
        """Make the run ready to go on under the healed recipe, and write down what was done."""
        healed, symptom = healing.healed, healing.symptom
        setup = build_setup(healed.recipe, self.dataset, device=self.execution.device)
        before = self.recipe
        ready = prepare_to_go_on(
            self.run,
            healed.recipe,
            setup,
            execution=self.execution,
            since=symptom.since if healed.keeps_weights else None,
        )
        self.recipe = healed.recipe
        self.healings += 1
        causes = ", ".join(f.cause for f in healed.applied)
        place = f"step {ready.step:,}" if ready.step else "the start"
        says = f"healed of {causes}; the training goes on from {place}; kept: "
        says += ", ".join(ready.kept)
        diff = recipe_diff(before, healed.recipe)
        row = self._told(symptom, "healed", says, diagnosis=healing.diagnosis)
        for line in diff:
            self.terminal.say("recipe", line)
        row |= {"step": ready.step, "applied": [f.cause for f in healed.applied]}
        row |= {"left": [f"{f.cause}: {reason}" for f, reason in healed.left]}
        row |= {"diff": list(diff), "kept": list(ready.kept)}
        Journal(self.run.journal).event(row.pop("event"), **row)
        return healed.recipe


def _short(diagnosis: Diagnosis) -> dict[str, Any]:
    plain = diagnosis.to_plain()
    keys = ("cause", "severity", "proven", "remedy")
    return {
        "findings": [{key: finding[key] for key in keys} for finding in plain["findings"]],
        "cost": plain["cost"],
    }
