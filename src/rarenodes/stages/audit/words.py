"""What an audit shows, in words and in tables for readers; every sentence is made from its tables."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from rarenodes.pages.tables import mean_and_spread
from rarenodes.scores.catalogue import RARE, Key
from rarenodes.stages.audit import Audit
from rarenodes.stages.audit.effects import COMPARED
from rarenodes.stages.audit.rare_nodes import FEWEST_TESTED
from rarenodes.stages.audit.thresholds import BEYOND, ORACLE, TUNED

RECALL: Key = ("macro_recall", "with_positives", "half")
RARE_RECALL: Key = ("macro_recall", RARE, "half")
PRECISION: Key = ("macro_precision", "with_positives", "half")
F1: Key = ("macro_f1", "with_positives", "half")
TUNED_F1: Key = ("macro_f1", "with_positives", "tuned")
RANKING: Key = ("macro_average_precision", "with_positives", "none")
RARE_RANKING: Key = ("macro_average_precision", RARE, "none")
POOLED_RANKING: Key = ("micro_average_precision", "all", "none")

# Scores of a table for readers, and what to call them there.
AT_HALF: Mapping[Key, str] = {
    ("macro_recall", "all", "half"): "recall, all nodes",
    RECALL: "recall",
    RARE_RECALL: "recall, rare",
    ("macro_precision", "all", "half"): "precision, all nodes",
    PRECISION: "precision",
    ("macro_f1", "all", "half"): "F1, all nodes",
    F1: "F1",
}
AT_TUNED: Mapping[Key, str] = {(*key[:2], "tuned"): label for key, label in AT_HALF.items()}
RANKED: Mapping[Key, str] = {
    RANKING: "macro AP",
    RARE_RANKING: "macro AP, rare",
    POOLED_RANKING: "micro AU(PRC)",
}


# --- conclusions --------------------------------------------------------------------------------


def conclusions(audit: Audit) -> str:
    """What follows from the tables, as Markdown: a heading for each question.

    An effect is *clear* where its Holm-corrected p-value is at most the level. Differences are
    *practically none* where the whole interval, taken alone, lies within the region of equivalence.
    """
    sections = {
        "How large is the gain in recall, and which switch makes it?": _gain(audit),
        "How much of it could a moved threshold do?": _threshold(audit),
        "And against a baseline that is trained alike?": _trained_alike(audit),
        "Is any rare node ranked better?": _ranking(audit),
        "Do the data sets agree?": _agreement(audit),
        "What does the released code do besides its loss?": _besides(audit),
        "What can this evidence not show?": _limits(audit),
    }
    lines = []
    for heading, items in sections.items():
        lines += [f"### {heading}", "", *(f"- {item}" for item in items), ""]
    return "\n".join(lines)


def _gain(audit: Audit) -> list[str]:
    items = []
    for dataset, part in _by_dataset(audit.decomposition):
        gain = _row(part, audit.baseline, audit.released)
        text = (
            f"**{dataset}**: macro recall at 0.5 is {gain['off_recall']:.3f} for {audit.baseline} "
            f"and {gain['on_recall']:.3f} for {audit.released}{_factor(gain, 'recall')}: "
            f"{_with_interval(gain)}{_rare_recall(audit, dataset)}."
        )
        steps = part[part["kind"] == "there"]
        if np.isnan(gain["share"]):
            text += " That is no clear gain, so there is nothing to divide up."
        else:
            text += f" The largest step is {steps.loc[steps['difference'].idxmax(), 'part']}."
        lines = [text]
        for kind, words in (
            ("there", "Step by step"),
            ("back", f"Undone alone, from {' or '.join(_names(part, 'back', 'on'))}"),
            ("elsewhere", "Between other variants"),
        ):
            rows = part[part["kind"] == kind]
            if len(rows):
                named = (_contribution(audit, dataset, row) for _, row in rows.iterrows())
                lines.append(f"{words}: {'; '.join(named)}.")
        lines += [*_dependence(part), *_rare_steps(audit, dataset, steps)]
        items.append(_nested(lines))
    return [
        *items,
        "A star marks effects that are clear after Holm's correction. Percentages are of the gain; those "
        "step by step add up to it.",
    ]


def _rare_recall(audit: Audit, dataset: str) -> str:
    effect = _effect(audit, dataset, audit.baseline, audit.released, RARE_RECALL)
    if effect is None:
        return ""
    return (
        f"; that of rare nodes {effect['off_score']:.3f} and {effect['on_score']:.3f}"
        f"{_factor(effect, 'score')}"
    )


def _rare_steps(audit: Audit, dataset: str, steps: pd.DataFrame) -> list[str]:
    phrases = []
    for _, step in steps.iterrows():
        effect = _effect(audit, dataset, step["off"], step["on"], RARE_RECALL)
        if effect is not None:
            phrases.append(f"{effect['switch']} {effect['difference']:+.4f}{_star(audit, effect)}")
    return [f"Recall of rare nodes, step by step: {'; '.join(phrases)}."] if phrases else []


def _star(audit: Audit, effect: pd.Series | None) -> str:
    return "" if effect is None or _direction(audit, effect) == "open" else "*"


def _names(part: pd.DataFrame, kind: str, column: str) -> list[str]:
    return list(dict.fromkeys(part.loc[part["kind"] == kind, column]))


def _contribution(audit: Audit, dataset: str, row: pd.Series) -> str:
    effect = _effect(audit, dataset, row["off"], row["on"], RECALL)
    star = _star(audit, effect)
    share = "" if np.isnan(row["share"]) else f" ({_percent(row['share'])})"
    where = "" if row["kind"] != "elsewhere" else f", {row['on']} − {row['off']},"
    return f"{row['part']}{where} {row['difference']:+.3f}{star}{share}"


def _dependence(part: pd.DataFrame) -> list[str]:
    """Switches with two effects whose intervals do not overlap."""
    phrases = []
    for _, step in part[part["kind"] == "there"].iterrows():
        others = part[part["kind"].isin(["back", "elsewhere"]) & (part["part"] == step["part"])]
        for _, other in others.iterrows():
            if step["lower"] > other["upper"] or other["lower"] > step["upper"]:
                phrases.append(
                    f"{step['part']} {_with_interval(step)} as {step['on']} − {step['off']}, but "
                    f"{_with_interval(other)} as {other['on']} − {other['off']}"
                )
    if not phrases:
        return []
    return [f"Depends on what else is on (intervals do not overlap): {'; '.join(phrases)}."]


def _threshold(audit: Audit) -> list[str]:
    items = []
    for dataset, _ in _by_dataset(audit.decomposition):
        lines = [f"**{dataset}**:"]
        tuned = _moved(audit, dataset, audit.baseline, audit.released, TUNED)
        if tuned is not None:
            lines.append(
                f"With its threshold tuned on validation data, {audit.baseline} alone has a macro recall "
                f"of {tuned['on_recall']:.3f} instead of {tuned['off_recall']:.3f}{_of_gain(tuned)}, and "
                f"{audit.released} at 0.5 has {_score(audit, dataset, audit.released, RECALL):.3f}; "
                f"macro F1 is {_score(audit, dataset, audit.baseline, TUNED_F1):.3f} and "
                f"{_score(audit, dataset, audit.released, F1):.3f}."
            )
            lines += _at_tuned(audit, dataset)
        lines += _oracle(audit, dataset, audit.baseline, audit.released)
        if len(lines) == 1:
            lines.append(
                f"{audit.baseline} has no tuned threshold, and {audit.released} no precision to match."
            )
        items.append(_nested(lines))
    return items


def _oracle(audit: Audit, dataset: str, off: str, on: str) -> list[str]:
    """What the threshold does that gives one variant the pooled precision of the other."""
    oracle = _moved(audit, dataset, off, on, ORACLE)
    if oracle is None:
        return []
    beyond, rare = _moved(audit, dataset, off, on, BEYOND), ""
    if (off, on) == (audit.baseline, audit.released):
        rare = _matched_rare(audit, dataset, _matched(audit, dataset, on, off))
    precision = _score(audit, dataset, on, ("micro_precision", "all", "half"))
    return [
        f"With the threshold at which its pooled precision on the test part is that of {on}, "
        f"{precision:.3f} (an oracle: found on the test part), {off} has a macro recall of "
        f"{oracle['on_recall']:.3f}{_of_gain(oracle)}{rare}. What {on} has beyond that is "
        f"{_with_interval(beyond)}, {_by_interval(beyond)}{_not_alike(audit, off, on)}."
    ]


def _not_alike(audit: Audit, off: str, on: str) -> str:
    switches = audit.switches.set_index(["off", "on"])
    if switches.loc[(off, on), "trained_alike"]:
        return ""
    return "; the two are not trained alike, so this need not be the method's doing"


def _matched_rare(audit: Audit, dataset: str, matched: pd.Series) -> str:
    if np.isnan(matched["rare_recall"]):
        return ""
    released = _score(audit, dataset, audit.released, RARE_RECALL)
    return (
        f"; of rare nodes {matched['rare_recall']:.3f}, where {audit.released} has {released:.3f}"
    )


def _of_gain(row: pd.Series) -> str:
    if np.isnan(row["share"]):
        return ""
    return (
        f" ({_percent(row['share'])} of the gain, "
        f"interval {_percent(row['share_lower'])} to {_percent(row['share_upper'])})"
    )


def _at_tuned(audit: Audit, dataset: str) -> list[str]:
    """How methods differ in F1 from the baseline where every variant has its tuned threshold."""
    effects = _compared(audit, dataset, TUNED_F1)
    methods = effects[(effects["off"] == audit.baseline) & (effects["kind"] != "elsewhere")]
    if methods.empty:
        return []
    return [
        f"With every variant at its own tuned threshold, macro F1 compared with {audit.baseline}: "
        f"{_verdicts(audit, methods)}"
    ]


def _trained_alike(audit: Audit) -> list[str]:
    pairs = audit.switches[audit.switches["main"] & audit.switches["trained_alike"]]
    if pairs.empty:
        return [
            "No variant is trained like another without the method: what the method does, and what "
            "its training does, cannot be told apart."
        ]
    items = []
    for dataset in _datasets(audit):
        lines = [f"**{dataset}**:"]
        for pair in pairs.itertuples():
            phrases = [
                f"{COMPARED[key]} {effect['off_score']:.3f} → {effect['on_score']:.3f}"
                f"{_factor(effect, 'score')} ({_verdict(audit, effect)})"
                for key in (RECALL, RARE_RECALL, PRECISION, F1, RANKING, RARE_RANKING)
                if (effect := _effect(audit, dataset, pair.off, pair.on, key)) is not None
            ]
            lines.append(f"From {pair.off} to {pair.on} ({pair.switch}): {'; '.join(phrases)}.")
            lines += _oracle(audit, dataset, pair.off, pair.on)
        items.append(_nested(lines))
    if audit.released not in set(pairs["on"]):
        items.append(f"No variant without the method is trained like {audit.released}.")
    return items


def _ranking(audit: Audit) -> list[str]:
    items = []
    alike = audit.switches[audit.switches["trained_alike"]]
    methods = set(zip(alike["off"], alike["on"], strict=True))
    for dataset in _datasets(audit):
        effects, lines = _compared(audit, dataset, RARE_RANKING), [f"**{dataset}**:"]
        whole = effects[(effects["kind"] == "whole") | (effects["off"] == audit.baseline)]
        whole = whole[(whole["kind"] != "elsewhere") & _pairs(whole).isin(methods)]
        if len(whole):
            lines.append(
                "Average precision of rare nodes, each method compared with its partner that is "
                f"trained alike: {_verdicts(audit, whole)}"
            )
        single = effects[effects["kind"] != "whole"]
        if len(single):
            largest = single.loc[single["difference"].abs().idxmax()]
            lines.append(
                f"Of all single switches, {largest['switch']} ({largest['on']} − {largest['off']}) "
                f"moves it most: {_with_interval(largest)} ({_verdict(audit, largest)})."
            )
        lines.append(_nodes(audit, dataset, methods))
        items.append(_nested(lines))
    return items


def _nodes(audit: Audit, dataset: str, methods: set[tuple[str, str]]) -> str:
    counts = audit.node_counts[audit.node_counts["dataset"] == dataset]
    counts = counts[_pairs(counts).isin(methods)]
    if counts.empty or not counts["tested"].iloc[0]:
        return "No rare node has enough test positives to be tested by itself."
    tested = counts["tested"].iloc[0]
    of = f"of {tested} rare nodes with {FEWEST_TESTED} or more test positives"
    better = counts[counts["better"] > 0]
    if better.empty:
        text = f"Node by node: {of}, none is clearly better with any of these methods"
    else:
        named = (
            f"{row.better} with {row.on} (against {row.off}; {row.worse} worse)"
            for row in better.itertuples()
        )
        text = f"Node by node: {of}, clearly better are {_enumerated(named)}"
    worse = counts[(counts["worse"] > 0) & (counts["better"] == 0)]
    if len(worse):
        named = (f"{row.worse} with {row.on} (against {row.off})" for row in worse.itertuples())
        text += f"; clearly worse are {_enumerated(named)}"
    elif better.empty:
        text += ", and none is clearly worse"
    most = counts.loc[counts["better_alone"].idxmax()]
    return (
        f"{text}. Without correction for so many nodes the most are {most['better_alone']} better "
        f"and {most['worse_alone']} worse ({most['on']} − {most['off']}), where chance alone would make "
        f"about {most['by_chance']:.1f} of each."
    )


def _agreement(audit: Audit) -> list[str]:
    datasets = _datasets(audit)
    if len(datasets) < 2:
        return ["There is one data set only: nothing to agree with."]
    steps = audit.switches[audit.switches["kind"] == "there"]
    items = []
    for key in (RECALL, RARE_RECALL, RANKING, RARE_RANKING, POOLED_RANKING):
        found: dict[str, list[str]] = {}
        for step in steps.itertuples():
            effects = [_effect(audit, name, step.off, step.on, key) for name in datasets]
            found.setdefault(_in_common(audit, effects), []).append(step.switch)
        phrases = (
            f"{words}: {', '.join(found[words])}" for words in sorted(found, key=_clear_first)
        )
        items.append(
            f"**{COMPARED[key]}**, steps there: {'; '.join(phrases)}. Whole methods: "
            + "; ".join(
                f"{pair.on} − {pair.off}: "
                + _in_common(audit, [_effect(audit, n, pair.off, pair.on, key) for n in datasets])
                for pair in audit.switches[audit.switches["main"]].itertuples()
            )
            + "."
        )
    return items


def _clear_first(words: str) -> bool:
    return not words.startswith("clear")


def _in_common(audit: Audit, effects: Sequence[pd.Series | None]) -> str:
    if any(effect is None for effect in effects):
        return "not measured in every data set"
    directions = {_direction(audit, effect) for effect in effects}
    if directions in ({"higher"}, {"lower"}):
        return f"clearly {directions.pop()} in every data set"
    if {"higher", "lower"} <= directions:
        return "clear, but of opposite sign"
    if directions == {"open"}:
        return "nowhere clear"
    clear = (directions - {"open"}).pop()
    return f"clearly {clear} in some data sets, not decided in others"


def _besides(audit: Audit) -> list[str]:
    items = []
    for (dataset, variant), part in audit.imputation.groupby(["dataset", "variant"], sort=False):
        first = part.iloc[0]
        largest = part.loc[part["difference"].abs().idxmax()]
        clear = part[part["holm_p"] <= 1 - audit.confidence]
        label = COMPARED[largest["measure"], largest["nodes"], largest["at"]]
        text = (
            f"**{dataset}, {variant}**: filling gaps of the test part with its own means changes "
            f"{_percent(first['features_changed'], 1)} of its features, and no probability by more than "
            f"{first['largest_change']:.2g}. The score that changes most is {label}: "
            f"{_with_interval(largest, 4)}"
        )
        if clear.empty:
            text += "; no change is clear."
        else:
            labels = (
                f"{COMPARED[row.measure, row.nodes, row.at]} {row.difference:+.4f}"
                for row in clear.itertuples()
            )
            text += f". Clear changes: {_enumerated(labels)}."
        items.append(text)
    for dataset, part in _by_dataset(audit.oversampling):
        phrases = (
            f"{row.method} adds {row.added} to {row.examples} training examples and moves the mean "
            f"imbalance ratio of nodes from {row.mean_ir_nodes_before:.0f} to "
            f"{row.mean_ir_nodes_after:.0f}, of paths from {row.mean_ir_paths_before:.1f} to "
            f"{row.mean_ir_paths_after:.1f}"
            for row in part.itertuples()
        )
        items.append(f"**{dataset}**: {'; '.join(phrases)}.")
    return items


def _limits(audit: Audit) -> list[str]:
    level, datasets = 1 - audit.confidence, _datasets(audit)
    items = [
        f"**Other data.** {len(datasets)} data set(s), {', '.join(datasets)}. Intervals hold for "
        "their training parts and their test examples; nothing here is a test across data sets.",
        f"**The randomness of training.** {audit.seeds} seeds. Intervals allow for it as far as so "
        "few can tell.",
        "**Other orders.** Switches are turned on in one order. What a switch does may depend on "
        "what else is on; the way back shows that for some of them, one background each.",
        "**The best each variant could be.** No budget was chosen for a variant; each might do better "
        "with one of its own.",
        f"**Practical importance.** Differences up to {audit.equivalence:g} count as practically none, "
        "whatever the size of the score.",
    ]
    untuned = _without_tuned(audit)
    if untuned:
        items.append(
            "**Tuned thresholds where all data are trained on.** No validation examples are left for "
            f"{', '.join(untuned)}: their scores at tuned thresholds are missing."
        )
    counts = audit.node_counts.drop_duplicates("dataset")
    if len(counts):
        untested = _enumerated(
            f"{row.rare_nodes - row.tested} of {row.rare_nodes} in {row.dataset}"
            for row in counts.itertuples()
        )
        items.append(
            f"**The rarest nodes one by one.** Rare nodes with fewer than {FEWEST_TESTED} test positives "
            f"({untested}) are not tested: their score is that of one or two examples."
        )
    return items + _finest(audit, level)


def _finest(audit: Audit, level: float) -> list[str]:
    """What the number of resamples, or of tests, rules out."""
    smallest, items = 2 / (audit.resamples + 1), []
    kinds = audit.effects["kind"] == "whole"
    sizes = audit.effects.groupby(["dataset", "measure", "nodes", "at", kinds]).size()
    if len(sizes) and sizes.max() * smallest > level:
        items.append(
            f"**Single clear effects, by Holm's correction.** {sizes.max()} comparisons and "
            f"{audit.resamples} resamples: a single effect cannot reach a corrected p-value below "
            f"{sizes.max() * smallest:.2g}, several at once may. Raise `evaluation.resamples`."
        )
    tested = 0 if audit.node_counts.empty else audit.node_counts["tested"].max()
    needed = int(np.ceil(smallest * tested / level - 1e-9))
    if needed > 1:
        items.append(
            f"**A single rare node.** With {tested} nodes and {audit.resamples} resamples, the smallest "
            f"p-value that a node can have, {smallest:.2g}, is significant after correction only if "
            f"{needed} nodes have it."
        )
    return items


def _without_tuned(audit: Audit) -> list[str]:
    tuned = audit.scores[audit.scores["at"] == "tuned"]
    missing = tuned.groupby("variant", sort=False)["score"].apply(lambda s: s.isna().all())
    return list(missing[missing].index)


# --- phrases ------------------------------------------------------------------------------------


def _direction(audit: Audit, effect: pd.Series) -> str:
    if effect["holm_p"] <= 1 - audit.confidence:
        return "higher" if effect["difference"] > 0 else "lower"
    return "open"


def _verdict(audit: Audit, effect: pd.Series) -> str:
    """In words: practically the same, clearly higher or lower, or not decided."""
    same = -audit.equivalence < effect["lower"] and effect["upper"] < audit.equivalence
    direction = _direction(audit, effect)
    if direction == "open":
        return "practically the same" if same else "not decided"
    return f"clearly {direction}" + (", but practically the same" if same else "")


def _verdicts(audit: Audit, effects: pd.DataFrame) -> str:
    """All pairs of some effects, by verdict; each with its difference."""
    groups: dict[str, list[str]] = {}
    for _, row in effects.iterrows():
        named = f"{row['on']} − {row['off']} {row['difference']:+.3f}"
        groups.setdefault(_verdict(audit, row), []).append(named)
    order = sorted(groups, key=lambda verdict: ("higher" not in verdict, "lower" not in verdict))
    return "; ".join(f"{verdict}: {', '.join(groups[verdict])}" for verdict in order) + "."


def _by_interval(row: pd.Series) -> str:
    if row["lower"] > 0:
        return "above 0: more than one threshold for all nodes could do"
    if row["upper"] < 0:
        return "below 0: a threshold alone does more"
    return "not told from 0"


def _with_interval(row: pd.Series, digits: int = 3) -> str:
    difference, lower, upper = (
        f"{row[name]:+.{digits}f}" for name in ("difference", "lower", "upper")
    )
    return f"{difference} [{lower}, {upper}]"


def _factor(row: pd.Series, what: str) -> str:
    off, on = row[f"off_{what}"], row[f"on_{what}"]
    return f", ×{on / off:.1f}" if off > 0 else ""


def _percent(share: float, digits: int = 0) -> str:
    return f"{100 * share:.{digits}f} %"


def _nested(lines: Sequence[str]) -> str:
    """A Markdown item with the other lines as items below it."""
    return "\n  - ".join(lines)


def _enumerated(phrases: Iterable[str]) -> str:
    return ", ".join(phrases)


# --- looking up ---------------------------------------------------------------------------------


def _datasets(audit: Audit) -> list[str]:
    return list(dict.fromkeys(audit.scores["dataset"]))


def _by_dataset(table: pd.DataFrame):
    return table.groupby("dataset", sort=False)


def _pairs(table: pd.DataFrame) -> pd.Series:
    return pd.Series(list(zip(table["off"], table["on"], strict=True)), table.index, dtype=object)


def _row(part: pd.DataFrame, off: str, on: str) -> pd.Series:
    """The row of a pair in one data set's decomposition, thresholds aside."""
    chosen = (part["off"] == off) & (part["on"] == on) & (part["kind"] != "threshold")
    return part[chosen].iloc[0]


def _moved(audit: Audit, dataset: str, off: str, on: str, part: str) -> pd.Series | None:
    """What a moved threshold does for a pair, or None where there is no such threshold."""
    table = audit.decomposition
    chosen = table[
        (table["dataset"] == dataset)
        & (table["kind"] == "threshold")
        & (table["off"] == off)
        & (table["on"] == on)
        & (table["part"] == part)
    ]
    return None if chosen.empty else chosen.iloc[0]


def _compared(audit: Audit, dataset: str, key: Key) -> pd.DataFrame:
    effects = audit.effects[audit.effects["dataset"] == dataset]
    for column, value in zip(("measure", "nodes", "at"), key, strict=True):
        effects = effects[effects[column] == value]
    return effects


def _effect(audit: Audit, dataset: str, off: str, on: str, key: Key) -> pd.Series | None:
    effects = _compared(audit, dataset, key)
    effects = effects[(effects["off"] == off) & (effects["on"] == on)]
    return None if effects.empty else effects.iloc[0]


def _score(audit: Audit, dataset: str, variant: str, key: Key) -> float:
    table = audit.scores.set_index(["dataset", "variant", "measure", "nodes", "at"])["score"]
    return float(table[dataset, variant, *key])


def _matched(audit: Audit, dataset: str, reference: str, variant: str) -> pd.Series:
    table = audit.matched.set_index(["dataset", "reference", "variant"])
    return table.loc[(dataset, reference, variant)]


# --- tables for readers -------------------------------------------------------------------------


def score_cells(audit: Audit, dataset: str, labels: Mapping[Key, str]) -> pd.DataFrame:
    """A row per variant, a column per score: mean over seeds with interval, – where missing."""
    table = audit.scores[audit.scores["dataset"] == dataset]
    table = table.set_index(["measure", "nodes", "at", "variant"])
    cells = {
        label: {
            variant: _cell(table.loc[(*key, variant)], "score", "{:.3f}")
            for variant in audit.variants
        }
        for key, label in labels.items()
    }
    return pd.DataFrame(cells)


def effect_cells(audit: Audit, dataset: str) -> pd.DataFrame:
    """A row per pair, a column per score: difference with interval; a star where it is clear."""
    cells: dict[tuple[str, str, str], dict[str, str]] = {}
    for key, label in COMPARED.items():
        for _, row in _compared(audit, dataset, key).iterrows():
            star = "" if _direction(audit, row) == "open" else " *"
            pair = row["kind"], row["switch"], f"{row['on']} − {row['off']}"
            cells.setdefault(pair, {})[label] = _cell(row, "difference", "{:+.3f}") + star
    table = pd.DataFrame.from_dict(cells, orient="index").fillna("–")
    labels = [label for label in COMPARED.values() if label in table]
    table.index = pd.MultiIndex.from_tuples(cells, names=["kind", "switch", "on − off"])
    return table[labels].reset_index().set_index("kind")


def decomposition_cells(audit: Audit, dataset: str) -> pd.DataFrame:
    """What every switch and threshold does to macro recall, and as a share of the gain."""
    part = audit.decomposition[audit.decomposition["dataset"] == dataset]
    rows = [
        {
            "kind": row["kind"],
            "what": row["part"],
            "from": row["off"],
            "to": row["on"],
            "recall": f"{row['off_recall']:.3f} → {row['on_recall']:.3f}",
            "difference": _cell(row, "difference", "{:+.3f}"),
            "share of the gain": "–"
            if np.isnan(row["share"])
            else f"{_percent(row['share'])} [{_percent(row['share_lower'])}, {_percent(row['share_upper'])}]",
        }
        for _, row in part.iterrows()
    ]
    return pd.DataFrame(rows).set_index("kind")


def matched_cells(audit: Audit, dataset: str) -> pd.DataFrame:
    """A row per variant: macro recall at the precision of the baseline, and of the released setting."""
    part = audit.matched[audit.matched["dataset"] == dataset]
    columns = {}
    for reference, rows in part.groupby("reference", sort=False):
        at = f"precision of {reference} ({rows['precision'].iloc[0]:.2f})"
        by_variant = rows.set_index("variant")
        for name, label in (("recall", "recall"), ("rare_recall", "rare recall")):
            columns[f"{label} at {at}"] = by_variant.apply(
                lambda row, name=name: mean_and_spread(row[name], row[f"{name}_spread"]), axis=1
            )
    return pd.DataFrame(columns)


def count_cells(audit: Audit, dataset: str) -> pd.DataFrame:
    """A row per method and partner: how many rare nodes are ranked better and worse."""
    part = audit.node_counts[audit.node_counts["dataset"] == dataset]
    return pd.DataFrame(
        {
            "method − partner": part["on"] + " − " + part["off"],
            "trained alike": part["trained_alike"].map({True: "yes", False: "no"}),
            "rare nodes": part["rare_nodes"],
            "higher": part["higher"],
            "lower": part["lower"],
            "tested": part["tested"],
            "clearly better": part["better"],
            "clearly worse": part["worse"],
            "better, uncorrected": part["better_alone"],
            "worse, uncorrected": part["worse_alone"],
            "of each by chance": part["by_chance"].round(1),
        }
    ).set_index("method − partner")


def _cell(row: pd.Series, name: str, form: str) -> str:
    if np.isnan(row[name]):
        return "–"
    low, high = (form.format(row[bound]) for bound in ("lower", "upper"))
    return f"{form.format(row[name])} [{low}, {high}]"
