"""The report of a run: one HTML file with everything in it, to read offline, on paper or a phone.

No script, no network, no font to load: styles, drawings and pictures are inside, and the colours
follow the reader's light or dark mode. A person who knows nothing of the project finds the answer
in the first sentence, and each figure says how it is read.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from leadline.core.files import write_atomic
from leadline.data.examples import Dataset
from leadline.report.classes import calibration_section, confusion_section, per_class_section
from leadline.report.curves import curves_section
from leadline.report.depth import depth_section
from leadline.report.diagnosis import diagnosis_section, kept_diagnosis
from leadline.report.doctoring import doctor_section
from leadline.report.document import document
from leadline.report.layers import layer_table, layers_section
from leadline.report.markup import escape, prose
from leadline.report.mistakes import mistakes_section, worst_mistakes
from leadline.report.settings import data_section, environment_section, recipe_section
from leadline.report.usage import usage_section
from leadline.report.verdict import gather, key_figures, verdict
from leadline.tasks.classification import ClassificationResult
from leadline.training.run import Run

CONTENTS = {
    "training": "training",
    "depth": "depth",
    "doctor": "doctor",
    "diagnosis": "diagnosis",
    "confusion": "confusion",
    "mistakes": "mistakes",
    "calibration": "calibration",
    "classes": "classes",
    "layers": "layers",
    "data": "data",
    "recipe": "recipe",
    "environment": "environment",
    "use": "use it",
}
"""The chapters, from the anchor to its short name; only those that are there are listed."""


def write_report(
    run: Run,
    *,
    model: nn.Module,
    dataset: Dataset,
    outputs: Float[Tensor, "N K"],
    targets: Int[Tensor, " N"],
    result: ClassificationResult,
) -> Path:
    """Write `report.html` into the run's folder, whole or not at all; the path.

    `outputs` are the model's logits (N test images, K classes) in the order of `dataset.test`,
    `targets` their classes, and `result` what the task made of both.
    """
    recipe, history = run.recipe, run.history()
    parameters = sum(p.numel() for p in model.parameters())
    facts = gather(recipe, history, result=result, parameters=parameters)
    names = dataset.class_names
    diagnosis = kept_diagnosis(run)
    sections = [
        curves_section(history),
        depth_section(history),
        doctor_section(history),
        diagnosis_section(diagnosis) if diagnosis is not None else "",
        confusion_section(result, names),
        mistakes_section(
            worst_mistakes(outputs, targets),
            examples=dataset.test,
            class_names=names,
            wrong=facts.total - facts.right,
        ),
        calibration_section(result),
        per_class_section(result, names),
        layers_section(layer_table(model, _sample(model, dataset))),
        data_section(dataset),
        recipe_section(recipe),
        environment_section(history),
        usage_section(run),
    ]
    title = f"{facts.model} on {dataset.name}"
    body = "\n".join(part for part in sections if part)
    figures = key_figures(facts, result)
    top = _header(title, run=run, sentence=verdict(facts), figures=figures, body=body)
    write_atomic(run.report_file, document(title, top + body))
    return run.report_file


def _sample(model: nn.Module, dataset: Dataset) -> Tensor:
    """One image of zeros, the mean of the training images, where the model's weights are."""
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    return torch.zeros(1, *dataset.shape, device=device)


def _header(title: str, *, run: Run, sentence: str, figures: str, body: str) -> str:
    written = datetime.now().astimezone()
    links = "".join(
        f'<a href="#{anchor}">{name}</a>'
        for anchor, name in CONTENTS.items()
        if f'<section id="{anchor}">' in body
    )
    return (
        f'<header><p class="eyebrow">Leadline report · {escape(run.folder.name)} · '
        f"{written:%d %B %Y, %H:%M}</p><h1>{escape(title)}</h1>"
        + prose(sentence).replace("<p>", '<p class="verdict">', 1)
        + figures
        + f"<nav>{links}</nav></header>\n"
    )
