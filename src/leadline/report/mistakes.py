"""The worst mistakes as pictures: test images that the network named wrongly, and was sure of.

A confident mistake is either a wrong label, an image that people could not name either, or
something the network has not understood; which of them, a glance at the picture tells. Small
images are embedded pixel by pixel and enlarged by the browser without blurring them.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from PIL import Image
from torch import Tensor

from leadline.data.examples import Examples
from leadline.report.markup import escape, prose, section
from leadline.report.numbers import count, percent, plural

PICTURES = 24
"""How many mistakes are shown."""

LARGEST_SIDE = 128
"""Side in pixels above which a picture is reduced, so that the report stays small."""


@dataclass(frozen=True, kw_only=True)
class Mistake:
    """One wrong answer: the place in the split, the class it is and the one that was answered."""

    index: int
    true: int
    answer: int
    confidence: float
    true_confidence: float


def worst_mistakes(
    outputs: Float[Tensor, "N K"], targets: Int[Tensor, " N"], *, most: int = PICTURES
) -> tuple[Mistake, ...]:
    """The wrong answers with the highest confidence, surest first.

    >>> logits = torch.tensor([[4.0, 0.0], [0.0, 1.0], [0.0, 3.0]])
    >>> [m.index for m in worst_mistakes(logits, torch.tensor([1, 1, 0]))]
    [0, 2]
    """
    probabilities = outputs.softmax(dim=1)
    confidences, answers = probabilities.max(dim=1)
    wrong = (answers != targets).nonzero().flatten()
    order = wrong[confidences[wrong].argsort(descending=True, stable=True)][:most]
    return tuple(
        Mistake(
            index=index,
            true=int(targets[index]),
            answer=int(answers[index]),
            confidence=float(confidences[index]),
            true_confidence=float(probabilities[index, targets[index]]),
        )
        for index in order.tolist()
    )


def mistakes_section(
    mistakes: Sequence[Mistake], *, examples: Examples, class_names: Sequence[str], wrong: int
) -> str:
    """The mistakes as a gallery; `wrong` is how many there were altogether."""
    title, anchor = "The worst mistakes", "mistakes"
    if not mistakes:
        return section(
            title, prose(f"All {plural(len(examples), 'test image')} are right."), anchor=anchor
        )
    images = examples.take(torch.tensor([mistake.index for mistake in mistakes]))
    cards = [
        _card(mistake, image, label=examples.label(mistake.index), class_names=class_names)
        for mistake, image in zip(mistakes, images, strict=True)
    ]
    few = wrong == len(mistakes)
    shown = "All" if few else f"The {count(len(mistakes))} surest of"
    reading = (
        f"{shown} {plural(wrong, 'wrong answer')} in {plural(len(examples), 'test image')}, "
        "the surest first. Under each picture: what it is → what the network answered, how sure "
        "it was, how sure of the truth, and where the picture comes from. A wrong label in the "
        "data shows here first."
    )
    gallery = f'<div class="gallery">{"".join(cards)}</div>'
    return section(title, prose(reading), gallery, anchor=anchor)


def _card(mistake: Mistake, image: Tensor, *, label: str, class_names: Sequence[str]) -> str:
    true, answer = class_names[mistake.true], class_names[mistake.answer]
    alternative = f"{true}, answered as {answer}"
    return (
        f'<figure class="mistake"><img src="{picture(image)}" alt="{escape(alternative)}">'
        f"<figcaption><b>{escape(true)} → {escape(answer)}</b> "
        f"<span>{percent(mistake.confidence)} sure; {percent(mistake.true_confidence)} "
        f"of the truth</span>"
        f'<span class="source" title="{escape(label)}">{escape(_tail(label))}</span>'
        f"</figcaption></figure>"
    )


def _tail(label: str, *, longest: int = 40) -> str:
    """The end of a path, where the file's own name is."""
    return label if len(label) <= longest else "…" + label[1 - longest :]


def picture(image: Shaped[Tensor, "C H W"]) -> str:
    """An image as a PNG in a data URI: grey, colour, or the mean of any other channels.

    Images of floats in 0 to 1 are shown as they are, others stretched from lowest to highest.

    >>> picture(torch.zeros(1, 2, 2, dtype=torch.uint8))[:22]
    'data:image/png;base64,'
    """
    array = _levels(image)
    if array.shape[0] == 3:
        drawn = Image.fromarray(np.ascontiguousarray(array.transpose(1, 2, 0)), mode="RGB")
    else:
        grey = array[0] if array.shape[0] == 1 else array.mean(axis=0).astype(np.uint8)
        drawn = Image.fromarray(np.ascontiguousarray(grey), mode="L")
    if max(drawn.size) > LARGEST_SIDE:
        drawn.thumbnail((LARGEST_SIDE, LARGEST_SIDE), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    drawn.save(stream, format="PNG")
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


def _levels(image: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """The image as bytes from 0 to 255."""
    if image.dtype == torch.uint8:
        return image.cpu().numpy()
    values = image.detach().float().cpu().nan_to_num(0.0, posinf=0.0, neginf=0.0)
    low, high = float(values.min()), float(values.max())
    if low < 0 or high > 1:
        values = (values - low) / ((high - low) or 1.0)
    return (255 * values).round().to(torch.uint8).numpy()
