"""Times that can be compared on a noisy machine, and what machine it is."""

import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import numba
import numpy as np
import torch

REPOSITORY = Path(__file__).parents[1]


def interleaved(ways: Mapping[str, Callable[[], object]], seconds: float) -> dict[str, np.ndarray]:
    """Seconds of each turn of each way, at least 5 and at most 500 turns, taken alternately.

    So whatever else the machine does meets all ways alike, and cancels in ratios of neighbours.
    """
    for way in ways.values():
        way()
    turns: list[list[float]] = []
    end = time.perf_counter() + seconds
    while len(turns) < 5 or (time.perf_counter() < end and len(turns) < 500):
        turns.append([_turn(way) for way in ways.values()])
    return dict(zip(ways, np.array(turns).T, strict=True))


def _turn(way: Callable[[], object]) -> float:
    """Median seconds of up to 15 calls in a row, fewer where they take long.

    The first call is not counted where it is short: it finds its data pushed out of the caches by
    the way before it, gigabytes in the case of a dense matrix, which says nothing about the way
    itself.
    """
    taken = [seconds_of(way)]
    if taken[0] < 0.2:
        calls = 15 if taken[0] < 0.005 else 3
        taken = [seconds_of(way) for _ in range(calls)]
    return float(np.median(taken))


def seconds_of(way: Callable[[], object]) -> float:
    start = time.perf_counter()
    way()
    return time.perf_counter() - start


def summary(taken: np.ndarray, baseline: np.ndarray) -> dict[str, float]:
    """Median and quartiles in milliseconds, and the median ratio of neighbouring turns."""
    low, middle, high = 1e3 * np.quantile(taken, [0.25, 0.5, 0.75])
    return {
        "ms": middle,
        "ms_lower": low,
        "ms_upper": high,
        "ratio": float(np.median(taken / baseline)),
        "turns": len(taken),
    }


def machine() -> dict[str, object]:
    """What the figures were measured on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    models = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": models[0] if models else platform.processor(),
        "cores": len(models) or None,
        "vector instructions": torch.backends.cpu.get_cpu_capability(),
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numba": numba.__version__,
        "numpy": np.__version__,
        "hmc-torch": _version("hmc-torch"),
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def in_process(module: str, *arguments: str) -> Any:
    """What a module prints last, as JSON, in a process of its own, whose peak memory is all it takes.

    Raises:
        subprocess.CalledProcessError: it failed.

    """
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY)
    return json.loads(done.stdout.splitlines()[-1])


def resident(field: str) -> int:
    """Bytes of this process in memory: `VmRSS` now, `VmHWM` at most so far (Linux only)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(field))
