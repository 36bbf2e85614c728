"""The data sets known by name, and the one way in: a name or a folder becomes a Dataset."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from leadline.core.errors import CorruptFileError, DataError, UnknownNameError
from leadline.core.names import did_you_mean
from leadline.data.assemble import assemble
from leadline.data.cifar import CIFAR10_CLASSES, read_cifar10
from leadline.data.download import RemoteFile, fetch_files
from leadline.data.examples import ArrayExamples, Dataset
from leadline.data.folder import load_folder
from leadline.data.idx import read_idx
from leadline.data.options import DataOptions

FASHION_CLASSES = (
    "T-shirt/top",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)
DIGIT_CLASSES = tuple(map(str, range(10)))
MNIST_ADDRESS = "https://ossci-datasets.s3.amazonaws.com/mnist/"
FASHION_ADDRESS = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
IDX_PARTS = {  # part -> file name
    "train_images": "train-images-idx3-ubyte.gz",
    "train_labels": "train-labels-idx1-ubyte.gz",
    "test_images": "t10k-images-idx3-ubyte.gz",
    "test_labels": "t10k-labels-idx1-ubyte.gz",
}
MNIST_DIGESTS = {  # SHA-256 of the unpacked files
    "train_images": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train_labels": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "test_images": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "test_labels": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
FASHION_DIGESTS = {  # SHA-256 of the unpacked files
    "train_images": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train_labels": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "test_images": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "test_labels": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
CIFAR10_FILE = RemoteFile(
    name="cifar-10-binary.tar.gz",
    address="https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    digest="sha256:c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
)


def list_datasets() -> tuple[str, ...]:
    """The names that `load_dataset` knows.

    >>> list_datasets()
    ('cifar10', 'digits', 'fashion_mnist', 'mnist')
    """
    return tuple(sorted(SOURCES))


def load_dataset(options: DataOptions, *, seed: int = 0) -> Dataset:
    """Load the data set that `options.data` names, or the folder of images at that path.

    `seed` chooses what is held out where the source does not say; the same options and seed give
    the same split on every machine. A known name wins over a folder of that name: write
    `./digits` for the folder.

    Raises `UnknownNameError` for a name that is neither, `DataError` for what is wrong with it.

    >>> data = load_dataset(DataOptions(data="digits"))
    >>> data.shape, data.num_classes, len(data.train), len(data.val), len(data.test)
    ((1, 8, 8), 10, 1293, 145, 359)
    """
    if options.data in SOURCES:
        return SOURCES[options.data](options, seed)
    path = Path(options.data).expanduser()
    if path.exists():
        return load_folder(path, options=options, seed=seed)
    if "/" in options.data or "\\" in options.data or options.data.startswith((".", "~")):
        raise DataError(
            expected=f"a folder of images at {options.data}",
            received=_nearest(path),
            remedy="check the path",
        )
    raise UnknownNameError(
        expected=f"the name of a known data set ({', '.join(list_datasets())}) "
        "or the path of a folder of images",
        received=f"{options.data!r}{did_you_mean(options.data, SOURCES)}",
        remedy="use one of the names, or a path to a folder with one sub-folder per class",
    )


def _nearest(path: Path) -> str:
    """What there is of a path that does not exist: its last existing parent, and a near name."""
    whole = path.absolute()
    for parent in whole.parents:
        if parent.is_dir():
            missing = whole.relative_to(parent).parts[0]
            near = did_you_mean(missing, [entry.name for entry in parent.iterdir()])
            return f"no {missing!r} in {parent}{near}"
    return "nothing there"


def _load_digits(options: DataOptions, seed: int) -> Dataset:
    # Importing scikit-learn takes a second: only those who ask for its digits wait for it.
    found = importlib.import_module("sklearn.datasets").load_digits()
    images = torch.from_numpy(np.round(found.images * (255 / 16)).astype(np.uint8))[:, None]
    targets = torch.from_numpy(found.target.astype(np.int64))
    whole = ArrayExamples(_resized(images, options.image_size), targets)
    return assemble(
        "digits",
        whole,
        class_names=DIGIT_CLASSES,
        val_fraction=options.val_fraction,
        test_fraction=options.test_fraction,
        seed=seed,
        notes=(f"found {len(images):,} grey pictures 8x8 in 10 classes (scikit-learn's digits)",),
    )


def _load_mnist(options: DataOptions, seed: int) -> Dataset:
    return _load_idx("mnist", MNIST_ADDRESS, MNIST_DIGESTS, DIGIT_CLASSES, options, seed)


def _load_fashion_mnist(options: DataOptions, seed: int) -> Dataset:
    return _load_idx(
        "fashion_mnist", FASHION_ADDRESS, FASHION_DIGESTS, FASHION_CLASSES, options, seed
    )


def _load_idx(
    name: str,
    address: str,
    digests: dict[str, str],
    class_names: tuple[str, ...],
    options: DataOptions,
    seed: int,
) -> Dataset:
    files = {
        part: RemoteFile(
            name=file, address=address + file, digest=f"sha256:{digests[part]}", unpacked=True
        )
        for part, file in IDX_PARTS.items()
    }
    paths = fetch_files(name, tuple(files.values()))
    arrays = {part: torch.from_numpy(read_idx(paths[file.name])) for part, file in files.items()}
    examples = {
        split: _idx_examples(
            arrays[f"{split}_images"],
            arrays[f"{split}_labels"],
            paths[IDX_PARTS[f"{split}_images"]],
            options,
        )
        for split in ("train", "test")
    }
    height, width = arrays["train_images"].shape[1:]
    return assemble(
        name,
        examples["train"],
        test=examples["test"],
        class_names=class_names,
        val_fraction=options.val_fraction,
        test_fraction=options.test_fraction,
        seed=seed,
        notes=(
            f"found {len(examples['train']) + len(examples['test']):,} grey pictures "
            f"{height}x{width} in {len(class_names)} classes",
        ),
    )


def _idx_examples(
    images: Tensor, labels: Tensor, path: Path, options: DataOptions
) -> ArrayExamples:
    fits = images.dim() == 3 and labels.dim() == 1 and len(images) == len(labels) > 0
    if not fits or images.dtype != torch.uint8 or int(labels.min()) < 0 or int(labels.max()) > 9:
        raise CorruptFileError(
            expected=f"pictures [N, H, W] of bytes and N labels 0 to 9 in {path.parent}",
            received=f"{list(images.shape)} pictures and {list(labels.shape)} labels",
            remedy="delete the files and fetch them again",
        )
    return ArrayExamples(_resized(images[:, None], options.image_size), labels.to(torch.int64))


def _load_cifar10(options: DataOptions, seed: int) -> Dataset:
    path = fetch_files("cifar10", (CIFAR10_FILE,))[CIFAR10_FILE.name]
    parts = read_cifar10(path)
    train, test = (
        ArrayExamples(_resized(parts[split].images, options.image_size), parts[split].targets)
        for split in ("train", "test")
    )
    return assemble(
        "cifar10",
        train,
        test=test,
        class_names=CIFAR10_CLASSES,
        val_fraction=options.val_fraction,
        test_fraction=options.test_fraction,
        seed=seed,
        notes=(f"found {len(train) + len(test):,} RGB pictures 32x32 in 10 classes",),
    )


def _resized(images: Tensor, size: int | None) -> Tensor:
    """Square uint8 pictures `[N, C, H, H]` at another size, antialiased as Pillow does it."""
    if size is None or images.shape[2] == size:
        return images
    parts = [
        F.interpolate(part, size=(size, size), mode="bilinear", antialias=True)
        for part in images.split(1024)
    ]
    return torch.cat(parts)


SOURCES: dict[str, Callable[[DataOptions, int], Dataset]] = {
    "digits": _load_digits,
    "mnist": _load_mnist,
    "fashion_mnist": _load_fashion_mnist,
    "cifar10": _load_cifar10,
}
