"""Images of a data set as readers see them: which stand where, and under what."""

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from rarenodes.datasets.dataset import Dataset
from rarenodes.loss.hierarchy import Hierarchy
from rarenodes.pages.plots import pictures
from rarenodes.pages.tables import example_name, most_specific


@pytest.fixture
def drawn() -> Dataset:
    """Root → 木 → 相, root → b; images are as grey as their number; of 木 are 0 to 13, of 相 0, 1 and 20."""
    hierarchy = Hierarchy([("木", "root"), ("相", "木"), ("b", "root")])
    nodes, targets = hierarchy.index, np.zeros((22, 4), dtype=np.uint8)
    targets[:, nodes["root"]] = 1
    targets[:14, nodes["木"]] = targets[20:, nodes["木"]] = 1
    targets[[0, 1, 20, 21], nodes["相"]] = 1
    targets[14:20, nodes["b"]] = 1
    greys = np.arange(22, dtype=np.uint8)
    return Dataset(
        name="drawn",
        features=np.zeros((22, 1), dtype=np.float32),
        targets=sparse.csr_array(targets),
        hierarchy=hierarchy,
        split={"train": np.arange(18), "valid": np.arange(18, 20), "test": np.arange(20, 22)},
        evaluated=np.array([node != "root" for node in hierarchy.nodes]),
        card={},
        images=np.broadcast_to(greys[:, None, None], (22, 3, 3)).copy(),
    )


def rows_of(figure) -> list[tuple[str, list[tuple[int, str]]]]:
    """What stands in a figure: each row's words, and its images' numbers and titles by column."""
    axes = np.array(figure.axes).reshape(-1, pictures.COLUMNS + 1)
    found = []
    for first, *others in axes:
        images = [(int(a.images[0].get_array()[0, 0]), a.get_title()) for a in others if a.images]
        found.append((first.texts[0].get_text(), images))
    return found


def test_rare_nodes_are_shown_with_their_training_images_rarest_first(drawn):
    some, *rare = rows_of(pictures.contact_sheet(drawn, seed=3))
    assert [about for about, _ in rare] == ["U+76F8\n2 in train", "b\n4 in train"]
    assert [images for _, images in rare] == [
        [(0, ""), (1, "")],
        [(14, ""), (15, ""), (16, ""), (17, "")],
    ]
    # 木 has 14, too many to be rare; examples are under the deepest of their nodes.
    for number, title in some[1]:
        assert title == ("U+76F8" if number < 2 else "U+6728" if number < 14 else "b")
    assert len(some[1]) == pictures.COLUMNS


def test_found_and_missed_images_stand_behind_what_was_learnt(drawn):
    columns = ["variant", "node", "name", "training_examples", "test_examples", "taken_for"]
    rows = [
        ("x", "相", "相", 2, 2, "木", "example 21", "example 20"),
        ("y", "相", "相", 2, 2, "b", "example 20", "example 21"),
        ("y", "b", "b", 4, 0, "", None, None),
    ]
    table = pd.DataFrame(rows, columns=[*columns, "found", "missed"])
    ((about, images),) = rows_of(pictures.found_and_missed(drawn, table, "y"))
    assert about == "U+76F8\n2 in train"
    assert images == [(0, "train"), (1, "train"), (20, "found"), (21, "missed, for b")]
    last = pictures.found_and_missed(drawn, table, "y").axes[-2:]
    assert [axis.get_title() for axis in last] == ["found", "missed, for b"]


def test_nothing_is_drawn_where_no_rare_node_is_both_found_and_missed(drawn):
    table = pd.DataFrame(
        columns=["variant", "node", "test_examples", "found", "missed"], dtype=object
    )
    figure = pictures.found_and_missed(drawn, table, "y")
    assert not any(axis.images for axis in figure.axes)


def test_letters_that_the_font_lacks_are_shown_by_their_code_point():
    assert pictures.printable("naïve α") == "naïve α"
    assert pictures.printable("木b") == "U+6728b"
    assert pictures.printable("x" * 40) == "x" * (pictures.LETTERS - 1) + "…"


def test_examples_are_named_by_text_or_number(drawn):
    assert example_name(drawn, 7) == "example 7"
    assert [drawn.hierarchy.nodes[node] for node in most_specific(drawn, 20)] == ["相"]
