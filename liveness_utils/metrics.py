"""Error rates of presentation attack detection, after ISO/IEC 30107-3, from scores and labels.

Scores, labels and species come in as plain arrays (from training, a notebook or a CSV file);
rates with counts and intervals go out to the report, the plots and the bundle.

One polarity everywhere: score = P(bona fide), a presentation is accepted when
``score >= threshold``. A score of NaN is a *no decision*: it rejects, and stays in every
denominator.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.stats import beta, betabinom

from liveness_utils.errors import MetricError

BONA_FIDE = "bona_fide"
INJECTION = "injection"
UNNAMED_SPECIES = "attack"
COVARIATES = (
    "control", "device_id", "camera_facing", "scene_id", "light", "motion_kind", "instrument_id",
    "monk_tone", "age", "gender", "illuminance_lux",
)  # fmt: skip

Report = dict[str, Any]


@dataclass(frozen=True)
class Rate:
    """A proportion with its counts and its exact 95 % interval.

    >>> Rate(1, 4)
    Rate(k=1, n=4)
    >>> str(Rate(1, 4))
    '25.0 % (1/4, 95 % interval 0.6 to 80.6)'
    """

    k: int
    n: int

    @property
    def value(self) -> float:
        """k/n."""
        return self.k / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """Clopper–Pearson 95 % interval."""
        return clopper_pearson(self.k, self.n)

    def as_dict(self) -> dict[str, Any]:
        """Return value, k, n and the interval's ends as plain numbers."""
        low, high = self.interval
        return {"value": self.value, "k": self.k, "n": self.n, "low": low, "high": high}

    def __str__(self) -> str:
        low, high = (100 * x for x in self.interval)
        return f"{100 * self.value:.1f} % ({self.k}/{self.n}, 95 % interval {low:.1f} to {high:.1f})"


@dataclass(frozen=True)
class DetCurve:
    """APCER and BPCER (K,) at each threshold (K,), thresholds rising from -inf."""

    threshold: NDArray[np.float64]
    apcer: NDArray[np.float64]
    bpcer: NDArray[np.float64]


@dataclass(frozen=True)
class Threshold:
    """A decision threshold with the target and the error on the set it was chosen on.

    Attributes:
        value: accept when the score is at least this.
        target: the APCER asked for; None for the threshold of the equal error rate.
        apcer: APCER of the worst species there.
        worst: name of that species.
        bpcer: BPCER there.
        supported: every species has at least 1/target clips, so the target can be seen at all.
    """

    value: float
    target: float | None
    apcer: Rate
    worst: str
    bpcer: Rate
    supported: bool

    def as_dict(self) -> dict[str, Any]:
        """Return the threshold with its counts as plain numbers."""
        return {
            "value": self.value, "target": self.target, "apcer": self.apcer.as_dict(),
            "worst_species": self.worst, "bpcer": self.bpcer.as_dict(), "supported": self.supported,
        }  # fmt: skip


# --- reading and checking ---------------------------------------------------------------


def _arrays(
    scores: ArrayLike, is_bonafide: ArrayLike, species: ArrayLike | None
) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.str_]]:
    """Check lengths and values; return scores (N,), bona fide (N,) bool, species (N,) str."""
    s = np.asarray(scores, dtype=np.float64).ravel()
    y = _labels(is_bonafide)
    if s.size != y.size:
        raise MetricError(f"{s.size} scores but {y.size} labels: give one label a score.")
    if np.isinf(s).any():
        raise MetricError("A score is infinite: scores must be finite, or NaN for no decision.")
    return s, y, _species(species, y)


def _labels(is_bonafide: ArrayLike) -> NDArray[np.bool_]:
    values = pd.Series(np.asarray(is_bonafide).ravel())
    if values.isna().any():
        raise MetricError(f"{values.isna().sum()} labels are missing: is_bonafide must be 1 or 0.")
    number = pd.to_numeric(values, errors="coerce") if values.dtype == object else values
    if not number.isin([0, 1]).all():
        raise MetricError("is_bonafide must be 1 (bona fide) or 0 (attack) in every row.")
    return number.to_numpy().astype(bool)


def _species(species: ArrayLike | None, bona_fide: NDArray[np.bool_]) -> NDArray[np.str_]:
    if species is None:
        return np.where(bona_fide, BONA_FIDE, UNNAMED_SPECIES)
    names = pd.Series(np.asarray(species, dtype=object).ravel())
    if names.size != bona_fide.size:
        raise MetricError(f"{names.size} species but {bona_fide.size} labels: give one a score.")
    empty = names.isna() | names.isin(["", "nan", "None"])
    named = names.where(~empty, UNNAMED_SPECIES).astype(str).to_numpy(dtype=str)
    if (~bona_fide & (named == BONA_FIDE)).any():
        raise MetricError("A row with is_bonafide 0 has the species bona_fide: mend one of the two.")
    if (bona_fide & (named != BONA_FIDE) & ~empty.to_numpy()).any():
        raise MetricError("A row with is_bonafide 1 names an attack species: mend one of the two.")
    return np.where(bona_fide, BONA_FIDE, named)


def _need(bona_fide: NDArray[np.bool_], *, attacks: bool = True, bona: bool = True) -> None:
    if bona and not bona_fide.any():
        raise MetricError("No bona fide scores: a BPCER needs at least one bona fide presentation.")
    if attacks and bona_fide.all():
        raise MetricError("No attack scores: an APCER needs at least one attack presentation.")


def load_scores(path: str | PathLike) -> pd.DataFrame:
    """Read scores from CSV: columns ``score, is_bonafide`` and, where known, ``pai_species``.

    An empty score is a no decision. Further columns (``subject_id``, covariates) are kept.

    Raises:
        MetricError: the file cannot be read, or a column is missing or not numeric.
    """
    try:
        table = pd.read_csv(path)
    except (OSError, UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        reason = str(error).strip().splitlines()[0].rstrip(".")
        raise MetricError(f"{path} cannot be read as CSV: {reason}.") from error
    missing = [c for c in ("score", "is_bonafide") if c not in table]
    if missing:
        raise MetricError(f"{path} has no column {' and '.join(missing)}: add it to the header.")
    if table.empty:
        raise MetricError(f"{path} has a header but no rows.")
    score = pd.to_numeric(table["score"], errors="coerce")
    text = score.isna() & table["score"].notna()
    if text.any():
        line = int(np.flatnonzero(text)[0]) + 2
        raise MetricError(f"{path}, line {line}: score is not a number; leave it empty if there is none.")
    return table.assign(score=score)


# --- rates at a threshold -----------------------------------------------------------------


def clopper_pearson(k: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the exact interval of a proportion.

    Args:
        k: events.
        n: trials, at least 1.
        confidence: coverage.

    Returns:
        (low, high) in 0..1.

    Source: Clopper and Pearson, Biometrika 26 (1934), through the beta distribution.

    >>> [round(x, 4) for x in clopper_pearson(0, 60)]
    [0.0, 0.0596]
    """
    if not 0 <= k <= n or n < 1:
        raise MetricError(f"{k} of {n} is no proportion: it needs 0 <= k <= n and n >= 1.")
    tail = (1 - confidence) / 2
    low = 0.0 if k == 0 else float(beta.ppf(tail, k, n - k + 1))
    high = 1.0 if k == n else float(beta.ppf(1 - tail, k + 1, n - k))
    return low, high


def promised(k: int, n: int, m: int, confidence: float = 0.95) -> tuple[float, int, int]:
    """What the lowest threshold that lets k of n attacks pass promises for the next m of the same kind.

    It lies between the k-th and the (k + 1)-th highest of n scores. Whatever their distribution is, the share of
    it that lies higher than the j-th has the beta distribution of j and n + 1 − j; so between k and k + 1 of n + 1
    are to be expected. A higher one, as `threshold_for_apcer` takes where no bona fide score lies close above,
    promises at most that; what it happened to let pass is no k to ask for.

    Args:
        k: attacks that were let pass where the threshold was chosen. n: of how many. m: the next ones.
        confidence: at least so often the count lies between the ends, both included.

    Returns:
        (share, fewest, most): expected share of the next ones that pass, midway between those of the two scores,
        and how many of them.

    Raises:
        MetricError: k of n is no proportion with attacks to reject, or m is no number of attacks.

    Source: Wilks, Statistical Prediction with Special Reference to the Problem of Tolerance Limits, Annals of
        Mathematical Statistics 13(4), 1942, doi 10.1214/aoms/1177731537.

    >>> share, fewest, most = promised(3, 60, 70)
    >>> (round(share, 3), fewest, most)
    (0.057, 0, 12)
    """
    if not 0 <= k < n or m < 1:
        raise MetricError(f"{k} of {n}, and {m} more: it needs 0 <= k < n and at least one more.")
    tail = (1 - confidence) / 2
    fewest = betabinom.ppf(tail, m, k, n + 1 - k) if k else 0
    return (k + 0.5) / (n + 1), int(fewest), int(betabinom.ppf(1 - tail, m, k + 1, n - k))


def accepted(scores: ArrayLike, threshold: float) -> NDArray[np.bool_]:
    """Return which presentations are accepted as bona fide; NaN (no decision) never is.

    >>> accepted([0.2, 0.7, float("nan")], 0.7).tolist()
    [False, True, False]
    """
    if not np.isfinite(threshold):
        raise MetricError(f"The threshold is {threshold}: it must be a finite number.")
    return np.asarray(scores, dtype=np.float64) >= threshold


def apcer(
    scores: ArrayLike, is_bonafide: ArrayLike, threshold: float, species: ArrayLike | None = None
) -> dict[str, Rate]:
    """Attack presentation classification error rate: attacks accepted, per species.

    Args:
        scores: (N,) P(bona fide); NaN where there was no decision.
        is_bonafide: (N,) 1 for bona fide, 0 for attack.
        threshold: accept at this score and above.
        species: (N,) names; None counts all attacks as one species.

    Returns:
        Rate by species name, in alphabetic order.

    Raises:
        MetricError: there is no attack, or labels and species do not fit.

    Source: ISO/IEC 30107-3:2023, APCER per PAI species.

    >>> apcer([0.9, 0.8, 0.1], [1, 0, 0], 0.5)
    {'attack': Rate(k=1, n=2)}
    """
    s, y, names = _arrays(scores, is_bonafide, species)
    _need(y, bona=False)
    yes = accepted(s, threshold)
    groups = {name: ~y & (names == name) for name in np.unique(names[~y])}
    return {str(name): Rate(int(yes[g].sum()), int(g.sum())) for name, g in groups.items()}


def bpcer(scores: ArrayLike, is_bonafide: ArrayLike, threshold: float) -> Rate:
    """Bona fide presentation classification error rate: bona fide presentations not accepted.

    A no decision counts as an error here.

    Source: ISO/IEC 30107-3:2023, BPCER.

    >>> bpcer([0.9, float("nan"), 0.1], [1, 1, 0], 0.5)
    Rate(k=1, n=2)
    """
    s, y, _ = _arrays(scores, is_bonafide, None)
    _need(y, attacks=False)
    return Rate(int((~accepted(s[y], threshold)).sum()), int(y.sum()))


def nonresponse(
    scores: ArrayLike, is_bonafide: ArrayLike, species: ArrayLike | None = None
) -> tuple[dict[str, Rate], Rate]:
    """Share of presentations without a decision: APNRR per species, and BPNRR.

    Source: ISO/IEC 30107-3:2023, non-response rates.
    """
    s, y, names = _arrays(scores, is_bonafide, species)
    _need(y)
    silent = np.isnan(s)
    groups = {str(name): ~y & (names == name) for name in np.unique(names[~y])}
    attack = {name: Rate(int(silent[g].sum()), int(g.sum())) for name, g in groups.items()}
    return attack, Rate(int(silent[y].sum()), int(y.sum()))


def worst_species(rates: Mapping[str, Rate], without: Iterable[str] = ()) -> tuple[str, Rate]:
    """Return name and rate of the species with the highest rate, leaving out `without`.

    Raises:
        MetricError: no species is left.

    >>> worst_species({"print": Rate(1, 10), "mask": Rate(2, 10)})
    ('mask', Rate(k=2, n=10))
    """
    left = {name: rate for name, rate in rates.items() if name not in set(without)}
    if not left:
        raise MetricError("No attack species is left: the worst case needs at least one.")
    return max(left.items(), key=lambda item: (item[1].value, item[1].n))


def acer(
    scores: ArrayLike,
    is_bonafide: ArrayLike,
    threshold: float,
    species: ArrayLike | None = None,
    without: Iterable[str] = (),
) -> float:
    """Average classification error rate, (worst species' APCER + BPCER) / 2.

    Kept for comparison with the literature; ISO/IEC 30107-3 reports APCER and BPCER, not their mean. Pass
    ``without=("injection",)`` for the presentation attacks alone.
    """
    worst = worst_species(apcer(scores, is_bonafide, threshold, species), without)[1].value
    return (worst + bpcer(scores, is_bonafide, threshold).value) / 2


def hter(scores: ArrayLike, is_bonafide: ArrayLike, threshold: float) -> float:
    """Half total error rate at a threshold chosen elsewhere: mean of pooled APCER and BPCER."""
    pooled = apcer(scores, is_bonafide, threshold)[UNNAMED_SPECIES].value
    return (pooled + bpcer(scores, is_bonafide, threshold).value) / 2


# --- curves and the points on them ------------------------------------------------------------


def _curve(bona: NDArray, groups: list[NDArray]) -> DetCurve:
    """Step curve over all distinct scores; NaN stands below every threshold but -inf."""
    everything = np.concatenate([bona, *groups])
    levels = np.unique(everything[~np.isnan(everything)])
    if levels.size == 0:
        return DetCurve(np.array([-np.inf, np.inf]), np.array([1.0, 0.0]), np.array([0.0, 1.0]))
    threshold = np.concatenate([[-np.inf], levels, [np.nextafter(levels[-1], np.inf)]])
    worst = np.max([_share_at_least(g, threshold) for g in groups], axis=0)
    return DetCurve(threshold, worst, 1 - _share_at_least(bona, threshold))


def _share_at_least(values: NDArray, threshold: NDArray) -> NDArray:
    ordered = np.sort(np.where(np.isnan(values), -np.inf, values))
    return 1 - np.searchsorted(ordered, threshold, side="left") / ordered.size


def det_curve(scores: ArrayLike, is_bonafide: ArrayLike, species: ArrayLike | None = None) -> dict[str, DetCurve]:
    """Return the error curve of each species, of the worst one and of all pooled.

    Args:
        scores: (N,) P(bona fide), NaN where there was no decision.
        is_bonafide: (N,) 1 or 0.
        species: (N,) names, or None.

    Returns:
        DetCurve by species, and under ``"worst"`` (at each threshold the highest APCER) and
        ``"pooled"``. The first point (threshold -inf) accepts everything, no decisions too;
        it only anchors the curve.
    """
    s, y, names = _arrays(scores, is_bonafide, species)
    _need(y)
    groups = {str(name): s[~y & (names == name)] for name in np.unique(names[~y])}
    curves = {name: _curve(s[y], [group]) for name, group in groups.items()}
    curves["worst"] = _curve(s[y], list(groups.values()))
    curves["pooled"] = _curve(s[y], [s[~y]])
    return curves


def _crossing(curve: DetCurve) -> tuple[float, int]:
    """Return the equal error rate and the index of the first point with APCER <= BPCER."""
    gap = curve.apcer - curve.bpcer
    k = int(np.argmax(gap <= 0))
    if gap[k] == 0 or k == 0:
        return float(curve.apcer[k]), k
    part = gap[k - 1] / (gap[k - 1] - gap[k])
    return float(curve.apcer[k - 1] + part * (curve.apcer[k] - curve.apcer[k - 1])), k


def eer(scores: ArrayLike, is_bonafide: ArrayLike, species: ArrayLike | None = None) -> float:
    """Equal error rate, where the linearly joined curve has APCER = BPCER.

    With `species` the curve of the worst species is used, without it all attacks are pooled.

    >>> eer([0.9, 0.8, 0.3, 0.2], [1, 1, 0, 0])
    0.0
    """
    curves = det_curve(scores, is_bonafide, species)
    return _crossing(curves["pooled" if species is None else "worst"])[0]


def bpcer_at_apcer(scores: ArrayLike, is_bonafide: ArrayLike, target: float, species: ArrayLike | None = None) -> Rate:
    """BPCER where the worst species' APCER first is at most `target` (0.1 gives BPCER10).

    Source: ISO/IEC 30107-3:2023, BPCER at fixed APCER; "BPCER20" is target 0.05.

    >>> bpcer_at_apcer([0.9, 0.4, 0.5, 0.1], [1, 1, 0, 0], 0.10)
    Rate(k=1, n=2)
    """
    return threshold_for_apcer(scores, is_bonafide, target, species).bpcer


# --- thresholds, chosen on the dev set ----------------------------------------------------


def threshold_for_apcer(
    scores: ArrayLike, is_bonafide: ArrayLike, target: float, species: ArrayLike | None = None
) -> Threshold:
    """Return the threshold with the least BPCER at which every species' APCER is at most `target`.

    All thresholds between the highest attack score that has to be rejected and the next bona fide score
    above it have that BPCER. The middle of them is taken: their lower end would hang on one attack's last
    digit, and let pass attacks that cost nobody anything to stop.

    Args:
        scores: (N,) scores of the dev set.
        is_bonafide: (N,) 1 or 0.
        target: APCER in 0..1.
        species: (N,) names, or None.

    Returns:
        Threshold with the counts reached on this set.

    Raises:
        MetricError: a class is empty, or the target is not a rate.
    """
    s, y, names = _arrays(scores, is_bonafide, species)
    _need(y)
    if not 0 <= target < 1:
        raise MetricError(f"The target APCER is {target}: it must be at least 0 and below 1.")
    groups = [s[~y & (names == name)] for name in np.unique(names[~y])]
    barrier = max(_must_reject(group, target) for group in groups)
    enough = target > 0 and all(g.size * target >= 1 - 1e-9 for g in groups)
    return _threshold(s, y, names, _middle_above(s, y, barrier), target, enough)


def no_looser(threshold: Threshold, dev: pd.DataFrame, rates: Mapping[str, Rate]) -> Threshold:
    """Raise a threshold until no species is accepted more often than elsewhere; where none is, it is returned as it is.

    Args:
        threshold: chosen on `dev`.
        dev: scores with less evidence.
        rates: APCER by species with all evidence, at its own threshold; species not named are not asked for.

    Returns:
        the same threshold, or the next higher one with the least BPCER.

    >>> dev = pd.DataFrame({"score": [0.9, 0.5, 0.4], "is_bonafide": [1, 0, 0], "pai_species": [None, "mask", "print"]})
    >>> round(no_looser(Threshold(0.45, 0.5, Rate(1, 2), "mask", Rate(0, 1), True), dev, {"mask": Rate(0, 60)}).value, 2)
    0.7
    """
    s, y, names = _table(dev)
    barrier = max((_must_reject(s[~y & (names == name)], rate.value) for name, rate in rates.items()), default=-np.inf)
    if threshold.value > barrier:
        return threshold
    return _threshold(s, y, names, _middle_above(s, y, barrier), threshold.target, threshold.supported)


def _must_reject(attack: NDArray, target: float) -> float:
    """Highest attack score that has to be rejected for this species; -inf if none has."""
    allowed = int(np.floor(target * attack.size + 1e-9))
    ordered = np.sort(attack[~np.isnan(attack)])[::-1]
    return float(ordered[allowed]) if allowed < ordered.size else -np.inf


def _middle_above(scores: NDArray, labels: NDArray, barrier: float) -> float:
    """Midway between `barrier` and the next bona fide score above it; if there is none, the next score."""
    known = ~np.isnan(scores)
    if np.isfinite(barrier) and np.any(known & labels & (scores > barrier)):
        known &= labels
    higher = scores[known & (scores > barrier)]
    if higher.size == 0:
        return float(np.nextafter(barrier, np.inf)) if np.isfinite(barrier) else 0.5
    if not np.isfinite(barrier):
        return float(higher.min())
    middle = (barrier + higher.min()) / 2
    return float(middle if middle > barrier else higher.min())


def _threshold(s: NDArray, y: NDArray, names: NDArray, value: float, target: float | None, enough: bool) -> Threshold:
    worst, rate = worst_species(apcer(s, y, value, names))
    return Threshold(value, target, rate, worst, bpcer(s, y, value), enough)


def threshold_at_eer(scores: ArrayLike, is_bonafide: ArrayLike, species: ArrayLike | None = None) -> Threshold:
    """Return the threshold where worst-species APCER and BPCER come closest on this set."""
    s, y, names = _arrays(scores, is_bonafide, species)
    curve = det_curve(s, y, names)["worst"]
    usable = np.isfinite(curve.threshold)
    if not usable.any():
        raise MetricError("Every score is a no decision: there is no threshold to choose.")
    gap = np.where(usable, np.abs(curve.apcer - curve.bpcer), np.inf)
    k = int(np.argmin(gap))
    below = s[s < curve.threshold[k]]
    value = (curve.threshold[k] + below.max()) / 2 if below.size else curve.threshold[k]
    value = value if below.size == 0 or value > below.max() else curve.threshold[k]
    return _threshold(s, y, names, float(value), None, True)


# --- intervals that know about subjects -------------------------------------------------


def bootstrap(
    scores: ArrayLike,
    is_bonafide: ArrayLike,
    threshold: float,
    species: ArrayLike | None = None,
    subjects: ArrayLike | None = None,
    *,
    replicates: int = 2000,
    seed: int = 0,
    without: Iterable[str] = (),
) -> dict[str, tuple[float, float]]:
    """95 % percentile intervals from resampling subjects, whose clips are not independent.

    Args:
        scores: (N,) scores.
        is_bonafide: (N,) 1 or 0.
        threshold: the decision threshold; it is not chosen anew in a replicate.
        species: (N,) names, or None.
        subjects: (N,) the person shown; None resamples clips.
        replicates: bootstrap samples of the rates; the curve-based rates use at most 300.
        seed: of the resampling.
        without: species left out of ``apcer_worst`` and what follows from it.

    Returns:
        (low, high) for ``bpcer``, ``apcer_worst``, ``acer``, ``hter``, ``eer``, ``bpcer10``,
        ``bpcer20``, ``bpcer100`` and each ``apcer/SPECIES``. The maximum over species is
        biased upwards in a resample, so the interval of the worst case errs on the safe side.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), clusters as units.
    """
    s, y, names = _arrays(scores, is_bonafide, species)
    _need(y)
    keep = ~np.isin(names, list(without))
    s, y, names = s[keep], y[keep], names[keep]
    unit = np.arange(keep.size) if subjects is None else pd.factorize(np.asarray(subjects))[0]
    unit = pd.factorize(unit[keep])[0]
    rng = np.random.default_rng(seed)
    n_units = int(unit.max()) + 1
    draws = rng.multinomial(n_units, np.full(n_units, 1 / n_units), size=replicates)
    samples = _rate_samples(s, y, names, unit, threshold, draws)
    samples |= _curve_samples(s, y, names, unit, draws[:300])
    return {name: _percentiles(values) for name, values in samples.items()}


def _rate_samples(
    s: NDArray, y: NDArray, names: NDArray, unit: NDArray, threshold: float, draws: NDArray
) -> dict[str, NDArray]:
    yes = accepted(s, threshold)
    order = [str(name) for name in np.unique(names[~y])]
    rates = {n: _resampled(yes, ~y & (names == n), unit, draws) for n in order}
    error_b = _resampled(~yes, y, unit, draws)
    worst = np.nanmax(np.vstack([*rates.values(), np.zeros(len(draws))]), axis=0)
    pooled = _resampled(yes, ~y, unit, draws)
    samples = {f"apcer/{n}": r for n, r in rates.items()}
    return samples | {
        "bpcer": error_b, "apcer_worst": worst,
        "acer": (worst + error_b) / 2, "hter": (pooled + error_b) / 2,
    }  # fmt: skip


def _resampled(event: NDArray, group: NDArray, unit: NDArray, draws: NDArray) -> NDArray:
    """Rate of `event` within `group` in each draw (B,); NaN where the group was not drawn."""
    size = draws.shape[1]
    k = np.bincount(unit[group], weights=event[group].astype(float), minlength=size)
    n = np.bincount(unit[group], minlength=size)
    total = draws @ n
    return np.divide(draws @ k, total, out=np.full(len(draws), np.nan), where=total > 0)


def _curve_samples(s: NDArray, y: NDArray, names: NDArray, unit: NDArray, draws: NDArray) -> dict[str, NDArray]:
    out: dict[str, list[float]] = {"eer": [], "bpcer10": [], "bpcer20": [], "bpcer100": []}
    for draw in draws:
        rows = np.repeat(np.arange(s.size), draw[unit])
        ss, yy, nn = s[rows], y[rows], names[rows]
        if yy.all() or not yy.any():
            continue
        out["eer"].append(_crossing(_curve(ss[yy], [ss[~yy]]))[0])
        groups = [ss[~yy & (nn == name)] for name in np.unique(nn[~yy])]
        for name, target in (("bpcer10", 0.1), ("bpcer20", 0.05), ("bpcer100", 0.01)):
            barrier = max(_must_reject(group, target) for group in groups)
            out[name].append(float(1 - np.mean(ss[yy] > barrier)))
    return {name: np.array(values) for name, values in out.items()}


def _percentiles(values: NDArray) -> tuple[float, float]:
    known = values[~np.isnan(values)]
    if known.size == 0:
        return float("nan"), float("nan")
    low, high = np.percentile(known, [2.5, 97.5])
    return float(low), float(high)


# --- calibration ------------------------------------------------------------------------------


def reliability(scores: ArrayLike, is_bonafide: ArrayLike, bins: int = 10) -> pd.DataFrame:
    """Return a table of score bins: ``low, high, mean_score, share_bona_fide, n``.

    No decisions are left out, since they carry no probability.

    Raises:
        MetricError: scores lie outside 0..1, or none is left.
    """
    s, y, _ = _arrays(scores, is_bonafide, None)
    known = ~np.isnan(s)
    s, y = s[known], y[known]
    if s.size == 0:
        raise MetricError("Every score is a no decision: there is nothing to calibrate.")
    if s.min() < 0 or s.max() > 1:
        raise MetricError("Scores outside 0..1 are no probabilities: calibration needs P(bona fide).")
    edges = np.linspace(0, 1, bins + 1)
    index = np.clip(np.digitize(s, edges[1:-1]), 0, bins - 1)
    grouped = pd.DataFrame({"bin": index, "mean_score": s, "share_bona_fide": y}).groupby("bin")
    table = grouped.mean()
    table["n"] = grouped.size()
    table.insert(0, "low", edges[table.index])
    table.insert(1, "high", edges[table.index + 1])
    return table.reset_index(drop=True)


def expected_calibration_error(scores: ArrayLike, is_bonafide: ArrayLike, bins: int = 10) -> float:
    """Mean distance between score and share of bona fide over equal-width bins.

    The share depends on the mix of bona fide and attacks in the set: compare only on one mix.

    Source: Guo et al., On Calibration of Modern Neural Networks, ICML 2017.

    >>> expected_calibration_error([1.0, 0.0], [1, 0])
    0.0
    """
    table = reliability(scores, is_bonafide, bins)
    gap = (table["mean_score"] - table["share_bona_fide"]).abs()
    return float((gap * table["n"]).sum() / table["n"].sum())


def brier(scores: ArrayLike, is_bonafide: ArrayLike) -> float:
    """Mean squared distance between score and label (Brier, 1950), no decisions left out."""
    s, y, _ = _arrays(scores, is_bonafide, None)
    known = ~np.isnan(s)
    if not known.any():
        raise MetricError("Every score is a no decision: there is nothing to calibrate.")
    return float(np.mean((s[known] - y[known]) ** 2))


# --- groups of people, devices, light -----------------------------------------------------


def covariate_groups(values: pd.Series) -> pd.Series:
    """Turn a covariate into named groups; a missing value stays missing.

    Skin tone becomes Monk 1–3, 4–7, 8–10; age decades of adulthood; a gender phenotype in 0..1
    three ranges; illuminance three ranges of lux; other numbers quartiles; text stays.
    """
    name, number = str(values.name), pd.to_numeric(values, errors="coerce")
    cuts = {
        "monk_tone": ([0, 3, 7, 10], ["Monk 1–3", "Monk 4–7", "Monk 8–10"]),
        "age": ([0, 30, 45, 60, 130], ["up to 30", "31–45", "46–60", "over 60"]),
        "gender": ([-0.01, 1 / 3, 2 / 3, 1], ["phenotype 0–⅓", "phenotype ⅓–⅔", "phenotype ⅔–1"]),
        "illuminance_lux": ([-1, 100, 400, 1e6], ["up to 100 lx", "100–400 lx", "over 400 lx"]),
    }
    if name in cuts and number.notna().any():
        edges, labels = cuts[name]
        return pd.cut(number, edges, labels=labels).astype(object)
    if number.notna().sum() == values.notna().sum() and values.nunique() > 6:
        return pd.qcut(number, 4, duplicates="drop").astype(str).where(number.notna())
    return values.astype(object)


def differential(table: pd.DataFrame, threshold: float, covariate: str, smallest: int = 5) -> pd.DataFrame:
    """Error rates in each group of a covariate, at the one threshold that all share.

    Args:
        table: columns ``score, is_bonafide``, ``pai_species`` (optional) and `covariate`.
        threshold: decision threshold.
        covariate: column name; see `covariate_groups`.
        smallest: groups with fewer clips of a class have no rate for it (None), only the count.

    Returns:
        One row a group: ``group``, ``apcer`` and ``bpcer`` (value, k, n, low, high each). APCER
        is pooled over species here, since a group seldom holds enough clips of each.

    Source: ISO/IEC 19795-10:2024, differential performance across demographic groups.
    """
    if covariate not in table:
        raise MetricError(f"There is no column {covariate}: leave this covariate out or add it.")
    groups = covariate_groups(table[covariate])
    rows = []
    for name in _in_order(groups, table[covariate]):
        part = table[(groups == name).to_numpy()]
        yes, y = accepted(part["score"], threshold), _labels(part["is_bonafide"])
        row: dict[str, Any] = {"covariate": covariate, "group": str(name)}
        for kind, event, chosen in (("apcer", yes, ~y), ("bpcer", ~yes, y)):
            row |= _columns(kind, int(event[chosen].sum()), int(chosen.sum()), smallest)
        rows.append(row)
    return pd.DataFrame(rows)


def _in_order(groups: pd.Series, values: pd.Series) -> list[Any]:
    """Names of groups, those of a number by rising value, others by name."""
    number = pd.to_numeric(values, errors="coerce").groupby(groups).min()
    return list(number.sort_values().index) if number.notna().all() else sorted(number.index, key=str)


def _columns(kind: str, k: int, n: int, smallest: int) -> dict[str, Any]:
    if n < smallest:
        return {
            kind: None,
            f"{kind}_k": k,
            f"{kind}_n": n,
            f"{kind}_low": None,
            f"{kind}_high": None,
        }
    low, high = clopper_pearson(k, n)
    return {kind: k / n, f"{kind}_k": k, f"{kind}_n": n, f"{kind}_low": low, f"{kind}_high": high}


# --- the whole report -------------------------------------------------------------------------


def threshold_for_bpcer(
    scores: ArrayLike, is_bonafide: ArrayLike, target: float, species: ArrayLike, *, least: float = -np.inf
) -> Threshold:
    """The highest threshold that rejects at most a share of bona fide presentations, those without a decision aside.

    Args:
        scores: (N,) higher is more alive; NaN for no decision.
        is_bonafide: (N,) 1 or 0.
        target: share of bona fide scores, 0..1.
        species: (N,) of the attacks.
        least: the threshold is not below it, whatever it rejects.

    Returns:
        a `Threshold`; its `target` is the share.

    >>> threshold_for_bpcer([0.9, 0.6, 0.5, 0.1], [1, 1, 1, 0], 0.4, ["", "", "", "print"]).value
    0.6
    """
    s, y, names = _arrays(scores, is_bonafide, species)
    living = np.sort(s[y & ~np.isnan(s)])
    if not living.size:
        raise MetricError("No bona fide presentation has a score: a threshold for BPCER needs some.")
    value = max(float(living[min(int(np.floor(target * living.size + 1e-9)), living.size - 1)]), least)
    return _threshold(s, y, names, value, target, living.size >= 1 / target)


def thresholds(dev: pd.DataFrame, targets: Iterable[float] = (0.05, 0.01)) -> dict[str, Threshold]:
    """Choose the named thresholds on a dev table: ``apcer5``, ``apcer1``, …, and ``eer``."""
    s, y, names = _table(dev)
    found = {f"apcer{100 * t:g}": threshold_for_apcer(s, y, t, names) for t in targets}
    return found | {"eer": threshold_at_eer(s, y, names)}


def _table(table: pd.DataFrame) -> tuple[NDArray, NDArray, NDArray]:
    for column in ("score", "is_bonafide"):
        if column not in table:
            raise MetricError(f"The table of scores has no column {column}.")
    return _arrays(table["score"], table["is_bonafide"], table.get("pai_species"))


def report(
    test: pd.DataFrame,
    dev: pd.DataFrame | None = None,
    *,
    target: float = 0.05,
    threshold: float | None = None,
    replicates: int = 2000,
    seed: int = 0,
    covariates: Iterable[str] = COVARIATES,
) -> Report:
    """Evaluate a table of test scores at a threshold that comes from elsewhere.

    Args:
        test: columns ``score`` (NaN or empty = no decision), ``is_bonafide``, and where known
            ``pai_species``, ``subject_id`` and covariates.
        dev: the same for the set on which the threshold is chosen.
        target: worst-species APCER that the threshold is chosen for on `dev`.
        threshold: a given threshold, instead of `dev`.
        replicates: of the bootstrap.
        seed: of the bootstrap.
        covariates: columns to break the rates down by, as far as the table has them.

    Returns:
        A dict that JSON can hold. ``threshold``, ``threshold_source``, ``threshold_detail``;
        ``apcer`` by species, ``apcer_worst``, ``bpcer``, ``acer``, ``hter``, ``eer``,
        ``bpcer10``, ``bpcer20``, ``bpcer100``: each with ``value``, counts ``k`` and ``n`` where it
        is one proportion, ``low``/``high`` (Clopper–Pearson) and ``bootstrap`` (subjects);
        ``without_injection`` with the worst case and ACER of the presentation attacks alone;
        ``apnrr``, ``bpnrr``; ``calibration``; ``differential``; ``notes`` in words. Where dev and
        threshold are both missing, the test set's own EER threshold is used and the notes say
        that this flatters.

    Raises:
        MetricError: a class is missing, or labels and species do not fit.
    """
    s, y, names = _table(test)
    _need(y)
    value, source, detail, notes = _choose(test, dev, target, threshold)
    subjects = _subjects(test, notes)
    ci = bootstrap(s, y, value, names, subjects, replicates=replicates, seed=seed)
    out: Report = {
        "n": int(s.size), "n_bona_fide": int(y.sum()), "n_attack": int((~y).sum()),
        "n_subjects": int(pd.Series(subjects).nunique()) if subjects is not None else None,
        "threshold": value, "threshold_source": source, "threshold_detail": detail,
    }  # fmt: skip
    out |= _rates(s, y, names, value, ci) | _curve_points(s, y, names, ci)
    out["without_injection"] = _without_injection(s, y, names, value, subjects, replicates, seed)
    silent_a, silent_b = nonresponse(s, y, names)
    out["apnrr"] = {name: rate.as_dict() for name, rate in silent_a.items()}
    out["bpnrr"] = silent_b.as_dict()
    out["calibration"] = _calibration(s, y, notes)
    out["differential"] = {
        c: differential(test, value, c).to_dict("records") for c in covariates if c in test and test[c].notna().any()
    }
    out["notes"] = notes + _sample_notes(s, y, names)
    return out


def _choose(
    test: pd.DataFrame, dev: pd.DataFrame | None, target: float, threshold: float | None
) -> tuple[float, str, dict[str, Any] | None, list[str]]:
    if threshold is not None:
        return float(threshold), "given", None, []
    if dev is None:
        found = threshold_at_eer(*_table(test))
        note = "The threshold is the test set's own EER point, which flatters: pass a dev set."
        return found.value, "test, EER", found.as_dict(), [note]
    s, y, names = _table(dev)
    found = threshold_for_apcer(s, y, target, names)
    notes = [] if found.supported else [
        f"The dev set has fewer than {int(np.ceil(1 / target)) if target else 'enough'} clips of some "
        f"species, too few to see an APCER of {100 * target:g} %."
    ]  # fmt: skip
    return found.value, f"dev, worst-species APCER {100 * target:g} %", found.as_dict(), notes


def _subjects(table: pd.DataFrame, notes: list[str]) -> NDArray | None:
    if "subject_id" in table and table["subject_id"].notna().all():
        return table["subject_id"].to_numpy()
    notes.append("No subject_id: the bootstrap takes clips as independent, so intervals are too narrow.")
    return None


def _with(rate: Rate, ci: tuple[float, float]) -> dict[str, Any]:
    return rate.as_dict() | {"bootstrap": list(ci)}


def _rates(s: NDArray, y: NDArray, names: NDArray, t: float, ci: dict) -> dict[str, Any]:
    attack, bona = apcer(s, y, t, names), bpcer(s, y, t)
    worst, rate = worst_species(attack)
    mean = (rate.value + bona.value) / 2
    return {
        "apcer": {name: _with(r, ci[f"apcer/{name}"]) for name, r in attack.items()},
        "apcer_worst": _with(rate, ci["apcer_worst"]) | {"species": worst},
        "bpcer": _with(bona, ci["bpcer"]),
        "acer": _point(mean, ci["acer"]) | {"counts": {"apcer": [rate.k, rate.n], "bpcer": [bona.k, bona.n]}},
        "hter": _point(hter(s, y, t), ci["hter"]) | {"n": int(s.size)},
    }  # fmt: skip


def _point(value: float, ci: tuple[float, float]) -> dict[str, Any]:
    return {"value": value, "low": ci[0], "high": ci[1], "bootstrap": list(ci)}


def _curve_points(s: NDArray, y: NDArray, names: NDArray, ci: dict) -> dict[str, Any]:
    out = {"eer": _point(eer(s, y), ci["eer"]) | {"n": int(s.size), "worst": eer(s, y, names)}}
    for name, target in (("bpcer10", 0.1), ("bpcer20", 0.05), ("bpcer100", 0.01)):
        point = threshold_for_apcer(s, y, target, names)
        out[name] = _with(point.bpcer, ci[name]) | {"supported": point.supported}
    return out


def _without_injection(
    s: NDArray, y: NDArray, names: NDArray, t: float, subjects: NDArray | None, n: int, seed: int
) -> dict[str, Any] | None:
    """The presentation attacks alone; None where nothing but injection is there."""
    if set(names[~y]) <= {INJECTION}:
        return None
    keep = names != INJECTION
    ci = bootstrap(s, y, t, names, subjects, replicates=n, seed=seed, without=(INJECTION,))
    found = _rates(s[keep], y[keep], names[keep], t, ci)
    return {key: found[key] for key in ("apcer_worst", "acer", "hter")} | _curve_points(
        s[keep], y[keep], names[keep], ci
    )


def _calibration(s: NDArray, y: NDArray, notes: list[str]) -> dict[str, Any] | None:
    try:
        table = reliability(s, y)
    except MetricError as error:
        notes.append(str(error))
        return None
    return {
        "ece": expected_calibration_error(s, y), "brier": brier(s, y),
        "bins": table.to_dict("records"),
    }  # fmt: skip


def _sample_notes(s: NDArray, y: NDArray, names: NDArray) -> list[str]:
    few = [str(n) for n in np.unique(names[~y]) if (names[~y] == n).sum() < 30]
    notes = [f"Fewer than 30 clips of {', '.join(few)}: read those intervals, not the rates."] if few else []
    if names[~y].size and (names[~y] == UNNAMED_SPECIES).all():
        notes.append("No pai_species: all attacks count as one species, so the worst case is hidden.")
    return notes


def summary(result: Report) -> str:
    """Lay a report out as the lines that ``liveness evaluate`` prints."""
    lines = [
        f"{result['n']} presentations: {result['n_bona_fide']} bona fide, {result['n_attack']} attacks",
        f"threshold {result['threshold']:.4f} ({result['threshold_source']})",
        "",
        f"{'':24}{'rate':>8}  {'k/n':>9}  95 % interval   by subjects",
    ]
    rows = [(f"APCER {name}", rate) for name, rate in result["apcer"].items()]
    worst = result["apcer_worst"]
    rows += [(f"APCER worst ({worst['species']})", worst), ("BPCER", result["bpcer"])]
    rows += [("ACER", result["acer"])]
    if result["without_injection"] and INJECTION in result["apcer"]:
        rows += [("ACER without injection", result["without_injection"]["acer"])]
    rows += [(name.upper(), result[name]) for name in ("hter", "eer", "bpcer10", "bpcer20", "bpcer100")]
    rows += [(f"APNRR {n}", r) for n, r in result["apnrr"].items() if r["k"]]
    rows += [("BPNRR", result["bpnrr"])]
    return "\n".join(lines + [_line(*row) for row in rows] + [""] + result["notes"]).rstrip()


def _line(name: str, rate: Mapping[str, Any]) -> str:
    percent: Callable[[float], str] = lambda x: f"{100 * x:5.1f}"  # noqa: E731
    count = f"{rate['k']}/{rate['n']}" if "k" in rate else ""
    exact = f"{percent(rate['low'])} to {percent(rate['high'])}" if "k" in rate else ""
    boot = rate.get("bootstrap")
    boot = f"{percent(boot[0])} to {percent(boot[1])}" if boot and None not in boot else ""
    return f"{name:32.32}{percent(rate['value'])}  {count:>8}  {exact:14}  {boot}".rstrip()


# --- what a lesson looks at next ----------------------------------------------------------------


def operating_threshold(dev: pd.DataFrame, target: float = 0.05) -> Threshold:
    """Return the threshold for a worst-species APCER of `target`, or at the EER where dev is too small.

    With fewer than 1/target clips of a species the target can only be met by rejecting them all,
    which puts the threshold at one clip's score; `Threshold.target` is then None.
    """
    s, y, names = _table(dev)
    found = threshold_for_apcer(s, y, target, names)
    return found if found.supported else threshold_at_eer(s, y, names)


def presence_row(dev: pd.DataFrame, test: pd.DataFrame, target: float = 0.05) -> dict[str, Any]:
    """Rates of presentation attacks at a threshold chosen for them (see `operating_threshold`).

    Injections stay out of the choice where the IMU that would tell them is missing: their pixels
    are bona fide, and a threshold that stops them stops everybody.

    Returns:
        threshold (text), worst species, and Rate under "APCER worst", "BPCER", "APCER injection".
    """
    dev, shown = (t[t["pai_species"] != INJECTION] for t in (dev, test))
    limit = operating_threshold(dev, target).value
    worst, rate = worst_species(apcer(shown["score"], shown["is_bonafide"], limit, shown["pai_species"]))
    every = apcer(test["score"], test["is_bonafide"], limit, test["pai_species"])
    found = {"threshold": f"{limit:.3f}", "worst species": worst, "APCER worst": rate}
    found["BPCER"] = bpcer(test["score"], test["is_bonafide"], limit)
    return found | ({"APCER injection": every[INJECTION]} if INJECTION in every else {})


def worst_errors(table: pd.DataFrame, threshold: float, n: int = 12) -> pd.DataFrame:
    """Return up to `n` wrongly judged rows, the accepted attacks and the rejected bona fide mixed.

    Ordered by distance from the threshold; a rejection without a score counts as the furthest.
    """
    yes, alive = accepted(table["score"], threshold), _labels(table["is_bonafide"])
    away = (table["score"] - threshold).abs().fillna(np.inf)
    errors = table.assign(away=away)[yes != alive].sort_values("away", ascending=False)
    groups = [g.head(-(-n // 2)) for _, g in errors.groupby("is_bonafide")]
    chosen = pd.concat(groups).index if groups else errors.index
    rest = errors.drop(chosen).head(max(0, n - len(chosen)))
    return errors.loc[errors.index.isin(chosen.append(rest.index))].head(n).drop(columns="away")
