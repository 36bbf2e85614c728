"""Tests of weights read from files: what fits is loaded whole, all else is refused by name."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from leadline.core.errors import CorruptFileError, FileError, ModelError, UnsafeFileError
from leadline.models.weights import (
    import_checkpoint,
    load_weights,
    read_safetensors,
    strip_prefix,
)


class Payload:
    """Unpickled, it would make a folder."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (os.mkdir, (self.path,))


def weights() -> dict[str, Tensor]:
    return {"weight": torch.tensor([[1.0, 2.0]]), "bias": torch.tensor([3.0])}


def with_header(path: Path, header: dict[str, object], payload: bytes) -> Path:
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + payload)
    return path


def test_a_safetensors_file_is_loaded_with_its_metadata(tmp_path: Path) -> None:
    save_file(weights(), tmp_path / "w.safetensors", metadata={"made by": "a test"})
    model = nn.Linear(2, 1)
    load_weights(model, tmp_path / "w.safetensors")
    assert model(torch.tensor([[1.0, 1.0]])).item() == 6.0
    assert read_safetensors(tmp_path / "w.safetensors").metadata == {"made by": "a test"}


def test_a_safetensors_file_without_metadata_has_none(tmp_path: Path) -> None:
    save_file(weights(), tmp_path / "w.safetensors")
    contents = read_safetensors(str(tmp_path / "w.safetensors"))
    assert contents.metadata == {}
    assert torch.equal(contents.tensors["bias"], torch.tensor([3.0]))


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_the_prefixes_of_wrappers_are_removed(prefix: str) -> None:
    model = nn.Linear(2, 1)
    load_weights(model, {prefix + key: value for key, value in weights().items()})
    assert torch.equal(model.bias, torch.tensor([3.0]))


def test_a_prefix_on_some_names_only_belongs_to_them() -> None:
    state = {"module.a": torch.zeros(1), "b": torch.zeros(1)}
    assert strip_prefix(state) == state
    assert strip_prefix({}) == {}


def test_all_that_does_not_fit_is_listed_and_the_model_stays_as_it_was() -> None:
    model = nn.Linear(2, 1)
    before = model.weight.clone()
    with pytest.raises(ModelError) as caught:
        load_weights(model, {"weight": torch.zeros(3, 2), "extra": torch.zeros(1)})
    assert str(caught.value) == (
        "expected weights for this Linear, tensor by tensor\n"
        "received the state dict with 1 missing: bias; 1 unexpected: extra; "
        "1 of another shape: weight (3, 2) for (1, 2)\n"
        "do this  build the model with the architecture, num_classes and in_chans that the "
        "weights were trained with; the model is unchanged"
    )
    assert torch.equal(model.weight, before)


def test_a_long_list_is_cut_and_counted() -> None:
    model = nn.Sequential(*(nn.Linear(1, 1) for _ in range(10)))
    with pytest.raises(ModelError, match=r"20 missing: .*, and 12 more"):
        load_weights(model, {})


def test_batch_norm_s_counter_may_be_missing_as_in_old_files() -> None:
    model = nn.BatchNorm2d(2)
    state = {k: v + 1 for k, v in model.state_dict().items() if k != "num_batches_tracked"}
    load_weights(model, state)
    assert model.running_mean is not None
    assert torch.equal(model.running_mean, torch.ones(2))


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".th", ".bin", ".pkl", ".ckpt", ".PT"])
def test_a_pickle_offered_as_a_model_is_refused_unread(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"model{suffix}"
    path.write_bytes(pickle.dumps(Payload(str(tmp_path / "trap"))))
    with pytest.raises(UnsafeFileError) as caught:
        load_weights(nn.Linear(2, 1), path)
    assert str(caught.value) == (
        f"expected a safetensors file at {path}\n"
        f"received a {suffix} file, which is a pickle; reading one can run any code that is in "
        "it, so it is refused\n"
        "do this  import it by leadline.models.weights.import_checkpoint, which takes tensors only"
    )
    assert not (tmp_path / "trap").exists()


@pytest.mark.parametrize("legacy", [False, True])
def test_a_pickle_under_the_name_of_safetensors_is_refused(tmp_path: Path, legacy: bool) -> None:
    path = tmp_path / "model.safetensors"
    torch.save(weights(), path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(UnsafeFileError, match="a pickle under another name"):
        read_safetensors(path)


def test_a_header_that_lies_about_the_size_is_refused(tmp_path: Path) -> None:
    entry = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}
    path = with_header(tmp_path / "w.safetensors", {"weight": entry}, bytes(16))
    read_safetensors(path)
    lies: list[dict[str, object]] = [
        {"weight": entry | {"shape": [1000, 1000]}},
        {"weight": entry | {"data_offsets": [0, 1 << 40]}},
        {"weight": entry | {"data_offsets": [8, 16]}},
        {"weight": entry | {"dtype": "F64"}},
        {"weight": entry, "more": entry},
        {"weight": 3},
    ]
    for header in lies:
        with pytest.raises(CorruptFileError) as caught:
            read_safetensors(with_header(path, header, bytes(16)))
        assert caught.value.expected == f"a safetensors file at {path}"
        assert "that are none:" in caught.value.received
        assert caught.value.remedy.startswith("copy or download the file anew")


def test_every_truncation_and_zeroed_header_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file(weights(), path)
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(CorruptFileError):
            read_safetensors(path)
    path.write_bytes(bytes(len(content)))
    with pytest.raises(CorruptFileError):
        read_safetensors(path)
    path.write_bytes(b"\xff" * 8 + content[8:])
    with pytest.raises(CorruptFileError):
        read_safetensors(path)


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    for read in (read_safetensors, import_checkpoint):
        with pytest.raises(FileError, match="received no such file"):
            read(tmp_path / "none.safetensors")
    with pytest.raises(FileError):
        read_safetensors(tmp_path)
    with pytest.raises(FileError, match="received a folder"):
        import_checkpoint(tmp_path)


@pytest.mark.parametrize("container", [None, "state_dict", "model_state_dict", "model"])
@pytest.mark.parametrize("legacy", [False, True])
def test_a_checkpoint_of_torch_save_is_imported_when_asked(
    tmp_path: Path, container: str | None, legacy: bool
) -> None:
    state = {f"module.{key}": value for key, value in weights().items()}
    checkpoint = state if container is None else {"epoch": 3, container: state}
    path = tmp_path / "old.th"
    torch.save(checkpoint, path, _use_new_zipfile_serialization=not legacy)
    model = nn.Linear(2, 1)
    load_weights(model, import_checkpoint(path))
    assert torch.equal(model.weight, torch.tensor([[1.0, 2.0]]))


def test_importing_runs_no_code(tmp_path: Path) -> None:
    path, trap = tmp_path / "trap.pt", tmp_path / "trap"
    torch.save({"state_dict": Payload(str(trap))}, path)
    with pytest.raises(UnsafeFileError) as caught:
        import_checkpoint(path)
    assert caught.value.expected == f"tensors and plain containers alone in {path}"
    assert caught.value.received.endswith(".mkdir, which could run code when read")
    assert "weights_only" not in str(caught.value)
    assert caught.value.remedy.startswith("save the state dict alone")
    assert not trap.exists()


def test_a_whole_pickled_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "whole.pt"
    torch.save(nn.Linear(2, 1), path)
    with pytest.raises(UnsafeFileError, match="Linear"):
        import_checkpoint(path)


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04broken", b"\x80\x02", b"\x00" * 99])
def test_a_file_that_is_no_checkpoint_is_corrupt(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.pt"
    path.write_bytes(content)
    with pytest.raises(CorruptFileError, match=r"a file written by torch\.save"):
        import_checkpoint(path)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_truncated_checkpoint_is_refused(tmp_path: Path, legacy: bool) -> None:
    path = tmp_path / "x.pt"
    torch.save(weights(), path, _use_new_zipfile_serialization=not legacy)
    content = path.read_bytes()
    for length in range(0, len(content), 23):
        path.write_bytes(content[:length])
        with pytest.raises((CorruptFileError, UnsafeFileError)):  # half a name is no allowed one
            import_checkpoint(path)


@pytest.mark.parametrize("legacy", [False, True])
def test_an_altered_checkpoint_is_read_or_refused_but_nothing_else(
    tmp_path: Path, legacy: bool
) -> None:
    path = tmp_path / "x.pt"
    torch.save(weights(), path, _use_new_zipfile_serialization=not legacy)
    content = path.read_bytes()
    for place in range(0, len(content), 7):
        altered = bytearray(content)
        altered[place] ^= 0x55
        path.write_bytes(altered)
        with contextlib.suppress(FileError, ModelError):
            assert import_checkpoint(path)


def test_a_plain_pickle_is_refused_even_by_the_import(tmp_path: Path) -> None:
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps({"weight": 1}))
    with pytest.raises(UnsafeFileError, match="received a plain pickle"):
        import_checkpoint(path)


def test_a_checkpoint_without_weights_is_told_by_its_keys(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    torch.save({"epoch": 3, "lr": 0.1}, path)
    with pytest.raises(ModelError, match="a dictionary with the keys 'epoch', 'lr'"):
        import_checkpoint(path)
    torch.save([1, 2], path)
    with pytest.raises(ModelError, match="received a list"):
        import_checkpoint(path)
