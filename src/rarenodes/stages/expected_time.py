"""How long trainings will take, from a few steps on this machine."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch.nn import functional

from rarenodes.randomness import torch_stream
from rarenodes.training.ensemble import Ensemble, Shape
from rarenodes.training.memory import Size

# Steps are timed until so many seconds have passed or so many steps are done, after one that is not.
SECONDS, STEPS = 0.5, 20


def seconds_of_training(
    size: Size, examples: int, epochs: int, seconds_a_step: float, seeds: int = 1
) -> float:
    """`seeds · epochs · ⌈examples / batch size⌉ · seconds_a_step`.

    Args:
        size: what is trained.
        examples: training examples.
        epochs: passes over them.
        seconds_a_step: from `seconds_a_step`.
        seeds: number of runs.

    """
    return seeds * epochs * math.ceil(examples / size.batch_size) * seconds_a_step


def seconds_a_step(size: Size, dropout: float, device: str, threads: int) -> float:
    """Mean duration of a training step, measured on random inputs.

    Forward and backward pass and the optimiser of networks of this size with plain binary
    cross-entropy. Batching, hierarchy, weights and validation come on top: with 100 and 1,000 nodes,
    five members of 256 units and batches of 64, a fifth to two fifths. Of sparse training it is the
    layers below the last alone: what the last one takes depends on the targets.

    Args:
        size: what is trained; its memory is taken.
        dropout: probability of dropping a hidden unit.
        device: `cpu` or `cuda`.
        threads: of PyTorch, as in the training.

    """
    with _threads(threads):
        step = _step(size, dropout, device)
        step()  # the first one prepares memory and kernels
        done, start = 0, time.perf_counter()
        while done < STEPS and time.perf_counter() - start < SECONDS:
            step()
            done += 1
        return (time.perf_counter() - start) / done


def in_words(seconds: float) -> str:
    """A duration, rounded up: seconds, minutes, or hours from an hour and a half on.

    Args:
        seconds: at least 0.

    """
    if seconds <= 90:
        return f"{math.ceil(seconds)} s"
    minutes = math.ceil(seconds / 60)
    return f"{minutes} min" if minutes <= 90 else f"{math.ceil(minutes / 60)} h"


def _step(size: Size, dropout: float, device: str) -> Callable[[], None]:
    streams = [torch_stream(0, "expected time", i) for i in range(size.networks)]
    nodes = 1 if size.sparse else size.nodes
    shape = Shape(size.features, size.hidden, size.layers, nodes, dropout)
    passes = size.members // size.networks
    ensemble = Ensemble(shape, streams, passes=passes).to(device)
    adam = torch.optim.Adam(ensemble.parameters(), fused=True)
    drops = [torch_stream(1, "expected time", i, device=device) for i in range(size.members)]
    inputs = torch.zeros(size.batch_size, size.features, device=device).normal_(generator=drops[0])
    targets = torch.zeros(size.members, size.batch_size, nodes, device=device)

    def step() -> None:
        logits = ensemble(inputs, drops)
        loss = functional.binary_cross_entropy_with_logits(logits, targets, reduction="sum")
        adam.zero_grad()
        loss.backward()
        adam.step()
        loss.item()  # waits for a GPU

    return step


@contextmanager
def _threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
