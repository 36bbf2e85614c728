"""`leadline train`: a name, a path or a recipe becomes a run folder, and every option counts."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from sklearn.datasets import load_digits

from leadline.cli import train as verb
from leadline.core.config import to_json
from leadline.models.architecture import Architecture
from leadline.optim.optimizers import USUAL_RATES
from leadline.recipes.catalogue import RECIPES
from leadline.training.journal import Journal
from leadline.training.run import Run
from leadline.training.signals import Stopped
from leadline.training.step import Step


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty pictures of three digits, a sub-folder for each."""
    root = tmp_path_factory.mktemp("data") / "numbers"
    digits = load_digits(n_class=3)
    for name in "012":
        (root / name).mkdir(parents=True)
    for number, (pixels, target) in enumerate(zip(digits.images, digits.target, strict=True)):
        if number == 90:
            break
        image = Image.fromarray((pixels * 255 / 16).round().astype("uint8"))
        image.save(root / str(target) / f"{number}.png")
    return root


def only_run(root: Path) -> Run:
    """The one run below a folder."""
    (found,) = root.iterdir()
    return Run.open(found)


def same_weights(one: Run, other: Run) -> bool:
    """Whether two runs ended with the same bits."""
    first, second = load_file(one.model_file), load_file(other.model_file)
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def test_json_has_exactly_these_keys_and_nothing_else_is_printed(
    leadline: Any, quick: tuple[str, ...]
) -> None:
    said = leadline("train", "digits", *quick, "--json")
    assert said.code == 0 and said.err == "" and len(said.out.splitlines()) == 1
    assert set(said.last) == {"run", "metrics", "seconds", "steps", "model", "report", "doctor"}
    assert set(said.last["metrics"]) == {"loss", "accuracy", "top5", "calibration_error"}
    assert said.last["run"] == "runs/digits-001"
    assert said.last["steps"] == 21  # 1,293 examples in batches of 64
    assert 0 < said.last["seconds"] < 60
    for key in ("model", "report"):
        assert Path(said.last[key]).is_file()


def test_a_person_reads_what_was_found_what_came_out_and_where_it_lies(
    leadline: Any, quick: tuple[str, ...]
) -> None:
    said = leadline("train", "digits", *quick)
    assert said.code == 0 and said.err == ""
    labels = [line[:10].strip() for line in said.out.splitlines()]
    assert labels[:3] == ["run", "data", "model"]
    assert labels[-5:] == ["test", "time", "model", "report", "try"]
    assert "model     convnet, as the recipe 'digits' says\n" in said.out
    assert "epoch 1/1  loss " in said.out
    assert said.out.endswith("leadline predict runs/digits-001 image.png\n")
    everything = {"recipe.json", "journal.jsonl", "checkpoints", "model.safetensors"}
    everything |= {"report.html", "README.md", ".lock"}
    assert {entry.name for entry in Path("runs/digits-001").iterdir()} == everything


def test_the_doctor_is_asked_for_by_one_word_and_heals_unless_it_is_told_to_advise() -> None:
    assert verb._in_full(["--doctor", "digits", "--lr", "1"])[:3] == [
        "--doctor",
        "heal",
        "digits",
    ]
    assert verb._in_full([]) == []
    assert verb._in_full(["digits", "--doctor"]) == ["digits", "--doctor", "heal"]
    for mode in ("off", "advise", "heal"):
        assert verb._in_full(["--doctor", mode, "digits"]) == ["--doctor", mode, "digits"]
    assert verb._in_full(["digits", "--doctor=advise"]) == ["digits", "--doctor=advise"]


def test_a_doctor_looks_on_and_says_nothing_of_a_healthy_training(
    leadline: Any, quick: tuple[str, ...]
) -> None:
    said = leadline("train", "--doctor", "digits", *quick, "--json")
    assert said.code == 0 and said.last["doctor"] == []
    asked = Run.open("runs/digits-001").event("asked")
    assert asked is not None and asked["doctor"] == "heal"


def test_the_recipe_may_stand_behind_its_options(leadline: Any, folder: Path) -> None:
    options = ("--epochs", "1", "--width", "4", "--precision", "float32", "--runs", "r")
    said = leadline("train", *options, folder, "--minutes", "None")
    assert said.code == 0
    assert only_run(Path("r")).recipe.data.data == str(folder)
    said = leadline("train", *options, "digitz")
    assert said.code == 2
    assert "'digitz' (did you mean 'digits'?)" in said.err


def test_every_option_changes_its_value_of_the_recipe_and_no_other(
    leadline: Any, quick: tuple[str, ...]
) -> None:
    words = ("--seed", "5", "--label-smoothing", "0.2", "--flip", "--betas", "0.8", "0.9")
    assert leadline("train", "digits", *quick, *words).code == 0
    plain = RECIPES["digits"].recipe
    expected = dataclasses.replace(
        plain,
        budget=dataclasses.replace(plain.budget, epochs=1, batch_size=64),
        seed=5,
        model=dataclasses.replace(plain.model, width=4),
        regularisation=dataclasses.replace(plain.regularisation, label_smoothing=0.2),
        augmentation=dataclasses.replace(plain.augmentation, flip=True),
        optimizer=dataclasses.replace(plain.optimizer, betas=(0.8, 0.9)),
    )
    assert Run.open("runs/digits-001").recipe == expected


@pytest.mark.parametrize(
    ("words", "rate"),
    [
        (("--optimizer", "adamw"), USUAL_RATES["adamw"]),
        (("--optimizer", "adamw", "--lr", "0.1"), 0.1),
        (("--lr=0.3",), 0.3),
        ((), RECIPES["digits"].recipe.optimizer.lr),
    ],
)
def test_another_optimizer_brings_its_usual_rate_unless_one_is_given(
    leadline: Any, quick: tuple[str, ...], words: tuple[str, ...], rate: float
) -> None:
    assert leadline("train", "digits", *quick, *words, "--model", "mlp").code == 0
    assert Run.open("runs/digits-001").recipe.optimizer.lr == rate


def test_another_model_brings_its_own_depth_and_width(leadline: Any) -> None:
    words = ("--model", "resnet20", "--width", "4", "--image-size", "8")
    said = leadline("train", "digits", "--epochs", "1", "--precision", "float32", *words)
    assert said.code == 0, said.err
    assert Run.open("runs/digits-001").recipe.model == Architecture(model="resnet20", width=4)


def test_another_model_than_the_recipes_is_not_said_to_be_the_recipes(
    leadline: Any, quick: tuple[str, ...], folder: Path
) -> None:
    said = leadline("train", "digits", *quick, "--model", "mlp")
    assert "model     mlp, as --model says\n" in said.out
    said = leadline("train", folder, *quick, "--model", "mlp")
    assert "model     mlp, as --model says\n" in said.out


def test_a_folder_gets_a_recipe_and_one_line_says_why(
    leadline: Any, quick: tuple[str, ...], folder: Path
) -> None:
    said = leadline("train", folder, *quick)
    assert said.code == 0
    lines = [line for line in said.out.splitlines() if line.startswith("model ")]
    assert "convnet, because images of 8 × 8 pixels keep their resolution" in lines[0]
    run = Run.open("runs/numbers-001")
    assert run.recipe.budget.epochs == 1 and run.recipe.model.width == 4
    assert run.metrics["accuracy"] >= 0


def test_a_runs_own_recipe_trains_the_same_weights_again(
    leadline: Any, trained: Path, quick: tuple[str, ...]
) -> None:
    said = leadline("train", trained / "recipe.json", "--precision", "float32")
    assert said.code == 0
    again = Run.open("runs/digits-001")
    assert again.recipe == Run.open(trained).recipe
    assert same_weights(again, Run.open(trained))


def test_measuring_names_the_execution_it_kept(leadline: Any) -> None:
    said = leadline("train", "digits", "--epochs", "1", "--width", "4")
    assert said.code == 0
    (line,) = (line for line in said.out.splitlines() if line.startswith("computed  "))
    execution = Run.open("runs/digits-001").event("start")["execution"]  # type: ignore[index]
    assert line.startswith(f"computed  cpu, {execution['precision']}, {execution['layout']}")


@pytest.mark.parametrize(
    ("words", "said_so"),
    [
        ((), "expected a recipe's name, a path to data, a recipe.json, or --resume RUN"),
        (("digits", "--device", "tpu"), "received 'tpu'"),
        (("digits", "--model", "resnet2O"), "'resnet2O' (did you mean"),
        (("digits", "--optimizer", "adm"), "'adm'"),
        (("digits", "--epochs", "three"), "'three'"),
        (("digits", "--epochs", "0"), "epochs must be >= 1, received 0"),
        (("digits", "--save-interval", "-1"), "save_interval must be >= 0"),
        (("digits", "--lr", "nan"), "lr must be > 0"),
        (("gone.json",), "received gone.json, which does not exist"),
    ],
)
def test_what_was_asked_wrongly_exits_with_2_says_what_and_leaves_nothing(
    leadline: Any, words: tuple[str, ...], said_so: str
) -> None:
    said = leadline("train", *words)
    assert said.code == 2
    assert said_so in " ".join(said.err.replace("received 1 problem:\n", "").split())
    assert not Path("runs").exists()


def test_a_finished_run_is_not_resumed(leadline: Any, trained: Path) -> None:
    before = (trained / "journal.jsonl").read_bytes()
    said = leadline("train", "--resume", trained)
    assert said.code == 2
    assert f"received {trained}, which is finished" in said.err
    assert f"leadline train {trained}/recipe.json --epochs N" in said.err
    assert (trained / "journal.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    "beside", [("--lr", "0.2"), ("--save_interval", "1", "--epochs=3"), ("digits",)]
)
def test_what_a_resumed_run_cannot_honour_is_refused_rather_than_left_out(
    leadline: Any, trained: Path, beside: tuple[str, ...]
) -> None:
    said = leadline("train", *beside, "--resume", trained)
    assert said.code == 2
    name = beside[-2 if beside[0] == "--lr" else -1].partition("=")[0]
    assert f"received {name} beside it" in said.err


def test_an_interrupted_run_goes_on_where_it_stands(
    leadline: Any, trained: Path, quick: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Journal.step

    def interrupt(journal: Journal, record: Step) -> None:
        step(journal, record)
        os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "step", interrupt)
        said = leadline("train", "digits", *quick, "--json")
    assert said.code == 130
    assert said.err == (
        "SIGINT: the training is saved; go on with leadline train --resume runs/digits-001\n"
    )
    assert said.last["error"] == "Stopped" and said.last["received"] == "SIGINT"
    assert said.last["remedy"].endswith("leadline train --resume runs/digits-001")
    resumed = leadline("train", "--resume", "runs/digits-001")
    assert resumed.code == 0
    first = resumed.out.splitlines()
    assert "model     convnet, as the run began" in first
    assert "run       runs/digits-001, from step 1 (step-00000001.safetensors)" in first
    assert same_weights(Run.open("runs/digits-001"), Run.open(trained))


def test_a_run_that_saved_nothing_yet_begins_at_its_start(leadline: Any, trained: Path) -> None:
    recipe = Run.open(trained).recipe
    run = Run.create(recipe, root=Path("runs"))
    said = leadline("train", "--resume", run.folder)
    assert said.code == 0
    assert "run       runs/digits-001, from its start: nothing was saved yet\n" in said.out
    assert run.metrics


def test_summary_reads_the_run_alone(trained: Path) -> None:
    summary = verb.summary(Run.open(trained))
    end = Run.open(trained).event("end")
    assert end is not None
    assert summary["metrics"] == end["metrics"] and summary["steps"] == end["step"]
    assert json.loads(json.dumps(summary)) == summary


def test_stopped_is_not_an_error_that_a_broad_except_would_swallow() -> None:
    assert not issubclass(Stopped, Exception)


def test_a_recipe_json_is_read_with_all_its_problems(leadline: Any, tmp_path: Path) -> None:
    plain = json.loads(to_json(RECIPES["digits"].recipe))
    plain["lr"] = 0.1
    plain["budget"]["epochs"] = "many"
    plain["optimizer"]["optimizer"] = "adm"
    del plain["data"]["data"]
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(plain))
    said = leadline("train", path)
    assert said.code == 2
    for part in (
        f"{path} with 4 problems:",
        "unknown key lr",
        "missing key data.data",
        "budget.epochs must be a whole number, received 'many' (text)",
        "optimizer.optimizer must be one of",
        "(did you mean 'adam",
    ):
        assert part in said.err
    assert not Path("runs").exists()
