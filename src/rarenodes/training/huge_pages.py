"""Tensors whose rows are reached at random, in large pages of memory where the system has them.

A row that is looked at anew costs a look into the page tables as well, which the processor keeps few
of: with pages of 4 KiB each of a million rows has one of its own. Pages of 2 MiB need 512 times fewer.
What is computed is the same.
"""

import mmap
from contextlib import suppress

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

PAGE = 2**21
# What is smaller stays where PyTorch puts it.
FROM_BYTES = 16 * PAGE


def in_huge_pages(values: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """A contiguous copy of float32 values on the CPU, in pages of 2 MiB as far as there are any.

    Args:
        values: of any shape.

    """
    needed = values.numel() * values.element_size()
    if needed < FROM_BYTES or not hasattr(mmap, "MADV_HUGEPAGE"):
        return values.clone(memory_format=torch.contiguous_format)
    memory = mmap.mmap(-1, needed + PAGE)
    with suppress(OSError):  # of a system without them: the pages are small ones
        memory.madvise(mmap.MADV_HUGEPAGE)
    whole = np.frombuffer(memory, dtype=np.uint8)  # keeps the memory as long as it is used
    start = -whole.ctypes.data % PAGE
    own = torch.from_numpy(whole[start : start + needed].view(np.float32)).view(values.shape)
    return own.copy_(values)
