"""Prediction: what a trained model sees in image files, read as the training read them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from leadline.core.errors import DataError
from leadline.data.folder import IMAGE_SUFFIXES, read_image
from leadline.training.run import Run
from leadline.training.trained import TrainedModel, load_model

ENDINGS = ", ".join(IMAGE_SUFFIXES)


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The likeliest classes of one image with their probabilities, or why it was not read."""

    path: Path
    classes: tuple[tuple[str, float], ...] = ()
    error: str | None = None


def open_model(place: Path) -> TrainedModel:
    """The trained model of a run folder or of a model.safetensors."""
    return load_model(place) if place.is_file() else Run.open(place).model()


def predict_files(
    trained: TrainedModel, paths: Iterable[Path], *, top: int = 3
) -> list[Prediction]:
    """Predict image files and those in folders; what cannot be read is named, not fatal."""
    channels, size, _ = trained.description.shape
    predictions = []
    for path in _images(paths):
        if path.is_dir():
            predictions.append(Prediction(path=path, error=f"no picture ({ENDINGS}) in it"))
            continue
        try:
            image = read_image(path, channels=channels, size=size)
        except DataError as error:
            reason = error.received.removeprefix(f"{path}: ")
            predictions.append(Prediction(path=path, error=reason))
            continue
        shares = trained.probabilities(image.unsqueeze(0))[0]
        best = shares.topk(min(top, len(shares)))
        names = [trained.description.class_names[i] for i in best.indices.tolist()]
        classes = tuple(zip(names, best.values.tolist(), strict=True))
        predictions.append(Prediction(path=path, classes=classes))
    return predictions


def _images(paths: Iterable[Path]) -> Iterable[Path]:
    """The files given and those in the folders given; a folder without one stands for itself."""
    for path in paths:
        if path.is_dir():
            found = sorted(p for p in path.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
            yield from found or [path]
        else:
            yield path
