"""The baselines for diagnosis: the published thresholds of three known detectors, as functions.

    umlaut(setup), autotrainer(setup), deepdiagnosis(setup) -> causes, in the tool's own order

Each tool is re-written from its thresholds, in a file of its own with a table that says which words
of the vocabulary a symptom of it means. All look at the same short training
(`baselines_watch.py`), of which one is kept, so that asking all three trains once.
"""

from __future__ import annotations

from baselines_autotrainer import autotrainer
from baselines_deepdiagnosis import deepdiagnosis
from baselines_umlaut import umlaut

__all__ = ["autotrainer", "deepdiagnosis", "umlaut"]
