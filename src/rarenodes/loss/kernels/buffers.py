"""Memory for large gradients, used again.

The C library gives a large tensor fresh pages of memory every time (glibc: beyond 32 MB), and the
first touch of these costs more than the gradient. So memory that a gradient has left is kept for
the next one: at most two pieces, each of the size of the largest gradient it has held.
"""

import weakref
from collections import deque

import numpy as np
import torch
from torch import Tensor

# Smaller tensors the C library takes from memory it has at hand.
LARGE_BYTES = 1 << 20

# Appending, which drops the oldest, and popping are atomic: leases may end in any thread.
_free: deque[np.ndarray] = deque(maxlen=2)


def empty_like(tensor: Tensor) -> Tensor:
    """A contiguous float32 tensor of the same shape, on the CPU, not initialised.

    No two tensors that exist at the same time share memory. A tensor made here keeps its lease of
    the memory alive, and so does everything that shares its storage: views, what autograd saved,
    a leaf's `.grad`. The memory is free again when the last of them is gone.
    """
    if tensor.nbytes < LARGE_BYTES:
        return torch.empty_like(tensor, memory_format=torch.contiguous_format)
    memory = _take(tensor.numel())
    lease = memory[: tensor.numel()].reshape(tensor.shape)
    weakref.finalize(lease, _free.append, memory).atexit = False
    return torch.from_numpy(lease)


def _take(size: int) -> np.ndarray:
    """Free memory for so many numbers, or new memory; pieces that are too small are let go."""
    while True:
        try:
            memory = _free.pop()
        except IndexError:
            return np.empty(size, dtype=np.float32)
        if memory.size >= size:
            return memory
