"""Every finding about own data, by the files that cause it."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rarenodes.datasets import load_dataset
from rarenodes.datasets.sampling import Sampling
from rarenodes.datasets.table import TableOptions
from rarenodes.datasets.table_files import TableError
from rarenodes.datasets.table_findings import inspect_table

EDGES = "child,parent\nmammal,animal\nbird,animal\ndog,mammal\ncat,mammal\nowl,bird\n"
HEAD = "text,labels,part\n"
ROWS = "a b,dog,train\nc d,cat,train\ne f,owl,valid\ng h,dog,test\n"


@pytest.fixture
def found(tmp_path):
    """What is found in own files: pairs of level and text."""

    def inspect(table=HEAD + ROWS, edges=EDGES, hierarchy="edges.csv", **options):
        if table is not None:
            (tmp_path / "own.csv").write_text(table)
        if edges is not None:
            (tmp_path / hierarchy).write_text(edges)
        given = {"examples": "own.csv", "hierarchy": hierarchy, "text": "text", "split": "part"}
        settings = TableOptions(**{**given, **options})
        report = inspect_table(settings, tmp_path, Sampling("table"))
        return [(f.level, f.text.replace(f"{tmp_path}/", "")) for f in report.findings]

    return inspect


def one(findings, level, text):
    """The one finding that begins with, or holds, a text."""
    fitting = [f for f in findings if text in f[1]]
    assert len(fitting) == 1, findings
    assert fitting[0][0] == level
    assert "\n" not in fitting[0][1]
    return fitting[0][1]


def test_what_is_fine_is_described(found):
    assert found() == [
        ("note", "own.csv: 4 rows; columns: labels 'labels', text 'text', split 'part'"),
        ("note", "edges.csv: a tree of 6 nodes and 5 edges, depth 2"),
        ("note", "4 examples: 2 train, 1 valid, 1 test"),
        ("note", "4 of 6 nodes have 1 to 10 training examples"),
        ("warning", "2 nodes have no training example and cannot be learnt: 'bird', 'owl'"),
    ]


def test_missing_files_are_both_named(found):
    findings = found(table=None, edges=None)
    assert [level for level, _ in findings] == ["error", "error"]
    assert findings[0][1].startswith("edges.csv: no such file")
    assert findings[1][1].startswith("own.csv: no such file")


def test_unknown_labels_come_with_the_nearest_name(found):
    findings = found(table=HEAD + ROWS + "i,owll,train\nj,owll,train\nk,qqqqq,train\n")
    assert one(findings, "error", "'owll'") == (
        "own.csv, line 6, column 'labels': unknown node 'owll', in 2 rows; did you mean 'owl'? Else add the "
        "node to edges.csv"
    )
    assert one(findings, "error", "'qqqqq'").endswith(
        "in 1 row: correct it, or add the node to edges.csv"
    )


def test_names_are_near_whatever_their_case(found):
    findings = found(table=HEAD + ROWS + "i,OWL,train\n")
    assert "unknown node 'OWL', in 1 row; did you mean 'owl'?" in one(findings, "error", "'OWL'")


def test_a_name_that_lists_nodes_is_refused(found):
    edges = "child,parent\ndog,mammal\nowl,bird\nmammal; bird,animal\nmammal,animal\nbird,animal\n"
    assert one(found(edges=edges), "error", "mammal; bird") == (
        "edges.csv: found the node 'mammal; bird', expected one name, since ';' stands between labels "
        "(option separator): write a line for each"
    )
    # Where none of its parts is a node, it is a name like any other.
    edges = "child,parent\ndog,cats; dogs\nowl,bird\ncats; dogs,animal\nbird,animal\n"
    assert not any("one name" in text for _, text in found(edges=edges))


def test_many_unknown_labels_are_counted(found):
    more = "".join(f"t{i},none{i},train\n" for i in range(12))
    findings = found(table=HEAD + ROWS + more)
    assert sum("unknown node" in text for _, text in findings) == 10
    one(findings, "error", "2 more labels are no node of edges.csv")


def test_a_random_split_that_leaves_nodes_out_says_what_would_not(found):
    table = "text,labels\n" + "".join(
        f"a{i} b,{name}\n" for i, name in enumerate(["dog"] * 30 + ["cat", "owl"] * 2)
    )
    findings = found(table=table, split=None, test_fraction=0.45, valid_fraction=0.45)
    one(findings, "note", "(a random split)")
    one(findings, "warning", "no training example")
    one(findings, "note", "the option stratified gives every node a training example")
    findings = found(
        table=table, split=None, test_fraction=0.45, valid_fraction=0.45, stratified=True
    )
    one(findings, "note", "(a stratified split)")
    assert not any("no training example" in text for _, text in findings)


def test_the_name_of_a_term_is_told_its_identifier(tmp_path, found):
    terms = "[Term]\nid: X:1\nname: beast\n\n"
    terms += "".join(
        f"[Term]\nid: X:{n}\nname: {name}\nis_a: X:1\n\n"
        for n, name in enumerate(["cat", "seal", "seal"], start=2)
    )
    rows = "a,X:2,train\nb,X:3,valid\nc,X:4,test\nd,cat,train\ne,seal,train\nf,cat,train\n"
    findings = found(table=HEAD + rows, edges=terms, hierarchy="terms.obo")
    assert one(findings, "error", "'cat'") == (
        "own.csv, line 5, column 'labels': unknown node 'cat', in 2 rows, expected the node itself, "
        "not what it is called: write 'X:2'"
    )
    assert one(findings, "error", "unknown node 'seal', in 1 row").endswith("write 'X:3' or 'X:4'")
    options = {"examples": "own.csv", "hierarchy": "terms.obo", "text": "text", "split": "part"}
    with pytest.raises(TableError, match=r"line 5.*'cat', expected the node itself.*write 'X:2'"):
        load_dataset("table", tmp_path, options=options)


def test_labels_that_stop_half_way_are_counted(found):
    more = "i j,mammal,train\nk l,mammal;dog,train\nm n,mammal,test\no p,animal,train\n"
    text = one(found(table=HEAD + ROWS + more), "note", "above the bottom")
    assert text == (
        "own.csv, column 'labels': 3 labels stop above the bottom of the hierarchy, at 'mammal' (2), "
        "'animal' (1): the nodes below count as negative, unless the option unknown_below is true; if "
        "one is the name of two things, write labels as whole paths"
    )
    text = one(found(table=HEAD + ROWS + more, unknown_below=True), "note", "above the bottom")
    assert (
        "'animal' (1): the nodes below are left out, as the option unknown_below says; if" in text
    )


def test_several_parents_of_terms_with_names_are_no_matter_for_a_warning(found):
    terms = {"r": "", "a": "r", "b": "r", "c": "a b"}
    obo = "".join(
        f"\n[Term]\nid: {term}\nname: the {term}\n"
        + "".join(f"is_a: {parent}\n" for parent in parents.split())
        for term, parents in terms.items()
    )
    table = HEAD + "a b,a,train\nc d,b,valid\ne f,c,test\n"
    text = one(found(table=table, edges=obo, hierarchy="terms.obo"), "note", "several parents")
    assert text == "terms.obo: 1 node has several parents: 'c' under 'a', 'b'"


def test_another_separator(found):
    text = one(found(table=HEAD + ROWS + "i,dog|owl,train\n"), "error", "unknown node")
    assert text.endswith("its parts are nodes: set the option separator to '|'")


def test_rows_without_a_label(found):
    text = one(found(table=HEAD + ROWS + "i,,train\nj,;,test\n"), "error", "no label")
    assert text == (
        "own.csv, line 6: no label in column 'labels', in 2 rows: leave them out, or give them the "
        "root 'animal'"
    )


def test_a_column_of_labels_of_another_name(found):
    text = one(found(labels="label"), "error", "unknown column 'label'")
    assert "'labels' holds names of nodes: set the option" in text


def test_columns_that_are_not_there(found):
    text = one(found(split="fold"), "error", "unknown column 'fold'")
    assert text.endswith("; without the option split the split is random")
    one(found(text="words"), "error", "unknown column 'words'")
    one(found(text=None, features=["size"]), "error", "unknown column 'size'")


def test_a_part_of_the_labels_named_as_a_feature(tmp_path):
    table = pd.DataFrame({"labels": [[1, 2], [1, 3]], "size": [1, 2]})
    table.to_parquet(tmp_path / "own.parquet")
    (tmp_path / "edges.csv").write_text("child,parent\n2,1\n3,1\n")
    options = TableOptions(
        examples="own.parquet", hierarchy="edges.csv", features=["size", "labels[1]"]
    )
    report = inspect_table(options, tmp_path, Sampling("table"))
    findings = [(finding.level, finding.text) for finding in report.findings]
    one(findings, "error", "'labels[1]' is a part of 'labels'")


def test_features_are_counted_and_guessed(found):
    table = (
        "size,colour,labels,part\n1,red,dog,train\n2,blue,cat,train\n3,,owl,valid\n4,red,owl,test\n"
    )
    findings = found(table=table, text=None)
    assert "features guessed" in one(findings, "note", "4 rows")
    one(findings, "note", "1 column of numbers ('size'), 1 of categories ('colour (2)')")


def test_no_column_is_left_for_features(found):
    table = "labels,part\ndog,train\ncat,train\nowl,valid\nowl,test\n"
    text = one(found(table=table, text=None), "error", "no column is left")
    assert text == "own.csv: no column is left for features; expected at least one"


def test_columns_beside_the_texts_are_named_the_first_ten_of_them(found):
    def unused(count):
        names = [f"c{n}" for n in range(count)]
        lines = (HEAD + ROWS).splitlines()
        rows = [",".join([lines[0], *names]), *(line + ",1" * count for line in lines[1:])]
        return one(found(table="\n".join(rows)), "note", "not used")

    assert unused(1) == "own.csv: columns that are not used: 'c0'"
    assert unused(12).endswith("'c8', 'c9' and 2 more")
    assert "more" not in unused(10)


def test_a_slip_among_numbers(found):
    table = "size,labels,part\n1,dog,train\n2,cat,train\nbig,owl,valid\n4,owl,test\n"
    one(found(table=table, text=None), "error", "found 'big', expected a number")


def test_columns_that_look_like_texts(found):
    table = "it,labels,part\n" + "".join(
        f"one two three four {i},dog,{part}\n" for i, part in enumerate(("train", "valid", "test"))
    )
    one(found(table=table, text=None), "warning", "column 'it': looks like texts")


def test_names_in_two_places(found):
    text = one(found(edges=EDGES + "owl,mammal\n"), "note", "several parents")
    assert "1 node has several parents: 'owl' under 'bird', 'mammal': right, unless" in text
    one(found(edges=EDGES + "owl,mammal\n"), "note", "a DAG of 6 nodes and 6 edges, depth 2")


def test_names_of_several_nodes(found):
    obo = "format-version: 1.2\n" + "".join(
        f"\n[Term]\nid: {node}\nname: {name}\n" + (f"is_a: {parent}\n" if parent else "")
        for node, name, parent in (
            ("animal", "animal", None), ("dog", "other", "animal"), ("cat", "other", "animal"),
            ("owl", "owl", "animal"),
        )
    )  # fmt: skip
    text = one(found(edges=obo, hierarchy="edges.obo"), "warning", "of several nodes")
    assert "'other': 'cat', 'dog'" in text


def test_edges_that_look_reversed(found):
    lines = [line.split(",") for line in EDGES.splitlines()[1:]]
    edges = "child,parent\n" + "".join(f"{parent},{child}\n" for child, parent in lines)
    text = one(found(edges=edges), "warning", "exchanged")
    assert text == (
        "edges.csv: 4 of 4 labels are at the top of the hierarchy, with other nodes below them: are "
        "child and parent exchanged?"
    )
    assert not [text for _, text in found() if "exchanged" in text]


def test_a_flat_hierarchy_is_not_reversed(found):
    edges = "child,parent\ndog,animal\ncat,animal\nowl,animal\n"
    assert not [text for _, text in found(edges=edges) if "exchanged" in text]


def test_parts(found):
    text = one(found(table=HEAD + ROWS + "i,dog,tets\n"), "error", "found 'tets'")
    assert text.startswith("own.csv, line 6, column 'part'")
    one(found(table=HEAD + ROWS.replace("valid", "test")), "error", "no row has 'valid'")


def test_the_same_text_in_two_parts(found):
    text = one(found(table=HEAD + ROWS + 'i,dog,train\n"I!",dog,test\n'), "error", "the same text")
    assert text.startswith(
        "own.csv, line 7: the same text is in 'test' here and in 'train' in line 6"
    )


def test_the_same_text_twice(found):
    one(found(table=HEAD + ROWS + '"A, b",dog,train\n'), "note", "1 text says the same as another")
    one(found(table=HEAD + ROWS + "…,dog,train\n"), "warning", "no word in column 'text', in 1 row")


def test_no_text_has_a_word(found):
    rows = "…,dog,train\n?,cat,train\n,owl,valid\n!,dog,test\n"
    text = one(found(table=HEAD + rows), "error", "no word")
    assert text == "own.csv, column 'text': found no word"


def test_the_same_features_twice(found):
    table = "size,labels,part\n1,dog,train\n1,cat,train\n2,owl,valid\n1,owl,test\n"
    findings = found(table=table, text=None)
    one(findings, "warning", "line 5: the same features is in 'test' here and in 'train' in line 2")
    text = one(findings, "warning", "1 row has the features of an earlier row")
    assert text.endswith("of an earlier row")
    unsplit = "size,labels\n1,dog\n1,cat\n2,owl\n1,owl\n"
    text = one(found(table=unsplit, text=None, split=None), "warning", "2 rows have the features")
    assert text.endswith("of an earlier row, and a random split may put them on both sides")


def test_few_examples(found):
    text = one(found(min_count=2), "note", "have fewer than 2 examples")
    assert text.startswith("3 of 6 nodes")  # bird, owl and cat have one
    one(found(min_count=9), "error", "lower min_count")


def test_too_few_rows_for_a_random_split(found):
    one(found(table="text,labels\na,dog\n", split=None), "error", "is empty")


def test_a_matrix_of_features(found, tmp_path):
    labels = "labels,part\ndog,train\ncat,train\nowl,valid\ndog,test\n"
    np.save(
        tmp_path / "own.npy", np.array([[1, 2, 3], [4, 5, 6], [-0.0, np.nan, 1], [0, np.nan, 1]])
    )
    findings = found(table=labels, text=None, matrix="own.npy")
    assert one(findings, "note", "columns: ").endswith("columns: labels 'labels', split 'part'")
    one(findings, "note", "3 columns of numbers ('matrix[0]', 'matrix[1]', 'matrix[2]')")
    one(findings, "warning", "line 5: the same features is in 'test' here and in 'valid' in line 4")
    findings = found(table=labels + "owl,test\n", text=None, matrix="own.npy")
    one(findings, "error", "own.npy: found 4 rows of 3 numbers, expected 5 of at least one")


PATHS = {"hierarchy": None, "edges": None, "path_separator": ">"}


def test_paths_are_described_as_a_hierarchy(found):
    rows = "a b,x > y;x > z,train\nc d,x > y,train\ne f,x > z,valid\ng h,x > w > y,test\n"
    findings = found(table=HEAD + rows, **PATHS)
    assert "own.csv: a tree of 5 nodes and 4 edges, depth 2" in one(findings, "note", "a tree")
    assert "'y': 'x > y', 'x > w > y'" in one(findings, "warning", "of several nodes")


def test_faults_of_paths(found):
    rows = "a b,x > > y,train\n"
    assert "line 2, column 'labels': found an empty step" in one(
        found(table=HEAD + rows, **PATHS), "error", "empty step"
    )
    rows = "a b,,train\nc d,x > y,train\n"
    one(found(table=HEAD + rows, **PATHS), "error", "leave them out, or give them a path")
    warned = one(found(**PATHS), "warning", "no label holds '>', as in 'dog'")
    assert warned.endswith("is the option path_separator right?")


EXAMPLES = Path(__file__).parents[2] / "data" / "examples"


@pytest.mark.parametrize(
    ("examples", "hierarchy", "text"),
    [
        ("texts.csv", "animals_edges.csv", "text"),
        ("texts.parquet", "animals.obo", "text"),
        ("features.csv", "animals_edges.json", None),
        ("embeddings.parquet", "animals_edges.csv", None),
        ("paths.csv", None, "text"),
        ("matrix_labels.csv", "animals_edges.csv", None),
    ],
)
def test_the_examples_are_fine(examples, hierarchy, text):
    paths = {} if hierarchy else {"path_separator": ">"}
    if examples.startswith("matrix"):
        paths["matrix"] = "matrix.npy"
    options = TableOptions(examples=examples, hierarchy=hierarchy, text=text, split="part", **paths)
    report = inspect_table(options, EXAMPLES, Sampling("table"))
    assert {finding.level for finding in report.findings} == {"note"}
    assert len(report.hierarchy) == 11
    assert (report.training_examples, report.validation_examples) == (14, 7)
