"""Hierarchies of any size and shape."""

import numpy as np

from rarenodes.loss.hierarchy import Hierarchy


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
    """Every node but the last has one child."""
    return Hierarchy((f"{i + 1:06}", f"{i:06}") for i in range(nodes - 1))


def star(nodes: int) -> Hierarchy:
    """All nodes but one are children of that one."""
    return Hierarchy((f"{i + 1:06}", "root") for i in range(nodes - 1))


# Of the size and shape of the yeast benchmarks'.
FUN = {"nodes": 500, "depth": 6}
GO = {"nodes": 4126, "depth": 12, "edges": 5827}
