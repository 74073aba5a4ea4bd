"""What `dvc plots` draws of a study: scores by rarity, and learning curves, of all variants."""

import json
from pathlib import Path
from typing import Any

from rarenodes.folders import write_whole
from rarenodes.scores.metrics import RARITY_BINS
from rarenodes.study.params import Study
from rarenodes.study.results import HISTORY

# Where DVC looks for templates, in a study's folder.
TEMPLATE_FILES = ".dvc/plots"
# The page around the plots, in the same place; made where it is wanted, and not committed.
PAGE = "page.html"
BY_RARITY, CURVES = "by_rarity", "learning_curves"
TABLE = "reports/evaluate/{dataset}/tables/by_rarity.csv"
# Columns of the table, and what is said of them.
DRAWN = {"recall_half": "recall at 0.5", "average_precision": "average precision"}
ERROR = ("valid_bce", "cross-entropy on validation data")


def plots_of(study: Study) -> list[dict[str, Any]]:
    """The entries under `plots:`, over files that stages leave; none where nothing is evaluated.

    Recall at 0.5 and average precision of nodes by the number of their training examples; and of
    networks that hold out validation data, their error on these by epoch.
    """
    found: list[dict[str, Any]] = []
    for dataset in study.parameters.datasets if "evaluate" in study.parameters.stages else ():
        table = TABLE.format(dataset=dataset)
        for column, about in DRAWN.items():
            title = f"{dataset} {about} by rarity"
            found.append(_plot(title, BY_RARITY, "rarity", {table: column}, about))
        curves = {
            f"results/{dataset}/{variant}/{HISTORY}": ERROR[0]
            for variant in study.variants
            if study.variant(variant).family == "network"
            and "valid" not in study.training(dataset, variant).fit_on
        }
        if curves:
            title = f"{dataset} learning curves"
            found.append(_plot(title, CURVES, "epoch", curves, ERROR[1]))
    return found


def _plot(title: str, template: str, x: str, y: dict[str, str], y_label: str) -> dict[str, Any]:
    return {title: {"template": template, "x": x, "y": y, "y_label": y_label, "title": title}}


def templates() -> dict[str, str]:
    """The templates of Vega-Lite that the entries name, by file name.

    DVC's own draw one line for each revision and file; here a line is a variant, and a revision that
    is compared is a picture of its own. Cells of a CSV file are text to DVC.
    """
    made = {
        BY_RARITY: _template(
            {"type": "ordinal", "sort": list(RARITY_BINS), "title": "training examples of a node"},
            "datum.variant",
        ),
        # A file is named by what differs between the files: the variant first.
        CURVES: _template(
            {"type": "quantitative", "title": "epoch"}, "split(datum.filename, '/')[0]"
        ),
    }
    return {f"{name}.json": json.dumps(content, indent=1) + "\n" for name, content in made.items()}


def make_offline(study: Study) -> Path:
    """Let the pages that `dvc plots` writes hold the programs that draw them; the page around plots.

    DVC's own page loads Vega from the network whenever it is looked at. The page that is made here
    holds it, and this clone's own configuration (`config.local`) names the page.

    Raises:
        ValueError: the study's folder is none of DVC's.

    """
    from dvc.config import Config  # neither is needed elsewhere
    from vl_convert import javascript_bundle

    folder = study.folder / TEMPLATE_FILES
    if not folder.parent.is_dir():
        raise ValueError(f"{folder.parent}: there is no such folder; run `dvc init` first")
    folder.mkdir(exist_ok=True)
    # A function keeps the bundle's own names from those of the plots.
    write_whole(folder / PAGE, _PAGE.replace("<BUNDLE>", javascript_bundle()))
    with Config(str(folder.parent)).edit("local") as config:
        config.setdefault("plots", {})["html_template"] = f"{folder.name}/{PAGE}"
    return folder / PAGE


# DVC fills the words in braces; where it would name scripts of the network, nothing is asked for.
_PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
{refresh_tag}
<title>Plots</title>
<script>(() => {<BUNDLE>})();</script>
</head>
<body>
{plot_divs}
</body>
</html>
"""


def _template(x: dict[str, Any], variant: str) -> dict[str, Any]:
    """Means over seeds, where there are several, of a score that is not missing."""
    score = {"calculate": "toNumber(datum['<DVC_METRIC_Y>'])", "as": "score"}
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "data": {"values": "<DVC_METRIC_DATA>"},
        "title": "<DVC_METRIC_TITLE>",
        "transform": [
            score,
            {"filter": "isValid(datum.score)"},
            {"calculate": variant, "as": "of_variant"},
        ],
        "width": 380,
        "height": 300,
        "mark": {"type": "line", "point": True, "tooltip": True},
        "encoding": {
            "x": {"field": "<DVC_METRIC_X>", **x},
            "y": {
                "aggregate": "mean", "field": "score", "type": "quantitative",
                "title": "<DVC_METRIC_Y_LABEL>",
            },
            "color": {"field": "of_variant", "type": "nominal", "title": "variant", "sort": None},
            "column": {"field": "rev", "type": "nominal", "title": None},
        },
    }  # fmt: skip
