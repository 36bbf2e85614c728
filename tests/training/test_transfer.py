"""Tests of transfer: where weights come from, which head is kept, what learns, exact resume."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from leadline.core.errors import ConfigError, FileError, ModelError
from leadline.data.arrays import from_arrays
from leadline.data.examples import Dataset
from leadline.data.options import DataOptions
from leadline.models.architecture import Architecture
from leadline.models.create import create_model
from leadline.training.build import build_setup, start_notes
from leadline.training.execution import Execution
from leadline.training.loop import steps
from leadline.training.recipe import Budget, Recipe, Transfer
from leadline.training.state import TrainingState
from leadline.training.trained import Description, save_model
from leadline.training.transfer import read_start

ARCHITECTURE = Architecture(model="resnet20", depth=8, width=4)
NAMES = ("0", "1", "2")


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    chance = np.random.default_rng(0)
    pixels = chance.integers(0, 256, (90, 8, 8), dtype=np.uint8)
    return from_arrays(pixels, [0, 1, 2] * 30)


@pytest.fixture
def source(tmp_path: Path, dataset: Dataset) -> Path:
    torch.manual_seed(3)
    model = create_model(ARCHITECTURE, num_classes=3, in_chans=1, image_size=8)
    with torch.no_grad():
        model.train()(torch.randn(8, 1, 8, 8))
    path = tmp_path / "model.safetensors"
    save_model(path, model, Description.of(ARCHITECTURE, dataset))
    return path


def recipe(**transfer: object) -> Recipe:
    return Recipe(
        data=DataOptions(data="arrays"),
        model=ARCHITECTURE,
        transfer=Transfer(**transfer),  # type: ignore[arg-type]
        budget=Budget(epochs=4, batch_size=20),
    )


def test_a_run_and_its_model_file_are_the_same_start(source: Path) -> None:
    assert read_start(str(source)).architecture == ARCHITECTURE
    assert read_start(str(source.parent)).architecture == ARCHITECTURE


def test_the_head_is_kept_only_where_the_classes_are_the_same(
    source: Path, dataset: Dataset
) -> None:
    renamed = dataclasses.replace(dataset, class_names=("a", "b", "c"))
    weights = read_start(str(source)).tensors
    for data, kept in ((dataset, True), (renamed, False)):
        model = build_setup(recipe(pretrained=str(source)), data, device="cpu").model()
        state = model.state_dict()
        assert torch.equal(state["conv1.weight"], weights["conv1.weight"])
        assert torch.equal(state["linear.weight"], weights["linear.weight"]) == kept


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileError) as caught:
        read_start(str(tmp_path))
    assert caught.value.received == "a folder without model.safetensors"


def test_a_file_that_does_not_say_its_model_is_told_how_to_be_imported(tmp_path: Path) -> None:
    path = tmp_path / "bare.safetensors"
    save_file({"weight": torch.zeros(1)}, path)
    with pytest.raises(ModelError, match=r"leadline import .*bare.safetensors --as NAME"):
        _ = read_start(str(path)).architecture


def test_a_model_that_is_not_ours_is_refused(source: Path) -> None:
    with pytest.raises(ModelError, match="received a Linear"):
        read_start(str(source)).load_into(nn.Linear(2, 2), class_names=NAMES)


def test_the_optimizer_holds_what_learns_alone(source: Path, dataset: Dataset) -> None:
    setup = build_setup(recipe(pretrained=str(source), freeze="features"), dataset, device="cpu")
    model = setup.model()
    optimizer = setup.optimizer(model)
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for p in model.get_submodule("linear").parameters()}


def test_frozen_weights_and_statistics_stay_to_the_last_bit(source: Path, dataset: Dataset) -> None:
    setup = build_setup(recipe(pretrained=str(source), freeze="layer1"), dataset, device="cpu")
    state = TrainingState(setup, Execution())
    before = {name: value.clone() for name, value in state.model.state_dict().items()}
    for _ in steps(setup, Execution(), state=state):
        pass
    moved = {
        name.split(".")[0]
        for name, value in state.model.state_dict().items()
        if not torch.equal(value, before[name])
    }
    assert moved == {"layer2", "layer3", "linear"}


def test_frozen_parts_thaw_while_it_trains_and_a_resumed_run_is_the_same(
    source: Path, dataset: Dataset
) -> None:
    asked = recipe(pretrained=str(source), freeze="features", unfreeze=0.5)

    def train(stop: int | None) -> TrainingState:
        setup = build_setup(asked, dataset, device="cpu")
        state = TrainingState(setup, Execution())
        free = []
        for step in steps(setup, Execution(), state=state):
            free.append(sum(p.requires_grad for p in state.model.parameters()))
            if step.index == stop:
                break
        if stop is None:
            assert free == sorted(free)
            assert free[0] < free[-1] == len(list(state.model.parameters()))
        return state

    whole = train(None).model.state_dict()
    stopped = train(5)
    saved = stopped.state_dict()
    setup = build_setup(asked, dataset, device="cpu")
    resumed = TrainingState(setup, Execution())
    resumed.load_state_dict(saved)
    for _ in steps(setup, Execution(), state=resumed):
        pass
    found = resumed.model.state_dict()
    assert all(torch.equal(value, found[name]) for name, value in whole.items())


def test_what_is_taken_over_and_what_is_frozen_is_said(source: Path, dataset: Dataset) -> None:
    renamed = dataclasses.replace(dataset, class_names=("a", "b", "c"))
    asked = recipe(pretrained=str(source), freeze="layer1", unfreeze=0.5)
    begun, frozen = start_notes(asked, renamed)
    assert begun == f"begun from {source}: a new head (linear)"
    assert frozen == (
        "frozen up to layer1.0: 348 of 4,815 parameters, thawing over 50% of the training"
    )
    assert start_notes(recipe(), dataset) == ()


def test_thawing_without_anything_frozen_is_refused() -> None:
    with pytest.raises(ConfigError, match="add freeze='features'"):
        Transfer(unfreeze=0.5)


def test_a_part_that_the_network_has_not_is_told(dataset: Dataset) -> None:
    setup = build_setup(recipe(freeze="layer9"), dataset, device="cpu")
    with pytest.raises(ConfigError, match=r"received 'layer9' \(did you mean 'layer3'\?\)|layer9"):
        setup.model()
