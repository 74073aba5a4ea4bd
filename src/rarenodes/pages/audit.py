"""What readers see of an audit: the named values of its prose, and its tables for reading.

Tables are those of `rarenodes.stages.audit.Audit`. Which variants differ by what, and which pairs are
compared, is said by their columns `kind` (`there`, `back`, `elsewhere`, `whole`, `threshold`), `off`
and `on`.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from rarenodes.inference.verdict import Rule
from rarenodes.pages.comparison import CLEAR
from rarenodes.pages.prose import MISSING, percent
from rarenodes.pages.tables import mean_and_spread
from rarenodes.scores.catalogue import RARE, RARE_RANKING, Key

RECALL: Key = ("macro_recall", "with_positives", "half")
RARE_RECALL: Key = ("macro_recall", RARE, "half")
RANKING: Key = ("macro_average_precision", "with_positives", "none")

# Scores of a table for readers, and what to call them there.
AT_HALF: Mapping[Key, str] = {
    ("macro_recall", "all", "half"): "recall, all nodes",
    RECALL: "recall",
    RARE_RECALL: "recall, rare",
    ("macro_precision", "all", "half"): "precision, all nodes",
    ("macro_precision", "with_positives", "half"): "precision",
    ("macro_f1", "all", "half"): "F1, all nodes",
    ("macro_f1", "with_positives", "half"): "F1",
}
AT_TUNED: Mapping[Key, str] = {(*key[:2], "tuned"): label for key, label in AT_HALF.items()}
RANKED: Mapping[Key, str] = {
    RANKING: "macro AP",
    RARE_RANKING: "macro AP, rare",
    ("micro_average_precision", "all", "none"): "micro AU(PRC)",
}

# Names of rows that move a threshold, in the table `decomposition`.
TUNED, ORACLE, BEYOND = "tuned threshold", "oracle threshold", "beyond the oracle"
_BOUNDS = ("difference", "lower", "upper")


# --- named values -------------------------------------------------------------------------------


def audit_values(
    tables: Mapping[str, pd.DataFrame],
    labels: Mapping[Key, str],
    *,
    confidence: float,
    rule: Rule,
    resamples: int,
    seeds: int,
    fewest_tested: int,
) -> dict[str, Any]:
    """All that the prose of an audit may say, by name.

    What is measured on each data set is a list in the order of `data_sets`; None where it was not
    measured. An effect `x` comes as `x`, `x_lower`, `x_upper` and, where it was tested, `x_verdict`.

    Args:
        tables: by name: `switches`, `scores`, `effects` (with a column `verdict`: `better`, `worse`,
            `same`, `unclear` or `untestable`), `decomposition`, `node_counts`, `imputation`,
            `oversampling`.
        labels: what to call the scores that are compared.
        confidence: of the intervals.
        rule: what counts as clear and as practically the same.
        resamples: of the bootstrap.
        seeds: of the variant with the fewest.
        fewest_tested: test positives that a rare node needs to be tested by itself.

    Returns:
        `baseline` and `released` are the ends of the way there; `partner` is the variant without
        the method that is trained like `released`, None where there is none, and `compared` is
        the partner, or else the baseline: what the method is measured against.

    """
    switches = tables["switches"]
    there = switches[switches["kind"] == "there"]
    baseline, released = there["off"].iloc[0], there["on"].iloc[-1]
    partner = _partner(switches, released)
    compared = partner or baseline
    data_sets = list(dict.fromkeys(tables["scores"]["dataset"]))
    values: dict[str, Any] = {
        "data_sets": data_sets,
        "baseline": baseline,
        "released": released,
        "partner": partner,
        "compared": compared,
        "confidence": confidence,
        "level": 1 - confidence,
        "rule": rule.model_dump(),
        "resamples": resamples,
        "seeds": seeds,
        "fewest_tested": fewest_tested,
        "untuned": _without_tuned(tables["scores"]),
        **_besides(tables, labels, 1 - confidence),
    }
    by_dataset = [
        _effects_of(tables["effects"], name, baseline, released, compared)
        | _parts_of(tables["decomposition"], name, baseline, released, compared)
        | _nodes_of(tables["node_counts"], name)
        for name in data_sets
    ]
    return values | {name: [of[name] for of in by_dataset] for name in by_dataset[0]}


def _partner(switches: pd.DataFrame, released: str) -> str | None:
    alike = switches[switches["main"] & switches["trained_alike"] & (switches["on"] == released)]
    return None if alike.empty else alike["off"].iloc[0]


def _effects_of(
    effects: pd.DataFrame, name: str, baseline: str, released: str, compared: str
) -> dict[str, Any]:
    """Effects on one data set: of the whole way, and of the method alone."""
    values: dict[str, Any] = {}
    for prefix, off in (("gain", baseline), ("method", compared)):
        for what, key in (
            ("recall", RECALL),
            ("rare_recall", RARE_RECALL),
            ("ranking", RANKING),
            ("rare_ranking", RARE_RANKING),
        ):
            row = effect(effects, name, off, released, key)
            stem = f"{prefix}_{what}"
            values |= {
                f"{stem}_off": _of(row, "off_score"),
                f"{stem}_on": _of(row, "on_score"),
                stem: _of(row, "difference"),
                f"{stem}_lower": _of(row, "lower"),
                f"{stem}_upper": _of(row, "upper"),
                f"{stem}_verdict": _of(row, "verdict"),
            }
    return values


def _parts_of(
    decomposition: pd.DataFrame, name: str, baseline: str, released: str, compared: str
) -> dict[str, Any]:
    """Macro recall on one data set, by switch and by threshold."""
    part = decomposition[decomposition["dataset"] == name]
    steps = part[part["kind"] == "there"]
    largest = steps.loc[steps["difference"].idxmax()]
    values: dict[str, Any] = {
        "largest_step": largest["part"],
        "largest_step_difference": largest["difference"],
        "largest_step_share": largest["share"],
        "depends": _depending(part),
    }
    for stem, off, what in (
        ("tuned", baseline, TUNED),
        ("oracle", compared, ORACLE),
        ("beyond", compared, BEYOND),
    ):
        rows = part[
            (part["kind"] == "threshold")
            & (part["off"] == off)
            & (part["on"] == released)
            & (part["part"] == what)
        ]
        row = None if rows.empty else rows.iloc[0]
        values |= {f"{stem}_recall": _of(row, "on_recall"), f"{stem}_share": _of(row, "share")}
        values |= {stem: _of(row, "difference")}
        values |= {f"{stem}_{bound}": _of(row, bound) for bound in ("lower", "upper")}
    return values


def _depending(part: pd.DataFrame) -> list[str]:
    """Switches with two effects whose intervals do not overlap."""
    steps = part[part["kind"] == "there"]
    others = part[part["kind"].isin(["back", "elsewhere"])]
    pairs = steps.merge(others, on="part", suffixes=("", "_other"))
    apart = (pairs["lower"] > pairs["upper_other"]) | (pairs["lower_other"] > pairs["upper"])
    return list(dict.fromkeys(pairs.loc[apart, "part"]))


def _nodes_of(counts: pd.DataFrame, name: str) -> dict[str, Any]:
    """Rare nodes of one data set, tested one by one with every method that is trained alike."""
    part = counts[(counts["dataset"] == name) & counts["trained_alike"].astype(bool)]
    if part.empty:
        names = ("rare_nodes", "nodes_tested", "nodes_better", "nodes_worse", "nodes_by_chance")
        return dict.fromkeys(names)
    return {
        "rare_nodes": part["rare_nodes"].iloc[0],
        "nodes_tested": part["tested"].iloc[0],
        "nodes_better": part["better"].max(),
        "nodes_worse": part["worse"].max(),
        "nodes_by_chance": part["by_chance"].iloc[0],
    }


def _besides(
    tables: Mapping[str, pd.DataFrame], labels: Mapping[Key, str], level: float
) -> dict[str, Any]:
    """What gaps filled from the test part, and oversampling, come to over all data sets."""
    imputation, oversampling = tables["imputation"], tables["oversampling"]
    clear = imputation[imputation["holm_p"] <= level]
    return {
        "imputation_features": imputation["features_changed"].max(),
        "imputation_largest": imputation["largest_change"].max(),
        "imputation_clear": [
            f"{labels[row.measure, row.nodes, row.at]} of {row.variant} on {row.dataset}"
            for row in clear.itertuples()
        ],
        "oversampling_added": (oversampling["added"] / oversampling["examples"]).max(),
    }


def _without_tuned(scores: pd.DataFrame) -> list[str]:
    tuned = scores[scores["at"] == "tuned"]
    missing = tuned.groupby("variant", sort=False)["score"].apply(lambda s: s.isna().all())
    return list(missing[missing].index)


def _of(row: pd.Series | None, name: str) -> Any:
    return None if row is None else row[name]


# --- looking up ---------------------------------------------------------------------------------


def compared_at(effects: pd.DataFrame, dataset: str, key: Key) -> pd.DataFrame:
    """The effects on one score of a data set."""
    measure, nodes, at = key
    return effects[
        (effects["dataset"] == dataset)
        & (effects["measure"] == measure)
        & (effects["nodes"] == nodes)
        & (effects["at"] == at)
    ]


def effect(effects: pd.DataFrame, dataset: str, off: str, on: str, key: Key) -> pd.Series | None:
    """The effect of a pair on one score, None where it was not measured."""
    rows = compared_at(effects, dataset, key)
    rows = rows[(rows["off"] == off) & (rows["on"] == on)]
    return None if rows.empty else rows.iloc[0]


# --- tables for readers -------------------------------------------------------------------------


def verdict_cells(
    effects: pd.DataFrame, labels: Mapping[Key, str], pairs: pd.DataFrame
) -> pd.DataFrame:
    """A row per data set, pair and score, as `plots.verdicts.verdict_matrix` draws them.

    Args:
        effects: of an audit, with a column `verdict`.
        labels: the scores to show, and what to call them.
        pairs: rows of the audit's `switches`: which pairs to show. Single switches go by their
            names, whole methods by their two variants.

    """
    chosen = effects.merge(pairs[["off", "on"]], on=["off", "on"])
    keys = list(zip(chosen["measure"], chosen["nodes"], chosen["at"], strict=True))
    names = np.where(
        chosen["kind"].isin(["there", "back", "elsewhere"]),
        chosen["switch"]
        + chosen["kind"].map({"there": "", "back": ", undone"}).fillna(", elsewhere"),
        chosen["on"] + " − " + chosen["off"],
    )
    chosen = chosen.assign(variant=names, label=[labels.get(key) for key in keys])
    order = {label: i for i, label in enumerate(labels.values())}
    chosen = chosen.dropna(subset="label")
    chosen = chosen.sort_values("label", key=lambda c: c.map(order), kind="stable")
    return chosen[["dataset", "variant", "label", *_BOUNDS, "verdict"]].reset_index(drop=True)


def score_cells(scores: pd.DataFrame, dataset: str, labels: Mapping[Key, str]) -> pd.DataFrame:
    """A row per variant, a column per score: mean over seeds with interval, – where missing."""
    table = scores[scores["dataset"] == dataset]
    variants = list(dict.fromkeys(table["variant"]))
    table = table.set_index(["measure", "nodes", "at", "variant"])
    return pd.DataFrame(
        {
            label: {v: _cell(table.loc[(*key, v)], "score", "{:.3f}") for v in variants}
            for key, label in labels.items()
        }
    ).rename_axis("variant")


def effect_cells(effects: pd.DataFrame, dataset: str, labels: Mapping[Key, str]) -> pd.DataFrame:
    """A row per pair, a column per score: difference with interval; a star where it is clear."""
    cells: dict[tuple[str, str, str], dict[str, str]] = {}
    for key, label in labels.items():
        for _, row in compared_at(effects, dataset, key).iterrows():
            star = " *" if row["verdict"] in CLEAR else ""
            pair = row["kind"], row["switch"], f"{row['on']} − {row['off']}"
            cells.setdefault(pair, {})[label] = _cell(row, "difference", "{:+.3f}") + star
    table = pd.DataFrame.from_dict(cells, orient="index").fillna(MISSING)
    table.index = pd.MultiIndex.from_tuples(cells, names=["kind", "switch", "on − off"])
    return table[[label for label in labels.values() if label in table]]


def decomposition_cells(decomposition: pd.DataFrame, dataset: str) -> pd.DataFrame:
    """What every switch and threshold does to macro recall, and as a share of the gain."""
    part = decomposition[decomposition["dataset"] == dataset]
    rows = [
        {
            "kind": row["kind"],
            "what": row["part"],
            "from": row["off"],
            "to": row["on"],
            "recall": f"{row['off_recall']:.3f} → {row['on_recall']:.3f}",
            "difference": _cell(row, "difference", "{:+.3f}"),
            "share of the gain": MISSING
            if np.isnan(row["share"])
            else f"{percent(row['share'])} [{percent(row['share_lower'])}, {percent(row['share_upper'])}]",
        }
        for _, row in part.iterrows()
    ]
    return pd.DataFrame(rows).set_index("kind")


def matched_cells(matched: pd.DataFrame, dataset: str) -> pd.DataFrame:
    """A row per variant: macro recall at the precision of the baseline, and of the released setting."""
    part = matched[matched["dataset"] == dataset]
    columns = {}
    for reference, rows in part.groupby("reference", sort=False):
        at = f"precision of {reference} ({rows['precision'].iloc[0]:.2f})"
        by_variant = rows.set_index("variant")
        for name, label in (("recall", "recall"), ("rare_recall", "rare recall")):
            columns[f"{label} at {at}"] = by_variant.apply(
                lambda row, name=name: mean_and_spread(row[name], row[f"{name}_spread"]), axis=1
            )
    return pd.DataFrame(columns)


def count_cells(counts: pd.DataFrame, dataset: str) -> pd.DataFrame:
    """A row per method and partner: how many rare nodes are ranked better and worse."""
    part = counts[counts["dataset"] == dataset]
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
        return MISSING
    low, high = (form.format(row[bound]) for bound in ("lower", "upper"))
    return f"{form.format(row[name])} [{low}, {high}]"
