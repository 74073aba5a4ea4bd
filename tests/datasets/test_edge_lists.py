import json
from pathlib import Path

import pytest

from rarenodes.datasets.edge_lists import EdgeListError, read_hierarchy, read_named_hierarchy

EDGES = {("b", "a"), ("c", "a"), ("d", "b"), ("d", "c")}
CSV = "child,parent\nb,a\nc,a\n\nd,b\nd, c\n"
JSON = '[["b", "a"], ["c", "a"], ["d", "b"], ["d", "c"]]'
OBO = """\ufeffformat-version: 1.2

[Term]
id: a ! the top
name: top ! all is below

[Term]
id: b
is_a: a ! top

[Term]
id: c
is_a: a {source="x"} ! top
[Term] ! no blank line before
id: d
is_a: b
is_a: c
relationship: part_of a

[Term]
id: e
is_a: a
is_obsolete: true ! since 2019

[Typedef]
id: part_of
is_a: overlaps
"""


def write(folder, name, content):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(("name", "content"), [("h.csv", CSV), ("h.json", JSON), ("h.OBO", OBO)])
def test_formats(tmp_path, name, content):
    assert set(read_hierarchy(write(tmp_path, name, content)).edges) == EDGES


def test_names_of_terms_are_kept(tmp_path):
    found = read_named_hierarchy(write(tmp_path, "h.obo", OBO))
    assert found.names == {"a": "top", "b": "b", "c": "c", "d": "d"}
    assert read_named_hierarchy(write(tmp_path, "h.csv", CSV)).names == {}


def test_a_name_with_an_exclamation_mark_and_escapes(tmp_path):
    text = "[Term]\nid: GO\\:1\nname: Yahoo! \\{x\\}\n[Term]\nid: b\nis_a: GO:1!up\n"
    found = read_named_hierarchy(write(tmp_path, "h.obo", text))
    assert found.names == {"GO:1": "Yahoo! {x}", "b": "b"}
    assert found.hierarchy.edges == (("b", "GO:1"),)


def test_a_term_without_relations_is_a_node_too(tmp_path):
    hierarchy = read_hierarchy(write(tmp_path, "h.obo", OBO + "\n[Term]\nid: alone\n"))
    assert hierarchy.roots == ("root",)
    assert {("alone", "root"), ("a", "root")} <= set(hierarchy.edges)


def test_columns_are_found_by_name_and_a_child_without_a_parent_is_at_the_top(tmp_path):
    text = "remark,Parent,child\nx,a,b\n,,a\ny,,alone\n,,\n"
    hierarchy = read_hierarchy(write(tmp_path, "h.csv", text))
    assert set(hierarchy.edges) == {("b", "a"), ("a", "root"), ("alone", "root")}
    # One top alone, said or not, needs no other root.
    said = read_hierarchy(write(tmp_path, "h.csv", "child,parent\na,\nb,a\n"))
    assert said.edges == (("b", "a"),)


def test_several_parents_stand_in_one_cell_or_in_lines(tmp_path):
    lines = read_hierarchy(write(tmp_path, "h.csv", "child,parent\nc,a\nc,b\na,top\nb,top\n"))
    cell = read_hierarchy(write(tmp_path, "h.csv", "child,parent\nc,a ;b;\na,top\nb,top\n"))
    assert cell.edges == lines.edges
    # A cell that has a line of its own is one name.
    name = read_hierarchy(write(tmp_path, "h.csv", 'child,parent\nc,a; b\n"a; b",top\n'))
    assert name.edges == (("a; b", "top"), ("c", "a; b"))


def test_several_tops_get_a_root(tmp_path):
    hierarchy = read_hierarchy(write(tmp_path, "h.csv", "child,parent\nb,a\nd,c\n"))
    assert hierarchy.roots == ("root",)
    assert hierarchy.num_edges == 4


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("h.txt", "", "h.txt: found the ending '.txt', expected .csv, .json, .obo"),
        ("h.csv", "", "h.csv, line 1: found '', expected columns child and parent: call them so;"),
        (
            "h.csv",
            "Node,parent,x\n",
            "h.csv, line 1: found 'Node,parent,x', expected columns child",
        ),
        (
            "h.csv",
            "child,child,parent\n",
            "h.csv, line 1: found 'child,child,parent', expected col",
        ),
        ("h.csv", "child,parent\nb,a\nc\n", "h.csv, line 3: found 'c', expected child,parent, of"),
        ("h.csv", "child,parent\nb,a,c\n", "h.csv, line 2: found 'b,a,c', expected child,parent"),
        (
            "h.csv",
            "child,parent\n,a\n",
            "h.csv, line 2: found ',a', expected child,parent, of which",
        ),
        ("h.csv", "child,parent\nb,\n", "h.csv: empty hierarchy"),
        (
            "h.csv",
            "child,parent\nb,\nc,a\nb,a\n",
            "h.csv, line 2: found 'b' without a parent, expected one as in its other line: remove",
        ),
        ("h.csv", "child,parent\n", "h.csv: empty hierarchy"),
        ("h.csv", "child,parent\nb,a\na,b\n", "h.csv: cycle: 'a' → 'b' → 'a'"),
        ("h.json", "{}", "h.json: found dict, expected a list of pairs"),
        ("h.json", '[["b", "a"], ["c", 1]]', 'h.json, entry 2: found ["c", 1], expected [child'),
        (
            "h.csv",
            "child,parent\nb,a\nb,a\n",
            "h.csv, line 3: found 'b' under 'a' again, as in line 2; expected each edge once: remove one",
        ),
        (
            "h.csv",
            "child,parent\nb,b\n",
            "h.csv, line 2: found 'b' as its own parent, expected ano",
        ),
        (
            "h.csv",
            'child,parent\nb,a\n"c"x,a\n',
            "h.csv, line 3: ',' expected after '\"'; expected CSV: close each quote",
        ),
        (
            "h.csv",
            'child,parent\nb,"a\n',
            "h.csv, line 2: unexpected end of data; expected CSV: clo",
        ),
        (
            "h.csv",
            "child,parent\na,root\nc,b\n",
            "h.csv: found 2 nodes without a parent, among them 'b', expected one, since the name "
            "'root' is taken: put them under one node",
        ),
        (
            "h.csv",
            b"child,parent\nb,\xff\n",
            "h.csv, line 2: found the byte 0xff, expected text in",
        ),
        (
            "h.json",
            "[",
            "h.json, line 1: Expecting value; expected JSON: correct it, or fetch it ag",
        ),
        ("h.json", "[" * 100_000, "h.json: nested too deeply to be read; expected flat JSON"),
        ("h.json", f"[{'9' * 5000}]", "h.json: Exceeds the limit (4300 digits)"),
        (
            "h.json",
            '[["b", "\\ud800"]]',
            'h.json, entry 1: found ["b", "\\ud800"], expected [child, p',
        ),
        (
            "h.json",
            '[["b", " "]]',
            'h.json, entry 1: found ["b", " "], expected [child, parent], two',
        ),
        (
            "h.json",
            '[["b", "a"], ["c", "a"], ["b", "a"]]',
            "h.json, entry 3: found 'b' under 'a' again, as in entry 1; expected each edge once",
        ),
        (
            "h.obo",
            "[Term]\nname: x\n",
            "h.obo, line 1: a [Term] has no line `id: ...`; expected one in each",
        ),
        (
            "h.obo",
            "[Term]\nid: a\nis_a: ! nothing\n",
            "h.obo, line 3: found nothing after `is_a:`, expected the id of one term: add it, or "
            "remove the line; a comment starts with !",
        ),
        (
            "h.obo",
            f"[Term]\nid: a\nis_obsolete: {'x' * 9999}\n",
            f"h.obo, line 3: found `is_obsolete: {'x' * 40}…`, expected true or false",
        ),
        (
            "h.obo",
            f"[Term]\nid: a\nis_obsolete: true\nreplaced_by: {'x' * 9999}\n[Term]\nid: b\nis_a: a\n",
            "h.obo, line 7: `is_a` names 'a', which line 1 makes obsolete; expected a term in use: "
            f"name '{'x' * 40}…', which replaces it",
        ),
        (
            "h.obo",
            "[Term]\nid: a\nis_a: b c\n",
            "h.obo, line 3: found 2 words, 'b c' after `is_a:`,",
        ),
        (
            "h.obo",
            "[Term]\nid: a\nis_obsolete: true ! gone\nreplaced_by: c\n\n[Term]\nid: b\nis_a: a\n",
            "h.obo, line 8: `is_a` names 'a', which line 1 makes obsolete; expected a term in use: "
            "name 'c', which replaces it",
        ),
        (
            "h.obo",
            "[Term]\nid: top\n\n[Term]\nid: b\nis_a: tpo\n",
            "h.obo, line 6: `is_a` names 'tpo', which is no [Term] of this file: did you mean 'top'?",
        ),
        (
            "h.obo",
            "[Term]\nid: a\n\n[Term]\nid: a\n",
            "h.obo, line 4: found the id 'a' again, which the term of line 1 has; expected an id for "
            "each: merge or rename one",
        ),
        ("h.obo", "[Term]\nid: a\nid: b\n", "h.obo, line 3: found a second id 'b' in the term 'a'"),
        ("h.obo", "[Term]\nid: a\nis_a: a\n", "h.obo, line 3: found 'a' as its own parent"),
        (
            "h.obo",
            "[Term]\nid: b\n[Term]\nid: a\nis_a: b\nis_a: b\n",
            "h.obo, line 6: found 'a' under 'b' again, as in line 5; expected each edge once",
        ),
        (
            "h.obo",
            "[Trem]\nid: a\n",
            "h.obo, line 1: found '[Trem]', expected [Term], [Typedef], [Instance]: correct it",
        ),
        (
            "h.obo",
            "[Term]\nid: a\njunk\n",
            "h.obo, line 3: found 'junk', expected `tag: value` or [T",
        ),
        (
            "h.obo",
            "[Term]\nid: a\nis_obsolete: yes\n",
            "h.obo, line 3: found `is_obsolete: yes`, expected true or false",
        ),
        ("h.obo", "format-version: 1.2\n", "h.obo: found no [Term] in use, expected at least one"),
    ],
)
def test_faults_are_named(tmp_path, name, content, expected):
    with pytest.raises(EdgeListError) as caught:
        read_hierarchy(write(tmp_path, name, content))
    assert str(caught.value).startswith(f"{tmp_path}/{expected}")
    assert "\n" not in str(caught.value)


def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"h\.csv: no such file; expected the edges"):
        read_hierarchy(tmp_path / "h.csv")


def test_a_file_that_cannot_be_read(tmp_path, monkeypatch):
    path = write(tmp_path, "h.csv", CSV)

    def refuse(self):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(
        OSError, match=r"h\.csv: cannot be read \(Permission denied\); expected the ed"
    ):
        read_hierarchy(path)


def test_a_deeply_nested_pair(tmp_path):
    pair = json.loads("[" * 500 + "]" * 500)
    with pytest.raises(EdgeListError, match=r"h\.json, entry 1: found \[\[\["):
        read_hierarchy(write(tmp_path, "h.json", json.dumps([pair])))
