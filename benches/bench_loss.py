"""Time and memory of the loss, forward and backward: `python benches/bench_loss.py`.

Compares, interleaved within one run, so that whatever else the machine does meets all alike:

- plain: binary cross-entropy on logits, `mean` reduction, dense float32 targets
- kernel: `fused_rare_node_loss`, the same targets; the coherent loss alone, and with node weights
  and the `gmu` focal term
- reference: `RareNodeLoss` in PyTorch operations, likewise
- dense: the definition of the coherent loss with a closure matrix `[nodes, nodes]`, float32

Figures are medians with quartiles. Hierarchies are random, of the size and shape of the yeast
benchmarks'; every example is in about five nodes and their ancestors.

Beyond 32 MB glibc gives a tensor fresh pages every time, and first touching them costs as much as
the loss itself. `THP_MEM_ALLOC_ENABLE=1` (PyTorch: huge pages) shows the loss without that.
"""

import argparse
import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numba
import numpy as np
import torch
from torch.nn import functional

from rarenodes.hierarchy import Hierarchy
from rarenodes.kernels import EdgePlan, fused_rare_node_loss
from rarenodes.losses import Focal, bce

GMU = Focal("gmu")
LABELS = 5


def leveled(nodes: int, depth: int, edges: int | None = None, seed: int = 0) -> Hierarchy:
    """One root, the other nodes on `depth` levels, most of them in the middle; a DAG by extra edges."""
    generator = np.random.default_rng(seed)
    share = np.sin(np.pi * (np.arange(depth) + 0.7) / (depth + 0.4))
    # One node on every level, the rest by the shares.
    level = (
        1
        + np.r_[np.arange(depth), generator.choice(depth, nodes - 1 - depth, p=share / share.sum())]
    )
    level = np.r_[0, np.sort(level)]
    first = np.searchsorted(level, np.arange(depth + 2))
    found = {
        (node, int(generator.integers(first[level[node] - 1], first[level[node]])))
        for node in range(1, nodes)
    }
    while len(found) < (edges or 0):
        node = int(generator.integers(first[min(2, depth)], nodes))
        found.add((node, int(generator.integers(first[1], first[level[node]]))))
    return Hierarchy((f"{child:06}", f"{parent:06}") for child, parent in found)


def chain(nodes: int) -> Hierarchy:
    return Hierarchy((f"{i + 1:06}", f"{i:06}") for i in range(nodes - 1))


def star(nodes: int) -> Hierarchy:
    return Hierarchy((f"{i + 1:06}", "root") for i in range(nodes - 1))


class Case:
    """Logits, targets and weights for one hierarchy, and each way to a loss and its gradient."""

    def __init__(self, hierarchy: Hierarchy, members: int, batch: int):
        generator = torch.Generator().manual_seed(0)
        nodes = len(hierarchy)
        self.hierarchy, self.plan = hierarchy, EdgePlan.of(hierarchy)
        self.logits = torch.randn(members, batch, nodes, generator=generator, requires_grad=True)
        labels = torch.zeros(batch, nodes)
        labels.scatter_(1, torch.randint(nodes, (batch, LABELS), generator=generator), 1.0)
        self.targets = hierarchy.close(labels)
        self.weight = 0.25 + torch.rand(nodes, generator=generator)

    @property
    def rows(self) -> int:
        return self.logits[..., 0].numel()

    def plain(self) -> torch.Tensor:
        targets = self.targets.expand_as(self.logits)
        return functional.binary_cross_entropy_with_logits(self.logits, targets)

    def kernel(self) -> torch.Tensor:
        return fused_rare_node_loss(self.logits, self.targets, self.plan)

    def kernel_weighted(self) -> torch.Tensor:
        focal = (GMU.uncertainty, GMU.power, GMU.floor)
        return fused_rare_node_loss(self.logits, self.targets, self.plan, self.weight, focal=focal)

    def reference(self) -> torch.Tensor:
        return self._reference_elements().sum(-1).mean(-1).sum()

    def reference_weighted(self) -> torch.Tensor:
        weight = torch.where(self.targets.bool(), self.weight, 1.0) * GMU.weight(self.logits)
        return (self._reference_elements() * weight).sum(-1).mean(-1).sum()

    def _reference_elements(self) -> torch.Tensor:
        coherent = self.hierarchy.max_over_agreeing_descendants(self.logits, self.targets)
        return bce(coherent, self.targets)

    def dense(self) -> torch.Tensor:
        """By the definition: maxima over a row of the closure matrix for every node."""
        targets = self.targets
        p = torch.sigmoid(self.logits)
        everywhere = (p.unsqueeze(-2) * self.closure).max(-1).values
        in_positives = ((p * targets).unsqueeze(-2) * self.closure).max(-1).values
        coherent = torch.where(targets.bool(), in_positives, everywhere)
        element = functional.binary_cross_entropy(
            coherent, targets.expand_as(coherent), reduction="none"
        )
        return element.sum(-1).mean(-1).sum()

    @property
    def closure(self) -> torch.Tensor:
        """`[nodes, nodes]`, 1 where the column is the row or a descendant of it."""
        if not hasattr(self, "_closure"):
            self._closure = self.hierarchy.close(torch.eye(len(self.hierarchy))).T.contiguous()
        return self._closure


def step(case: Case, way: str) -> None:
    """Loss and gradient once."""
    torch.autograd.grad(getattr(case, way)(), case.logits)


def interleaved(ways: Sequence[Callable[[], None]], seconds: float) -> list[np.ndarray]:
    """Seconds of each turn of each way, at least 5 and at most 500 turns, taken alternately."""
    for way in ways:
        way()
    turns: list[list[float]] = []
    end = time.perf_counter() + seconds
    while len(turns) < 5 or (time.perf_counter() < end and len(turns) < 500):
        turns.append([turn(way) for way in ways])
    return list(np.array(turns).T)


def turn(way: Callable[[], None]) -> float:
    """Median seconds of up to 15 calls in a row, fewer where they take long.

    The first call is not counted where it is short: it finds its data pushed out of the caches by
    the way before it, gigabytes in the case of `dense`, which says nothing about the way itself.
    """
    taken = [_seconds(way)]
    if taken[0] < 0.2:
        calls = 15 if taken[0] < 0.005 else 3
        taken = [_seconds(way) for _ in range(calls)]
    return float(np.median(taken))


def _seconds(way: Callable[[], None]) -> float:
    start = time.perf_counter()
    way()
    return time.perf_counter() - start


def compare(
    name: str, hierarchy: Hierarchy, members: int, batch: int, ways, seconds: float
) -> list:
    """One row of the table for each way."""
    case = Case(hierarchy, members, batch)
    taken = interleaved([lambda way=way: step(case, way) for way in ways], seconds)
    baseline = taken[0]
    return [
        {
            "hierarchy": name,
            "nodes": len(hierarchy),
            "edges": hierarchy.num_edges,
            "members": members,
            "batch": batch,
            "way": way,
            "milliseconds": [1e3 * float(np.quantile(t, q)) for q in (0.25, 0.5, 0.75)],
            # Of each turn with its neighbour, so that slow spells of the machine cancel.
            "ratio_to_plain": float(np.median(t / baseline)),
            "ns_per_node_and_row": 1e9 * float(np.median(t)) / case.logits.numel(),
            "turns": len(t),
        }
        for way, t in zip(ways, taken, strict=True)
    ]


# --- Memory, in a fresh process: the high-water mark of the resident set while a step runs.


def peak_extra_bytes(shape: Sequence[int], way: str) -> int:
    """Memory that one step adds at its highest, for a tree of depth 6 (Linux only)."""
    command = [sys.executable, __file__, "--peak", way, *map(str, shape)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def _print_peak(way: str, members: int, batch: int, nodes: int) -> None:
    torch.set_num_threads(1)
    step(Case(leveled(50, 6), members, batch), way)  # loads the compiled code
    case = Case(leveled(nodes, 6), members, batch)
    Path("/proc/self/clear_refs").write_text("5")
    before = _resident("VmRSS")
    step(case, way)
    print(_resident("VmHWM") - before)


def _resident(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(field))


# --- The report.


def speed(seconds: float, with_dense: bool) -> list[dict]:
    """The two benchmark sizes, small and large batches."""
    sizes = {"FUN": leveled(500, 6), "GO": leveled(4126, 12, 5827)}
    ways = ["plain", "kernel", "kernel_weighted", "reference", "reference_weighted"]
    rows = []
    for name, hierarchy in sizes.items():
        rows += compare(name, hierarchy, 1, 4, ways, seconds)
        if with_dense:
            rows += compare(name, hierarchy, 1, 4, ["kernel", "dense"], seconds)
        rows += compare(name, hierarchy, 10, 64, ways, seconds)
    return rows


def scaling(seconds: float) -> list[dict]:
    """Size at fixed depth, for one member and for ten; then shapes at a fixed size."""
    ways = ["plain", "kernel", "kernel_weighted"]
    rows = []
    for nodes in (500, 1_600, 5_000, 16_000, 50_000):
        tree, dag = leveled(nodes, 6), leveled(nodes, 6, int(1.4 * nodes))
        for members in (1, 10):
            rows += compare(f"tree, depth 6, {nodes}", tree, members, 64, ways, seconds)
            rows += compare(f"DAG, depth 6, {nodes}", dag, members, 64, ways, seconds)
    shapes = {f"tree, depth {depth}, 5000": leveled(5_000, depth) for depth in (3, 10, 30)}
    shapes |= {"chain, 5000": chain(5_000), "star, 5000": star(5_000)}
    for name, hierarchy in shapes.items():
        rows += compare(name, hierarchy, 10, 64, ways, seconds)
    return rows


def show(rows: Sequence[dict]) -> None:
    previous = None
    for row in rows:
        key = row["hierarchy"], row["members"], row["batch"]
        if key != previous:
            print(f"\n{key[0]}: {row['nodes']} nodes, {row['edges']} edges, M {key[1]}, B {key[2]}")
        previous = key
        low, middle, high = row["milliseconds"]
        print(
            f"  {row['way']:<20}{middle:10.3f} ms [{low:.3f}, {high:.3f}]"
            f"{row['ratio_to_plain']:10.2f} ×{row['ns_per_node_and_row']:9.2f} ns/node/row"
            f"  ({row['turns']} turns)"
        )


def show_memory() -> list[dict]:
    print("\npeak extra memory of a step, in tensors of the logits' size")
    rows = []
    for shape in ((10, 64, 4126), (1, 64, 4126), (1, 64, 50_000), (10, 64, 50_000)):
        for way in ("plain", "kernel", "kernel_weighted"):
            tensors = peak_extra_bytes(shape, way) / (4 * np.prod(shape))
            rows.append({"shape": shape, "way": way, "tensors": float(tensors)})
            print(f"  M {shape[0]}, B {shape[1]}, {shape[2]} nodes  {way:<18}{tensors:6.2f}")
    return rows


def machine() -> dict:
    model = next(
        (
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    return {
        "cpu": model,
        "capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numba": numba.__version__,
        "numpy": np.__version__,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=5.0, help="per row of the table")
    parser.add_argument(
        "--no-dense", action="store_true", help="leave out the slow dense reference"
    )
    parser.add_argument("--no-scaling", action="store_true", help="only the two benchmark sizes")
    parser.add_argument("--json", type=Path, help="write the figures there as well")
    parser.add_argument("--peak", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak:
        _print_peak(options.peak[0], *map(int, options.peak[1:]))
        return
    torch.set_num_threads(options.threads)
    figures = {"machine": machine()}
    print(", ".join(f"{key} {value}" for key, value in figures["machine"].items()))
    print("median [quartiles], ratio to the first row, both of loss and gradient together")
    figures["speed"] = speed(options.seconds, not options.no_dense)
    show(figures["speed"])
    if not options.no_scaling:
        figures["scaling"] = scaling(options.seconds)
        show(figures["scaling"])
        figures["memory"] = show_memory()
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
