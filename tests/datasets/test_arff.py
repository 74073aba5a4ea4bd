import numpy as np
import pytest

from rarenodes.datasets.arff import ArffError, read_clus_arff
from rarenodes.loss.hierarchy import Hierarchy

TREE = """% a comment
@RELATION 'small'

@ATTRIBUTE length numeric
@attribute 'body colour' {red, green,blue}
@Attribute class hierarchical 02/01/07,01,01/03,01,02/01/07

@DATA
% another comment
1.5,red,01@02/01

?,?,01/03
-2e3, blue ,02/01/07@01/03
"""

DAG = """@RELATION small
@ATTRIBUTE length numeric
@ATTRIBUTE class hierarchical A/C,root/A,root/B,B/C,A/C
@DATA
1,C
2,A@B
"""


def write(folder, text):
    path = folder / "small.arff"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def message(folder, text):
    with pytest.raises(ArffError) as caught:
        read_clus_arff(write(folder, text))
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(f"{folder}/")


def test_a_tree(tmp_path):
    arff = read_clus_arff(write(tmp_path, TREE))
    assert arff.attributes == ("length", "body colour")
    assert arff.levels == (None, ("red", "green", "blue"))
    np.testing.assert_array_equal(arff.values, [[1.5, 0], [np.nan, np.nan], [-2000, 2]])
    assert arff.labels == ({"01", "02/01"}, {"01/03"}, {"02/01/07", "01/03"})
    assert set(arff.edges) == {
        ("01", "root"),
        ("02", "root"),
        ("01/03", "01"),
        ("02/01", "02"),
        ("02/01/07", "02/01"),
    }
    assert Hierarchy(arff.edges).is_tree


def test_a_dag(tmp_path):
    arff = read_clus_arff(write(tmp_path, DAG))
    assert set(arff.edges) == {("A", "root"), ("B", "root"), ("C", "A"), ("C", "B")}
    assert arff.labels == ({"C"}, {"A", "B"})


def test_windows_line_ends_and_byte_order_mark(tmp_path):
    unix = read_clus_arff(write(tmp_path, TREE))
    windows = read_clus_arff(write(tmp_path, "\ufeff" + TREE.replace("\n", "\r\n")))
    assert windows.labels == unix.labels
    assert windows.edges == unix.edges


def test_the_class_need_not_come_last(tmp_path):
    arff = read_clus_arff(
        write(
            tmp_path,
            "@attribute class hierarchical a,b\n@attribute x real\n@attribute y integer\n@data\na,1,2",
        )
    )
    assert arff.labels == ({"a"},)
    np.testing.assert_array_equal(arff.values, [[1, 2]])


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            "@Attribute class hierarchical 02/01/07,01,01/03,01,02/01/07",
            "",
            "small.arff, line 8: found none above @DATA, expected one class attribute: "
            "declare `@ATTRIBUTE class hierarchical ...` once",
        ),
        (
            "hierarchical 02/01/07,01,01/03,01,02/01/07",
            "hierarchical",
            "small.arff, line 6: the class attribute lists no node; expected paths or parent/child pairs",
        ),
        (
            "1.5,red,01@02/01",
            "1.5,red,01@02/09",
            "small.arff, line 10: label '02/09' is not in the hierarchy of the class attribute, "
            "expected one of its 6 nodes: did you mean '02/01'?",
        ),
        (
            "1.5,red,01@02/01",
            "1.5,red,01@zebra",
            "small.arff, line 10: label 'zebra' is not in the hierarchy of the class attribute, "
            "expected one of its 6 nodes: correct the label or list the node",
        ),
        (
            "1.5,red,01@02/01",
            "1.5,01@02/01",
            "small.arff, line 10: found 2 values, expected 3, one for each attribute: mend this line",
        ),
        (
            "-2e3, blue ,02/01/07@01/03\n",
            "-2e3, bl",
            "small.arff, line 13: found 2 values, expected 3, one for each attribute: "
            "the file seems cut off, fetch it again",
        ),
        (
            "1.5,red",
            "long,red",
            "small.arff, line 10: attribute 'length': found 'long', expected a finite number of at most 1e+30: "
            "correct it, or write ? for a missing value",
        ),
        (
            "1.5,red",
            "inf,red",
            "small.arff, line 10: attribute 'length': found 'inf', expected a finite number of at most 1e+30: "
            "correct it, or write ? for a missing value",
        ),
        (
            "1.5,red",
            "1.5,pink",
            "small.arff, line 10: attribute 'body colour': found 'pink', expected one of "
            "red, green, blue: correct it, or write ? for a missing value",
        ),
        (
            "1.5,red",
            "1e31,red",
            "small.arff, line 10: attribute 'length': found '1e31', expected a finite number of at "
            "most 1e+30: correct it, or write ? for a missing value",
        ),
        (
            "1.5,red",
            "1_5,red",
            "small.arff, line 10: attribute 'length': found '1_5', expected a finite number of at "
            "most 1e+30: correct it, or write ? for a missing value",
        ),
        (
            "02/01/07,01,01/03",
            "02/01/07,/,01/03",
            "small.arff, line 6: found the entry '/' in the class attribute, expected a path such as "
            "01/02: correct or remove it",
        ),
        (
            "02/01/07,01,01/03",
            "02/01/07,01//1,01/03",
            "small.arff, line 6: found the entry '01//1' in the class attribute, expected a path "
            "such as 01/02: correct or remove it",
        ),
        (
            "02/01/07,01,01/03",
            f"02/01/07,01,01/03{'/a' * 200_000}",
            "small.arff, line 6: found '01/03/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/…' of 200002 steps in "
            "the class attribute, expected at most 200: correct or remove it",
        ),
        (
            "02/01/07,01,01/03",
            "02/01/07,root,01/03",
            "small.arff, line 6: found the entry 'root' in the class attribute, expected a path such "
            "as 01/02: correct or remove it",
        ),
        (
            "{red, green,blue}",
            "{red,,blue}",
            "small.arff, line 5: found an empty category in '{red,,blue}', expected categories that "
            "differ: remove it",
        ),
        (
            "{red, green,blue}",
            "{red,blue,red}",
            "small.arff, line 5: found 'red' again in '{red,blue,red}', expected categories that "
            "differ: remove it",
        ),
        (
            "@DATA",
            "@DATA 1,red,01",
            "small.arff, line 8: found '1,red,01' after @DATA, expected the examples on lines of "
            "their own",
        ),
        (
            "length numeric",
            "length string",
            "small.arff, line 4: attribute 'length' is of type 'string', "
            "expected numeric, {a,b,c} or hierarchical: remove or recode it",
        ),
        (
            "length numeric",
            "length",
            "small.arff, line 4: found '@ATTRIBUTE length', expected `@ATTRIBUTE name type`",
        ),
        (
            "@RELATION 'small'",
            "<html>",
            "small.arff, line 2: found '<html>', expected @RELATION, @ATTRIBUTE or @DATA: "
            "is this an ARFF file?",
        ),
    ],
)
def test_a_fault_is_named_with_its_line_and_mend(tmp_path, old, new, expected):
    assert old in TREE
    assert message(tmp_path, TREE.replace(old, new)) == expected


def test_two_class_attributes(tmp_path):
    twice = TREE.replace("length numeric", "other hierarchical a,b")
    assert "found the 2 class attributes other, class above @DATA" in message(tmp_path, twice)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            "root/B",
            "roto/B",
            "found 'roto' with children but without a parent, expected 'root' to be the only one: "
            "did you mean 'root'?",
        ),
        (
            "root/B",
            "quite/B",
            "found 'quite' with children but without a parent, expected 'root' to be the only one: "
            "add an entry that puts it under 'root'",
        ),
        (
            "root/B",
            "root/B,C/A",
            "the class attribute lists no hierarchy: cycle: 'A' → 'C' → 'A' (child → parent)",
        ),
        (
            "root/B",
            "B/root",
            "found 'root' below another node, expected it above all: correct the entry",
        ),
        (
            "root/B",
            "/",
            "found the entry '/' in the class attribute, expected parent/child: correct or remove it",
        ),
    ],
)
def test_a_dag_has_one_root_and_no_cycle(tmp_path, old, new, expected):
    assert message(tmp_path, DAG.replace(old, new)) == f"small.arff, line 3: {expected}"


def test_nothing_but_the_class(tmp_path):
    assert message(tmp_path, "@ATTRIBUTE class hierarchical a,b\n@DATA\na\n") == (
        "small.arff, line 2: found no attribute but the class above @DATA, expected at least one"
    )


def test_many_categories_are_not_all_listed(tmp_path):
    many = ",".join(f"c{i}" for i in range(1000))
    text = TREE.replace("{red, green,blue}", f"{{{many}}}").replace("1.5,red", "1.5,pink")
    assert "expected one of c0, c1, c2, c3, c4, c5, c6, c7, c8, c9, …: corr" in message(
        tmp_path, text
    )


def test_a_folder_instead_of_a_file(tmp_path):
    with pytest.raises(
        OSError, match=r"found a folder, expected a file: a hierarchical ARFF file$"
    ):
        read_clus_arff(tmp_path)


def test_a_separator_of_unicode_ends_no_line(tmp_path):
    text = TREE.replace("'body colour'", "'body\u2028colour'")
    assert read_clus_arff(write(tmp_path, text)).attributes == ("length", "body\u2028colour")


def test_a_path_in_a_dag(tmp_path):
    assert message(tmp_path, DAG.replace("B/C", "B/C/D")) == (
        "small.arff, line 3: found 'B/C/D' in the list of a DAG, expected parent/child "
        "(an entry that starts with 'root/' makes the list one of edges)"
    )


@pytest.mark.parametrize("content", ["", " \n\n"])
def test_an_empty_file(tmp_path, content):
    assert message(tmp_path, content) == (
        "small.arff: the file is empty; expected a hierarchical ARFF file"
    )


def test_a_file_cut_off_in_its_header(tmp_path):
    assert message(tmp_path, TREE[: TREE.index("@DATA")]) == (
        "small.arff: no line @DATA; expected one after the attributes: "
        "the file seems cut off, fetch it again"
    )


def test_a_file_cut_off_after_its_header(tmp_path):
    assert message(tmp_path, TREE[: TREE.index("@DATA") + 5]) == (
        "small.arff, line 8: no examples after @DATA; expected at least one: fetch it again"
    )


@pytest.mark.parametrize(
    ("junk", "byte"), [(b"@RELATION a\n\x1f\x8b\x08", "8b"), (b"@RELATION a\n@ATT\0", "00")]
)
def test_binary_junk(tmp_path, junk, byte):
    assert message(tmp_path, junk) == (
        f"small.arff, line 2: found the byte 0x{byte}, expected text in UTF-8: "
        "unpack the file if it is compressed, or save it as UTF-8"
    )


def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.arff: no such file; expected a hier"):
        read_clus_arff(tmp_path / "none.arff")


def test_endless_names_make_no_endless_message(tmp_path):
    endless = "x" * 100_000
    for old, new in (("length", endless), ("red", endless), ("02/01/07,01", f"{endless},01")):
        text = TREE.replace(old, new).replace("1.5", "long").replace("blue ,", "pink,")
        assert len(message(tmp_path, text)) < 400
