"""How to use a trained network and how to train it again: lines to be copied."""

from __future__ import annotations

import shlex

from leadline.report.markup import code, prose, section
from leadline.training.run import Run


def predict_command(run: Run) -> str:
    """The command that asks the network about an image."""
    return f"leadline predict {shlex.quote(str(run.folder))} image.png"


def predict_lines(run: Run) -> str:
    """The same in three lines of Python."""
    return (
        "from pathlib import Path\n"
        "from leadline.training.predict import open_model, predict_files\n"
        f"print(predict_files(open_model(Path({str(run.folder)!r})), [Path('image.png')]))"
    )


def repeat_command(run: Run) -> str:
    """The command that trains the same recipe once more, into a folder of its own."""
    return f"leadline train {shlex.quote(str(run.folder / 'recipe.json'))}"


def usage_section(run: Run) -> str:
    """Use it, repeat it, write this page anew."""
    return section(
        "Use it, repeat it",
        prose("Ask it about an image, or a folder of images:"),
        code(predict_command(run)),
        prose("The same in Python; the image may have any size and mode:"),
        code(predict_lines(run)),
        prose("Images in memory, as one tensor of the training's shape:"),
        code(f"import leadline\nleadline.Run.open({str(run.folder)!r}).predict(images)"),
        prose(
            "Train it once more. On the same machine, with the same versions and the same "
            "execution, the weights come out the same:"
        ),
        code(repeat_command(run)),
        prose("Test the saved model anew and write this page again:"),
        code(f"leadline report {shlex.quote(str(run.folder))}"),
        anchor="use",
    )
