"""What notebooks 02 to 04 share: cues of all clips, tracks of a few, and how well a cue separates.

In come clips on disk through `dataset`, `landmarks` and `cues`; out go tables that a lesson
draws. Nothing here is needed to train, evaluate or run the network.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from liveness_utils.cues import CUE_NAMES
from liveness_utils.errors import DatasetError
from liveness_utils.instruments import ATTACKS
from liveness_utils.landmarks import Track

# A face has less of these; of every other cue it has more.
LOWER_IS_ALIVE = frozenset({
    "face_background_correlation", "background_residual", "spectral_peak", "specular_share",
    "black_level", "row_banding", "border_lines", "consistency_residual", "landmark_jitter",
})  # fmt: skip
WINDOW_SECONDS = 2.5


# --- cues of all clips -------------------------------------------------------------------------


def cue_table(
    data: str | os.PathLike, features: str | os.PathLike, *, workers: int = 2, progress: bool = False
) -> pd.DataFrame:
    """Return manifest and cues of every clip, one row a clip; extracts them if need be.

    The extraction is `dataset.prepare`, so notebook 05 finds its inputs ready.

    Args:
        data: folder of clips.
        features: folder of prepared arrays.
        workers: processes.
        progress: show a bar.

    Returns:
        Manifest columns (`pai_species` "bona_fide" where it was null), `CUE_NAMES`, and
        `relative_rotation_deg`: largest change of the viewing direction in the face's own
        frame, NaN where no truth is known.

    Raises:
        DatasetError: no clips were generated, or the features lack a cue of this version.
    """
    from liveness_utils import dataset

    if not (Path(data) / "manifest.parquet").exists():
        raise DatasetError(f"{data} holds no manifest.parquet: run notebook 01 of this profile first.")
    dataset.prepare(data, features, workers=workers, progress=progress)
    found = dataset.open_prepared(features)
    measured = found.cues()
    if missing := [name for name in CUE_NAMES if name not in measured]:
        raise DatasetError(f"{features} was made before the cue {missing[0]}: delete the folder and run again.")
    table = found.manifest.merge(measured, on="clip_id", how="left")
    table["pai_species"] = table["pai_species"].fillna("bona_fide").astype(str)
    table["relative_rotation_deg"] = _relative_rotations(Path(data), Path(features), table["clip_id"])
    return table


def _relative_rotations(data: Path, features: Path, clip_ids: Sequence[str]) -> np.ndarray:
    """Read from the truth once, then from a small table beside the features."""
    path = features / "relative_rotation.parquet"
    if path.exists():
        known = pd.read_parquet(path).set_index("clip_id")["degrees"]
        if set(clip_ids) <= set(known.index):
            return known.loc[list(clip_ids)].to_numpy(float)
    degrees = np.array([relative_rotation(data / "clips" / str(c) / "truth.npz") for c in clip_ids])
    part = path.with_suffix(".tmp")
    pd.DataFrame({"clip_id": list(clip_ids), "degrees": degrees}).to_parquet(part, index=False)
    os.replace(part, path)
    return degrees


def relative_rotation(truth: Path) -> float:
    """Return how far the face turned against its viewing ray in a clip, degrees.

    Args:
        truth: truth.npz of a clip; only the poses are read.

    Returns:
        `motion.viewing_direction_change` in the head's frame; NaN without the file.
    """
    from liveness_utils.motion import viewing_direction_change

    if not truth.is_file():
        return math.nan
    with np.load(truth) as held:
        return viewing_direction_change(held["T_world_camera"], held["T_world_head"], frame="head")


def evaluation_rows(table: pd.DataFrame, profile_name: str) -> pd.DataFrame:
    """Return the clips that figures rest on: test subjects; all clips in the quick profile.

    No cue is fitted to data, so the other splits are no cheating; the quick profile's test
    set alone would be too small to see anything.
    """
    return table if profile_name == "quick" else table[table["split"] == "test"]


def stratified(rows: pd.DataFrame, n: int, by: str | Sequence[str] = "pai_species") -> pd.DataFrame:
    """Return at most `n` rows, taken from the groups of `by` in turn, always the same ones."""
    turn = rows.groupby(by, dropna=False).cumcount()
    return rows.assign(_turn=turn).sort_values("_turn", kind="stable").head(n).drop(columns="_turn")


# --- tracks of a few clips ---------------------------------------------------------------------


def tracks(
    data: str | os.PathLike, rows: pd.DataFrame, cache: str | os.PathLike, *, workers: int = 2
) -> dict[str, Track]:
    """Return the tracks of some clips; what was tracked before is read.

    Args:
        data: folder of clips.
        rows: manifest rows.
        cache: folder, one file a clip.
        workers: processes.
    """
    from joblib import Parallel, delayed

    folder = Path(cache)
    folder.mkdir(parents=True, exist_ok=True)
    missing = [r for r in rows.to_dict("records") if not (folder / f"{r['clip_id']}.npz").exists()]
    batches = [missing[k::workers] for k in range(workers) if missing[k::workers]]
    Parallel(n_jobs=workers)(delayed(_track_batch)(str(data), batch, str(folder)) for batch in batches)
    return {c: _read_track(folder / f"{c}.npz") for c in rows["clip_id"]}


def _track_batch(data: str, rows: list[dict], folder: str) -> None:
    from liveness_utils.clips import load_clip
    from liveness_utils.landmarks import Landmarker, track

    with Landmarker() as landmarker:
        for row in rows:
            found = track(load_clip(data, row["clip_id"], row=row), landmarker)
            path = Path(folder) / f"{row['clip_id']}.npz"
            part = path.with_suffix(".tmp")
            with open(part, "wb") as file:
                np.savez(file, **{k: getattr(found, k) for k in _TRACK_ARRAYS})
            os.replace(part, path)


_TRACK_ARRAYS = ("t", "n_faces", "points", "blendshapes", "T_camera_head", "box")


def _read_track(path: Path) -> Track:
    with np.load(path) as held:
        return Track(**{name: held[name] for name in _TRACK_ARRAYS})


# --- real recordings ---------------------------------------------------------------------------


def real_cues(videos: str | os.PathLike, cache: str | os.PathLike, windows: int = 2) -> pd.DataFrame:
    """Measure the cues of labelled real videos, window by window; numbers only.

    Args:
        videos: folder with videos.csv (``file, is_bonafide, kind``) and the files.
        cache: Parquet file that keeps the result.
        windows: windows of `WINDOW_SECONDS` a video, from its start.

    Returns:
        One row a window: ``file, kind, is_bonafide, start, faces`` (share of frames with a
        face) and the cues. No motion data: consistency and parallax are NaN.
    """
    path, listed = Path(cache), pd.read_csv(Path(videos) / "videos.csv")
    if path.exists():
        return pd.read_parquet(path)
    rows = [w for v in listed.to_dict("records") for w in _real_windows(Path(videos), v, windows)]
    table = pd.DataFrame(rows)
    table.to_parquet(path.with_suffix(".tmp"), index=False)
    os.replace(path.with_suffix(".tmp"), path)
    return table


def _real_windows(folder: Path, video: dict, windows: int) -> Iterable[dict]:
    from liveness_utils import clips, cues, landmarks

    clip = clips.load_recording(folder / video["file"], max_seconds=windows * WINDOW_SECONDS + 0.2)
    with landmarks.Landmarker() as landmarker:
        for k in range(windows):
            if clip.t[-1] < (k + 1) * WINDOW_SECONDS - 0.1:
                break
            part = clips.slice_clip(clip, k * WINDOW_SECONDS, (k + 1) * WINDOW_SECONDS)
            found = landmarks.track(part, landmarker)
            named = {n: video[n] for n in ("file", "kind", "is_bonafide")}
            seen = {"start": k * WINDOW_SECONDS, "faces": float(found.found.mean())}
            yield named | seen | cues.extract_cues(part, found).to_dict()


# --- how well a cue separates ------------------------------------------------------------------


def auc(alive: np.ndarray, attack: np.ndarray) -> float:
    """Return the probability that a bona fide value exceeds an attack's, ties counting half.

    Args:
        alive, attack: values, NaN left out.

    Returns:
        Area under the ROC curve 0..1, NaN where a side is empty.

    Source: Mann-Whitney U over the number of pairs.

    >>> auc(np.array([2.0, 3.0]), np.array([1.0, 2.0]))
    0.875
    """
    from scipy.stats import rankdata

    a, b = (np.asarray(v, float)[np.isfinite(np.asarray(v, float))] for v in (alive, attack))
    if not len(a) or not len(b):
        return math.nan
    ranks = rankdata(np.concatenate([a, b]))[: len(a)]
    return float((ranks.sum() - len(a) * (len(a) + 1) / 2) / (len(a) * len(b)))


def auc_interval(value: float, n_alive: int, n_attack: int, z: float = 1.96) -> tuple[float, float]:
    """Return a 95 % interval of an AUC that does not collapse at 0 or 1.

    Args:
        value: the AUC.
        n_alive, n_attack: independent presentations of each class.
        z: normal quantile.

    Returns:
        (low, high): the AUCs from which `value` lies z standard errors away.

    Source: Newcombe, Statist. Med. 25:559 (2006), method 5: Hanley & McNeil's variance,
    inverted as Wilson's score interval.

    >>> low, high = auc_interval(1.0, 20, 20)
    >>> round(low, 2), high
    (0.9, 1.0)
    """
    from scipy.optimize import brentq

    if not math.isfinite(value) or min(n_alive, n_attack) < 1:
        return math.nan, math.nan

    def surplus(theta: float, side: float) -> float:
        n = (n_alive + n_attack) / 2 - 1
        spread = 1 + n * ((1 - theta) / (2 - theta) + theta / (1 + theta))
        return value - theta - side * z * math.sqrt(theta * (1 - theta) * spread / (n_alive * n_attack))

    low = brentq(surplus, 0.0, value - 1e-9, args=(1.0,)) if value > 0 else 0.0
    high = brentq(surplus, value + 1e-9, 1.0, args=(-1.0,)) if value < 1 else 1.0
    return float(low), float(high)


def separability(table: pd.DataFrame, cues: Iterable[str], species: Iterable[str] = ATTACKS) -> pd.DataFrame:
    """Return how well single cues tell each species from bona fide presentations.

    The direction of a cue is fixed beforehand (`LOWER_IS_ALIVE`), never chosen by the data: an
    AUC below 0.5 means that the cue points the wrong way.

    Args:
        table: from `cue_table`.
        cues: columns.
        species: names in `pai_species`.

    Returns:
        One row a cue and species: ``cue, species, auc, low, high, n_bona_fide, n_attack`` (clips
        on which the cue speaks) and ``silent`` (share of the clips of both on which it does not).
        The interval takes subjects, not clips, for independent.
    """
    alive = table[table["pai_species"] == "bona_fide"]
    pairs = ((cue, name) for cue in cues for name in species)
    return pd.DataFrame([_separation(alive, table[table["pai_species"] == s], c, s) for c, s in pairs])


def _separation(alive: pd.DataFrame, attack: pd.DataFrame, cue: str, species: str) -> dict:
    a, b = (rows[np.isfinite(rows[cue].astype(float))] for rows in (alive, attack))
    sign = -1.0 if cue in LOWER_IS_ALIVE else 1.0
    value = auc(sign * a[cue].to_numpy(float), sign * b[cue].to_numpy(float))
    low, high = auc_interval(value, a["subject_id"].nunique(), b["subject_id"].nunique())
    spoken, asked = len(a) + len(b), len(alive) + len(attack)
    return {
        "cue": cue, "species": species, "auc": value, "low": low, "high": high,
        "n_bona_fide": len(a), "n_attack": len(b), "silent": 1 - spoken / asked if asked else math.nan,
    }  # fmt: skip


def auc_grid(found: pd.DataFrame, *, text: bool = False) -> pd.DataFrame:
    """Lay `separability` out as cue × species, as numbers or as "0.97 [0.91, 0.99]"."""
    shown = found.assign(text=[_cell(r) for r in found.itertuples()])
    grid = shown.pivot(index="cue", columns="species", values="text" if text else "auc")
    return grid.loc[list(dict.fromkeys(found["cue"])), list(dict.fromkeys(found["species"]))]


def _cell(row: tuple) -> str:
    return "–" if math.isnan(row.auc) else f"{row.auc:.2f} [{row.low:.2f}, {row.high:.2f}]"


def one_auc(table: pd.DataFrame, cue: str, alive: np.ndarray, attack: np.ndarray) -> dict:
    """Return the separation by one cue between two sets of clips.

    Args:
        table: from `cue_table`.
        cue: column.
        alive, attack: (n,) bool masks.

    Returns:
        As a row of `separability`.
    """
    mask = [np.asarray(m, bool) for m in (alive, attack)]
    return _separation(table[mask[0]], table[mask[1]], cue, "")
