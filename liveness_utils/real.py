"""Rates of scored videos of real people, with intervals over people: what `liveness benchmark` and notebook 09 report."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from liveness_utils import metrics
from liveness_utils.errors import MetricError


# ------------------------------------------------------------------------------ AUC with an interval
@dataclass(frozen=True)
class Auc:
    """An area under the ROC curve, its 95 % interval over people, and what it rests on."""

    value: float
    low: float
    high: float
    bona_fide: int
    attacks: int
    people: int

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


def area(score: np.ndarray, label: np.ndarray) -> float:
    """Probability that a bona fide scores above an attack, ties counted half.

    >>> area(np.array([0.9, 0.2, 0.2]), np.array([1, 1, 0]))
    0.75
    """
    from scipy.stats import rankdata

    score, alive = np.asarray(score, float), np.asarray(label).astype(bool)
    n, m = int(alive.sum()), int((~alive).sum())
    return float((rankdata(score)[alive].sum() - n * (n + 1) / 2) / (n * m)) if n and m else float("nan")


def newcombe(value: float, n: int, m: int) -> tuple[float, float]:
    """95 % score interval of an AUC from n bona fide and m attacks, which at 1 does not shrink to a point.

    Source: Newcombe, Confidence intervals for an effect size measure based on the Mann–Whitney
        statistic, part 2, Statistics in Medicine 25, 2006 (method 5, after Hanley and McNeil).

    >>> low, high = newcombe(1.0, 7, 2)
    >>> round(low, 2), round(high, 2)
    (0.52, 1.0)
    """
    theta = np.linspace(0.0, 1.0, 20001)
    spread = 1.0 + ((n + m) / 2.0 - 1.0) * ((1.0 - theta) / (2.0 - theta) + theta / (1.0 + theta))
    inside = np.abs(theta - value) <= 1.96 * np.sqrt(theta * (1.0 - theta) * spread / (n * m))
    return float(theta[inside].min()), float(theta[inside].max())


def auc(table: pd.DataFrame, column: str = "score", *, replicates: int = 1000, seed: int = 0) -> Auc:
    """AUC of a column with an interval over people; a missing score counts as the lowest.

    The interval is the wider, at each end, of a bootstrap over people and Newcombe's score
    interval: the first knows that a person's clips are alike, the second stays honest where
    nothing overlaps and every resample says 1.

    Args:
        table: column, is_bonafide, and subject_id where known (else each row is a person).

    Raises:
        MetricError: a class is missing.
    """
    y = table["is_bonafide"].astype(int).to_numpy()
    if y.min(initial=1) == y.max(initial=0):
        raise MetricError("An AUC needs bona fide presentations and attacks; this table holds one class.")
    s = table[column].astype(float).fillna(-np.inf).to_numpy()
    who = pd.factorize(table["subject_id"].fillna(pd.Series(table.index.astype(str), table.index)))[0]
    rows, rng = [np.flatnonzero(who == p) for p in range(who.max() + 1)], np.random.default_rng(seed)
    draws = (np.concatenate([rows[p] for p in rng.integers(0, len(rows), len(rows))]) for _ in range(replicates))
    low, high = np.nanpercentile([area(s[d], y[d]) for d in draws], [2.5, 97.5])
    value, n, m = area(s, y), int(y.sum()), int((1 - y).sum())
    exact = newcombe(value, n, m)
    return Auc(value, float(min(low, exact[0])), float(max(high, exact[1])), n, m, len(rows))


def by_video(table: pd.DataFrame) -> pd.DataFrame:
    """One row a video out of scored stills: the mean logit of those that were judged.

    Returns:
        the first row of each video with score, logit and raw_score replaced, and `stills`.
    """
    judged = table.assign(logit=table["logit"].where(table["score"].notna()))
    groups = judged.groupby("video_id", sort=False)
    found = groups.first()
    found["logit"], found["stills"] = groups["logit"].mean(), groups.size()
    found["score"] = 1.0 / (1.0 + np.exp(-found["logit"]))
    return found.reset_index()


def by_unit(table: pd.DataFrame) -> pd.DataFrame:
    """Stills by their videos where those are known, everything else as it is."""
    known = "video_id" in table and table["video_id"].notna().all()
    return by_video(table) if known else table


def judged(table: pd.DataFrame, threshold: float) -> pd.DataFrame:
    """A table with the threshold it is held against: columns threshold, margin, accepted.

    The margin (in logits) makes folds comparable whose thresholds differ.
    """
    edge = np.clip(threshold, 1e-9, 1 - 1e-9)
    margin = table["logit"].where(table["score"].notna()) - np.log(edge / (1 - edge))
    return table.assign(threshold=threshold, margin=margin, accepted=metrics.accepted(table["score"], threshold))


def errors(table: pd.DataFrame) -> dict[str, metrics.Rate]:
    """APCER by species, the worst of them, and BPCER of decisions that were made (`accepted`).

    Returns:
        `metrics.Rate`s with k, n and the exact interval, which takes clips for independent.
    """
    held = table["accepted"].astype(float)
    rates = metrics.apcer(held, table["is_bonafide"], 0.5, table["pai_species"])
    worst, rate = metrics.worst_species(rates)
    return {**{f"APCER {n}": r for n, r in rates.items()}, f"APCER worst ({worst})": rate,
            "BPCER": metrics.bpcer(held, table["is_bonafide"], 0.5)}  # fmt: skip


def short(rate: metrics.Rate) -> str:
    """A rate with counts and exact interval in few characters.

    >>> short(metrics.Rate(1, 4))
    '25 % (1/4) [1, 81]'
    """
    low, high = (100 * x for x in rate.interval)
    return f"{100 * rate.value:.0f} % ({rate.k}/{rate.n}) [{low:.0f}, {high:.0f}]"
