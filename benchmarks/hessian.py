"""The five largest Hessian eigenvalues of a trained ResNet-20: Leadline, PyHessian, curvlinops.

    python benchmarks/hessian.py --rounds 3 --threads 1

All get the same weights (evaluation mode, as PyHessian always chooses), the same CIFAR-10 images
and the same threads, and run in turn in one process, each from building its graph to five
eigenvalues of largest magnitude, which is what PyHessian's 'top' means.

- leadline: its defaults, eigenvectors and the look for repeated eigenvalues included.
- curvlinops: HessianLinearOperator without its determinism check, scipy's eigsh(k=5, which='LM')
  at tol=1e-3, without eigenvectors. ARPACK's 20 basis vectors are 20 products at least.
- pyhessian: power iteration with deflation at its defaults (maxIter=100, tol=1e-3).
- pyhessian to 1e-3: the same at the largest tol among 1e-3, 1e-4, 1e-5, 1e-6 (maxIter=1000) at
  which all five eigenvalues come within 1e-3 of the reference.

The reference is eigsh over curvlinops at tol=1e-6. Prints seconds, processor seconds, products and
the largest relative error of each, and how many times as long each peer took, round by round:
median, quartiles, n. On a busy machine the processor's seconds are the steadier of the two. Needs
pyhessian and curvlinops-for-pytorch, and LEADLINE_DATA with cifar10_jpeg/ and
resnet_checkpoints_dev/.
"""

from __future__ import annotations

import argparse
import io
import lzma
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor, nn

from leadline.measure.curvature.eigenvalues import eigenvalues
from leadline.models.create import create_model
from leadline.models.weights import import_checkpoint, load_weights

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what the peers import is deprecated here and there
    import pyhessian
    from curvlinops import HessianLinearOperator

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # what the weights were trained with


@dataclass(frozen=True)
class Measured:
    """One run of one library: eigenvalues from the largest in magnitude down."""

    values: tuple[float, ...]
    seconds: float
    processor: float
    products: int

    def error(self, reference: tuple[float, ...]) -> float:
        """The largest relative error of the five."""
        return max(abs(a - b) / abs(b) for a, b in zip(self.values, reference, strict=True))

    def describe(self, reference: tuple[float, ...]) -> str:
        """All of it in a line."""
        return (
            f"{self.seconds:.1f} s, {self.processor:.1f} s of the processor, {self.products} "
            f"products, largest error {self.error(reference):.1e}"
        )


def main() -> None:
    """Run all in turn, and compare round by round."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--images", type=int, default=128)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.filterwarnings("ignore", message="There is a performance drop")  # curvlinops' vmap
    data = Path(os.environ["LEADLINE_DATA"]).expanduser()
    model, batch = resnet20(data), images(data, options.images)
    reference = with_curvlinops(model, batch, tolerance=1e-6, seed=99).values
    print(f"reference {tuple(round(value, 4) for value in reference)}", flush=True)
    tolerance = find_tolerance(model, batch, reference)
    runs: dict[str, Callable[[int], Measured]] = {
        "leadline": lambda n: with_leadline(model, batch, seed=n),
        "curvlinops": lambda n: with_curvlinops(model, batch, seed=n),
        "pyhessian": lambda n: with_pyhessian(model, batch, seed=n),
        f"pyhessian to 1e-3 (tol={tolerance:g})": lambda n: with_pyhessian(
            model, batch, seed=n, tolerance=tolerance, iterations=1000
        ),
    }
    rounds: list[dict[str, Measured]] = []
    for number in range(options.rounds):
        rounds.append({})
        for name, run in runs.items():
            rounds[-1][name] = measured = run(number)
            print(f"round {number}: {name} {measured.describe(reference)}", flush=True)
    for peer in list(runs)[1:]:
        compare(peer, rounds)


def compare(peer: str, rounds: list[dict[str, Measured]]) -> None:
    """Print how many times as long the peer took, over the rounds."""
    own = statistics.median(r["leadline"].products for r in rounds)
    theirs = statistics.median(r[peer].products for r in rounds)
    print(f"{peer}: {theirs:g} products against leadline's {own:g} (medians)")
    for clock in ("seconds", "processor"):
        ratios = [getattr(r[peer], clock) / getattr(r["leadline"], clock) for r in rounds]
        low, middle, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
        print(
            f"  {clock}: {middle:.2f} times leadline's "
            f"(quartiles {low:.2f} to {high:.2f}, n = {len(ratios)})"
        )


def find_tolerance(
    model: nn.Module, batch: tuple[Tensor, Tensor], reference: tuple[float, ...]
) -> float:
    """PyHessian's largest tolerance at which its eigenvalues are right to 1e-3."""
    for tolerance in (1e-3, 1e-4, 1e-5, 1e-6):
        run = with_pyhessian(model, batch, seed=0, tolerance=tolerance, iterations=1000)
        print(f"pyhessian at tol={tolerance:g}: {run.describe(reference)}", flush=True)
        if run.error(reference) <= 1e-3:
            break
    return tolerance


class Clocks:
    """Both clocks since this was made."""

    def __init__(self) -> None:
        self._start = time.perf_counter(), time.process_time()

    def read(self) -> tuple[float, float]:
        """Seconds, and seconds of the processor."""
        return time.perf_counter() - self._start[0], time.process_time() - self._start[1]


def with_leadline(model: nn.Module, batch: tuple[Tensor, Tensor], *, seed: int) -> Measured:
    """Leadline at its defaults."""
    clocks = Clocks()
    found = eigenvalues(model, batch, loss=nn.functional.cross_entropy, seed=seed)
    return Measured(found.values, *clocks.read(), found.products)


def with_curvlinops(
    model: nn.Module,
    batch: tuple[Tensor, Tensor],
    *,
    tolerance: float = 1e-3,
    seed: int = 0,
) -> Measured:
    """curvlinops' operator under scipy's ARPACK, its products counted."""
    parameters = list(model.parameters())
    products = 0
    begin = np.random.default_rng(seed).standard_normal(sum(p.numel() for p in parameters))
    clocks = Clocks()
    operator = HessianLinearOperator(
        model, nn.CrossEntropyLoss(), parameters, [batch], check_deterministic=False
    ).to_scipy(dtype=np.float32)

    def product(vector: Any) -> Any:
        nonlocal products
        products += 1
        return operator @ vector

    values = eigsh(
        LinearOperator(operator.shape, matvec=product, dtype=np.float32),
        k=5,
        which="LM",
        tol=tolerance,
        v0=begin.astype(np.float32),
        return_eigenvectors=False,
    )
    times = clocks.read()
    return Measured(tuple(sorted(map(float, values), key=abs, reverse=True)), *times, products)


def with_pyhessian(
    model: nn.Module,
    batch: tuple[Tensor, Tensor],
    *,
    seed: int,
    tolerance: float = 1e-3,
    iterations: int = 100,
) -> Measured:
    """PyHessian's power iteration, its products counted."""
    torch.manual_seed(seed)
    module = sys.modules["pyhessian.hessian"]  # the package's attribute of this name is the class
    multiply, products = module.hessian_vector_product, 0

    def product(*arguments: Any) -> Any:
        nonlocal products
        products += 1
        return multiply(*arguments)

    module.hessian_vector_product = product
    clocks = Clocks()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its backward pass with create_graph warns of a leak
        hessian = pyhessian.hessian(model, nn.CrossEntropyLoss(), data=batch, cuda=False)
    values, _ = hessian.eigenvalues(maxIter=iterations, tol=tolerance, top_n=5)
    times = clocks.read()
    module.hessian_vector_product = multiply
    model.zero_grad(set_to_none=True)  # ends the cycle of gradient and graph
    return Measured(tuple(sorted(values, key=abs, reverse=True)), *times, products)


def resnet20(data: Path) -> nn.Module:
    """The trained network, in evaluation mode."""
    (checkpoint,) = (data / "resnet_checkpoints_dev").glob("resnet20-*.th")
    model = create_model("resnet20", num_classes=10, in_chans=3, image_size=32)
    load_weights(model, import_checkpoint(checkpoint))
    return model.eval()


def images(data: Path, count: int) -> tuple[Tensor, Tensor]:
    """Test images of all classes, evenly spread over the file, and their labels."""
    packed = (data / "cifar10_jpeg" / "cifar10_jpeg_test.npz.xz").read_bytes()
    arrays = np.load(io.BytesIO(lzma.decompress(packed)))
    stream, offsets, labels = arrays["jpeg"].tobytes(), arrays["offset"], arrays["label"]
    chosen = range(0, len(labels), len(labels) // count)[:count]
    pictures = np.stack(
        [np.asarray(Image.open(io.BytesIO(stream[offsets[i] : offsets[i + 1]]))) for i in chosen]
    )
    mean, std = (torch.tensor(row).view(1, 3, 1, 1) for row in (MEAN, STD))
    inputs = (torch.from_numpy(pictures).permute(0, 3, 1, 2) / 255 - mean) / std
    return inputs, torch.from_numpy(labels[list(chosen)]).long()


if __name__ == "__main__":
    main()
