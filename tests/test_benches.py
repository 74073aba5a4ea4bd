"""The benches compare like with like, and their report says what its tables say."""

import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from benches import loss, prediction, report, sparse, step, training
from benches.loss import Case
from benches.shapes import FUN, GO, chain, leveled, star
from rarenodes.datasets.targets import closed_targets
from rarenodes.loss.best_first import Likeliest
from rarenodes.stages.prepare import prepare
from rarenodes.stages.train import train
from rarenodes.study.params import Study
from rarenodes.study.results import Results


@pytest.mark.parametrize(
    "hierarchy",
    [leveled(60, 4), leveled(60, 4, 90), chain(12), star(12)],
    ids=["tree", "DAG", "chain", "star"],
)
@pytest.mark.parametrize("members", [1, 3])
def test_all_ways_to_the_loss_find_the_same(hierarchy, members):
    case = Case(hierarchy, members, 4)
    expected = case.ways["reference"]()
    [gradient] = torch.autograd.grad(expected, case.logits)
    for way in ("coherent", "dense, max", "dense, amax"):
        found = case.ways[way]()
        assert found.item() == pytest.approx(expected.item(), rel=1e-5), way
        [of_way] = torch.autograd.grad(found, case.logits)
        torch.testing.assert_close(of_way, gradient, rtol=1e-4, atol=1e-6)
    weighted = case.ways["reference, weights, gmu"]().item()
    assert case.ways["coherent, weights, gmu"]().item() == pytest.approx(weighted, rel=1e-5)


def test_hierarchies_have_the_sizes_asked_for():
    for size in (FUN, GO):
        hierarchy = leveled(**size)
        assert len(hierarchy) == size["nodes"]
        assert hierarchy.depth.max() == size["depth"]
    assert leveled(**GO).num_edges == GO["edges"]
    assert chain(7).depth.max() == 6
    assert star(7).depth.max() == 1


def test_ratios_are_to_the_first_way():
    rows = loss.compare("tiny", leveled(40, 3), 1, 2, ["plain BCE", "coherent"], 0)
    assert rows[0]["ratio"] == 1
    assert rows[1]["ms_lower"] <= rows[1]["ms"] <= rows[1]["ms_upper"]
    assert rows[1]["ns_per_node"] == pytest.approx(1e6 * rows[1]["ms"] / (40 * 2))


def test_memory_is_that_of_a_fresh_process():
    table = loss.memory([4_000], ways=["coherent, weights, gmu"])
    # A gradient at least.
    assert table["tensors"].between(0.9, 5).all()


def test_labels_of_the_complete_tree_are_closed():
    hierarchy = sparse.complete_tree(30)
    assert hierarchy.nodes == tuple(f"{i:08}" for i in range(30))
    targets = sparse.paths(30, np.array([25, 3, 11]))
    assert [row.nonzero()[0].tolist() for row in targets.toarray()] == [
        [0, 2, 25],
        [0, 3],
        [0, 1, 11],
    ]
    assert hierarchy.is_coherent(torch.from_numpy(targets.toarray()))


def test_labels_of_any_hierarchy_are_closed():
    labels = np.array([25, 3, 11, 20])
    tree = sparse.complete_tree(30)
    expected = sparse.paths(30, labels).toarray()
    names = [[f"{label:08}"] for label in labels]
    np.testing.assert_array_equal(closed_targets(names, tree).toarray(), expected)
    some = sparse.dag(30)
    assert not some.is_tree
    targets = closed_targets(names, some).toarray()
    assert targets.max() == 1
    assert some.is_coherent(torch.from_numpy(targets))
    # 20 has parents 1 and 0, 25 has 2 and 1.
    assert [row.sum() for row in targets] == [4, 2, 3, 3]


def test_labels_from_fewer_nodes_share_rows_more_often():
    def rows_a_pair(case: sparse.Case) -> float:
        labels = case.labels(np.random.default_rng(0), 20 * sparse.BATCH)
        tree = sparse.complete_tree(case.nodes)
        return sparse.rows_a_pair(sparse.active_nodes(sparse.paths(case.nodes, labels), tree))

    share = rows_a_pair(sparse.Case(300))
    within = sparse.sharing(3_000, share)
    assert 1 < within < 2_999
    found = rows_a_pair(sparse.Case(3_000, within=within))
    assert found == pytest.approx(share, rel=0.05)
    assert rows_a_pair(sparse.Case(3_000)) > 1.2 * share
    labels = sparse.Case(3_000, within=within).labels(np.random.default_rng(0), 500)
    assert (labels.min() >= 3_000 - within, labels.max() < 3_000) == (True, True)


def test_a_case_is_measured_in_a_process_of_its_own():
    row = sparse.million([sparse.Case(200, 300, 20, dag=True, threads=2)]).iloc[0]
    assert (row["hierarchy"], row["nodes"], row["examples"], row["threads"]) == ("DAG", 200, 300, 2)
    assert row["us_per_active_node"] == pytest.approx(
        1e6 * row["epoch_seconds"] / (row["active"] * 300)
    )
    assert 0 <= row["precision_at_5"] <= row["precision_at_1"] <= 1


def test_epochs_of_sparse_training_are_those_of_the_study(tmp_path):
    values = yaml.safe_load((Path(__file__).parent / "tiny" / "params.yaml").read_text())
    of_scale = training.of_scale(training.SPARSE, epochs=4)
    values["datasets"].pop("toy_limited")
    values["variants"] = of_scale["variants"] | {"mcm": {"about": "baseline"}}
    values["training"] |= {
        name: of_scale["training"][name] for name in ("learning_rate", "epochs", "weight_decay")
    }
    values["evaluation"] = {"baseline": "mcm"}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values))
    study = Study(tmp_path / "params.yaml")
    prepare(study, "toy", study.prepared("toy"))
    epochs = 4
    table = training._train_sparsely(tmp_path, epochs)
    train(study, "toy", training.SPARSE, study.results("toy", training.SPARSE))
    history = Results.load(study.results("toy", training.SPARSE)).history.query("seed == 0")
    assert table["epoch"].tolist() == list(range(1, epochs + 1))
    np.testing.assert_allclose(table["valid_active_bce"], history["valid_active_bce"], rtol=1e-6)


def test_precision_counts_the_first_nodes_of_every_example():
    targets = sparse.paths(30, np.array([25, 3]))
    found = Likeliest(np.array([0, 2, 4]), np.array([2, 25, 4, 3], np.int32), np.zeros(4))
    assert sparse.precision(found, targets, 1) == 0.5
    assert sparse.precision(found, targets, 2) == 0.75


def test_predictions_are_measured_of_the_command(tmp_path):
    table = prediction.predictions(["conditional_unseen_constant"], [5, 20])
    assert table["texts"].tolist() == [5, 20]
    assert table["nodes"].between(700, 1_300).all()
    assert (table[["seconds", "processor_seconds"]] > 0).all(axis=None)
    # Python and PyTorch at least.
    assert table["peak_bytes"].between(5e7, 8e9).all()
    with pytest.raises(subprocess.CalledProcessError, match="predict"):
        prediction.measure(tmp_path / "none", tmp_path / "none.txt", tmp_path / "none.csv")


@pytest.fixture(scope="module")
def tables() -> dict[str, pd.DataFrame]:
    """Real figures where they are quick, made-up ones of the same form where not."""
    steps = pd.concat(
        [
            pd.DataFrame(_rows(name, members, [*loss.KERNEL, "reference"])).assign(
                hidden=5, **{f"ms_{part}": 1.0 for part in step.PARTS}
            )
            for name in ("FUN", "GO")
            for members in (1, 10)
        ]
    )
    ways = [*loss.KERNEL, "reference", "dense, max", "dense, amax"]
    losses = [
        row for name in ("FUN", "GO") for members in (1, 10) for row in _rows(name, members, ways)
    ]
    return {
        "losses": pd.DataFrame(losses),
        "sizes": pd.concat(
            pd.DataFrame(_rows(kind, members, loss.KERNEL)).assign(nodes=nodes, ns_per_node=nodes)
            for kind in ("tree", "DAG")
            for members in (1, 10)
            for nodes in (10, 12)
        ),
        "shapes": pd.DataFrame(_rows("chain", 10, loss.KERNEL)),
        "memory": pd.DataFrame(_rows("tree", 10, loss.KERNEL)).assign(nodes=5_000, tensors=1.25),
        "steps": steps,
        "sparse": pd.DataFrame(
            {
                "nodes": [500, 900, 900],
                "labels_from": [499, 899, 60],
                "active": [39.5, 60.5, 60.5],
                "epoch_seconds": [0.25, 0.5, 0.3],
                "us_per_active_node": [0.5, 0.75, 0.6],
                "dense_epoch_seconds": [1.5, 2.5, 2.5],
            }
        ),
        "million": pd.DataFrame(
            {
                "hierarchy": ["tree", "DAG"],
                "nodes": [1_000_000] * 2,
                "examples": [200_000] * 2,
                "threads": [2, 2],
                "epoch_seconds": [90.0, 100.0],
                "us_top_5": [1_500.0, 1_900.0],
                "peak_bytes": [5e9, 6e9],
            }
        ),
        "icd10cm_sparse": pd.DataFrame(
            {
                "epoch": [1, 2, 3],
                "hidden": [256] * 3,
                "seconds": [2.0, 4.0, 3.0],
                "validation_seconds": [1.0] * 3,
                "valid_active_bce": [0.3, 0.2, 0.25],
                "peak_bytes": [1e9, 1.2e9, 1.2e9],
            }
        ),
        "napkinxc": pd.DataFrame({"way": ["a"], "training_seconds": [1.0]}),
        "cellcycle": pd.DataFrame(
            {"seed": [0, 1], "seconds": [9.0, 11.0], "au_prc": [0.251, 0.26]}
        ),
        "icd10cm": pd.DataFrame(
            {"members": [1, 5], "seconds": [60, 300.0], "peak_bytes": [1e9, 5e9]}
        ),
        "predictions": pd.DataFrame(
            {
                "variant": ["mcm", "mcm"],
                "nodes": [900, 900],
                "texts": [1_000, 10_000],
                "seconds": [3.0, 20.0],
                "processor_seconds": [4.0, 30.0],
                "peak_bytes": [4e8, 5e8],
            }
        ),
    }


def _rows(hierarchy: str, members: int, ways) -> list[dict]:
    return [
        {
            "hierarchy": hierarchy,
            "nodes": 500,
            "members": members,
            "batch": 4,
            "way": way,
            "ms": 2.0,
            "ms_lower": 1.0,
            "ms_upper": 3.0,
            "ratio": float(number or 1),
            "ns_per_node": 1.0,
        }
        for number, way in enumerate(ways)
    ]


def test_aims_are_read_from_the_tables(tables):
    aims = report.aims(tables).set_index("what")["measured"]
    assert (
        aims.filter(like="coherent loss, FUN").item()
        == "4 than max, 5 than amax; plain BCE 4 than max"
    )
    assert aims.filter(like="50,000 nodes, 10 members").item().startswith("+20% to +20%")
    assert aims.filter(like="extra memory").item() == "≤ 1.25; plain BCE 1.25"
    assert aims.filter(like="cellcycle").item() == "0.251, 0.260 after 9.0 to 11.0 s"
    assert aims.filter(like="5 members").item() == "5.0 min an epoch, 5.0 GB"
    assert (
        aims.filter(like="at active nodes").item()
        == "3.0 s an epoch (median of 3); best after 2, 8 s; 1.20 GB"
    )
    assert aims.filter(like="time an active node").item() == (
        "+20% where a batch's examples share rows as often; +50% with labels from all nodes"
    )
    assert aims.filter(like="DAG of 1,000,000").item() == "100 s, 6.0 GB; 19.0 s"
    assert (
        aims.filter(like="predictions of 10,000 texts on 900 nodes, mcm").item()
        == "20.0 s, 30.0 s of processors; 0.50 GB, of 1,000 0.40 GB"
    )


def test_the_report_has_all_tables_and_figures(tables, tmp_path):
    report.write(tables, {"processor": "some", "cores": None}, tmp_path)
    page = (tmp_path / "README.md").read_text()
    assert "processor some." in page
    assert "|     500 |           499 |     39.5 |            0.25 |" in page
    for figure in ("sizes", "shapes", "sparse", "steps"):
        assert f"(figures/{figure}.svg)" in page
        assert (tmp_path / "figures" / f"{figure}.svg").exists()
    for name in tables:
        assert (tmp_path / "tables" / f"{name}.csv").exists()


def test_without_benchmark_data_the_report_leaves_their_aim_out(tables, tmp_path):
    report.write(tables | {"cellcycle": pd.DataFrame()}, {"processor": "some"}, tmp_path)
    assert "cellcycle" not in (tmp_path / "README.md").read_text()
