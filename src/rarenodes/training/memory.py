"""How much memory a training takes at least, asked before it is taken."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from rarenodes.settings import SettingsError

BYTES = 4  # of a float32
# Weights, their gradient, and Adam's two moments.
COPIES_OF_A_WEIGHT = 4
# What the backward pass needs: a hidden unit's value and dropout; a node's logit and its gradient.
COPIES_OF_A_UNIT, COPIES_OF_A_NODE = 2, 2


@dataclass(frozen=True)
class Size:
    """What the memory of a training depends on; names are those of its settings.

    Attributes:
        features: inputs of a network.
        nodes: outputs.
        hidden: units of a hidden layer.
        layers: hidden layers.
        members: networks, or passes of one network.
        batch_size: examples a step, at most as many as there are.
        networks: how many networks the members are.
        sparse: whether the nodes' logits are never all there at once.

    """

    features: int
    nodes: int
    hidden: int
    layers: int
    members: int
    batch_size: int
    networks: int
    sparse: bool = False

    def bytes_needed(self) -> int:
        """A lower bound: weights, gradients, optimiser and activations, without any overhead."""
        if self.layers == 0:
            weights = (self.features + 1) * self.nodes
        else:
            weights = (self.features + 1) * self.hidden + (self.hidden + 1) * self.nodes
            weights += (self.layers - 1) * (self.hidden + 1) * self.hidden
        logits = 0 if self.sparse else COPIES_OF_A_NODE * self.nodes
        an_example = COPIES_OF_A_UNIT * self.layers * self.hidden + logits
        activations = self.members * self.batch_size * an_example
        return BYTES * (COPIES_OF_A_WEIGHT * self.networks * weights + activations)

    def largest(self) -> str:
        """The setting that saves most when it is lowered."""
        networks = 1 if self.networks > 1 else self.networks
        lowered = {
            "hidden": replace(self, hidden=1),
            "members": replace(self, members=1, networks=networks),
            "layers": replace(self, layers=min(self.layers, 1)),
            "batch_size": replace(self, batch_size=1),
        }
        return min(lowered, key=lambda name: lowered[name].bytes_needed())


def check_memory(size: Size, device: str, run: str) -> None:
    """Refuse a training that cannot fit into the memory of the machine.

    Args:
        size: what is trained.
        device: `cpu` or `cuda`.
        run: which run, for the message.

    Raises:
        SettingsError: it needs more than there is; the message names the setting to lower.

    """
    needed, there = size.bytes_needed(), memory_of(device)
    if needed > there:
        raise _too_much(size, f"at least {_gib(needed)}", there, run)


@contextmanager
def memory_shortage_named(size: Size, device: str, run: str) -> Iterator[None]:
    """Turn an allocation that failed into the same message as one that was foreseen."""
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError):
        raise _too_much(size, "more than is free", memory_of(device), run) from None
    except RuntimeError as error:
        if "DefaultCPUAllocator" not in str(error):
            raise
        raise _too_much(size, "more than is free", memory_of(device), run) from None


def memory_of(device: str) -> int:
    """Bytes of memory in all: of the GPU, or of the machine as far as this process may use it.

    As good as infinite where the system does not say.
    """
    if device == "cuda":
        return torch.cuda.mem_get_info()[1]
    if not hasattr(os, "sysconf"):
        return sys.maxsize
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.exists() and (text := limit.read_text().strip()).isdecimal():
        return min(physical, int(text))
    return physical


def _too_much(size: Size, needed: str, there: int, run: str) -> SettingsError:
    name = size.largest()
    return SettingsError(
        f"{run}: training.{name}: {getattr(size, name)} with {size.features} features, "
        f"{size.nodes} nodes, {size.hidden} hidden units in {size.layers} layers and "
        f"{size.members} members needs {needed} of memory, of {_gib(there)}; lower training.{name}"
    )


def _gib(number: int) -> str:
    return f"{number / 2**30:.3g} GiB"
