"""The stage `audit`: from a baseline to a released setting one switch at a time, and back.

`switches` tells from a study's settings which variants differ by what; `effects`, `thresholds` and
`rare_nodes` measure what that changes, all from one draw of test examples and seeds (`material`);
`besides` looks at what the released code does besides its loss. What follows is said by templates
in `rarenodes.pages`, from the named values of `rarenodes.pages.audit`.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from rarenodes.inference.verdict import Rule
from rarenodes.pages.audit import audit_values
from rarenodes.pages.prose import write_values
from rarenodes.pages.tables import write_table
from rarenodes.stages.audit.besides import imputation_table, oversampling_table
from rarenodes.stages.audit.effects import COMPARED, effect_table, rarity_scores, score_table
from rarenodes.stages.audit.rare_nodes import FEWEST_TESTED, node_counts, node_differences
from rarenodes.stages.audit.switches import (
    Pair,
    audit_settings,
    audited_variants,
    switch_pairs,
    switch_table,
)
from rarenodes.stages.audit.thresholds import decomposition, matched_table
from rarenodes.stages.material import Material
from rarenodes.study.params import Study

__all__ = ["Audit", "audit", "audit_study"]


@dataclass(frozen=True)
class Audit:
    """Tables of all data sets, and what their words depend on.

    Attributes:
        baseline: the first variant on the way there.
        released: the last one.
        variants: all, in the order there and back.
        confidence: of the intervals, each taken alone.
        rule: what counts as clear and as practically the same.
        resamples: of the bootstrap.
        seeds: of the variant with the fewest.
        switches: a row per pair of variants: what differs between them.
        scores: a row per data set, variant and score, see `effects.score_table`.
        by_rarity: average precision, and recall at 0.5, by training positives.
        effects: a row per data set, pair and score, see `effects.effect_table`.
        decomposition: macro recall at 0.5, by switch and by threshold, see `thresholds.decomposition`.
        matched: recall at matched precision, see `thresholds.matched_table`.
        nodes: a row per data set, pair and rare node, see `rare_nodes.node_differences`.
        node_counts: how many of these nodes are better and worse.
        imputation: gaps filled as the released code does, see `besides.imputation_table`.
        oversampling: what oversampling does to labels, see `besides.oversampling_table`.

    """

    baseline: str
    released: str
    variants: tuple[str, ...]
    confidence: float
    rule: Rule
    resamples: int
    seeds: int
    switches: pd.DataFrame
    scores: pd.DataFrame
    by_rarity: pd.DataFrame
    effects: pd.DataFrame
    decomposition: pd.DataFrame
    matched: pd.DataFrame
    nodes: pd.DataFrame
    node_counts: pd.DataFrame
    imputation: pd.DataFrame
    oversampling: pd.DataFrame

    @cached_property
    def values(self) -> dict[str, Any]:
        """What prose may say of it, by name."""
        return audit_values(
            self.tables(),
            COMPARED,
            confidence=self.confidence,
            rule=self.rule,
            resamples=self.resamples,
            seeds=self.seeds,
            fewest_tested=FEWEST_TESTED,
        )

    def tables(self) -> dict[str, pd.DataFrame]:
        """All tables by name."""
        return {
            name: value for name, value in vars(self).items() if isinstance(value, pd.DataFrame)
        }


def audit(study: Study, folder: Path) -> Audit:
    """Audit all data sets of a study; tables go to `folder`.

    Raises:
        SettingsError: the study does not say what to compare, or a training did not keep what is
            needed.
        FileNotFoundError: a data set was not prepared, or a variant not trained.

    """
    # The bootstrap adds up rows of memory: a second thread costs time and brings none.
    torch.set_num_threads(1)
    result = audit_study(study)
    for table, values in result.tables().items():
        if table == "nodes":
            # Too long for anyone to read.
            values.to_csv(folder / "tables" / "nodes.csv", index=False, float_format="%.4g")
        else:
            write_table(values, folder / "tables" / table)
    write_values(result.values, folder)
    return result


def audit_study(study: Study) -> Audit:
    """Audit all data sets of a study; see `audit`."""
    settings, evaluation = audit_settings(study), study.parameters.evaluation
    pairs = switch_pairs(study)
    variants = audited_variants(study)
    materials = [
        Material.load(study, name, variants, pooled=True) for name in study.parameters.datasets
    ]
    parts = [_audit_dataset(study, material, pairs) for material in materials]
    return Audit(
        baseline=settings.there[0],
        released=settings.there[-1],
        variants=tuple(variants),
        confidence=evaluation.confidence,
        rule=evaluation.rule,
        resamples=evaluation.resamples,
        seeds=min(len(seeds) for material in materials for seeds in material.test.values()),
        switches=switch_table(pairs),
        **{table: pd.concat([p[table] for p in parts], ignore_index=True) for table in parts[0]},
    )


def _audit_dataset(study: Study, material: Material, pairs: list[Pair]) -> dict[str, pd.DataFrame]:
    there = audit_settings(study).there
    nodes = node_differences(material, pairs)
    tables = {
        "scores": score_table(material),
        "by_rarity": rarity_scores(material),
        "effects": effect_table(material, pairs, study.parameters.evaluation.rule),
        "decomposition": decomposition(material, pairs),
        "matched": matched_table(material, (there[0], there[-1])),
        "nodes": nodes,
        "node_counts": node_counts(nodes, 1 - material.confidence),
        "imputation": imputation_table(study, material),
        "oversampling": oversampling_table(study, material),
    }
    for table in tables.values():
        table.insert(0, "dataset", material.name)
    return tables
