"""Devices: which one to compute on, what this machine is, and how much memory is free.

Speed claims mean nothing without the machine they were measured on, and a batch that fits here
may not fit there. Everything is asked of the system when it is called, never at import. Inside a
container the cores and the memory are what its control group grants, not what the hardware has.
"""

from __future__ import annotations

import math
import os
import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path

import torch

from leadline.core.config import config_error
from leadline.core.errors import ConfigError
from leadline.core.names import did_you_mean

KINDS = ("auto", "cpu", "cuda", "mps")
CONTROL_GROUP = Path("/sys/fs/cgroup")  # version 2; where a container's own limits are mounted


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What a run was computed on; `memory` is in bytes, `cores` those this process may use."""

    device: str
    device_name: str
    cpu: str
    cpu_capability: str
    cores: int
    memory: int
    bf16: bool
    amx: bool
    platform: str
    python: str
    torch: str


def choose_device(name: str = "auto") -> torch.device:
    """The device called `name`; `auto` takes the first of cuda, mps and cpu that is there.

    >>> choose_device("cpu")
    device(type='cpu')
    """
    kind, _, index = name.partition(":")
    if kind not in KINDS or (index and not index.isdigit()):
        raise config_error(
            "device",
            [
                f"device must be one of {', '.join(KINDS)} or cuda:0, cuda:1 …, received {name!r}"
                + did_you_mean(kind, KINDS)
            ],
        )
    if kind == "auto":
        kind = _best_kind()
    if kind == "cuda":
        return _cuda_device(index, asked=name)
    if kind == "mps" and not torch.backends.mps.is_available():
        raise _missing(name, "this torch build or this system has no Metal device")
    return torch.device(kind)


def describe_machine(device: torch.device | None = None) -> Machine:
    """What this process computes on; `device` is the one asked about, by default the best."""
    chosen = choose_device() if device is None else device
    flags = _cpu_flags()
    amx = "amx_bf16" in flags
    on_gpu = chosen.type == "cuda"
    return Machine(
        device=str(chosen),
        device_name=torch.cuda.get_device_name(chosen) if on_gpu else chosen.type.upper(),
        cpu=_cpu_model(),
        cpu_capability=torch.backends.cpu.get_cpu_capability(),
        cores=available_cores(),
        memory=_total_memory(),
        bf16=torch.cuda.is_bf16_supported() if on_gpu else amx or "avx512_bf16" in flags,
        amx=amx,
        platform=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=platform.python_version(),
        torch=torch.__version__,
    )


def available_cores() -> int:
    """How many processor cores this process may use: its affinity, within its control group."""
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    quota, _, period = _read(CONTROL_GROUP / "cpu.max").partition(" ")
    if quota.isdigit() and period.strip().isdigit():
        cores = min(cores, math.ceil(int(quota) / int(period)))
    return max(cores, 1)


def available_memory(device: torch.device | None = None) -> int:
    """How many bytes can still be allocated on `device`, by default in main memory.

    Where the system does not tell what is free (macOS), this is all that it has.
    """
    if device is not None and device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    free = _total_memory()
    for line in _read(Path("/proc/meminfo")).splitlines():
        if line.startswith("MemAvailable:"):
            free = int(line.split()[1]) * 1024  # the kernel writes kibibytes
    limit, used = _read(CONTROL_GROUP / "memory.max"), _read(CONTROL_GROUP / "memory.current")
    if limit.isdigit() and used.isdigit():
        free = min(free, max(int(limit) - int(used), 0))
    return free


def _best_kind() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _cuda_device(index: str, *, asked: str) -> torch.device:
    if not torch.cuda.is_available():
        built = torch.version.cuda or torch.version.hip
        raise _missing(asked, "no GPU is visible" if built else "this torch is built without CUDA")
    number = int(index) if index else torch.cuda.current_device()
    count = torch.cuda.device_count()
    if number >= count:
        raise _missing(asked, f"{count} GPU{'s are' if count > 1 else ' is'} visible, from cuda:0")
    return torch.device("cuda", number)


def _missing(name: str, reason: str) -> ConfigError:
    return ConfigError(
        expected=f"the device {name!r} on this machine",
        received=reason,
        remedy="leave the device out to use the best there is, or use 'cpu'",
    )


def _cpu_model() -> str:
    for line in _read(Path("/proc/cpuinfo")).splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    if platform.system() == "Darwin":
        command = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    return platform.processor() or platform.machine()


def _cpu_flags() -> frozenset[str]:
    for line in _read(Path("/proc/cpuinfo")).splitlines():
        if line.startswith("flags"):
            return frozenset(line.partition(":")[2].split())
    return frozenset()


def _total_memory() -> int:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = _read(CONTROL_GROUP / "memory.max")
    return min(total, int(limit)) if limit.isdigit() else total


def _read(path: Path) -> str:
    """The text of a system file, or nothing where the system has no such file."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""
