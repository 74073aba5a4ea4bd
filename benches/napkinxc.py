"""napkinXC's probabilistic label trees beside sparse conditional training, on all of ICD-10-CM.

The same split and the same TF-IDF: label trees take it as it is, and so does the network `of terms`;
the network `of components` takes the truncated SVD of it that all studies use. All are asked for the
likeliest `MOST` nodes of each test text and scored by these alone: what is not among them scores 0.
Labels of a text are its nodes and all above them, for both. napkinXC is installed by
`pip install -e '.[peers]'`.

Source: Jasinska-Kobus, Wydmuch, Dembczyński, Kuznetsov and Busa-Fekete, *Probabilistic Label Trees for
Extreme Multi-label Classification*, 2020.
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import yaml
from scipy import sparse

from benches.timing import REPOSITORY, in_process
from rarenodes.datasets import load_dataset
from rarenodes.datasets.dataset import Dataset
from rarenodes.loss.active_nodes import active_nodes
from rarenodes.loss.output import Output
from rarenodes.randomness import torch_stream
from rarenodes.scores import metrics
from rarenodes.scores.run_tables import Predictions, node_table, score_run
from rarenodes.scores.stored import BlockedScores
from rarenodes.training.ensemble import Ensemble, Shape
from rarenodes.training.sparse_layer import RowAdam
from rarenodes.training.sparse_training import SparseTraining

PARAMS = REPOSITORY / "studies" / "scale" / "params.yaml"
THREADS = 2
# Nodes of a text that are asked for.
MOST = 100
AT = (1, 3, 5)
# Of the networks: as the study has it but for the epochs, which suffice by validation data.
EPOCHS, BATCH, RATE, HIDDEN, DROPOUT = 12, 256, 0.002, 256, 0.2

# Test texts' nodes and how likely they are: `[test texts, nodes]`.
Likely = sparse.csr_array


@dataclass(frozen=True)
class Way:
    """One model, trained.

    Attributes:
        predict: its likeliest nodes of the test texts.
        bytes: of the model on disk, without what makes features.

    """

    predict: Callable[[], Likely]
    bytes: int


def napkinxc() -> pd.DataFrame:
    """A row per way, in a process of its own; without label trees where napkinXC is not installed."""
    return pd.DataFrame(in_process("benches.napkinxc"))


def measure(dataset: Dataset, epochs: int = EPOCHS, threads: int = THREADS) -> pd.DataFrame:
    """Times, size and scores of every way.

    Args:
        dataset: of texts, from its source.
        epochs: of the networks.
        threads: of all.

    """
    torch.set_num_threads(threads)
    terms = sparse.csr_array(dataset.transformation.terms(dataset.texts), dtype=np.float32)
    dense = torch.from_numpy(dataset.features)
    ways = {
        "conditional_sparse of components": lambda folder: network(dataset, dense, epochs, folder),
        "conditional_sparse of terms": lambda folder: network(dataset, terms, epochs, folder),
    }
    if find_spec("napkinxc") is not None:
        ways["napkinXC, PLT"] = lambda folder: label_trees(dataset, terms, threads, folder)
    rows = []
    for name, train in ways.items():
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            way = train(Path(folder))
            trained = time.perf_counter()
            likely = way.predict()
            predicted = time.perf_counter()
        rows.append(
            {
                "way": name,
                "training_seconds": trained - start,
                "prediction_seconds": predicted - trained,
                "model_bytes": way.bytes,
                **scores_of(dataset, likely),
            }
        )
    return pd.DataFrame(rows)


def network(
    dataset: Dataset, inputs: torch.Tensor | sparse.csr_array, epochs: int, folder: Path
) -> Way:
    """Sparse conditional training, of vectors or of sparse ones."""
    shape = Shape(inputs.shape[1], HIDDEN, 1, len(dataset.hierarchy), DROPOUT)
    stream = torch_stream(0, "napkinxc", "weights")
    ensemble = Ensemble(shape, [stream], output=Output("product"))
    training = SparseTraining(ensemble, RowAdam(RATE))
    active = active_nodes(dataset.targets, dataset.hierarchy)
    for epoch in range(epochs):
        order = np.random.default_rng(epoch).permutation(dataset.split["train"])
        dropout = [torch_stream(0, "napkinxc", "dropout", epoch)]
        training.epoch(inputs, active, order, BATCH, dropout)
    training.finish().save(folder)

    def predict() -> Likely:
        rows = dataset.split["test"]
        some = inputs[torch.from_numpy(rows)] if isinstance(inputs, torch.Tensor) else inputs[rows]
        found = training.likeliest(some, dataset.hierarchy, most=MOST)
        shape = (len(rows), len(dataset.hierarchy))
        return sparse.csr_array(
            (found.probabilities.astype(np.float32), found.nodes, found.starts), shape=shape
        )

    return Way(predict, _bytes_in(folder))


def label_trees(dataset: Dataset, terms: sparse.csr_array, threads: int, folder: Path) -> Way:
    """napkinXC's label trees with its own defaults, trees grown from the features of labels."""
    from napkinxc.models import PLT

    rows = dataset.split["train"]
    model = PLT(str(folder / "plt"), threads=threads, seed=1)
    model.fit(sparse.csr_matrix(terms[rows]), _label_lists(dataset.targets[rows]))

    def predict() -> Likely:
        rows = dataset.split["test"]
        found = model.predict_proba(sparse.csr_matrix(terms[rows]), top_k=MOST)
        columns, values = zip(*(pair for example in found for pair in example), strict=True)
        starts = np.concatenate([[0], np.cumsum([len(example) for example in found])])
        shape = (len(rows), len(dataset.hierarchy))
        return sparse.csr_array(
            (np.array(values, np.float32), np.array(columns), starts), shape=shape
        )

    return Way(predict, _bytes_in(folder))


class Listed(BlockedScores):
    """Scores of which each example has a few, and 0 elsewhere."""

    def __init__(self, likely: Likely):
        self.shape = likely.shape
        self._by_node = sparse.csc_array(likely)

    def read(self, nodes: slice) -> np.ndarray:
        """The scores of all examples for one of the blocks."""
        return self._by_node[:, nodes].toarray().astype(np.float32, copy=False)


def scores_of(dataset: Dataset, likely: Likely) -> dict[str, float]:
    """Precision at k, and macro average precision of nodes with test positives by rarity."""
    nodes = node_table(dataset, ["train"])
    scores = Listed(likely[:, np.flatnonzero(dataset.evaluated)])
    table, pooled = score_run(dataset, Predictions(None, scores), nodes, precisions_at=AT)
    found = {name: pooled[name] for name in pooled if "precision_at" in name}
    tested = table[table["test_positives"] > 0]
    found["average_precision"] = tested["average_precision"].mean()
    by_rarity = tested.groupby("rarity")["average_precision"].mean()
    return found | {
        f"average_precision {name}": by_rarity.get(name) for name in metrics.RARITY_BINS
    }


def _label_lists(targets: sparse.csr_array) -> list[list[int]]:
    return [part.tolist() for part in np.split(targets.indices, targets.indptr[1:-1])]


def _bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in _files(folder))


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())


def _all_of_icd10cm() -> Dataset:
    values = yaml.safe_load(PARAMS.read_text())
    options = values["datasets"]["icd10cm_full"]["options"]
    return load_dataset("icd10cm", seed=values["seed"], options=options)


if __name__ == "__main__":
    print(measure(_all_of_icd10cm()).to_json(orient="records"))
