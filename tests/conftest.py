"""How every test runs: the same random cases each time, and no timing decides a result."""

import os
import sys

import pytest
import torch
from hypothesis import HealthCheck, settings
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

# `pytest --hypothesis-profile=thorough` searches longer and differently each time.
_common = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("repeatable", derandomize=True, max_examples=50, **_common)
settings.register_profile("thorough", max_examples=2000, print_blob=True, **_common)
settings.load_profile("repeatable")

# Kernels and commands that tests start are dozens of processes: each would compile the library anew.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# The tensors here are tiny: more threads cost more than they give.
torch.set_num_threads(1)


def pytest_configure(config):
    # beartype looks at random items of a container, so it calls `random` while a strategy builds a
    # Hierarchy. That changes no case.
    config.addinivalue_line(
        "filterwarnings", "ignore:Do not use the `random` module inside strategies"
    )


def pytest_collection_modifyitems(items):
    # Files go to workers one by one, in this order: the longest must not be the last to start.
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(scope="session", autouse=True)
def _kernels_are_started_anew():
    """Forked from the tests' process, they would have what tests patch, and check every type."""
    from rarenodes.study import forked_kernel

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(forked_kernel, "MOST_THREADS", 0)
        yield


class Allocated(TorchDispatchMode):
    """Counts the bytes of all tensors that operations make, also those freed at once.

    A sum over the whole run, hence an upper bound of the peak.
    """

    def __init__(self):
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        before = {t.untyped_storage().data_ptr() for t in _tensors(args)}
        for tensor in _tensors(out):
            if tensor.untyped_storage().data_ptr() not in before:
                self.bytes += tensor.untyped_storage().nbytes()
        return out


def _tensors(values) -> list[Tensor]:
    leaves = torch.utils._pytree.tree_leaves(values)
    return [value for value in leaves if isinstance(value, Tensor)]


@pytest.fixture
def allocated() -> Allocated:
    """A context that counts the bytes of what is computed in it, as `.bytes`."""
    return Allocated()
