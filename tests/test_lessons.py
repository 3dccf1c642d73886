"""The numbers that the cue lessons print: AUC, its interval, and the tables made of them."""

import math

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from studies import lessons


def test_auc_agrees_with_scikit_learn():
    rng = np.random.default_rng(0)
    alive, attack = rng.normal(1, 1, 40).round(1), rng.normal(0, 1, 30).round(1)
    expected = roc_auc_score(np.r_[np.ones(40), np.zeros(30)], np.r_[alive, attack])
    assert lessons.auc(alive, attack) == pytest.approx(expected)
    assert math.isnan(lessons.auc(np.array([np.nan]), attack))


def test_the_interval_covers_about_as_often_as_it_says():
    rng, inside = np.random.default_rng(1), []
    true = 0.9214  # P(a > b) for normal deviates two standard deviations apart
    for _ in range(400):
        low, high = lessons.auc_interval(lessons.auc(rng.normal(2, 1, 25), rng.normal(0, 1, 25)), 25, 25)
        inside.append(low <= true <= high)
    assert np.mean(inside) >= 0.92


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_the_interval_holds_the_value_and_never_collapses(value):
    low, high = lessons.auc_interval(value, 12, 8)
    assert 0 <= low <= value <= high <= 1 and high - low > 0.1


def test_separability_keeps_the_direction_it_was_given():
    table = pd.DataFrame({
        "subject_id": list("abcdefgh"), "pai_species": ["bona_fide"] * 4 + ["flat_print"] * 4,
        "widest_residual": [3, 4, 5, 6, 1, 1, 2, np.nan], "consistency_residual": [3, 4, 5, 6, 1, 1, 2, 2],
    })  # fmt: skip
    found = lessons.separability(table, ["widest_residual", "consistency_residual"], ["flat_print"])
    assert found["auc"].tolist() == [1.0, 0.0]
    assert found["n_attack"].tolist() == [3, 4] and found["silent"].iloc[0] == pytest.approx(1 / 8)
    assert lessons.auc_grid(found, text=True).loc["widest_residual", "flat_print"].startswith("1.00 [")


def test_stratified_takes_turns():
    rows = pd.DataFrame({"pai_species": list("aaab"), "clip_id": range(4)})
    assert lessons.stratified(rows, 2)["pai_species"].tolist() == ["a", "b"]
