"""Sequences for the healthy recipes: text, speech and music."""

from __future__ import annotations

import csv
import functools
import io
import tarfile
import wave

import numpy as np
import torch
from healthy_data import Material, data_folder, numbered, split
from torch import Tensor

from data import Examples

WORDS = 2000  # of the film reviews: the most frequent
LETTERS = 65  # different characters of Shakespeare's plays
LOWEST, NOTES = 36, 46  # of the chorales: MIDI numbers 36 to 81


@functools.cache
def shakespeare(length: int = 32, count: int = 6000) -> Material:
    """Characters, [N, T], and the same one place on; the last tenth of the plays is the test."""
    text = (data_folder() / "tinyshakespeare" / "input.txt").read_text()
    letters = {letter: i for i, letter in enumerate(sorted(set(text)))}
    numbers = torch.tensor([letters[letter] for letter in text])
    border = len(numbers) * 9 // 10

    def windows(part: Tensor, wanted: int) -> Examples:
        begin = torch.linspace(0, len(part) - length - 1, wanted).long()
        rows = part[begin[:, None] + torch.arange(length + 1)]
        return Examples(inputs=rows[:, :-1], targets=rows[:, 1:])

    train = windows(numbers[:border], count)
    held_out = windows(numbers[border:], 1200)
    return Material(train=train, validation=held_out[::3], test=held_out[1::3])


@functools.cache
def lines(length: int = 32, count: int = 6000) -> Material:
    """Lines of Shakespeare, [N, T]: characters from 1, an end, and 0 up to the length.

    Targets are the same one place on; -100, which cross entropy leaves out, stands for padding.
    """
    text = (data_folder() / "tinyshakespeare" / "input.txt").read_text()
    letters = {letter: i + 1 for i, letter in enumerate(sorted(set(text)))}
    rows = [line for line in text.split("\n") if len(line) > 5]
    table = torch.zeros(len(rows), length + 1, dtype=torch.long)
    for row, line in zip(table, rows, strict=True):
        known = torch.tensor([letters[x] for x in (line + "\n")[: length + 1]])
        row[: len(known)] = known
    targets = table[:, 1:].clone()
    targets[targets == 0] = -100
    return split(table[:, :-1].contiguous(), targets, counts=(count, 400, 400))


@functools.cache
def reviews(count: int = 8000, length: int = 20) -> Material:
    """SST-2: words of a film review, [N, T] with 0 behind its end; 1 if it is a praise."""

    def read(name: str) -> tuple[list[list[str]], Tensor]:
        with (data_folder() / "sst2" / f"{name}.tsv").open() as file:
            rows = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))[1:]
        return [text.split() for _, text in rows], torch.tensor([int(label) for label, _ in rows])

    texts, labels = read("train")
    order = np.random.default_rng(0).permutation(len(texts))[: count + 500].tolist()
    test_texts, test_labels = read("dev")
    chosen = [texts[i] for i in order] + test_texts
    inputs = numbered(chosen, length=length, words=WORDS)
    targets = torch.cat([labels[order], test_labels])
    whole = Examples(inputs=inputs, targets=targets)
    return Material(
        train=whole[:count], validation=whole[count : count + 500], test=whole[count + 500 :]
    )


@functools.cache
def yes_or_no_reviews() -> Material:
    """The same with targets [N, 1] of zeros and ones for a single output."""

    def column(part: Examples) -> Examples:
        return Examples(inputs=part.inputs, targets=part.targets[:, None].float())

    whole = reviews()
    return Material(
        train=column(whole.train), validation=column(whole.validation), test=column(whole.test)
    )


@functools.cache
def speech(length: int = 40) -> Material:
    """FSDD: spoken digits as log energies in 20 bands, [N, T, 20], frames of zeros at the end.

    The official test: recordings 0 to 4 of every digit and speaker.
    """
    rows, labels, tested = [], [], []
    for path in sorted((data_folder() / "fsdd_4speakers" / "recordings").glob("*.wav")):
        digit, _, number = path.stem.split("_")
        rows.append(_bands(path.read_bytes()))
        labels.append(int(digit))
        tested.append(int(number) < 5)
    mean = torch.cat(rows).mean(0)
    std = torch.cat(rows).std(0)
    inputs = torch.zeros(len(rows), length, 20)
    for filled, row in zip(inputs, rows, strict=True):
        part = (row[:length] - mean) / std
        filled[: len(part)] = part
    test = torch.tensor(tested)
    whole = Examples(inputs=inputs, targets=torch.tensor(labels))
    train = whole[~test]
    mixed = train[torch.randperm(len(train), generator=torch.Generator().manual_seed(0))]
    return Material(train=mixed[:1600], validation=mixed[1600:], test=whole[test])


@functools.cache
def chorales(length: int = 48) -> Material:
    """Bach's chorales: which of 46 notes sound in an eighth, [N, T, 46], and those of the next.

    Pieces of 48 eighths; where a piece is shorter both are filled with -1.
    """
    found: dict[str, list[Tensor]] = {"train": [], "valid": [], "test": []}
    with tarfile.open(data_folder() / "jsb_chorales" / "jsb_chorales.tgz") as archive:
        for member in sorted(archive.getmembers(), key=lambda m: m.name):
            file = archive.extractfile(member)
            if file is None or not member.name.endswith(".csv"):
                continue
            table = np.loadtxt(io.TextIOWrapper(file), delimiter=",", skiprows=1, dtype=np.int64)
            found[member.name.split("/")[0]] += _pieces(torch.from_numpy(table), length)

    def part(pieces: list[Tensor]) -> Examples:
        rows = torch.stack(pieces)
        return Examples(inputs=rows[:, :-1], targets=rows[:, 1:])

    return Material(
        train=part(found["train"]), validation=part(found["valid"]), test=part(found["test"])
    )


def _pieces(table: Tensor, length: int) -> list[Tensor]:
    sounding = torch.zeros(len(table), NOTES)
    row, voice = (table > 0).nonzero(as_tuple=True)
    sounding[row, (table[row, voice] - LOWEST).clamp(0, NOTES - 1)] = 1
    eighths = sounding[::2]  # the table has sixteenths
    pieces = []
    for part in eighths.split(length + 1):
        if len(part) > 8:
            filled = torch.full((length + 1, NOTES), -1.0)
            filled[: len(part)] = part
            pieces.append(filled)
    return pieces


def _bands(recording: bytes) -> Tensor:
    """Log energy in 20 bands of equal width up to 4 kHz, frames of 32 ms every 16 ms, [T, 20]."""
    with wave.open(io.BytesIO(recording)) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), dtype=np.int16)
    sound = torch.from_numpy(samples.astype(np.float32)) / 32768
    sound = torch.nn.functional.pad(sound, (0, max(0, 256 - len(sound))))
    spectrum = torch.stft(
        sound, 256, hop_length=128, window=torch.hann_window(256), center=False, return_complex=True
    )
    power = spectrum.abs().square()[1:121].reshape(20, 6, -1).sum(1)
    return (power + 1e-6).log().T
