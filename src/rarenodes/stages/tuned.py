"""The stage `tuned`: what the searches found, and the budgets that follow from it."""

from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import pandas as pd
import yaml

from rarenodes.folders import write_whole
from rarenodes.pages.prose import write_values
from rarenodes.pages.tables import write_table
from rarenodes.pages.tuning import tuning_values
from rarenodes.scores.metrics import RARITY_BINS
from rarenodes.settings import SettingsError
from rarenodes.study.params import Study
from rarenodes.training.tuning import SETTINGS, Search, budget_of, choose

_HEADER = """\
# Written by the stage `tuned`, from the searches of this folder's study: what was chosen for every
# data set and variant by macro average precision on validation data, over nodes with validation
# positives; and what micro average precision over all pairs of example and node would have chosen.
# A study that names this file under `budgets` trains with the former.

"""
_SEARCHED = "search.csv"
_BY = {"macro": "macro_ap", "micro": "micro_ap"}


@dataclass(frozen=True)
class Tuned:
    """What came out of all searches of a study.

    Attributes:
        search: every point of every search: rows of `rarenodes.stages.tune.tune`.
        chosen: see `chosen_points`.
        cost: see `cost_of_micro`.
        needs: see `needs_by_rarity`.
        edges: see `at_edges`.

    """

    search: pd.DataFrame
    chosen: pd.DataFrame
    cost: pd.DataFrame
    needs: pd.DataFrame
    edges: pd.DataFrame


def choose_budgets(study: Study, folder: Path) -> Tuned:
    """Choose budgets from the searches of a study.

    Writes `budgets.yaml` beside the study's `params.yaml`, the log of all searches to
    `reports/search.csv`, and tables to `folder`.

    Raises:
        SettingsError: the study declares no search.
        FileNotFoundError: a variant's search was not made.

    """
    declared = study.parameters.tuning
    if declared is None:
        raise SettingsError(
            f"{study.params_file}: tuning: missing: there is nothing to choose from"
        )
    # Decided from the log as it is written, so that whoever has the log alone decides the same.
    log = _collected(study).to_csv(index=False, float_format="%.6g")
    search = _as_numbers(pd.read_csv(StringIO(log)))
    chosen = chosen_points(search, study)
    tuned = Tuned(
        search=search,
        chosen=chosen,
        cost=cost_of_micro(chosen),
        needs=needs_by_rarity(search),
        edges=at_edges(chosen, search, declared),
    )
    for name in ("chosen", "cost", "needs", "edges"):
        write_table(getattr(tuned, name), folder / "tables" / name)
    write_values(tuning_values(tuned.chosen, tuned.cost, tuned.needs, tuned.edges), folder)
    write_whole(study.reports("search.csv"), log)
    write_whole(study.folder / "budgets.yaml", budgets_text(study, chosen))
    return tuned


def _collected(study: Study) -> pd.DataFrame:
    tables = []
    for name in study.parameters.datasets:
        for variant in study.variants:
            path = study.search(name, variant) / _SEARCHED
            if not path.exists():
                raise FileNotFoundError(
                    f"{path}: no search was made: run `python -m rarenodes tune {name} {variant}`"
                )
            tables.append(_as_numbers(pd.read_csv(path)))
    return pd.concat(tables)


def _as_numbers(table: pd.DataFrame) -> pd.DataFrame:
    """Settings as numbers: columns of other families are empty, which pandas takes for objects."""
    return table.astype(dict.fromkeys(SETTINGS, float))


def chosen_points(search: pd.DataFrame, study: Study) -> pd.DataFrame:
    """The row of its search that each score chooses for every variant.

    Returns:
        The columns of the search, and before them `family` and `chosen_by`: `macro` or `micro`.

    """
    rows = []
    for (name, variant), points in search.groupby(["dataset", "variant"], sort=False):
        family = study.variant(variant).family
        for label, by in _BY.items():
            best = choose(points.dropna(axis="columns", how="all").reset_index(drop=True), by)
            rows.append(
                {"dataset": name, "variant": variant, "family": family, "chosen_by": label}
                | best.drop(["dataset", "variant"]).to_dict()
            )
    columns = ["dataset", "variant", "family", "chosen_by", *search.columns[2:]]
    return pd.DataFrame(rows).reindex(columns=columns)


def cost_of_micro(chosen: pd.DataFrame) -> pd.DataFrame:
    """What a variant loses by a budget that was chosen for micro instead of macro scores.

    Returns:
        A row per data set and variant: for `macro_ap`, `rare_ap` and `micro_ap` the score under the
        budget chosen by `macro` and by `micro`, on the validation data that chose. The first is
        never lower by `micro`'s budget than it could be by `macro`'s, by construction, and the last
        the other way round; of rare nodes neither was asked.

    """
    wide = chosen.pivot(index=["dataset", "variant"], columns="chosen_by")
    order = pd.MultiIndex.from_frame(chosen[["dataset", "variant"]].drop_duplicates())
    wide = wide.reindex(order)
    columns = {
        f"{score}_by_{by}": wide[(score, by)].astype(float)
        for score in ("macro_ap", "rare_ap", "micro_ap")
        for by in _BY
    }
    return pd.DataFrame(columns).reset_index()


def needs_by_rarity(search: pd.DataFrame) -> pd.DataFrame:
    """What networks need until nodes of a rarity rank best: a row per data set, rarity and variant.

    Returns:
        `learning_rate`, `weight_decay` and `epochs` of the point with the highest average precision
        of these nodes, `ap` there, and `ap_by_macro`, theirs at the point that macro average
        precision of all nodes chooses. Bins without a node that has validation positives are left
        out, and so are other families.

    """
    networks = search[search["epochs"].notna()]
    rows = []
    for (name, variant), points in networks.groupby(["dataset", "variant"], sort=False):
        points = points.reset_index(drop=True)
        common = choose(points, "macro_ap")
        for rarity in RARITY_BINS:
            column = f"ap_{rarity}"
            if points[column].isna().all():
                continue
            best = choose(points, column)
            rows.append(
                {
                    "dataset": name,
                    "rarity": rarity,
                    "variant": variant,
                    **budget_of(best, "network"),
                    "ap": best[column],
                    "ap_by_macro": common[column],
                }
            )
    return pd.DataFrame(rows)


def at_edges(chosen: pd.DataFrame, search: pd.DataFrame, declared: Search) -> pd.DataFrame:
    """Chosen values at an edge of what was tried: a larger grid might choose others.

    Returns:
        A row per data set, variant, `chosen_by` and setting: its `value`; which `edge` it is,
        `lowest` or `highest`; and its `gain`: how much the score that chose is higher there than
        at the best point with the setting's next value. Where that is next to nothing, there is
        little beyond the edge. A setting of which one value was tried has no edge.

    """
    rows = []
    for _, row in chosen.iterrows():
        score = _BY[row["chosen_by"]]
        points = search[
            (search["dataset"] == row["dataset"]) & (search["variant"] == row["variant"])
        ]
        for setting, tried in declared.grid(row["family"]).items():
            next_to = {tried[0]: ("lowest", 1), tried[-1]: ("highest", -2)}.get(row[setting])
            if next_to is None or len(tried) == 1:
                continue
            edge, neighbour = next_to
            inside = points[points[setting] == tried[neighbour]][score].max()
            key = {name: row[name] for name in ("dataset", "variant", "chosen_by")}
            found = {"setting": setting, "value": row[setting], "edge": edge}
            rows.append({**key, **found, "gain": row[score] - inside})
    columns = ["dataset", "variant", "chosen_by", "setting", "value", "edge", "gain"]
    return pd.DataFrame(rows, columns=columns)


def budgets_text(study: Study, chosen: pd.DataFrame) -> str:
    """`budgets.yaml`: what `rarenodes.study.params.Budgets` reads."""
    by = {"budgets": "macro", "budgets_by_micro": "micro"}
    values = {
        "datasets": {
            name: study.searched_data(name).model_dump() for name in study.parameters.datasets
        },
        **{key: _nested(chosen[chosen["chosen_by"] == label]) for key, label in by.items()},
    }
    return _HEADER + yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=100)


def _nested(rows: pd.DataFrame) -> dict[str, dict[str, dict[str, float | int]]]:
    budgets: dict[str, dict[str, dict[str, float | int]]] = {}
    for _, row in rows.iterrows():
        of_dataset = budgets.setdefault(row["dataset"], {})
        of_dataset[row["variant"]] = budget_of(row, row["family"])
    return budgets
