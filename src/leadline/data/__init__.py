"""Where examples come from: one file per kind of source, and the loader that hands out batches."""

from leadline.data.arrays import from_arrays
from leadline.data.augment import Augmentation, augment
from leadline.data.examples import ArrayExamples, Dataset, Examples, FileExamples
from leadline.data.load import list_datasets, load_dataset
from leadline.data.loader import Loader
from leadline.data.options import DataOptions

__all__ = [
    "ArrayExamples",
    "Augmentation",
    "DataOptions",
    "Dataset",
    "Examples",
    "FileExamples",
    "Loader",
    "augment",
    "from_arrays",
    "list_datasets",
    "load_dataset",
]
