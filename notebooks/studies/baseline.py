"""The classical baseline: boosted trees on the clip cues alone, which the network has to beat.

In come rows of `cues.extract_cues` with labels and subjects; out goes P(bona fide), calibrated.
`metrics` reports it per species exactly as it does the network; nothing here sees a pixel.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import QuantileTransformer

from liveness_utils.cues import CUE_NAMES, CUES
from liveness_utils.errors import DatasetError

# Tell how a clip was framed or which clocks it had, not whether somebody is there.
NUISANCE = ("interocular_px", "background_tracks", "consistency_lag")
BASELINE_CUES = tuple(name for name in CUE_NAMES if name not in NUISANCE)
_FORMAT = 1


@dataclass(frozen=True)
class Baseline:
    """A fitted baseline.

    Attributes:
        model: calibrated scikit-learn classifier over `columns`.
        columns: cues it reads, in order.
        kind: "boosting" or "logistic".
    """

    model: CalibratedClassifierCV
    columns: tuple[str, ...]
    kind: str


def columns_of(modalities: Sequence[str] = ("video", "landmarks", "imu")) -> tuple[str, ...]:
    """Return the baseline's cues that need only these modalities.

    >>> "parallax_slope" in columns_of(("video", "landmarks"))
    False
    """
    wanted = {cue.name for cue in CUES if cue.modality in modalities}
    return tuple(name for name in BASELINE_CUES if name in wanted)


def make_classifier(kind: str = "boosting", seed: int = 0) -> Pipeline:
    """Return the classifier before calibration.

    Args:
        kind: "boosting" (histogram gradient boosting, reads NaN as such) or "logistic" (cues
            ranked to normal scores, the median for what is missing beside a flag that says so).
        seed: of the boosting's own split.

    Raises:
        DatasetError: another kind.
    """
    if kind == "boosting":
        return make_pipeline(
            HistGradientBoostingClassifier(
                max_iter=150, learning_rate=0.06, max_leaf_nodes=12, min_samples_leaf=10,
                l2_regularization=1.0, class_weight="balanced", early_stopping=False,
                random_state=seed,
            )
        )  # fmt: skip
    if kind == "logistic":
        return make_pipeline(
            QuantileTransformer(n_quantiles=100, output_distribution="normal", random_state=seed),
            SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True),
            LogisticRegression(C=0.3, class_weight="balanced", max_iter=2000),
        )
    raise DatasetError(f'Unknown baseline {kind!r}: choose "boosting" or "logistic".')


def fit(
    table: pd.DataFrame,
    is_bonafide: Sequence[int],
    subjects: Sequence[str],
    *,
    kind: str = "boosting",
    columns: Sequence[str] = BASELINE_CUES,
    folds: int = 5,
    seed: int = 0,
) -> Baseline:
    """Fit and calibrate the baseline on training clips.

    Every clip enters twice, whole and without its IMU, so that a bare video is judged too.
    Calibration (Platt) is by folds that share no subject.

    Args:
        table: one row a clip, columns as `CUE_NAMES`; NaN where missing.
        is_bonafide: (n,) 1 for bona fide.
        subjects: (n,) subject of each clip.
        kind: see `make_classifier`.
        columns: cues used.
        folds: of the calibration; fewer where there are fewer subjects.
        seed: of folds and classifier.

    Returns:
        `Baseline`.

    Raises:
        DatasetError: a cue is missing from the table, or only one class is there.

    Source: Platt 1999; the design follows Boulkenafet et al. only in keeping cues interpretable.
    """
    x = _matrix(table, columns)
    y, groups = np.asarray(is_bonafide).astype(int), np.asarray(subjects)
    if len(np.unique(y)) < 2:
        raise DatasetError("The baseline needs bona fide and attack clips: generate more clips.")
    x, y, groups = _with_video_only_copies(x, y, groups, columns)
    splits = _group_folds(x, y, groups, folds, seed)
    model = CalibratedClassifierCV(make_classifier(kind, seed), method="sigmoid", cv=splits)
    return Baseline(model.fit(x, y), tuple(columns), kind)


def _matrix(table: pd.DataFrame, columns: Sequence[str]) -> np.ndarray:
    missing = [name for name in columns if name not in table]
    if missing:
        raise DatasetError(f"The cue table lacks {', '.join(missing)}: extract the cues anew.")
    return table.loc[:, list(columns)].to_numpy(float)


def _with_video_only_copies(x, y, groups, columns):
    imu = {cue.name for cue in CUES if cue.modality == "imu"}
    masked = x.copy()
    masked[:, [name in imu for name in columns]] = np.nan
    return np.concatenate([x, masked]), np.tile(y, 2), np.tile(groups, 2)


def _group_folds(x, y, groups, folds: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    folds = min(folds, len(np.unique(groups[y == 1])), len(np.unique(groups[y == 0])))
    if folds < 2:
        raise DatasetError("The baseline needs clips of at least two subjects in each class.")
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    splits = list(splitter.split(x, y, groups))
    usable = [(a, b) for a, b in splits if len(np.unique(y[a])) == 2 and len(np.unique(y[b])) == 2]
    if not usable:
        raise DatasetError("No split by subject keeps both classes: generate more clips.")
    return usable


def predict_proba(baseline: Baseline, table: pd.DataFrame) -> np.ndarray:
    """Return P(bona fide) of each clip.

    Args:
        baseline: see `fit`.
        table: one row a clip, columns as `CUE_NAMES`.

    Returns:
        (n,) float64 in 0..1, higher is more alive. A clip on which nothing was measured (no
        face) scores 0: it fails closed.

    Raises:
        DatasetError: a cue is missing from the table.
    """
    x = _matrix(table, baseline.columns)
    if len(x) == 0:
        return np.zeros(0)
    score = baseline.model.predict_proba(x)[:, 1]
    faces = [cue.name in baseline.columns and cue.modality == "landmarks" for cue in CUES]
    names = [cue.name for cue, used in zip(CUES, faces, strict=True) if used]
    if not names:
        return score
    seen = np.isfinite(_matrix(table, names)).any(axis=1)
    return np.where(seen, score, 0.0)


def save(baseline: Baseline, path: str | os.PathLike) -> Path:
    """Write a baseline with joblib, under its final name only when complete.

    The file is a pickle: load only what you wrote yourself.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    content = {"format": _FORMAT, "kind": baseline.kind, "columns": baseline.columns}
    joblib.dump({**content, "model": baseline.model}, part, compress=3)
    os.replace(part, path)
    return path


def load(path: str | os.PathLike) -> Baseline:
    """Read what `save` wrote.

    Raises:
        DatasetError: the file is missing or of another version.
    """
    path = Path(path)
    if not path.is_file():
        raise DatasetError(f"{path} is missing: fit the baseline first (notebook 04).")
    content = joblib.load(path)
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise DatasetError(f"{path} is of another version: fit the baseline anew.")
    return Baseline(content["model"], tuple(content["columns"]), content["kind"])
