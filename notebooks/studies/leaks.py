"""Leak hunt: can the label be had without looking at liveness at all?

In: a data set on disk. Out: for each trivial clue and each species, how well a small classifier does on test subjects.
What a real attack would give away too was written down in `EXPECTED` before any of it was measured.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pandas as pd

from liveness_utils.clips import load_clip
from liveness_utils.instruments import ATTACKS, MASKS, PRINTS, REPLAYS

LEAK_LIMIT = 0.10
BORDER_PX = 4

# Clues that a real attack of these species gives away as well, with the reason.
EXPECTED: dict[str, tuple[frozenset[str], str]] = {
    "mean_colour": (frozenset((*PRINTS, *REPLAYS, *MASKS)), "gamut of ink, display or paint"),
    "border": (frozenset((*PRINTS, *REPLAYS)), "edges of the sheet, bezel, what the victim's picture has behind it"),
    "file_size": (frozenset((*PRINTS, *REPLAYS)), "texture of dots and pixels, detail lost in the first capture"),
    "codec": (frozenset((*PRINTS, *REPLAYS)), "texture, and pictures that do not move"),
    "imu_energy": (frozenset(("injection",)), "a phone at rest or another motion than the class mix"),
    "frame_timing": (frozenset(), ""),
    "clip_order": (frozenset(), ""),
}


def _mean_colour(clip, folder: Path, order: float) -> np.ndarray:
    middle = clip.frames[len(clip.frames) // 2].reshape(-1, 3)
    return np.concatenate([middle.mean(0), middle.std(0)])


def _border(clip, folder: Path, order: float) -> np.ndarray:
    frame, b = clip.frames[len(clip.frames) // 2].astype(np.float32), BORDER_PX
    sides = (frame[:b], frame[-b:], frame[:, :b], frame[:, -b:])
    return np.concatenate([np.r_[s.mean((0, 1)), s.std()] for s in sides])


def _packets(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    with av.open(str(folder / "video.mp4")) as container:
        packets = [(p.size, p.is_keyframe) for p in container.demux(video=0) if p.size]
    return np.array([s for s, _ in packets], float), np.array([k for _, k in packets])


def _file_size(clip, folder: Path, order: float) -> np.ndarray:
    return np.array([np.log((folder / "video.mp4").stat().st_size / len(clip.frames))])


def _codec(clip, folder: Path, order: float) -> np.ndarray:
    size, key = _packets(folder)
    inter = size[~key] if (~key).any() else size
    quartiles = np.percentile(inter, [10, 25, 50, 75, 90])
    return np.log(np.r_[size[key].mean(), inter.mean(), quartiles, inter.std() + 1.0])


def _imu_energy(clip, folder: Path, order: float) -> np.ndarray:
    if clip.imu is None:
        return np.full(8, np.nan)
    spread = np.r_[clip.imu.accel.std(0), clip.imu.gyro.std(0)]
    return np.log(np.r_[spread, np.linalg.norm(spread[:3]), np.linalg.norm(spread[3:])] + 1e-6)


def _frame_timing(clip, folder: Path, order: float) -> np.ndarray:
    steps = np.diff(clip.t)
    return np.r_[steps.mean(), steps.std(), len(clip.t), clip.t[-1]]


def _clip_order(clip, folder: Path, order: float) -> np.ndarray:
    return np.array([order, int(clip.clip_id[:8], 16) / 2**32])


CLUES: dict[str, Callable] = {
    "mean_colour": _mean_colour,
    "border": _border,
    "file_size": _file_size,
    "codec": _codec,
    "imu_energy": _imu_energy,
    "frame_timing": _frame_timing,
    "clip_order": _clip_order,
}


def trivial_features(root: str | Path, manifest: pd.DataFrame, *, workers: int = 1) -> dict[str, np.ndarray]:
    """Clues that carry no liveness, for every clip of a manifest.

    Args:
        root: data folder.
        manifest: rows in the order in which the data set lists them.
        workers: processes.

    Returns:
        One (n_clips, d) float64 array a clue.
    """
    import joblib

    ids = manifest["clip_id"].tolist()
    jobs = (joblib.delayed(_all_clues)(str(root), clip_id, k / len(ids)) for k, clip_id in enumerate(ids))
    rows = joblib.Parallel(n_jobs=workers)(jobs)
    return {name: np.stack([row[name] for row in rows]) for name in CLUES}


def _all_clues(root: str, clip_id: str, order: float) -> dict[str, np.ndarray]:
    clip = load_clip(root, clip_id, row={})  # no clue may look at the manifest
    folder = Path(root) / "clips" / clip_id
    return {name: clue(clip, folder, order) for name, clue in CLUES.items()}


def leak_table(features: dict[str, np.ndarray], manifest: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """How far each clue alone tells each species from bona fide, on test subjects it never saw.

    A gradient-boosted classifier a clue and species learns on the train split and is judged on the test split.

    Args:
        features: from `trivial_features`, rows as in `manifest`.
        manifest: with `split`, `is_bonafide`, `pai_species`.
        seed: of the classifier.

    Returns:
        Rows (clue, species) with `auc`, `low`, `high` (95 % interval, Hanley and McNeil 1982,
        doi 10.1148/radiology.143.1.7063747), `again` (the AUC on the people of dev: a second look at what may be
        chance), `excess` = |auc − 0.5|, `expected`, and `leak`: an excess over
        the limit that is neither expected nor within the interval of chance.
    """
    rows = [
        _leak_row(clue, species, values, manifest, seed) for clue, values in features.items() for species in ATTACKS
    ]
    return pd.DataFrame(rows)


def _leak_row(clue: str, species: str, values: np.ndarray, manifest: pd.DataFrame, seed: int) -> dict:
    from scipy.stats import norm
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.metrics import roc_auc_score

    bona_fide = manifest["is_bonafide"].to_numpy(bool)
    used = bona_fide | (manifest["pai_species"] == species).fillna(False).to_numpy(bool)
    train, test, dev = (used & (manifest["split"] == s).to_numpy(bool) for s in ("train", "test", "dev"))
    model = HistGradientBoostingClassifier(max_iter=60, max_depth=3, min_samples_leaf=5, random_state=seed)
    model.fit(values[train], bona_fide[train])
    auc, again = (
        float(roc_auc_score(bona_fide[part], model.predict_proba(values[part])[:, 1]))
        if 0 < bona_fide[part].sum() < part.sum()
        else np.nan
        for part in (test, dev)
    )
    counts = int((test & bona_fide).sum()), int((test & ~bona_fide).sum())
    half = 1.96 * hanley_mcneil(auc, *counts)
    expected = species in EXPECTED[clue][0]
    excess = abs(auc - 0.5)
    chance = norm.isf(0.025 / (len(CLUES) * len(ATTACKS))) * hanley_mcneil(0.5, *counts)
    leak = excess > max(LEAK_LIMIT, chance) and not expected
    low, high = max(auc - half, 0.0), min(auc + half, 1.0)
    found = dict(auc=auc, low=low, high=high, again=again, excess=excess, expected=expected, leak=leak)
    return {"clue": clue, "species": species, **found}


def hanley_mcneil(auc: float, positives: int, negatives: int) -> float:
    """Standard error of an AUC (Hanley and McNeil 1982).

    >>> round(hanley_mcneil(0.5, 60, 60), 3)
    0.053
    """
    q1, q2 = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    spread = auc * (1 - auc) + (positives - 1) * (q1 - auc**2) + (negatives - 1) * (q2 - auc**2)
    return float(np.sqrt(max(spread, 0.0) / (positives * negatives)))
