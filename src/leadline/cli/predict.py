"""leadline predict RUN IMAGE...: what a trained network sees in images or folders of images."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from leadline.cli.options import parse
from leadline.core.config import check, in_range
from leadline.training.predict import open_model, predict_files


@dataclass(frozen=True, kw_only=True)
class PredictOptions:
    """The words after `leadline predict`."""

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """a run folder, or a model.safetensors"""
    images: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="IMAGE...")]
    """image files, or folders of them"""
    top: int = 3
    """how many classes to name for each image, the likeliest first"""

    def __post_init__(self) -> None:
        check(
            self,
            None if self.images else "images: name at least one image or folder, received none",
            in_range("top", self.top, 1),
        )


def run(words: list[str], *, as_json: bool) -> int:
    """Predict; the exit code: 1 when an image could not be read."""
    options = parse(PredictOptions, words, verb="predict", caption=__doc__ or "")
    predictions = predict_files(open_model(options.run), options.images, top=options.top)
    if as_json:
        rows = [
            {"image": str(p.path), "classes": dict(p.classes), "error": p.error}
            for p in predictions
        ]
        print(json.dumps({"predictions": rows}))
    else:
        for p in predictions:
            words_ = ", ".join(f"{name} {share:.1%}" for name, share in p.classes)
            print(f"{p.path}: {p.error or words_}")
    return 1 if any(p.error for p in predictions) else 0
