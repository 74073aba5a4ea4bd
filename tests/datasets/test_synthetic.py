import numpy as np
import pytest

from rarenodes.datasets import load_dataset
from rarenodes.datasets.synthetic import random_hierarchy


def explained(dataset):
    """Share of the features' variance on test rows that a linear map from the targets explains."""
    train, test = dataset.split["train"], dataset.split["test"]
    targets = dataset.targets.toarray().astype(float)
    weights = np.linalg.lstsq(targets[train], dataset.features[train], rcond=None)[0]
    rest = dataset.features[test] - targets[test] @ weights
    return 1 - rest.var() / dataset.features[test].var()


@pytest.mark.parametrize(
    ("signal", "low", "high"), [(0.0, -0.3, 0.05), (0.5, 0.35, 0.6), (1.0, 0.99, 1)]
)
def test_features_say_as_much_of_the_targets_as_asked(signal, low, high):
    dataset = load_dataset("synthetic", options={"signal": signal, "examples": 1000})
    assert low < explained(dataset) <= high


def test_imbalance_makes_counts_uneven():
    flat, steep = (
        load_dataset("synthetic", options={"imbalance": z, "depth": 1, "branching": 29})
        for z in (0.0, 2.0)
    )
    spread = [np.ptp(d.counts("train")[1:]) / d.counts("train")[1:].mean() for d in (flat, steep)]
    assert spread[0] < 3 < spread[1]


def test_the_same_each_time_and_another_with_another_seed():
    checksums = [load_dataset("synthetic", seed=s).checksum() for s in (0, 0, 1)]
    assert checksums[0] == checksums[1] != checksums[2]


def test_limited_data_have_the_same_examples():
    full, limited = (load_dataset("synthetic", train_fraction=f) for f in (1.0, 0.1))
    np.testing.assert_array_equal(full.features, limited.features)
    np.testing.assert_array_equal(full.split["test"], limited.split["test"])
    assert len(limited.split["train"]) == 18


def test_chain_and_star():
    rng = np.random.default_rng(0)
    assert random_hierarchy(50, rng, branching=1).depth.tolist() == list(range(50))
    assert random_hierarchy(50, rng, depth=1).depth.max() == 1


def test_depth_and_branching_are_kept():
    tree = random_hierarchy(400, np.random.default_rng(0), depth=6, branching=3)
    assert tree.is_tree
    assert tree.depth.max() <= 6
    assert np.unique(tree.edge_index[:, 1], return_counts=True)[1].max() <= 3


def test_share_of_nodes_with_two_parents():
    dag = random_hierarchy(400, np.random.default_rng(0), depth=5, branching=4, multi_parent=0.5)
    assert sum(len(p) == 2 for p in dag.parents) == dag.num_edges - 399
    assert 150 < sum(len(p) == 2 for p in dag.parents) < 200
    assert len(dag.roots) == 1


def test_a_shape_that_cannot_hold_the_nodes():
    with pytest.raises(ValueError, match="depth 2 and branching 2 hold 7 nodes, expected 8"):
        random_hierarchy(8, np.random.default_rng(0), depth=2, branching=2)
