import numpy as np
import pytest

from rarenodes.inference.bootstrap import bootstrap_scores, example_weights
from rarenodes.inference.level import (
    REGIMES,
    SCORES,
    TESTS,
    Regime,
    Size,
    main,
    rare_scores,
    rejection_table,
    simulated_variants,
)


def test_the_level_is_kept_whatever_the_noise_and_drawing_seeds_anew_does_not_keep_it():
    table = rejection_table(
        np.random.default_rng(2602),
        repetitions=500,
        effect=None,
        size=Size(examples=200, replicates=250),
        tests={name: TESTS[name] for name in ("seeds crossed with examples", "seeds drawn anew")},
    )
    by_test = table.set_index(["test", "seeds", "regime"])["false_positives"].sort_index()
    kept = by_test["seeds crossed with examples"]
    assert (kept[[5, 10]] <= 0.07).all(), kept
    assert len(kept[[5, 10]]) == 2 * len(REGIMES) * len(SCORES)
    # The simulation can tell: the former inference fails in it.
    assert by_test["seeds drawn anew", 3, "seeds"].mean() > 0.1


def test_power_grows_with_seeds_where_the_noise_is_theirs():
    table = rejection_table(
        np.random.default_rng(0),
        repetitions=50,
        seeds=(2, 10),
        effect=1.0,
        regimes={"seeds": REGIMES["seeds"]},
        tests={"crossed": TESTS["seeds crossed with examples"]},
        size=Size(replicates=200),
    )
    power = table.set_index(["score", "seeds"])["power"]
    for score in SCORES:
        assert power[score, 10] > power[score, 2] + 0.3
    assert (table["difference"] > 0.1).all()
    assert list(table["repetitions"]) == [50] * 4


def test_quick_scores_are_those_of_the_bootstrap():
    rng = np.random.default_rng(0)
    size = Size(examples=60, nodes=5, at_once=3)
    probabilities, targets = simulated_variants(rng, REGIMES["both"], 0.0, 2, size)
    probabilities = probabilities[0].round(1)  # with ties
    weights = example_weights(60, 40, rng)
    group = np.arange(15) // 5
    quick = rare_scores(probabilities, targets, weights, group)
    whole = bootstrap_scores(
        probabilities, targets, weights, groups={str(g): group == g for g in range(3)}
    )
    for label, measure in zip(SCORES, ("macro_average_precision", "macro_recall"), strict=True):
        columns = [(measure, str(g)) for g in range(3)]
        positions = whole.estimates.columns.get_indexer(columns)
        np.testing.assert_allclose(
            quick[label].estimates, whole.estimates[columns], atol=1e-6, equal_nan=True
        )
        np.testing.assert_allclose(
            quick[label].replicates, whole.replicates[:, :, positions], atol=1e-6, equal_nan=True
        )


def test_what_regimes_share_is_equal():
    size = Size(examples=20, nodes=2, at_once=2)
    rng = np.random.default_rng(0)
    probabilities, _ = simulated_variants(rng, Regime(0.0, 0.0, 0.0), 0.0, 3, size)
    np.testing.assert_array_equal(
        probabilities, np.broadcast_to(probabilities[:1, :1], (2, 3, 20, 4))
    )
    probabilities, _ = simulated_variants(rng, REGIMES["examples"], 0.0, 3, size)
    np.testing.assert_array_equal(probabilities[:, 0], probabilities[:, 2])
    assert (probabilities[0] != probabilities[1]).any()


def test_the_command_writes_the_table(tmp_path):
    out = tmp_path / "level.csv"
    main(["--repetitions", "1", "--seeds", "2", "--out", str(out)])
    header, *rows = out.read_text().splitlines()
    assert header.startswith("regime,seeds,score,test,false_positives,power")
    assert len(rows) == len(REGIMES) * len(SCORES) * len(TESTS)


def test_help_says_what_the_command_is_for(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "How often an inference" in capsys.readouterr().out
