"""Error rates against scikit-learn, against counting by hand, and against bad input."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.stats import binomtest
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, roc_curve

from liveness_utils import cli, config, metrics
from liveness_utils.errors import MetricError

NAN = float("nan")


def simulated(n=400, seed=0, digits=None):
    """Overlapping scores of three species; `digits` rounds them so that ties are many."""
    rng = np.random.default_rng(seed)
    y = rng.random(n) < 0.4
    score = 1 / (1 + np.exp(-rng.normal(np.where(y, 1.0, -1.0), 1.2)))
    score = score if digits is None else np.round(score, digits)
    species = np.where(y, "bona_fide", rng.choice(["print", "replay", "injection"], n))
    return pd.DataFrame(
        {"score": score, "is_bonafide": y.astype(int), "pai_species": species,
         "subject_id": rng.integers(0, 40, n), "age": rng.integers(18, 80, n)}
    )  # fmt: skip


HAND = pd.DataFrame(
    # score, bona fide, species: ties at 0.5, one no decision in each class
    [(0.9, 1, None), (0.5, 1, None), (0.5, 1, None), (0.2, 1, None), (NAN, 1, None),
     (0.7, 0, "print"), (0.5, 0, "print"), (0.1, 0, "print"), (0.0, 0, "print"),
     (0.5, 0, "mask"), (NAN, 0, "mask")],
    columns=["score", "is_bonafide", "pai_species"],
)  # fmt: skip
COLUMNS = HAND["score"], HAND["is_bonafide"]


def test_a_hand_counted_case_with_ties_and_no_decisions():
    rates = metrics.apcer(*COLUMNS, 0.5, HAND["pai_species"])
    assert rates == {"mask": metrics.Rate(1, 2), "print": metrics.Rate(2, 4)}
    assert metrics.bpcer(*COLUMNS, 0.5) == metrics.Rate(2, 5)
    assert metrics.worst_species(rates)[1].value == 0.5
    assert metrics.acer(*COLUMNS, 0.5, HAND["pai_species"]) == pytest.approx((0.5 + 0.4) / 2)
    assert metrics.hter(*COLUMNS, 0.5) == pytest.approx((3 / 6 + 2 / 5) / 2)


def test_a_hair_above_a_tie_rejects_all_of_it():
    above = np.nextafter(0.5, 1)
    assert metrics.apcer(*COLUMNS, above, HAND["pai_species"])["mask"].k == 0
    assert metrics.bpcer(*COLUMNS, above).k == 4


def test_no_decisions_are_counted_beside_the_rates():
    attack, bona = metrics.nonresponse(*COLUMNS, HAND["pai_species"])
    assert attack == {"mask": metrics.Rate(1, 2), "print": metrics.Rate(0, 4)}
    assert bona == metrics.Rate(1, 5)


def test_polarity_higher_is_more_alive():
    assert metrics.apcer([0.9, 0.1], [1, 0], 0.5)["attack"].k == 0
    assert metrics.bpcer([0.9, 0.1], [1, 0], 0.5).k == 0
    assert metrics.eer([0.9, 0.1], [1, 0]) == 0
    assert metrics.eer([0.1, 0.9], [1, 0]) == 1


@pytest.mark.parametrize("digits", [None, 1, 2])
def test_curve_is_scikit_learns(digits):
    table = simulated(digits=digits)
    fpr, tpr, at = roc_curve(table["is_bonafide"], table["score"], drop_intermediate=False)
    curve = metrics.det_curve(table["score"], table["is_bonafide"])["pooled"]
    for apcer, bpcer, threshold in zip(fpr[1:], 1 - tpr[1:], at[1:], strict=True):
        k = np.flatnonzero(curve.threshold == threshold)[0]
        assert (curve.apcer[k], curve.bpcer[k]) == pytest.approx((apcer, bpcer))


@pytest.mark.parametrize("digits", [None, 1, 2])
@pytest.mark.parametrize("seed", range(3))
def test_eer_is_the_crossing_of_scikit_learns_curve(digits, seed):
    table = simulated(seed=seed, digits=digits)
    fpr, tpr, _ = roc_curve(table["is_bonafide"], table["score"], drop_intermediate=False)
    # Along the joined curve, by its length, since a vertical step has no function of fpr.
    along = np.concatenate([[0], np.cumsum(np.diff(fpr) + np.diff(tpr))])
    gap = lambda x: np.interp(x, along, fpr) - (1 - np.interp(x, along, tpr))  # noqa: E731
    expected = np.interp(brentq(gap, 0, along[-1]), along, fpr)
    assert metrics.eer(table["score"], table["is_bonafide"]) == pytest.approx(expected, abs=1e-9)


def brute_force_bpcer(table, target):
    """Try every threshold there is, counting afresh each time."""
    s = table["score"].to_numpy()
    bona = (table["is_bonafide"] == 1).to_numpy()
    best = 1.0
    for t in [*np.unique(s[~np.isnan(s)]), np.inf]:
        shares = [
            np.mean(s[(table["pai_species"] == name).to_numpy()] >= t)
            for name in table.loc[~bona, "pai_species"].unique()
        ]
        if max(shares) <= target:
            best = min(best, 1 - np.mean(s[bona] >= t))
    return best


@pytest.mark.parametrize("target", [0.1, 0.05, 0.01, 0.0])
@pytest.mark.parametrize("digits", [None, 1])
def test_bpcer_at_apcer_is_what_trying_every_threshold_finds(target, digits):
    table = simulated(digits=digits)
    table.loc[::17, "score"] = NAN
    found = metrics.bpcer_at_apcer(table["score"], table["is_bonafide"], target, table["pai_species"])
    assert found.value == pytest.approx(brute_force_bpcer(table, target))


SCORES = st.lists(
    st.tuples(st.sampled_from([0.0, 0.1, 0.5, 0.50001, 0.9, 1.0, NAN]), st.booleans(),
              st.sampled_from("ab")),
    min_size=2, max_size=40,
)  # fmt: skip


@settings(deadline=None, max_examples=200)
@given(SCORES, st.sampled_from([0.0, 0.01, 0.1, 0.3]))
def test_a_chosen_threshold_keeps_its_promise(rows, target):
    table = pd.DataFrame(rows, columns=["score", "is_bonafide", "pai_species"])
    table["pai_species"] = table["pai_species"].where(~table["is_bonafide"], "bona_fide")
    if table["is_bonafide"].all() or not table["is_bonafide"].any():
        return
    columns = table["score"], table["is_bonafide"]
    found = metrics.threshold_for_apcer(*columns, target, table["pai_species"])
    rates = metrics.apcer(*columns, found.value, table["pai_species"])
    assert max(rate.value for rate in rates.values()) <= target + 1e-12
    assert found.bpcer.value == pytest.approx(brute_force_bpcer(table, target))
    assert 0 <= metrics.eer(*columns) <= 1


def test_a_threshold_lies_in_the_middle_of_those_that_turn_nobody_else_away():
    attacks, labels = [0.9, 0.5, 0.45, 0.4, 0.2], [0, 0, 0, 0, 0]
    for living, value in (([0.8, 0.95], 0.6), ([0.1, 0.42, 0.6], 0.41), ([0.1, 0.3], 0.425)):
        found = metrics.threshold_for_apcer([*attacks, *living], [*labels, *[1] * len(living)], 0.6)
        assert found.value == pytest.approx(value), living  # three of five may pass, 0.4 may not
        lower = metrics.bpcer([*attacks, *living], [*labels, *[1] * len(living)], 0.4 + 1e-9)
        assert found.bpcer == lower


def test_the_target_says_when_the_set_is_too_small_for_it():
    table = simulated()
    columns = table["score"], table["is_bonafide"]
    assert not metrics.threshold_for_apcer(*columns, 0.001, table["pai_species"]).supported
    assert metrics.threshold_for_apcer(*columns, 0.1, table["pai_species"]).supported


@pytest.mark.parametrize("k, n", [(0, 1), (0, 60), (3, 60), (60, 60), (7, 240)])
def test_clopper_pearson_is_scipys_exact_interval(k, n):
    exact = binomtest(k, n).proportion_ci(0.95, method="exact")
    assert metrics.clopper_pearson(k, n) == pytest.approx((exact.low, exact.high))


def test_subjects_widen_the_interval():
    """Ten copies of each clip of a subject carry no more information than one."""
    table = simulated(120)
    table["subject_id"] = np.arange(120)
    copies = pd.concat([table] * 10, ignore_index=True)
    arguments = copies["score"], copies["is_bonafide"], 0.5, copies["pai_species"]
    by_subject = metrics.bootstrap(*arguments, copies["subject_id"], replicates=400)
    by_clip = metrics.bootstrap(*arguments, replicates=400)
    width = {k: np.diff(x["bpcer"])[0] for k, x in {"s": by_subject, "c": by_clip}.items()}
    assert width["s"] > 2 * width["c"]


def test_bootstrap_interval_holds_the_estimate_and_repeats():
    table = simulated()
    arguments = table["score"], table["is_bonafide"], 0.5, table["pai_species"], table["subject_id"]
    first, second = (metrics.bootstrap(*arguments, replicates=200, seed=3) for _ in range(2))
    assert first == second
    low, high = first["bpcer"]
    assert low <= metrics.bpcer(*arguments[:3]).value <= high


def test_calibration_against_scikit_learn():
    table = simulated(2000)
    share, mean = calibration_curve(table["is_bonafide"], table["score"], n_bins=10)
    ours = metrics.reliability(table["score"], table["is_bonafide"])
    assert ours["share_bona_fide"].to_numpy() == pytest.approx(share)
    assert ours["mean_score"].to_numpy() == pytest.approx(mean)
    assert metrics.brier(table["score"], table["is_bonafide"]) == pytest.approx(
        brier_score_loss(table["is_bonafide"], table["score"])
    )
    weights = ours["n"] / ours["n"].sum()
    expected = float((weights * np.abs(share - mean)).sum())
    found = metrics.expected_calibration_error(table["score"], table["is_bonafide"])
    assert found == pytest.approx(expected)


@pytest.mark.parametrize(
    "scores, labels, species, sentence",
    [
        ([0.1, 0.2], [0, 0], None, "No bona fide"),
        ([0.1, 0.2], [1, 1], None, "No attack"),
        ([], [], None, "No bona fide"),
        ([0.1, 0.2], [1, NAN], None, "labels are missing"),
        ([0.1, 0.2], [1, 2], None, "must be 1"),
        ([0.1, float("inf")], [1, 0], None, "infinite"),
        ([0.1], [1, 0], None, "1 scores but 2 labels"),
        ([0.1, 0.2], [1, 0], ["bona_fide", "bona_fide"], "is_bonafide 0"),
        ([0.1, 0.2], [1, 0], ["print", "print"], "is_bonafide 1"),
        ([0.1, 0.2], [1, 0], ["bona_fide"], "1 species but 2 labels"),
    ],
)
def test_bad_input_gets_a_sentence(scores, labels, species, sentence):
    with pytest.raises(MetricError, match=sentence):
        metrics.threshold_for_apcer(scores, labels, 0.05, species)


def test_an_empty_worst_case_gets_a_sentence():
    rates = metrics.apcer([0.1, 0.2], [1, 0], 0.5, ["bona_fide", "injection"])
    with pytest.raises(MetricError, match="No attack species is left"):
        metrics.worst_species(rates, ["injection"])


def test_all_no_decisions_reject_everything():
    result = metrics.report(pd.DataFrame({"score": [NAN] * 4, "is_bonafide": [1, 1, 0, 0]}), threshold=0.5)
    assert result["bpcer"]["value"] == 1 and result["apcer_worst"]["value"] == 0
    assert result["bpnrr"]["value"] == 1 and result["calibration"] is None
    assert any("no decision" in note for note in result["notes"])


def test_report_holds_the_named_fields_and_is_json():
    test, dev = simulated(seed=1), simulated(seed=2)
    result = metrics.report(test, dev, target=0.05, replicates=100)
    for name in ("acer", "apcer_worst", "bpcer", "eer", "hter", "bpcer10", "bpcer20", "bpcer100"):
        assert {"value", "low", "high", "bootstrap"} <= set(result[name]), name
    assert set(result["apcer"]) == {"print", "replay", "injection"}
    assert result["threshold_source"].startswith("dev")
    worst = result["without_injection"]["apcer_worst"]
    assert worst["species"] != "injection"
    without = test[test["pai_species"] != "injection"]
    assert result["without_injection"]["acer"]["value"] == pytest.approx(
        metrics.acer(without["score"], without["is_bonafide"], result["threshold"], without["pai_species"])
    )
    json.dumps(config.plain(result), allow_nan=False)
    assert "ACER without injection" in metrics.summary(result)


def test_without_a_dev_set_the_report_says_that_it_flatters():
    assert any("flatters" in note for note in metrics.report(simulated(), replicates=50)["notes"])


def test_differential_performance_is_counted_within_groups():
    table = simulated()
    found = metrics.differential(table, 0.5, "age").set_index("group")
    old = table[table["age"] > 60]
    bona = old[old["is_bonafide"] == 1]
    assert found.loc["over 60", "bpcer_n"] == len(bona)
    assert found.loc["over 60", "bpcer_k"] == (bona["score"] < 0.5).sum()
    assert found["bpcer_n"].sum() == table["is_bonafide"].sum()


def test_a_small_group_has_counts_but_no_rate():
    table = simulated().assign(device_id="common")
    table.loc[:1, "device_id"] = "rare"
    rare = metrics.differential(table, 0.5, "device_id").set_index("group").loc["rare"]
    assert pd.isna(rare["bpcer"]) and pd.isna(rare["apcer"])


def test_a_csv_comes_in_with_its_empty_scores(tmp_path):
    path = tmp_path / "scores.csv"
    path.write_text("score,is_bonafide,pai_species\n0.9,1,\n,1,\n0.2,0,print\n")
    table = metrics.load_scores(path)
    assert metrics.bpcer(table["score"], table["is_bonafide"], 0.5) == metrics.Rate(1, 2)
    assert metrics.apcer(table["score"], table["is_bonafide"], 0.5, table["pai_species"]) == {
        "print": metrics.Rate(0, 1)
    }


@pytest.mark.parametrize(
    "text, sentence",
    [("a,b\n1,2\n", "no column score and is_bonafide"), ("", "cannot be read"),
     ("score,is_bonafide\n", "no rows"), ("score,is_bonafide\nhigh,1\n", "line 2")],
)  # fmt: skip
def test_a_csv_that_is_none_gets_a_sentence(tmp_path, text, sentence):
    path = tmp_path / "scores.csv"
    path.write_text(text)
    with pytest.raises(MetricError, match=sentence):
        metrics.load_scores(path)


@pytest.fixture
def csv(tmp_path):
    for name, seed in (("test", 1), ("dev", 2)):
        simulated(seed=seed).to_csv(tmp_path / f"{name}.csv", index=False)
    return tmp_path


def test_the_evaluate_command_prints_a_table_and_json(csv, capsys):
    arguments = ["evaluate", str(csv / "test.csv"), "--dev", str(csv / "dev.csv")]
    assert cli.main(arguments) == 0
    assert "APCER worst" in capsys.readouterr().out
    assert cli.main([*arguments, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    expected = metrics.report(simulated(seed=1), simulated(seed=2))
    assert printed["acer"]["value"] == pytest.approx(expected["acer"]["value"])


def test_the_evaluate_command_refuses_with_one_sentence(tmp_path, capsys):
    assert cli.main(["evaluate", str(tmp_path / "none.csv")]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith("liveness: ") and said.err.count("\n") == 1


def test_figures_are_ready_for_print(csv):
    """7 inches at 300 dpi, fonts embedded as TrueType (Type 42 shows as FontFile2)."""
    from PIL import Image

    out = csv / "figures"
    assert cli.main(["evaluate", str(csv / "test.csv"), "--figures", str(out)]) == 0
    with Image.open(out / "det.png") as image:
        assert image.width == 2100
    pdf = (out / "det.pdf").read_bytes()
    assert b"/FontFile2" in pdf and b"/Type3" not in pdf
    assert {p.stem for p in out.glob("*.pdf")} == {"det", "roc", "calibration"}


def test_a_threshold_promises_what_the_next_attacks_do():
    rng = np.random.default_rng(0)
    share, fewest, most = metrics.promised(3, 60, 70)
    passed = []
    for _ in range(3000):  # attacks of two sets out of one world, whatever that is
        dev, test = rng.exponential(size=60), rng.exponential(size=70)
        living = np.r_[rng.exponential(size=2000), 99.0]  # somebody lies close above any attack
        labels = np.r_[np.zeros(60), np.ones(2001)]
        limit = metrics.threshold_for_apcer(np.r_[dev, living], labels, 0.05).value
        passed.append(int((test >= limit).sum()))
    # A threshold close above the fourth best of dev: the upper end of what is promised.
    assert np.mean(passed) == pytest.approx(70 * 4 / 61, rel=0.06) and np.mean(passed) > 70 * share
    assert np.mean((fewest <= np.array(passed)) & (np.array(passed) <= most)) > 0.95
    # Where few of the living lie close above, the threshold is higher: never more than promised at the lowest.
    few = []
    for _ in range(1000):
        dev, test, living = rng.normal(size=60), rng.normal(size=70), rng.normal(3, 1, 120)
        labels = np.r_[np.zeros(60), np.ones(120)]
        limit = metrics.threshold_for_apcer(np.r_[dev, living], labels, 0.05).value
        few.append(int((test >= limit).sum()))
    assert np.mean(np.array(few) <= most) > 0.975 and np.mean(few) < 70 * 4 / 61
    for k, n, m in ((3, 3, 5), (-1, 3, 5), (0, 60, 0)):
        with pytest.raises(MetricError, match="at least one more"):
            metrics.promised(k, n, m)
