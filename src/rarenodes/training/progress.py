"""What a training reports on its way, and how often."""

import logging
from collections.abc import Mapping

from rarenodes.training.streams import Streams

log = logging.getLogger(__name__)

# Lines in the log; more would hide others.
REPORTS = 4


def is_due(epoch: int, epochs: int, times: int) -> bool:
    """Whether to do what is done about `times` times in all: at even steps, and at the end."""
    return (epoch + 1) % max(1, epochs // times) == 0 or epoch + 1 == epochs


def report(row: Mapping[str, int | float], epochs: int, streams: Streams) -> None:
    """Log the scores of an epoch, for a few epochs in all.

    Args:
        row: of the history.
        epochs: of the whole training.
        streams: name the run.

    """
    if is_due(row["epoch"] - 1, epochs, REPORTS):
        shown = ", ".join(f"{k} {v:.4g}" for k, v in row.items() if k != "epoch")
        log.info("%s: epoch %d of %d, %s", streams, row["epoch"], epochs, shown)
