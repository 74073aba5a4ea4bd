import pytest

from rarenodes.datasets.edge_lists import EdgeListError, read_hierarchy

EDGES = {("b", "a"), ("c", "a"), ("d", "b"), ("d", "c")}
CSV = "child,parent\nb,a\nc,a\n\nd,b\nd, c\n"
JSON = '[["b", "a"], ["c", "a"], ["d", "b"], ["d", "c"]]'
OBO = """format-version: 1.2

[Term]
id: a
name: top

[Term]
id: b
is_a: a ! top

[Term]
id: c
is_a: a {source="x"} ! top

[Term]
id: d
is_a: b
is_a: c
relationship: part_of a

[Term]
id: e
is_a: a
is_obsolete: true

[Typedef]
id: part_of
is_a: overlaps
"""


def write(folder, name, content):
    path = folder / name
    path.write_text(content)
    return path


@pytest.mark.parametrize(("name", "content"), [("h.csv", CSV), ("h.json", JSON), ("h.OBO", OBO)])
def test_formats(tmp_path, name, content):
    assert set(read_hierarchy(write(tmp_path, name, content)).edges) == EDGES


def test_several_tops_get_a_root(tmp_path):
    hierarchy = read_hierarchy(write(tmp_path, "h.csv", "child,parent\nb,a\nd,c\n"))
    assert hierarchy.roots == ("root",)
    assert hierarchy.num_edges == 4


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("h.txt", "", "h.txt: found the ending '.txt', expected .csv, .json, .obo"),
        ("h.csv", "", "h.csv, line 1: found '', expected the header child,parent"),
        ("h.csv", "parent,child\n", "h.csv, line 1: found 'parent,child', expected the header"),
        ("h.csv", "child,parent\nb,a\nc\n", "h.csv, line 3: found 'c', expected two names, child"),
        ("h.csv", "child,parent\nb,\n", "h.csv, line 2: found 'b,', expected two names, child"),
        ("h.csv", "child,parent\n", "h.csv: empty hierarchy"),
        ("h.csv", "child,parent\nb,a\na,b\n", "h.csv: cycle: 'a' → 'b' → 'a'"),
        ("h.json", "{}", "h.json: found dict, expected a list of pairs"),
        ("h.json", '[["b", "a"], ["c", 1]]', 'h.json, entry 2: found ["c", 1], expected [child'),
        ("h.json", "[", "h.json: Expecting value"),
        ("h.obo", "[Term]\nname: x\n", "h.obo: a [Term] has no line `id: ...`"),
    ],
)
def test_faults_are_named(tmp_path, name, content, expected):
    with pytest.raises(EdgeListError) as caught:
        read_hierarchy(write(tmp_path, name, content))
    assert str(caught.value).startswith(f"{tmp_path}/{expected}")


def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"h\.csv: no such file; expected the edges"):
        read_hierarchy(tmp_path / "h.csv")
