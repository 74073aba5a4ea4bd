"""Tables for readers: scores by variant, by rarity and by depth, written as CSV and Markdown."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Int

from rarenodes.datasets.dataset import SPLITS, Dataset
from rarenodes.randomness import numpy_stream
from rarenodes.scores.catalogue import NODE_SCORES, RARE_RANKING, shown
from rarenodes.scores.metrics import RARITY_BINS, precision_recall_f1, rarity_bin
from rarenodes.settings import Settings

UNSEEN = RARITY_BINS[0]  # nodes without a training positive
# Of a data set's card, a longer entry is shown by its beginning.
MOST_LETTERS = 1000
LONGEST_EXAMPLE = 160


def write_table(table: pd.DataFrame, stem: Path) -> None:
    """Write `<stem>.csv` in full precision and `<stem>.md` for reading."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(stem.with_suffix(".csv"), index=False, float_format="%.6g")
    stem.with_suffix(".md").write_text(table.to_markdown(index=False, floatfmt=".4g") + "\n")


def with_node_scores(nodes: pd.DataFrame) -> pd.DataFrame:
    """A score table with recall, precision and F1 of every row, at one half and tuned."""
    scored = nodes.copy()
    for at in ("half", "tuned"):
        counts = [
            scored[f"{count}_{at}"].to_numpy(dtype=float)
            for count in ("true_positives", "false_positives", "false_negatives")
        ]
        scores = zip(("precision", "recall", "f1"), precision_recall_f1(*counts), strict=True)
        for score, values in scores:
            scored[f"{score}_{at}"] = np.where(np.isnan(counts[0]), np.nan, values)
    return scored


_COUNTS = {
    "test_positives": "positives",
    "true_positives_half": "hits_half",
    "false_positives_half": "false_half",
}


def scores_by(group: str, nodes: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Macro scores of each variant by a property of nodes, over nodes with test positives.

    Args:
        group: column of the score tables: `rarity` or `depth`.
        nodes: by variant, a row per seed and node.

    Returns:
        A row per group and variant: number of nodes, and for every score of `NODE_SCORES` the
        mean over seeds of the macro score, and `<score>_spread`, its standard deviation. `positives`
        are pairs of a test example and a node of the group that hold; `hits_half` and `false_half`
        of these, and of all other pairs, are predicted at 0.5: means over seeds.

    """
    rows = []
    for variant, table in nodes.items():
        scored = with_node_scores(table[table["test_positives"] > 0])
        macro = scored.groupby([group, "seed"])[list(NODE_SCORES)].mean()
        mean = macro.groupby(group).mean()
        spread = macro.groupby(group).std(ddof=1).add_suffix("_spread")
        size = scored.groupby(group)["node"].nunique().rename("nodes")
        counts = scored.groupby([group, "seed"])[list(_COUNTS)].sum().groupby(group).mean()
        counts = counts.rename(columns=_COUNTS)
        rows.append(
            pd.concat([size, mean, spread, counts], axis=1).assign(variant=variant).reset_index()
        )
    result = pd.concat(rows, ignore_index=True)
    if group == "rarity":
        result[group] = pd.Categorical(result[group], RARITY_BINS, ordered=True)
    order = {variant: i for i, variant in enumerate(nodes)}
    result = result.sort_values(
        [group, "variant"], key=lambda c: c.map(order) if c.name == "variant" else c
    )
    spreads = (f"{score}_spread" for score in NODE_SCORES)
    return result[[group, "variant", "nodes", *NODE_SCORES, *spreads, *_COUNTS.values()]]


def seed_summary(seeds: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Pooled scores of each variant: mean over seeds, and standard deviation as `<score>_spread`."""
    rows = []
    for variant, table in seeds.items():
        scores = table.drop(columns="seed")
        spread = scores.std(ddof=1).add_suffix("_spread")
        rows.append(pd.concat([scores.mean(), spread]).rename(variant))
    return pd.DataFrame(rows).rename_axis("variant").reset_index()


def mean_and_spread(mean: float, spread: float, digits: int = 3) -> str:
    """`0.123 ± 0.004`; the spread is left out where there is none to tell, and all where no mean."""
    if np.isnan(mean):
        return "–"
    text = f"{mean:.{digits}f}"
    return text if np.isnan(spread) else f"{text} ± {spread:.{digits}f}"


def compared_scores(long: pd.DataFrame) -> pd.DataFrame:
    """The scores by which variants are compared, for reading.

    Args:
        long: columns `dataset`, `variant`, `seed`, and those of `rarenodes.scores.long`.

    Returns:
        A row per data set and variant, mean ± standard deviation over seeds; a dash where a score
        does not exist, such as those of rare nodes where there are none.

    """
    runs = long.set_index(["measure", "nodes", "at", "dataset", "variant"])["score"]
    found = runs.groupby(level=list(range(5)), sort=False).agg(["mean", "std"])
    table = long[["dataset", "variant"]].drop_duplicates(ignore_index=True)
    for score in shown("compared"):
        keys = [(*score.key, *row) for row in table[["dataset", "variant"]].to_numpy()]
        cells = [found.loc[key] if key in found.index else (np.nan, np.nan) for key in keys]
        table[score.label] = [mean_and_spread(*cell) for cell in cells]
    return table.rename(columns={"dataset": "data set"})


def best_of_rare(long: pd.DataFrame) -> dict[str, str]:
    """By data set, the variant of highest mean average precision of rare nodes, where there are any.

    Args:
        long: as for `compared_scores`.

    """
    ranking = long.set_index(["measure", "nodes", "at"]).sort_index()
    if RARE_RANKING not in ranking.index:
        return {}
    runs = ranking.loc[[RARE_RANKING]].groupby(["dataset", "variant"], sort=False)["score"]
    means = runs.mean().dropna()
    return {name: of_one.idxmax()[1] for name, of_one in means.groupby(level=0, sort=False)}


def findable(table: pd.DataFrame, found: Sequence[str]) -> tuple[pd.DataFrame, int]:
    """A table by rarity without nodes that nobody can find, and how many nodes these are.

    Nodes without a training positive are left out where no variant is ever right about them; another
    group stays, as what is not found there could have been.

    Args:
        table: a row per `rarity` and variant, with the number of `nodes`.
        found: columns that are above 0 where something was found.

    """
    unseen = table[table["rarity"].astype(str) == UNSEEN]
    if unseen.empty or (unseen[list(found)] > 0).any(axis=None):
        return table, 0
    return table[table["rarity"].astype(str) != UNSEEN], int(unseen["nodes"].iloc[0])


def left_out(nodes: int) -> str:
    """What a caption says of nodes that `findable` left out; empty where there are none."""
    if not nodes:
        return ""
    return f"Left out: {nodes:,} nodes without training positives, of which nothing finds any."


# --- what notebooks show ------------------------------------------------------------------------


def readable(table: pd.DataFrame):
    """A table of texts as Markdown, which notebooks wrap and align for reading."""
    from IPython.display import Markdown  # only notebooks have it

    return Markdown(as_markdown(table))


def folded(title: str, table: pd.DataFrame):
    """The same behind a title that opens it: for tables too long to stand in the way."""
    from IPython.display import Markdown

    summary = f"<details><summary>{title} ({len(table)} rows)</summary>"
    return Markdown(f"{summary}\n\n{as_markdown(table)}\n\n</details>")


def as_markdown(table: pd.DataFrame) -> str:
    """A table as Markdown: a column for each level of its index, one title for each of its columns."""
    flat = table.copy()
    if isinstance(flat.columns, pd.MultiIndex):
        flat.columns = [", ".join(map(str, names)) for names in flat.columns]
    if isinstance(flat.index, pd.MultiIndex):
        flat.index.names = [name or "" for name in flat.index.names]
        flat = flat.reset_index()
    else:
        flat.insert(0, flat.index.name or "", flat.index, allow_duplicates=True)
    escaped = flat.map(lambda cell: cell.replace("|", "\\|") if isinstance(cell, str) else cell)
    return escaped.to_markdown(index=False)


def card_table(dataset: Dataset) -> pd.DataFrame:
    """Size of a data set and what its card says."""
    hierarchy, labels = dataset.hierarchy, dataset.targets.sum() / dataset.targets.shape[0]
    size = {
        "examples": f"{dataset.targets.shape[0]:,}",
        "features": f"{dataset.features.shape[1]:,}",
        "nodes": f"{len(hierarchy):,} ({int(dataset.evaluated.sum()):,} evaluated)",
        "edges": f"{hierarchy.num_edges:,} ({'tree' if hierarchy.is_tree else 'DAG'})",
        "depth": str(int(hierarchy.depth.max())),
        "labels an example": f"{labels:.1f} (ancestors included)",
    }
    card = {key.replace("_", " "): _shortened(str(value)) for key, value in dataset.card.items()}
    return pd.DataFrame({"value": {**size, **card}}).rename_axis("fact")


def _shortened(text: str) -> str:
    """The beginning of a text that would fill pages, such as the names of all examples."""
    if len(text) <= MOST_LETTERS:
        return text
    return f"{text[: MOST_LETTERS // 10]} … ({len(text):,} letters in all)"


def split_table(dataset: Dataset) -> pd.DataFrame:
    """Examples and labels of each part of the split."""
    parts = {
        part: {
            "examples": len(rows),
            "labels": int(dataset.targets[rows].sum()),
            "nodes with positives": int((dataset.counts(part)[dataset.evaluated] > 0).sum()),
        }
        for part, rows in dataset.split.items()
    }
    return pd.DataFrame(parts).T.loc[list(SPLITS)]


def rarity_table(dataset: Dataset) -> pd.DataFrame:
    """Nodes in each bin of training positives, and how many of them have test positives."""
    evaluated = dataset.evaluated
    table = pd.DataFrame(
        {
            "training positives": rarity_bin(dataset.counts("train")[evaluated]),
            "tested": dataset.counts("test")[evaluated] > 0,
        }
    )
    counted = table.groupby("training positives", observed=False)["tested"].agg(["size", "sum"])
    return counted.rename(columns={"size": "nodes", "sum": "with test positives"})


def example_table(dataset: Dataset, seed: int, count: int = 6) -> pd.DataFrame:
    """Some training examples: their texts, where there are texts, and their most specific paths."""
    rows = shown_examples(dataset, seed, count)
    shown = []
    for row in rows:
        text = {} if dataset.texts is None else {"text": dataset.texts[row]}
        shown.append({**text, "path": "; ".join(_paths(dataset, row))})
    return pd.DataFrame(shown, index=pd.Index(rows, name="example"))


def shown_examples(dataset: Dataset, seed: int, count: int) -> Int[np.ndarray, " examples"]:
    """Numbers of some training examples, drawn for readers."""
    rng = numpy_stream(seed, "examples shown", dataset.name)
    return rng.choice(dataset.split["train"], size=min(count, len(dataset.split["train"])))


def example_name(dataset: Dataset, row: int) -> str:
    """What an example is called: its text, cut where long, or its number where there are no texts."""
    if dataset.texts is None:
        return f"example {row}"
    return textwrap.shorten(dataset.texts[row], LONGEST_EXAMPLE, placeholder=" …")


def most_specific(dataset: Dataset, row: int) -> list[int]:
    """The example's nodes without a child among its nodes."""
    children, positive = dataset.hierarchy.children, set(dataset.targets[[row]].indices.tolist())
    return [node for node in sorted(positive) if not positive & set(children[node])]


def _paths(dataset: Dataset, row: int) -> list[str]:
    """From the root to each of the example's most specific nodes."""
    hierarchy = dataset.hierarchy
    paths = []
    for node in most_specific(dataset, row):
        path = [node]
        while hierarchy.parents[path[-1]]:
            path.append(hierarchy.parents[path[-1]][0])
        paths.append(" → ".join(hierarchy.nodes[n] for n in reversed(path)))
    return paths


# Settings of a variant that are shown above the table, or merged into the others.
HEADINGS = ("about", "source", "training")


def settings_table(*groups: Settings) -> pd.DataFrame:
    """Settings and their values, without those that are not used."""
    values = {k: v for group in groups for k, v in group.model_dump(exclude_none=True).items()}
    shown = {key: _in_words(value) for key, value in values.items() if key not in HEADINGS}
    return pd.DataFrame({"value": shown}).rename_axis("setting")


def _in_words(value: object) -> str:
    """A setting as it is read: `mode binary, floor 0.25`, `train, valid`."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {_in_words(part)}" for name, part in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_in_words, value))
    return str(value)


_POOLED = {
    **{score.column: score.short for score in shown("pooled")},
    "threshold_tuned": "tuned threshold",
}


def seed_table(seeds: pd.DataFrame) -> pd.DataFrame:
    """Pooled scores of one variant: a row per seed, their mean and standard deviation."""
    table = seeds.set_index("seed")[list(_POOLED)].rename(columns=_POOLED)
    return pd.concat([table, table.agg(["mean", "std"])]).round(4)


def overall_table(overall: pd.DataFrame) -> pd.DataFrame:
    """Pooled scores of all variants: mean ± standard deviation over seeds."""
    rows = {
        row["variant"]: {
            label: mean_and_spread(row[score], row[f"{score}_spread"])
            for score, label in _POOLED.items()
        }
        for _, row in overall.iterrows()
    }
    return pd.DataFrame(rows).T


def matched_table(matched: pd.DataFrame) -> pd.DataFrame:
    """Recall at the baseline's precision."""
    names = {
        "micro_recall_all": "pooled recall",
        "macro_recall_all": "macro recall",
        "micro_recall_rare": "pooled recall, rare nodes",
        "macro_recall_rare": "macro recall, rare nodes",
    }
    return matched.set_index("variant").rename(columns=names).round(3)


def members_table(members: pd.DataFrame, confidence: float) -> pd.DataFrame:
    """What each member of each committee adds to average precision, with intervals.

    Args:
        members: as `rarenodes.stages.committee_members.what_members_add` makes it.
        confidence: of the intervals.

    """
    nodes = {"with_positives": "nodes with positives", "rare": "rare nodes"}
    gain = [
        f"{row.gain:+.3f} ({row.lower:+.3f} to {row.upper:+.3f})" for row in members.itertuples()
    ]
    shown = members.assign(nodes=members["nodes"].map(nodes), interval=gain)
    shown = shown[["committee", "member", "nodes", "weight", "score", "without", "interval"]]
    names = {
        "score": "average precision",
        "without": "without the member",
        "interval": f"what it adds ({confidence:.0%} interval)",
    }
    return shown.rename(columns=names).round(3).set_index(["committee", "member", "nodes"])


def reach_table(reached: pd.DataFrame, at: str) -> pd.DataFrame:
    """How deep predictions reach at one threshold, for all examples and those with a rare node."""
    names = {
        "true_depth": "deepest true node",
        "reached_depth": "reached",
        "levels_short": "levels short",
        "to_the_end": "found to the end",
        "answered": "answered",
        "answer_depth": "depth of answers",
        "answer_right": "answers right",
        "hierarchical_precision": "hierarchical precision",
        "hierarchical_recall": "hierarchical recall",
        "hierarchical_f1": "hierarchical F1",
    }
    part = reached[reached["at"] == at]
    examples = part["examples"] + " (" + part["number"].astype(int).astype(str) + ")"
    table = part.assign(examples=examples).set_index(["examples", "variant"])[list(names)]
    return table.rename(columns=names).round(3).sort_index(level=0, sort_remaining=False)


def across_table(across: pd.DataFrame) -> pd.DataFrame:
    """Signed-rank tests over data sets; a dash where they are too few to bound a difference."""
    shown = {
        "measure": "measure",
        "variant": "variant",
        "num_data_sets": "data sets",
        "median": "median difference",
        "lower": "lower",
        "upper": "upper",
        "rank_biserial": "rank-biserial",
        "p": "p",
        "holm_p": "Holm p",
        "smallest_holm_p": "smallest possible Holm p",
        "worse": "P(worse)",
        "equivalent": "P(equivalent)",
        "better": "P(better)",
    }
    table = across[list(shown)].replace([np.inf, -np.inf], np.nan).round(3)
    table = table.rename(columns=shown).set_index(["measure", "variant"])
    return table.astype(object).where(table.notna(), "–")
