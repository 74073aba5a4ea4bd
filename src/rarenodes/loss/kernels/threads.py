"""Compiled work on several of Python's threads: the compiled code releases the interpreter lock."""

import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch

# Below this many logits, handing work to a second thread costs more than it saves.
PARALLEL_FROM = 65_536

_pool: ThreadPoolExecutor | None = None


def _forget_pool() -> None:
    global _pool
    _pool = None


# A forked child inherits the pool but none of its threads.
os.register_at_fork(after_in_child=_forget_pool)


def threads_for(elements: int) -> int:
    """How many threads work of this many elements is worth; at most PyTorch's number."""
    return torch.get_num_threads() if elements >= PARALLEL_FROM else 1


def spread(threads: int, count: int, work: Callable[[int, int], None]) -> None:
    """Call `work(first, last)` on as many parts of `range(count)` as there are threads."""
    global _pool
    threads = min(threads, count)
    if _pool is None and threads > 1:
        _pool = ThreadPoolExecutor(os.cpu_count())
    bounds = [count * i // threads for i in range(threads + 1)]
    mine, *parts = itertools.pairwise(bounds)
    others = [_pool.submit(work, *part) for part in parts]
    work(*mine)
    for other in others:
        other.result()
