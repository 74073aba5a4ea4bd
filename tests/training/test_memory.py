"""What cannot fit is refused before it is taken; the message names the setting to lower."""

import re

import pytest
import torch

from rarenodes.datasets import load_dataset
from rarenodes.loss.coherent import RareNodeLoss
from rarenodes.settings import SettingsError
from rarenodes.training import loop, memory
from rarenodes.training.ensemble import Ensemble, Shape
from rarenodes.training.loop import Budget, Streams, choose_device, train_ensemble
from rarenodes.training.memory import Size, check_memory, memory_of, memory_shortage_named


def size(**changes) -> Size:
    settings = {"features": 3, "nodes": 5, "hidden": 4, "layers": 2, "members": 2, "batch_size": 7}
    settings |= changes
    return Size(**{"networks": settings["members"], **settings})


def test_bytes_by_hand():
    # Weights of a network: 3·4 + 4, 4·4 + 4, 4·5 + 5 = 61; four copies of two networks: 488.
    # Activations: 2 members · 7 examples · (2 · 2 · 4 + 2 · 5) = 364.
    assert size().bytes_needed() == 4 * (488 + 364)
    # Without hidden layers: 3·5 + 5 = 20 weights, 4 · 2 · 20 + 2 · 7 · 10.
    assert size(layers=0).bytes_needed() == 4 * (160 + 140)
    # Passes of one network: its weights once.
    assert size(networks=1).bytes_needed() == 4 * (244 + 364)


@pytest.mark.parametrize("layers", [0, 1, 3])
def test_weights_are_as_many_as_the_networks_have(layers):
    shape = Shape(features=3, hidden=4, layers=layers, nodes=5, dropout=0.0)
    ensemble = Ensemble(shape, [torch.Generator() for _ in range(2)])
    weights = sum(parameter.numel() for parameter in ensemble.parameters())
    assert size(layers=layers, batch_size=0).bytes_needed() == 4 * 4 * weights


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"hidden": 10**12}, "hidden"),
        ({"members": 10**9}, "members"),
        ({"members": 10**9, "networks": 1}, "members"),
        ({"layers": 10**9, "hidden": 500}, "layers"),
        ({"batch_size": 10**12}, "batch_size"),
    ],
)
def test_the_message_names_the_absurd_setting(changes, name):
    with pytest.raises(SettingsError) as error:
        check_memory(size(**changes), "cpu", "toy mcm seed 0")
    message = str(error.value)
    assert message.startswith(f"toy mcm seed 0: training.{name}: {changes.get(name)} with ")
    assert message.endswith(f"; lower training.{name}")
    assert len(message.splitlines()) == 1


def test_what_just_fits_is_not_refused(monkeypatch):
    needed = size().bytes_needed()
    monkeypatch.setattr(memory, "memory_of", lambda device: needed)
    check_memory(size(), "cpu", "run")
    monkeypatch.setattr(memory, "memory_of", lambda device: needed - 1)
    with pytest.raises(SettingsError, match="needs at least"):
        check_memory(size(), "cpu", "run")


def test_the_machine_has_memory():
    assert 2**28 < memory_of("cpu") < 2**50


def test_a_training_is_refused_before_anything_is_taken(monkeypatch):
    dataset = load_dataset("synthetic", seed=3)
    monkeypatch.setattr(loop._Run, "start", None)  # were it called, this would be a TypeError
    budget = Budget(
        epochs=1, batch_size=32, learning_rate=0.1, hidden=1_000_000, members=2, device="cpu"
    )
    with pytest.raises(SettingsError, match=r"^toy mcm seed 0: training\.hidden: 1000000 with"):
        train_ensemble(
            dataset, RareNodeLoss(dataset.hierarchy), budget, Streams(1, "toy", "mcm", 0)
        )


def test_an_allocation_that_fails_is_named_like_one_that_was_foreseen():
    with (
        pytest.raises(SettingsError, match=r"needs more than is free of memory"),
        memory_shortage_named(size(), "cpu", "run"),
    ):
        torch.empty(2**60)
    with pytest.raises(RuntimeError, match=r"^a bug$"), memory_shortage_named(size(), "cpu", "run"):
        raise RuntimeError("a bug")


def test_cuda_without_a_gpu_is_one_line(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    message = "training.device: expected cuda, found no GPU that PyTorch can use; set device to auto or cpu"
    with pytest.raises(SettingsError, match=f"^{re.escape(message)}$"):
        choose_device("cuda")
    assert choose_device("auto") == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("cuda") == choose_device("auto") == "cuda"
