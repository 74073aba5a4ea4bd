"""Every number in the gallery's own sentences is worked out here and looked for in the sentence."""

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from rarenodes.loss.hierarchy import Hierarchy
from rarenodes.loss.schedules import Moment, Schedule
from rarenodes.stages.gallery import (
    balance_table,
    long_tail,
    losses_of,
    response,
    two_camps,
    uncertainty_maps,
    weight_curves,
)

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "07_gallery.ipynb"
RARE, COMMON = "100", "001"
LOSSES = {
    "bce": {},
    "focal": {"loss": {"name": "focal"}},
    "asymmetric": {"loss": {"name": "asymmetric"}},
    "negative_tolerant": {"loss": {"name": "negative_tolerant"}},
    "adjusted": {"shift": {"kind": "prior", "strength": 1.0}},
}


@cache
def prose() -> str:
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    return "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")


@cache
def data():
    return long_tail(num_nodes=400, num_examples=1000, most=400)


@cache
def at_one_percent(name: str, node: str = RARE) -> tuple[float, float]:
    """How hard a positive and a negative push, predicted at 1 %."""
    found = response(losses_of({name: LOSSES[name]}, data())[name], torch.tensor([0.01]).logit())
    column = data().hierarchy.index[node]
    return tuple(
        abs(float(gradient[0, column]))
        for gradient in (found.positive_gradient, found.negative_gradient)
    )


def curves(mode: str, orientation: str):
    table = weight_curves(data())
    return table[(table["mode"] == mode) & (table["orientation"] == orientation)]


def test_the_long_tail():
    counts = data().counts("train")
    examples = len(data().split["train"])
    rare = counts[data().hierarchy.index[RARE]]
    first, second, third, *_, last = sorted(counts)[::-1]
    assert (
        f"{examples:,} examples and {len(counts)} nodes with a long tail. The first node has {first} "
        f"positives, the second {second}, the third {third}, …"
    ) in prose()
    assert last == 1
    assert f"the rare node has {rare} positives against {examples - rare} negatives" in prose()


def test_how_hard_easy_negatives_push():
    pull, push = at_one_percent("bce")
    assert f"each of them down with {push:.2f}" in prose()
    assert f"996 negatives then push with {996 * push:.0f} in all, its 4 positives pull with" in (
        prose()
    )
    assert f"pull with {4 * pull:.0f}:" in prose()
    assert f"focal loss has all but stopped there ({at_one_percent('focal')[1]:.6f})" in prose()
    assert at_one_percent("negative_tolerant")[1] < 1e-5
    assert at_one_percent("asymmetric")[1] == 0
    loss = losses_of({"a": LOSSES["asymmetric"]}, data())["a"]
    around = response(loss, torch.tensor([0.0499, 0.0501]).logit()).negative_gradient[:, 0]
    assert around[0] == 0 < around[1]
    assert "exactly nothing up to 5 %" in prose()


@pytest.mark.parametrize(
    ("node", "sentence"),
    [(RARE, "rare node to the right by {} logits"), (COMMON, "common node's move by {}.")],
)
def test_how_far_logit_adjustment_moves_curves(node, sentence):
    count = data().counts("train")[data().hierarchy.index[node]]
    moved = np.log((1000 - count) / count)
    loss = losses_of({"a": LOSSES["adjusted"]}, data())["a"]
    column = data().hierarchy.index[node]
    here = response(loss, torch.tensor([moved])).positive[0, column]
    assert here == pytest.approx(np.log(2), rel=1e-5)  # what cross-entropy costs at logit 0
    assert sentence.format(round(float(moved), 1)) in prose()


def test_class_wise_weights():
    table = curves("class-wise", "paper").set_index("positives")["weight"]
    most = table[table > 1].index.max()
    share = (data().counts("train") <= most).mean()
    assert f"only nodes with at most {most} positives" in prose()
    assert f"three in four of the {len(data().hierarchy)}" in prose()
    assert share == pytest.approx(3 / 4, abs=0.01)
    assert f"none more than {table.max():.2f}" in prose()
    assert table[400] == pytest.approx(1 / 4)
    assert "the common node's to a quarter" in prose()


def test_binary_weights():
    half = len(data().hierarchy) // 2
    assert f"Binary weights are {half} times as steep" in prose()
    steep, flat = (curves(mode, "paper")["weight"].to_numpy() for mode in ("binary", "class-wise"))
    slope = np.diff(steep)[:10] / np.diff(flat)[:10]
    assert slope == pytest.approx(np.full(10, half), rel=0.01)
    table = curves("binary", "paper").set_index("positives")
    ratio = (table["positives_total"] / table["negatives_total"]).loc[:100]
    assert ratio.between(0.4, 0.6).all()
    assert "about half as much as all its negatives" in prose()


def test_effective_numbers():
    table = curves("effective-number", "paper")
    low, high = table["positives_total"].min(), table["positives_total"].max()
    assert f"weigh {low:.1f} to {high:.1f} in all" in prose()
    low, high = table["negatives_total"].min(), table["negatives_total"].max()
    assert f"beside {low:.0f} to {high:.0f} for its negatives" in prose()


def test_positive_ratio():
    table = curves("positive-ratio", "paper").set_index("positives")
    equal = np.isclose(table["positives_total"], table["negatives_total"])
    assert f"its cap of {table['weight'].max():.0f} reaches" in prose()
    assert f"down to {table.index[equal].min()} positives" in prose()


def test_a_common_node_among_rarer_ones():
    table = balance_table({"common": 400, "medium": 40, "rare": 4})
    alone, with_all = table.loc[["common", "common, medium, rare"], "common"]
    assert with_all / alone == pytest.approx(1 / 5, abs=0.05)
    assert "the common node falls to a fifth" in prose()
    assert (table.loc["no label"] == table.loc["no label"].iloc[0]).all()


def test_uncertainties():
    assert f"at the tip it is {uncertainty_maps().kinds['kl'].max():.0f}" in prose()
    sure = two_camps(torch.tensor([[0.01, 0.99]]), torch.zeros(1, 2)).logit()
    loss = losses_of({"a": {"focal": {"uncertainty": "bbma"}}}, data())["a"]
    miss, right = (loss.focal.weight(sure)[0]).tolist()
    assert miss == pytest.approx(right)
    assert f"gets about the floor**: {miss:.2f} with `bbma`" in prose()
    assert f"`floor + u` (here {loss.focal.floor:g} + u)" in prose()
    lin = losses_of({"a": {"loss": {"name": "focal"}}}, data())["a"]
    values = [
        float(response(one, torch.tensor([p]).logit()).positive[0, 0])
        for p in (0.01, 0.99)
        for one in (lin, losses_of({"b": {}}, data())["b"])
    ]
    assert f"Lin's focal loss gives it {values[0] / values[1]:.2f}" in prose()
    assert f"and the other one {values[2] / values[3]:.4f}" in prose()


def test_what_the_maximum_constraint_is_drawn_for():
    assert "(0.2 for common, 0.5 for medium, 0.8 for rare)" in prose()
    assert ": [0.2, 0.5, 0.8]" in NOTEBOOK.read_text()
    assert list(Hierarchy([("medium", "common"), ("rare", "medium")]).nodes) == [
        "common",
        "medium",
        "rare",
    ]


def test_schedules():
    code = NOTEBOOK.read_text()
    assert "a training of four epochs of six steps" in prose()
    assert "epochs=4, steps=6" in code
    assert "`exponential` is drawn with a power of 2" in prose()
    assert '\\"exponential\\": 2.0' in code
    last = Moment(3, 4, 5, 6)
    ends = {}
    for end in (0.25, 1.0):
        schedule = Schedule("linear", 1.0, "training", end=end)
        ends[end] = end + schedule.share(last) * (1 - end)
    assert ends == pytest.approx({0.25: 0.25, 1.0: 1.0}, abs=0.01)
    assert "At the paper's end of 0.25 a positive weighs a quarter of a negative" in prose()
