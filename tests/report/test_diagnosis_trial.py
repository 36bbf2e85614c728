"""Tests of the pictures of a trial: both curves on one scale, both errors as bars."""

from __future__ import annotations

import math
import re
from typing import Any
from xml.etree import ElementTree

import pytest

from leadline.doctor.trial import Arm, Trial
from leadline.report.diagnosis_trial import trial_figures

STEPS = 40
FLAT = tuple(2.3 for _ in range(STEPS))
FALLING = tuple(2.3 - 0.05 * step for step in range(STEPS))


def plain(*, before: float = 0.8, after: float = 0.2, losses: Any = FLAT, ended: str = "") -> Any:
    return Trial(
        remedy="a rate of <0.1>",
        steps=STEPS,
        without=Arm(losses=losses, error=before, surprise=before, ended=ended),
        treated=Arm(losses=FALLING, error=after, surprise=after),
        measured="wrong answers",
        helps=True,
    ).to_plain()


def drawings(markup: str) -> list[ElementTree.Element]:
    """The figures of the markup, which have to be well-formed."""
    return [
        ElementTree.fromstring(svg) for svg in re.findall(r"<svg xmlns.*?</svg>(?=</div>)", markup)
    ]


def bars(drawing: ElementTree.Element) -> list[float]:
    return [float(e.attrib["width"]) for e in drawing.iter() if e.tag.endswith("rect")]


def test_there_is_a_picture_of_the_curves_and_one_of_the_errors() -> None:
    markup = trial_figures(plain())
    curves, errors = drawings(markup)
    assert "as it is" in "".join(curves.itertext())
    without, treated = bars(errors)
    assert without == pytest.approx(4 * treated, rel=1e-2)
    assert {"0.8", "0.2", "knows nothing"} <= set(errors.itertext())
    assert "Error: wrong answers. 75% of the error is gone." in markup
    assert "only one has this change: a rate of &lt;0.1&gt;." in markup


def test_an_error_that_is_not_finite_is_a_full_bar_with_its_name() -> None:
    markup = trial_figures(plain(before=math.inf, losses=(2.3, math.nan), ended="loss nan"))
    errors = drawings(markup)[1]
    without, treated = bars(errors)
    assert without > 4 * treated
    assert "infinite" in set(errors.itertext())
    assert "The training as it is stopped: loss nan." in markup


def test_a_curve_that_explodes_is_cut_off_and_that_is_said() -> None:
    markup = trial_figures(plain(losses=(2.3, *[1e9] * 39)))
    assert "Losses above 9.2 are cut off." in markup
    assert not re.search(r"\b\d{3,}M\b", markup), "the axis does not reach a billion"


def test_a_trial_without_losses_shows_the_errors_alone() -> None:
    trial = plain(losses=())
    trial["treated"]["losses"] = []
    assert len(drawings(trial_figures(trial))) == 1
