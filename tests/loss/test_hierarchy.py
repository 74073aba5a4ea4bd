"""The hierarchy against its definitions, read off a list of edges."""

import copy
import pickle
import re
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import any_edges, closure, dag_edges, descendants, hierarchies, random_dag, tensors
from torch import Tensor

from rarenodes.loss.hierarchy import Hierarchy

# root → A, B;  A → C, D;  B → D, E: D has two parents.
DIAMOND = [("A", "root"), ("B", "root"), ("C", "A"), ("D", "A"), ("D", "B"), ("E", "B")]
# Two roots, joined only by the child they share.
TWO_ROOTS = [("only left", "left"), ("shared", "left"), ("shared", "right")]
# x lies one step below the root, and also below b, which lies two steps below it.
SHORTCUT = [("a", "root"), ("x", "root"), ("b", "a"), ("x", "b"), ("y", "x")]


# Structure


def test_nodes_are_ordered_by_distance_and_then_by_name():
    hierarchy = Hierarchy([("b", "z"), ("a", "c"), ("c", "z"), ("d", "b")])
    assert hierarchy.nodes == ("z", "b", "c", "a", "d")
    assert hierarchy.depth.tolist() == [0, 1, 1, 2, 2]
    assert dict(hierarchy.index) == {"z": 0, "b": 1, "c": 2, "a": 3, "d": 4}
    assert hierarchy.roots == ("z",)
    assert hierarchy.leaves == ("a", "d")
    assert hierarchy.num_edges == 4
    assert len(hierarchy) == 5
    assert hierarchy.is_tree


def test_names_are_ordered_as_text():
    assert Hierarchy([("10", "root"), ("9", "root"), ("B", "root"), ("a", "root")]).nodes == (
        "root",
        "10",
        "9",
        "B",
        "a",
    )


def test_depth_is_the_shortest_distance():
    hierarchy = Hierarchy(SHORTCUT)
    assert hierarchy.nodes == ("root", "a", "x", "b", "y")
    assert hierarchy.depth.tolist() == [0, 1, 1, 2, 2]
    assert not hierarchy.is_tree


def test_several_parents():
    hierarchy = Hierarchy(DIAMOND)
    assert hierarchy.nodes == ("root", "A", "B", "C", "D", "E")
    assert hierarchy.num_edges == 6
    assert hierarchy.parents == ((), (0,), (0,), (1,), (1, 2), (2,))
    assert hierarchy.children == ((1, 2), (3, 4), (4, 5), (), (), ())
    assert hierarchy.leaves == ("C", "D", "E")
    assert not hierarchy.is_tree


def test_several_roots_joined_by_a_shared_child():
    hierarchy = Hierarchy(TWO_ROOTS)
    assert hierarchy.roots == ("left", "right")
    assert hierarchy.nodes == ("left", "right", "only left", "shared")
    assert hierarchy.depth.tolist() == [0, 0, 1, 1]


def test_depth_counts_from_the_nearest_root():
    hierarchy = Hierarchy([("a", "top"), ("b", "a"), ("c", "b"), ("c", "other root")])
    assert dict(zip(hierarchy.nodes, hierarchy.depth.tolist(), strict=True)) == {
        "other root": 0,
        "top": 0,
        "a": 1,
        "c": 1,
        "b": 2,
    }


def test_several_roots_are_no_tree():
    # As many edges as a tree has, but two roots.
    assert not Hierarchy(TWO_ROOTS).is_tree


def test_repr_says_what_it_is():
    assert repr(Hierarchy(DIAMOND)) == "Hierarchy(DAG, 6 nodes, 6 edges, depth 2)"
    assert repr(Hierarchy(DIAMOND[:4])) == "Hierarchy(tree, 5 nodes, 4 edges, depth 2)"


def test_indices_of_names():
    assert Hierarchy(DIAMOND).indices(["E", "root", "A"]) == [5, 0, 1]


def test_copies_and_pickles():
    # A model that holds the loss is copied (early stopping) and sent to other processes.
    hierarchy = Hierarchy(DIAMOND)
    scores = torch.arange(6.0)
    for other in (copy.deepcopy(hierarchy), pickle.loads(pickle.dumps(hierarchy))):
        assert other.nodes == hierarchy.nodes
        assert other.edges == hierarchy.edges
        assert other.max_over_descendants(scores).tolist() == [5, 4, 5, 3, 4, 5]


@given(any_edges(), st.randoms(use_true_random=False))
def test_the_order_of_edges_does_not_matter(edges, rng):
    shuffled = edges.copy()
    rng.shuffle(shuffled)
    one, other = Hierarchy(edges), Hierarchy(iter(shuffled))
    assert one.nodes == other.nodes
    assert one.edges == other.edges
    assert one.depth.tolist() == other.depth.tolist()
    assert one.parents == other.parents
    assert one.children == other.children


@given(any_edges())
def test_structure_agrees_with_the_edges(edges):
    hierarchy = Hierarchy(edges)
    nodes = hierarchy.nodes
    assert sorted(hierarchy.edges) == sorted(edges)
    assert hierarchy.num_edges == len(edges)
    assert set(nodes) == {name for edge in edges for name in edge}
    assert len(set(nodes)) == len(nodes) == len(hierarchy)
    assert all(hierarchy.nodes[i] == name for name, i in hierarchy.index.items())
    assert set(hierarchy.roots) == set(nodes) - {child for child, _ in edges}
    assert set(hierarchy.leaves) == set(nodes) - {parent for _, parent in edges}
    assert [(nodes[c], nodes[p]) for c, p in hierarchy.edge_index.tolist()] == [*hierarchy.edges]
    for i, name in enumerate(nodes):
        assert {nodes[p] for p in hierarchy.parents[i]} == {p for c, p in edges if c == name}
        assert {nodes[c] for c in hierarchy.children[i]} == {c for c, p in edges if p == name}
    if len(hierarchy.roots) == 1:
        assert hierarchy.is_tree == all(len(parents) <= 1 for parents in hierarchy.parents)


@given(any_edges())
def test_depth_and_order_agree_with_the_edges(edges):
    hierarchy = Hierarchy(edges)
    depth = dict(zip(hierarchy.nodes, hierarchy.depth.tolist(), strict=True))
    for name, found in depth.items():
        above = [depth[parent] for child, parent in edges if child == name]
        assert found == (1 + min(above) if above else 0)
    assert list(hierarchy.nodes) == sorted(hierarchy.nodes, key=lambda name: (depth[name], name))


@given(any_edges())
def test_descendants_are_the_node_and_all_below_it(edges):
    hierarchy = Hierarchy(edges)
    below = descendants(hierarchy.nodes, edges)
    assert [hierarchy.descendants(j) for j in range(len(hierarchy))] == [sorted(d) for d in below]


# Closure and coherence


def test_closure_by_hand():
    #         root  A  B  C  D  E
    targets = [[0, 0, 0, 0, 1, 0], [0, 0, 0, 0, 0, 1], [0, 1, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0]]
    closed = [[1, 1, 1, 0, 1, 0], [1, 0, 1, 0, 0, 1], [1, 1, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0]]
    assert Hierarchy(DIAMOND).close(torch.tensor(targets)).tolist() == closed


@pytest.mark.parametrize(
    "dtype", [torch.bool, torch.uint8, torch.int32, torch.int64, torch.float32, torch.float64]
)
def test_closure_keeps_type_and_shape(dtype):
    hierarchy = Hierarchy(DIAMOND)
    targets = torch.eye(6).to(dtype).expand(2, 6, 6)
    closed = hierarchy.close(targets)
    assert closed.dtype == dtype
    assert closed.shape == (2, 6, 6)
    expected = closure(targets, descendants(hierarchy.nodes, DIAMOND))
    assert closed.tolist() == expected.tolist()


@given(st.data())
def test_closure_agrees_with_brute_force(data):
    hierarchy = data.draw(hierarchies())
    given_ = data.draw(tensors(3, len(hierarchy), elements=st.sampled_from([0.0, 0.0, 1.0])))
    closed = hierarchy.close(given_)
    expected = closure(given_, descendants(hierarchy.nodes, hierarchy.edges))
    assert closed.tolist() == expected.tolist()
    assert hierarchy.is_coherent(closed)
    assert hierarchy.close(closed).tolist() == closed.tolist()
    assert hierarchy.is_coherent(given_) == (given_.tolist() == closed.tolist())


def test_closure_leaves_its_argument_alone():
    targets = torch.eye(6)
    Hierarchy(DIAMOND).close(targets)
    assert targets.tolist() == torch.eye(6).tolist()


def test_is_coherent_by_hand():
    hierarchy = Hierarchy(DIAMOND)
    # D = .4 may not exceed B = .3, though it does not exceed A = .5.
    assert not hierarchy.is_coherent(torch.tensor([0.9, 0.5, 0.3, 0.5, 0.4, 0.1]))
    assert hierarchy.is_coherent(torch.tensor([0.9, 0.5, 0.4, 0.5, 0.4, 0.1]))
    assert hierarchy.is_coherent(torch.tensor([True, True, True, False, True, False]))
    assert not hierarchy.is_coherent(torch.tensor([True, True, False, False, True, False]))


def test_one_incoherent_row_is_enough():
    scores = torch.zeros(2, 3, 6)
    assert Hierarchy(DIAMOND).is_coherent(scores)
    scores[1, 2, 5] = 1
    assert not Hierarchy(DIAMOND).is_coherent(scores)


# Bottom-up maximum: values


def brute_maximum(hierarchy: Hierarchy, scores: Tensor) -> Tensor:
    below = descendants(hierarchy.nodes, hierarchy.edges)
    return torch.stack([scores[..., sorted(d)].amax(dim=-1) for d in below], dim=-1)


def test_maximum_by_hand():
    #                      root   A   B   C   D  E
    scores = torch.tensor([-5.0, 2, -1, -3, 1, 0])
    assert Hierarchy(DIAMOND).max_over_descendants(scores).tolist() == [2, 2, 1, -3, 1, 0]


@given(st.data())
def test_maximum_agrees_with_brute_force(data):
    hierarchy = data.draw(hierarchies())
    scores = data.draw(tensors(2, len(hierarchy)))
    found = hierarchy.max_over_descendants(scores)
    assert found.tolist() == brute_maximum(hierarchy, scores).tolist()
    assert hierarchy.is_coherent(found)
    assert hierarchy.max_over_descendants(found).tolist() == found.tolist()


@given(st.data())
def test_maximum_over_agreeing_descendants_agrees_with_brute_force(data):
    hierarchy = data.draw(hierarchies())
    below = descendants(hierarchy.nodes, hierarchy.edges)
    scores = data.draw(tensors(2, 3, len(hierarchy)))
    targets = data.draw(tensors(3, len(hierarchy), elements=st.sampled_from([0.0, 0.0, 1.0])))
    targets = closure(targets, below)
    found = hierarchy.max_over_agreeing_descendants(scores, targets)
    for member in range(2):
        for example in range(3):
            y, s = targets[example], scores[member, example]
            expected = [max(s[d].item() for d in D if y[d] == y[j]) for j, D in enumerate(below)]
            assert found[member, example].tolist() == expected


@pytest.mark.parametrize("leading", [(), (3,), (2, 3), (2, 1, 3), (0,), (2, 0)])
def test_leading_dimensions(leading):
    hierarchy = Hierarchy(DIAMOND)
    torch.manual_seed(0)
    scores = torch.randn(*leading, 6, requires_grad=True)
    found = hierarchy.max_over_descendants(scores)
    torch.testing.assert_close(found, brute_maximum(hierarchy, scores), rtol=0, atol=0)
    (gradient,) = torch.autograd.grad(found.sum(), scores)
    assert gradient.shape == scores.shape
    assert gradient.sum() == found.numel()


@pytest.mark.parametrize(
    "layout",
    [
        lambda x: x.mT.contiguous().mT,  # nodes are not the fastest dimension
        lambda x: x.repeat_interleave(2, dim=-1)[..., ::2],  # strided
        lambda x: x[:1].expand(5, -1, -1),  # rows that share memory
        lambda x: x.flip(0).transpose(0, 1),
    ],
)
def test_non_contiguous_scores(layout):
    hierarchy = Hierarchy(DIAMOND)
    torch.manual_seed(0)
    scores = layout(torch.randn(4, 3, 6))
    assert not scores.is_contiguous()
    before = scores.clone()
    found = hierarchy.max_over_descendants(scores)
    assert found.tolist() == hierarchy.max_over_descendants(before.contiguous()).tolist()
    assert found.tolist() == brute_maximum(hierarchy, before).tolist()
    assert scores.tolist() == before.tolist()


def test_non_contiguous_gradient():
    hierarchy = Hierarchy(DIAMOND)
    torch.manual_seed(0)
    scores = torch.randn(4, 3, 6, requires_grad=True)
    weight = torch.randn(4, 6, 3).mT
    found = hierarchy.max_over_descendants(scores)
    (one,) = torch.autograd.grad(found, scores, weight, retain_graph=True)
    (other,) = torch.autograd.grad(found, scores, weight.contiguous())
    assert one.tolist() == other.tolist()


@pytest.mark.parametrize(
    "dtype",
    [torch.uint8, torch.int32, torch.int64, torch.float16, torch.bfloat16, torch.float64],
)
def test_any_ordered_type(dtype):
    scores = torch.tensor([0, 2, 1, 3, 5, 4]).to(dtype)
    found = Hierarchy(DIAMOND).max_over_descendants(scores)
    assert found.dtype == dtype
    assert found.tolist() == [5, 5, 5, 3, 5, 4]


def test_booleans():
    found = Hierarchy(DIAMOND).max_over_descendants(torch.tensor([False] * 5 + [True]))
    assert found.tolist() == [True, False, True, False, False, True]


def test_infinite_scores():
    scores = torch.tensor([-torch.inf, -torch.inf, -torch.inf, 1.0, -torch.inf, torch.inf])
    found = Hierarchy(DIAMOND).max_over_descendants(scores)
    assert found.tolist() == [torch.inf, 1.0, torch.inf, 1.0, -torch.inf, torch.inf]


def test_targets_without_leading_dimensions():
    hierarchy = Hierarchy(DIAMOND)
    torch.manual_seed(0)
    scores = torch.randn(2, 3, 6)
    targets = torch.tensor([1, 1, 1, 0, 1, 0])
    one = hierarchy.max_over_agreeing_descendants(scores, targets)
    other = hierarchy.max_over_agreeing_descendants(scores, targets.expand(3, 6))
    assert one.tolist() == other.tolist()


# Bottom-up maximum: gradient


def chosen(hierarchy: Hierarchy, scores: Tensor) -> list[int]:
    """For each node of `scores` `[nodes]`, the node that receives its gradient."""
    scores = scores.clone().requires_grad_()
    found = hierarchy.max_over_descendants(scores)
    rows = []
    for value in found:
        (row,) = torch.autograd.grad(value, scores, retain_graph=True)
        assert row.sum() == 1
        assert row.max() == 1
        rows.append(int(row.argmax()))
    return rows


@given(st.data())
def test_gradient_goes_whole_to_one_maximal_descendant(data):
    hierarchy = data.draw(hierarchies())
    scores = data.draw(tensors(len(hierarchy)))
    below = descendants(hierarchy.nodes, hierarchy.edges)
    for j, winner in enumerate(chosen(hierarchy, scores)):
        assert winner in below[j]
        assert scores[winner] == max(scores[d] for d in below[j])


def first_met(hierarchy: Hierarchy, scores: Tensor, node: int) -> int:
    """The rule of ties: the node itself, else what the first of its best children chose."""
    best = node
    for child in hierarchy.children[node]:
        candidate = first_met(hierarchy, scores, child)
        if scores[candidate] > scores[best]:
            best = candidate
    return best


@given(st.data())
def test_ties_go_to_the_node_itself_and_then_to_its_first_best_child(data):
    hierarchy = data.draw(hierarchies())
    tied = st.integers(0, 1).map(float)
    scores = data.draw(tensors(len(hierarchy), elements=tied))
    expected = [first_met(hierarchy, scores, j) for j in range(len(hierarchy))]
    assert chosen(hierarchy, scores) == expected


def test_all_tied_nodes_keep_their_own_gradient():
    assert chosen(Hierarchy(DIAMOND), torch.zeros(6)) == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("children", [2, 3, 4, 5, 7, 8, 9, 33])
def test_ties_among_children_go_to_the_first_in_node_order(children):
    star = Hierarchy([(f"{i:02}", "root") for i in range(children)])
    for first in range(1, children + 1):
        scores = torch.zeros(children + 1)
        scores[first:] = 1
        assert chosen(star, scores)[0] == first


def test_ties_across_levels_by_hand():
    hierarchy = Hierarchy([("A", "root"), ("B", "root"), ("C", "A")])
    # B and C tie. A, whose best is C, comes before B: the root follows its first best child, though
    # B comes before C in node order.
    assert hierarchy.nodes == ("root", "A", "B", "C")
    assert chosen(hierarchy, torch.tensor([0.0, 0, 1, 1]))[0] == 3


@given(st.data())
def test_gradient_does_not_depend_on_the_order_of_edges(data):
    edges = data.draw(dag_edges())
    hierarchy, mirrored = Hierarchy(edges), Hierarchy(edges[::-1])
    scores = data.draw(tensors(len(hierarchy), elements=st.integers(0, 1).map(float)))
    assert chosen(hierarchy, scores) == chosen(mirrored, scores)


@given(st.data())
def test_gradient_weighs_the_gradients_above_it(data):
    hierarchy = data.draw(hierarchies())
    scores = data.draw(tensors(2, len(hierarchy))).requires_grad_()
    above = data.draw(tensors(2, len(hierarchy)))
    (found,) = torch.autograd.grad(hierarchy.max_over_descendants(scores), scores, above)
    expected = torch.zeros_like(above)
    for row in range(2):
        for j, winner in enumerate(chosen(hierarchy, scores[row].detach())):
            expected[row, winner] += above[row, j]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("edges", [DIAMOND, TWO_ROOTS, SHORTCUT])
def test_gradcheck(edges):
    hierarchy = Hierarchy(edges)
    torch.manual_seed(0)
    scores = torch.randn(2, 3, len(hierarchy), dtype=torch.float64, requires_grad=True)
    targets = hierarchy.close(torch.eye(len(hierarchy))[[-1, -2, 0]])
    assert torch.autograd.gradcheck(hierarchy.max_over_descendants, scores)
    assert torch.autograd.gradcheck(
        lambda s: hierarchy.max_over_agreeing_descendants(s, targets), scores
    )


def test_no_gradient_is_kept_where_none_is_asked_for():
    assert not Hierarchy(DIAMOND).max_over_descendants(torch.randn(6)).requires_grad


# Size


def test_a_chain_of_2000():
    edges = [(f"{i + 1:04}", f"{i:04}") for i in range(2000)]
    hierarchy = Hierarchy(edges)
    assert hierarchy.depth.tolist() == list(range(2001))
    scores = torch.zeros(2, 2001)
    scores[0, 2000], scores[1, 1000] = 1, 1
    scores.requires_grad_()
    found = hierarchy.max_over_descendants(scores)
    assert found.sum(dim=-1).tolist() == [2001, 1001]
    (gradient,) = torch.autograd.grad(found.sum(), scores)
    assert gradient[0].nonzero().flatten().tolist() == [2000]
    # The 1,000 nodes below the maximum are ties of 0 and keep their own.
    assert gradient[1, 1000:].tolist() == [1001] + [1] * 1000
    assert hierarchy.close(scores.detach())[1].sum() == 1001


def test_a_star_of_5000():
    star = Hierarchy([(f"{i:04}", "root") for i in range(5000)])
    # One row for each place of the maximum: the ends, around powers of two, and anywhere.
    places = torch.tensor([1, 2, 3, 2047, 2048, 2049, 4095, 4096, 4097, 4098, 4099, 4999, 5000])
    places = torch.cat([places, torch.arange(7, 5000, 101)])
    rows = torch.arange(len(places))
    scores = torch.zeros(len(places), 5001)
    scores[rows, places] = 1
    scores.requires_grad_()
    found = star.max_over_descendants(scores)
    assert found[:, 0].tolist() == [1] * len(places)
    (gradient,) = torch.autograd.grad(found[:, 0].sum(), scores)
    assert gradient[rows, places].tolist() == [1] * len(places)
    assert gradient.sum() == len(places)


def test_the_count_of_bytes_counts(allocated):
    with allocated:
        x = torch.ones(1000, requires_grad=True)  # 4,000 bytes
        y = (x.view(10, 100)[:, :50] * 2).sum()  # 2,000 and 4 bytes; views are free
    forward = allocated.bytes
    with allocated:
        y.backward()
    assert forward == 6004
    assert allocated.bytes >= forward + 2000


@pytest.mark.parametrize("agreeing", [False, True])
def test_memory_at_the_size_of_the_gene_ontology(agreeing, allocated):
    # 4 examples × 4,126 nodes × 4 bytes = 66 kB; a dense C × C matrix of bits would be 17 MB.
    hierarchy = Hierarchy(random_dag(4126, 5827))
    assert (len(hierarchy), hierarchy.num_edges) == (4126, 5827)
    torch.manual_seed(0)
    scores = torch.randn(1, 4, 4126, requires_grad=True)
    targets = hierarchy.close((torch.rand(4, 4126) < 0.001).float())
    with allocated:
        if agreeing:
            found = hierarchy.max_over_agreeing_descendants(scores, targets)
        else:
            found = hierarchy.max_over_descendants(scores)
        found.sum().backward()
    assert scores.grad.sum() == found.numel()
    assert 0.5e6 < allocated.bytes < 5e6


# Messages


@pytest.mark.parametrize(
    ("edges", "message"),
    [
        ([], "empty hierarchy: at least one (child, parent) edge is needed"),
        ([("a", "root"), ("b", "b")], "self-loop: node 'b' is given as its own parent"),
        (
            [("a", "root"), ("b", "root"), ("a", "root"), ("a", "root")],
            "duplicate edge: 'a' → 'root' is given 3 times",
        ),
        (
            [("a", "x"), ("b", "y"), ("c", "z")],
            "3 components, with nodes such as 'a', 'b', 'c': join them under one root",
        ),
        (
            [("a", "x"), ("b", "x"), ("c", "b"), ("d", "z")],
            "2 components, with nodes such as 'a', 'd': join them under one root",
        ),
        ([("a", "b"), ("b", "a")], "cycle: 'a' → 'b' → 'a' (child → parent)"),
    ],
)
def test_message_of_bad_edges(edges, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Hierarchy(edges)


def test_message_names_five_components_at_most():
    edges = [(f"child {i}", f"parent {i}") for i in range(7)]
    with pytest.raises(ValueError, match=r"^7 components") as error:
        Hierarchy(edges)
    assert str(error.value).count("'") == 2 * 5


@given(any_edges(), st.data())
def test_message_of_a_cycle_names_a_cycle(edges, data):
    # An edge back from a proper descendant to its ancestor closes at least one cycle.
    hierarchy = Hierarchy(edges)
    below = descendants(hierarchy.nodes, edges)
    inner = [j for j, d in enumerate(below) if len(d) > 1]
    top = data.draw(st.sampled_from(inner))
    bottom = data.draw(st.sampled_from(sorted(below[top] - {top})))
    closing = (hierarchy.nodes[top], hierarchy.nodes[bottom])
    with pytest.raises(ValueError, match=r"^cycle: ") as error:
        Hierarchy([*edges, closing])
    named = re.findall(r"'(n\d+)'", str(error.value))
    steps = list(pairwise(named))
    assert named[0] == named[-1]
    assert len(set(named)) == len(named) - 1 >= 2
    assert set(steps) <= {*edges, closing}
    assert closing in steps  # without it there is none


def test_a_cycle_names_no_node_that_only_hangs_on_it():
    edges = [("b", "a"), ("c", "b"), ("a", "c"), ("below", "a"), ("a", "above"), ("z", "below")]
    with pytest.raises(ValueError, match=r"^cycle: ") as error:
        Hierarchy(edges)
    assert set(re.findall(r"'(\w+)'", str(error.value))) == {"a", "b", "c"}


def test_message_of_an_unknown_node():
    with pytest.raises(ValueError, match=r"^unknown node 'F': it is none of the 6 nodes$"):
        Hierarchy(DIAMOND).indices(["A", "F"])


@pytest.mark.parametrize("shape", [(5,), (2, 7), (6, 1), ()])
@pytest.mark.parametrize(
    "use",
    [
        lambda h, x: h.max_over_descendants(x),
        lambda h, x: h.max_over_agreeing_descendants(torch.zeros(6), x),
        lambda h, x: h.max_over_agreeing_descendants(x, torch.zeros(6)),
        lambda h, x: h.is_coherent(x),
    ],
)
def test_message_of_a_wrong_last_dimension(use, shape):
    message = f"last dimension of shape {shape} must be the 6 nodes of the hierarchy"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        use(Hierarchy(DIAMOND), torch.zeros(shape))


@pytest.mark.parametrize("shape", [(5,), (2, 7)])
def test_message_of_closing_a_wrong_last_dimension(shape):
    message = f"last dimension of shape {shape} must be the 6 nodes of the hierarchy"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Hierarchy(DIAMOND).close(torch.zeros(shape))
