"""Write the 60,000 JPEG files of CIFAR-10 as a folder of images, a class per sub-folder.

Reads `LEADLINE_DATA/cifar10_jpeg/cifar10_jpeg_{train,test}.npz.xz` (all JPEG streams end to end)
and writes each stream as it is, not encoded anew: `FOLDER/<class>/<split>_<index>.jpg`. With
`--split` the files go to `FOLDER/train/<class>/` and `FOLDER/test/<class>/` instead.

    LEADLINE_DATA=... python benchmarks/write_cifar_jpeg_folder.py FOLDER [--split]
"""

from __future__ import annotations

import argparse
import io
import lzma
import os
from pathlib import Path

import numpy as np

from leadline.data.cifar import CIFAR10_CLASSES as CLASSES


def write_split(source: Path, folder: Path, *, split: str, in_split_folders: bool) -> int:
    """Write one split's JPEG files below `folder`; returns how many."""
    packed = (source / f"cifar10_jpeg_{split}.npz.xz").read_bytes()
    arrays = np.load(io.BytesIO(lzma.decompress(packed)))
    stream, offsets, labels = arrays["jpeg"].tobytes(), arrays["offset"], arrays["label"]
    root = folder / split if in_split_folders else folder
    for name in CLASSES:
        (root / name).mkdir(parents=True, exist_ok=True)
    for index, label in enumerate(labels):
        path = root / CLASSES[label] / f"{split}_{index:05d}.jpg"
        path.write_bytes(stream[offsets[index] : offsets[index + 1]])
    return len(labels)


def main() -> None:
    """Parse the command line and write both splits."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--split", action="store_true", help="write train/ and test/ sub-folders")
    parser.add_argument(
        "--source",
        type=Path,
        default=Path(os.environ.get("LEADLINE_DATA", ".")) / "cifar10_jpeg",
        help="folder of the two .npz.xz files (default: LEADLINE_DATA/cifar10_jpeg)",
    )
    arguments = parser.parse_args()
    for split in ("train", "test"):
        count = write_split(
            arguments.source, arguments.folder, split=split, in_split_folders=arguments.split
        )
        print(f"{count:,} {split} images written below {arguments.folder}")


if __name__ == "__main__":
    main()
