"""What is shown of searches for budgets: named values of the prose, and tables for reading."""

from typing import Any

import pandas as pd

RAREST, COMMON = "1–5", ">50"  # of the rarity bins
# An edge at which the score gains no more than this has little beyond it.
FLAT = 0.005


def tuning_values(
    chosen: pd.DataFrame, cost: pd.DataFrame, needs: pd.DataFrame, edges: pd.DataFrame
) -> dict[str, Any]:
    """All that the prose of the searches may say, by name; the tables are `stages.tuned.Tuned`'s.

    Returns:
        Lists have an entry per data set, in the order of `data_sets`; medians and means are over
        the `networks` variants that are networks. `epochs_rarest`, `rate_rarest`, `epochs_common`,
        `rate_common`: medians, where nodes with 1–5 and with more than 50 training positives rank
        best (None without such nodes); `best` variant and its `best_macro`; `rare_cost`: mean
        average precision of rare nodes by macro's budgets less that by micro's; `rare_cost_most`
        and `rare_cost_of`: the largest and whose it is; `micro_gain`: mean micro average precision
        by micro's budgets less that by macro's. `edges`: choices by macro at an edge of what was
        tried, `steep_edges` those of them that gain more than `flat`.

    """
    data_sets = list(dict.fromkeys(chosen["dataset"]))
    by_macro = chosen[chosen["chosen_by"] == "macro"]
    networks = set(chosen.loc[chosen["family"] == "network", "variant"])
    of_networks = cost[cost["variant"].isin(networks)]
    rare = of_networks.set_index("variant").assign(
        lost=lambda t: t["rare_ap_by_macro"] - t["rare_ap_by_micro"],
        gained=lambda t: t["micro_ap_by_micro"] - t["micro_ap_by_macro"],
    )
    values: dict[str, Any] = {
        "data_sets": data_sets,
        "networks": len(networks),
        "edges": int((edges["chosen_by"] == "macro").sum()),
        "steep_edges": int(((edges["chosen_by"] == "macro") & (edges["gain"] > FLAT)).sum()),
        "flat": FLAT,
    }
    for name, rarity in (("rarest", RAREST), ("common", COMMON)):
        medians = (
            needs[needs["rarity"] == rarity]
            .groupby("dataset")[["epochs", "learning_rate"]]
            .median()
            .reindex(data_sets)
        )
        values[f"epochs_{name}"] = medians["epochs"].tolist()
        values[f"rate_{name}"] = medians["learning_rate"].tolist()
    columns = ("best", "best_macro", "rare_cost", "rare_cost_most", "rare_cost_of", "micro_gain")
    values |= {column: [] for column in columns}
    for name in data_sets:
        best = by_macro[by_macro["dataset"] == name].set_index("variant")["macro_ap"]
        here = rare[rare["dataset"] == name]
        found = (
            best.idxmax(),
            best.max(),
            here["lost"].mean(),
            here["lost"].max(),
            here["lost"].idxmax() if len(here) else None,
            here["gained"].mean(),
        )
        for column, value in zip(columns, found, strict=True):
            values[column].append(value)
    return values


def budget_table(chosen: pd.DataFrame, dataset: str, by: str = "macro") -> pd.DataFrame:
    """What was chosen on a data set, a row per variant, best first."""
    rows = chosen[(chosen["dataset"] == dataset) & (chosen["chosen_by"] == by)]
    rows = rows.sort_values("macro_ap", ascending=False, kind="stable")
    scores = ["macro_ap", "rare_ap", "micro_ap"]
    settings = list(rows.columns)[4 : list(rows.columns).index("macro_ap")]
    chosen_settings = [
        ", ".join(f"{name.replace('_', ' ')} {row[name]:g}" for name in settings if row[name] > 0)
        for _, row in rows.iterrows()
    ]
    table = rows[scores].round(3).set_axis(["macro AP", "rare AP", "micro AP"], axis=1)
    table.insert(0, "chosen", chosen_settings)
    return table.set_axis(pd.Index(rows["variant"], name="variant"))


def needs_table(needs: pd.DataFrame) -> pd.DataFrame:
    """Medians over networks, by data set and rarity: what these nodes need, and what it gains them."""
    median = needs.assign(gain=needs["ap"] - needs["ap_by_macro"])
    columns = ["epochs", "learning_rate", "weight_decay", "ap", "gain"]
    table = median.groupby(["dataset", "rarity"], sort=False)[columns].median().round(5)
    return table.set_axis(
        [
            "epochs",
            "learning rate",
            "weight decay",
            "AP at their best",
            "more than by macro's budget",
        ],
        axis=1,
    )


def cost_table(cost: pd.DataFrame) -> pd.DataFrame:
    """`macro → micro`: each score under the budget that either chooses."""
    shown = {
        label: [
            f"{by_macro:.3f} → {by_micro:.3f}"
            for by_macro, by_micro in zip(
                cost[f"{score}_by_macro"], cost[f"{score}_by_micro"], strict=True
            )
        ]
        for score, label in (
            ("macro_ap", "macro AP"), ("rare_ap", "rare AP"), ("micro_ap", "micro AP")
        )
    }  # fmt: skip
    return pd.DataFrame(shown, index=pd.MultiIndex.from_frame(cost[["dataset", "variant"]]))
