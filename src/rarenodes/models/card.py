"""The model card: what a reader has to know of a model before they use it, as a table and a page."""

import math
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
import pandas as pd

from rarenodes.datasets.dataset import SPLITS, Dataset
from rarenodes.models.inputs import needs
from rarenodes.models.predictors import Committee, Predictor
from rarenodes.models.run import Run
from rarenodes.models.selection import SCOPES
from rarenodes.scores.metrics import RARITY_BINS, macro, precision_recall_f1
from rarenodes.scores.run_tables import COUNTS

# Packages on which the last bits of a prediction depend.
PACKAGES = ("numpy", "scikit-learn", "scipy", "torch")
POOLED = {
    "micro_average_precision": "micro average precision (all nodes and examples together)",
    "macro_average_precision_with_positives": "average precision, mean over nodes",
    "macro_recall_with_positives_half": "recall at 0.5, mean over nodes",
    "macro_f1_with_positives_half": "F1 at 0.5, mean over nodes",
    "macro_f1_with_positives_tuned": "F1 at the global threshold, mean over nodes",
}
BY_RARITY = {
    "nodes": "nodes",
    "nodes_with_test_examples": "with test examples",
    "average_precision": "average precision",
    "recall_half": "recall at 0.5",
    "f1_half": "F1 at 0.5",
    "f1_tuned": "F1 at the global threshold",
}


def model_card(
    dataset: Dataset,
    run: Run,
    predictor: Predictor,
    library: Mapping[str, str],
    thresholds: Mapping[str, Any],
    scores: Mapping[str, Any],
) -> dict[str, Any]:
    """The card as JSON can hold it: numbers that are missing are None.

    Args:
        dataset: what the model was fitted on.
        run: how it was trained, and how long.
        predictor: what was trained.
        library: version of the library, and of those that read the model.
        thresholds: by scope, the tuned thresholds; empty where there are none.
        scores: from `scores_on_test`.

    """
    hierarchy, variant = dataset.hierarchy, run.variant
    trained = sum(dataset.counts(part) for part in run.fit_on)[dataset.evaluated]
    return _plain(
        {
            "dataset": run.streams.dataset,
            "variant": run.name,
            "about": variant.about,
            "proposed_by": variant.source,
            "family": variant.family,
            "takes": needs(dataset.transformation),
            "data": {
                "sha256": dataset.checksum(),
                "examples": {part: len(dataset.split[part]) for part in SPLITS},
                "card": dict(dataset.card),
            },
            "hierarchy": {
                "nodes": len(hierarchy),
                "edges": hierarchy.num_edges,
                "depth": int(hierarchy.depth.max()),
                "kind": "tree" if hierarchy.is_tree else "DAG",
                "scored_nodes": len(trained),
                "scored_nodes_without_training_examples": int((trained == 0).sum()),
                "scored_nodes_with_1_to_10_training_examples": int(
                    ((trained > 0) & (trained <= 10)).sum()
                ),
            },
            "settings": variant.model_dump(),
            "budget": _budget(run),
            "members": _members(run, predictor),
            "fitted_on": run.fit_on,
            "seed": {"root": run.streams.root, "run": run.streams.seed},
            "thresholds": _described(dataset, thresholds),
            "scores": dict(scores),
            "limits": _limits(dataset, trained, thresholds, run, predictor),
            "library": dict(library),
            "packages": {name: version(name) for name in PACKAGES},
            "python": platform.python_version(),
        }
    )


def _budget(run: Run) -> dict[str, Any] | None:
    return run.budget.model_dump() if run.variant.family == "network" else None


def _members(run: Run, predictor: Predictor) -> list[dict[str, Any]]:
    """Of a committee: how each was trained, and how much it counts, in the mean over nodes."""
    if not isinstance(predictor, Committee):
        return []
    weights = np.reshape(predictor.weights, (len(run.members), -1)).mean(axis=1)
    return [
        {
            "variant": member.name,
            "about": member.variant.about,
            "family": member.variant.family,
            "weight": weight,
            "settings": member.variant.model_dump(),
            "budget": _budget(member),
            "seed": {"root": member.streams.root, "run": member.streams.seed},
            "members": _members(member, predictor.members[member.name]),
        }
        for member, weight in zip(run.members, weights, strict=True)
    ]


def scores_by_rarity(nodes: pd.DataFrame) -> list[dict[str, Any]]:
    """Macro scores of the nodes of each rarity, over those with test examples.

    Args:
        nodes: a row per scored node, from `rarenodes.scores.run_tables.score_run`.

    Returns:
        A row per rarity that occurs, rarest first, with the keys of `BY_RARITY`, and `rarity`.

    """
    rows = []
    for rarity in RARITY_BINS:
        group = nodes[nodes["rarity"] == rarity]
        if group.empty:
            continue
        support = group["test_positives"].to_numpy()
        row = {
            "rarity": rarity,
            "nodes": len(group),
            "nodes_with_test_examples": int((support > 0).sum()),
            "average_precision": macro(
                group["average_precision"].to_numpy(), support, "with_positives"
            ),
        }
        for at in ("half", "tuned"):
            counts = [group[f"{name}_{at}"].to_numpy() for name in COUNTS]
            _, recall, f1 = precision_recall_f1(*counts)
            missing = math.isnan(sum(map(float, counts[0])))
            for name, values in (("recall", recall), ("f1", f1)):
                value = float("nan") if missing else macro(values, support, "with_positives")
                row[f"{name}_{at}"] = value
        rows.append(row)
    return rows


def card_text(card: Mapping[str, Any]) -> str:
    """The card as a page in Markdown."""
    data, hierarchy, scores = card["data"], card["hierarchy"], card["scores"]
    parts = data["examples"]
    lines = [
        f"# {card['dataset']} · {card['variant']}",
        "",
        f"A {card['family']} model of rarenodes ({card['about'] or card['variant']}) that takes "
        f"{card['takes']} and gives the probabilities of {hierarchy['nodes']} nodes.",
        "",
        "## Data",
        "",
        f"- {parts['train']} training, {parts['valid']} validation and {parts['test']} test examples; "
        f"fitted on {' and '.join(card['fitted_on'])}",
        f"- a {hierarchy['kind']} of {hierarchy['nodes']} nodes and {hierarchy['edges']} edges, depth "
        f"{hierarchy['depth']}; {hierarchy['scored_nodes']} nodes are scored, of which "
        f"{hierarchy['scored_nodes_with_1_to_10_training_examples']} have 1 to 10 examples it was "
        f"fitted on and {hierarchy['scored_nodes_without_training_examples']} have none",
        f"- SHA-256 of the data set: `{data['sha256']}`",
        *(f"- {key}: {_cell(value)}" for key, value in data["card"].items()),
        "",
        "## Scores on test examples",
        "",
        *_table(["score", "value"], [[POOLED[k], _cell(v)] for k, v in scores["pooled"].items()]),
        "",
        "By number of training examples of a node; means over nodes with test examples:",
        "",
        *_table(
            ["training examples", *BY_RARITY.values()],
            [
                [row["rarity"], *(_cell(row[key]) for key in BY_RARITY)]
                for row in scores["by_rarity"]
            ],
        ),
        "",
        "## Thresholds",
        "",
        *_threshold_lines(card),
        "",
        "## Limits",
        "",
        *(f"- {limit}" for limit in card["limits"]),
        "",
        "## How it was made",
        "",
        *_runs(card),
        f"- rarenodes {card['library']['written_by']}; read by {card['library']['from']} or later, "
        f"below {card['library']['below']}",
        f"- Python {card['python']}, "
        + ", ".join(f"{name} {number}" for name, number in card["packages"].items()),
        "",
        "`card.json` holds the same and all settings.",
        "",
    ]
    return "\n".join(lines)


def _runs(card: Mapping[str, Any], indent: str = "") -> list[str]:
    """How it was trained; of a committee, each member."""
    lines = [f"{indent}- {_run(card)}"]
    for member in card.get("members", []):  # which older cards do not name
        about = f"`{member['variant']}` ({member['about']}), which counts {member['weight']:.2f}"
        lines.append(f"{indent}  - {about}")
        lines += _runs(member, f"{indent}    ")
    return lines


def _run(card: Mapping[str, Any]) -> str:
    seed = f"seed {card['seed']['root']}, run {card['seed']['run']}"
    budget = card["budget"]
    if budget is None:
        return seed
    return (
        f"{budget['members']} members, {budget['epochs']} epochs of batches of "
        f"{budget['batch_size']}, learning rate {budget['learning_rate']:g}; hidden layers: "
        f"{budget['layers']} of {budget['hidden']} units; {seed}"
    )


def _described(dataset: Dataset, thresholds: Mapping[str, Any]) -> dict[str, Any] | None:
    if not thresholds:
        return None
    scored = {scope: values[dataset.evaluated] for scope, values in thresholds.items()}
    return {
        "tuned_on": len(dataset.split["valid"]),
        "global": float(scored["global"][0]),
        "lowest": {scope: float(scored[scope].min()) for scope in SCOPES},
        "highest": {scope: float(scored[scope].max()) for scope in SCOPES},
    }


def _threshold_lines(card: Mapping[str, Any]) -> list[str]:
    tuned = card["thresholds"]
    if tuned is None:
        return ["None: no validation data were held out."]
    scores = card["scores"]["macro_f1_by_threshold"]
    return [
        f"Tuned for macro F1 on {tuned['tuned_on']} validation examples:",
        "",
        *_table(
            ["thresholds", "lowest", "highest", "macro F1 on test examples"],
            [
                [scope, *(_cell(tuned[end][scope]) for end in ("lowest", "highest")), _cell(scores[scope])]
                for scope in SCOPES
            ],
        ),
    ]  # fmt: skip


def _limits(
    dataset: Dataset,
    trained: Any,
    thresholds: Mapping[str, Any],
    run: Run,
    predictor: Predictor,
) -> list[str]:
    limits = [
        "Scores are those of one training run on one split; another run differs.",
        "Examples unlike the training examples get probabilities all the same: nothing warns of them.",
        "Probabilities are not calibrated: read 0.8 as a rank, unless checked on data of your own.",
    ]
    without = int((trained == 0).sum())
    if without:
        limits.append(
            f"Of {without} scored nodes it has seen no example: at best it ranks them by "
            "their ancestors."
        )
    if dataset.transformation.kind == "text":
        limits.append(
            f"It knows {len(dataset.transformation.vocabulary)} words and pairs of words, those of the "
            "training texts; others count nothing."
        )
    if thresholds:
        valid = dataset.counts("valid")[dataset.evaluated]
        limits.append(
            f"{int((valid == 0).sum())} scored nodes have no validation example: their own threshold "
            "is the global one."
        )
    if predictor.stored_examples:
        limits.append(
            f"It holds the {predictor.stored_examples} examples it was fitted on, as features and "
            "labels: whoever has the model has them."
        )
    if any(
        one.variant.family == "network" and one.budget.ensemble == "dropout" for one in run.trained
    ):
        limits.append("Dropout stays on: a prediction depends on the example's place in its batch.")
    limits.append(
        "Bit by bit the same predictions need the same versions of the packages below, kind of "
        "processor and number of threads; elsewhere the last digits differ."
    )
    return limits


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [header, ["---"] * len(header), *rows]
    return [f"| {' | '.join(cells)} |" for cells in lines]


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _plain(value: Any) -> Any:
    """As JSON can hold it: no NaN, no tuples, no NumPy scalars."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and math.isnan(value) else value
