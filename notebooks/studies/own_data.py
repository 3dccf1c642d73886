"""What notebook 09 tries on data that somebody else recorded: a stand-in, traps, cues, fine-tuning in folds.

Imported clips and their prepared arrays come in; tables go out.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from liveness_utils import adapters, clips, metrics
from liveness_utils import dataset as ds
from liveness_utils.errors import DatasetError
from liveness_utils.real import area, auc, by_unit, judged

# Cues that a single picture has; the others need motion.
STILL_CUES = (
    "spectral_peak", "high_frequency_share", "sharpness", "sharpness_ratio", "specular_share", "chroma_spread",
    "black_level", "border_lines",
)  # fmt: skip


def simulated_tree(
    data: str | os.PathLike, out: str | os.PathLike, *, clips_a_class: int = 12, frames: int = 2
) -> Path:
    """A folder of pictures made of simulated clips: what notebook 09 reads where there is no real data.

    Clips of people that no model here was trained on (dev and test), some frames of each, laid out
    as ``real|fake/*.png`` with a table images.csv.

    Raises:
        DatasetError: the clips have not been generated.
    """
    if not (Path(data) / "manifest.parquet").is_file():
        raise DatasetError(f"{data}: holds no clips; run notebook 01 of this profile first.")
    table, out = clips.read_manifest(data), Path(out)
    table = table[table["split"].isin(["dev", "test"]) & (table["pai_species"].fillna("") != "injection")]
    table = table.groupby("is_bonafide").head(clips_a_class).reset_index(drop=True)
    rows = [row for item in table.to_dict("records") for row in _stills_of(data, out, item, frames)]
    pd.DataFrame(rows).to_csv(out / "images.csv", index=False)
    return out


def _stills_of(data: str | os.PathLike, out: Path, row: Mapping, frames: int) -> list[dict]:
    clip, label = clips.load_clip(data, row["clip_id"], row=row), "real" if row["is_bonafide"] else "fake"
    (out / label).mkdir(parents=True, exist_ok=True)
    found = []
    for k in np.linspace(0, len(clip.t) - 1, frames + 2).astype(int)[1:-1]:
        name = f"{label}/{row['clip_id']}_{k:03d}.png"
        cv2.imwrite(str(out / name), clip.frames[k][..., ::-1])
        kind = "" if pd.isna(row["pai_species"]) else row["pai_species"]
        found.append({"file": name, "is_bonafide": int(row["is_bonafide"]), "subject": row["subject_id"],
                      "video": row["clip_id"], "kind": kind})  # fmt: skip
    return found


def some_of(manifest: pd.DataFrame, people: int, videos: int, stills: int, seed: int = 0) -> pd.DataFrame:
    """At most so many people, videos of each class a person, and stills a video.

    Raises:
        DatasetError: the clips name no person or no video.
    """
    if "video_id" not in manifest or not (manifest["subject_id"].notna() & manifest["video_id"].notna()).any():
        raise DatasetError("These pictures name no person or no video: add images.csv with file, subject, video, kind.")
    names = np.random.default_rng(seed).permutation(sorted(manifest["subject_id"].dropna().unique()))[:people]
    kept = manifest[manifest["subject_id"].isin(list(names))]
    single = kept.drop_duplicates("video_id").sample(frac=1.0, random_state=seed)
    # The first of every species before the second of any.
    single = single.assign(species=single["pai_species"].fillna("bona_fide"))
    single["turn"] = single.groupby(["subject_id", "species"]).cumcount()
    first = single.sort_values(["turn", "species"]).groupby(["subject_id", "is_bonafide"])["video_id"].head(videos)
    return kept[kept["video_id"].isin(first)].groupby("video_id").head(stills).reset_index(drop=True)


def shallow(kind: str, pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Features that know nothing of liveness: ``colour`` means, ``thumbnail`` (24×24 grey), ``border`` rows.

    Args:
        pictures: (H, W, 3) uint8 each.

    Returns:
        (n, d) float32.
    """
    small = [cv2.resize(p, (24, 24), interpolation=cv2.INTER_AREA) for p in pictures]
    if kind == "colour":
        return np.stack([s.reshape(-1, 3).mean(axis=0) for s in small]).astype(np.float32)
    grey = np.stack([cv2.cvtColor(s, cv2.COLOR_RGB2GRAY) for s in small]).astype(np.float32)
    if kind == "border":
        return np.concatenate([grey[:, 0], grey[:, -1], grey[:, :, 0], grey[:, :, -1]], axis=1)
    return grey.reshape(len(grey), -1)


def shallow_scores(
    features: np.ndarray, label: np.ndarray, groups: np.ndarray, k: int = 5, seed: int = 0
) -> np.ndarray:
    """Out-of-fold scores of a logistic regression, folds disjoint in `groups`.

    Returns:
        (n,) P(bona fide) from a model that saw nothing of the group.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, class_weight="balanced", max_iter=200))
    cut = StratifiedGroupKFold(k, shuffle=True, random_state=seed)
    return cross_val_predict(model, features, label, groups=groups, cv=cut, method="predict_proba")[:, 1]


def traps(pictures: Mapping[str, Sequence[np.ndarray]], table: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """What gives the class away before any liveness is seen, split by file and by person.

    Args:
        pictures: by name, e.g. whole frames and face crops, in the order of `table`.
        table: is_bonafide, subject_id.

    Returns:
        one row a kind of picture, feature and split: auc, low, high.
    """
    y = table["is_bonafide"].astype(int).to_numpy()
    units = {"files": np.arange(len(table)), "people": pd.factorize(table["subject_id"])[0]}
    rows = []
    for name, images in pictures.items():
        for kind in ("colour", "border", "thumbnail"):
            features = shallow(kind, images)
            for split, groups in units.items():
                found = auc(
                    table.assign(s=shallow_scores(features, y, groups, seed=seed)), "s", replicates=300, seed=seed
                )
                rows.append({"picture": name, "feature": kind, "split by": split, **vars(found)})
    return pd.DataFrame(rows)


def cue_areas(sets: Mapping[str, ds.Prepared], names: Sequence[str] = STILL_CUES) -> pd.DataFrame:
    """AUC of single cues in several data sets, the direction taken from the first one.

    A cue below 0.5 in another set says the opposite there: what a network learnt of it misleads.

    Returns:
        one row a cue, one column a data set, NaN where it was not measured in both classes.
    """
    columns: dict[str, dict[str, float]] = {}
    sign: dict[str, float] = {}
    for title, held in sets.items():
        cues, labels = held.cues(), held.labels
        columns[title] = {}
        for name in names:
            usable = np.isfinite(labels) & np.isfinite(cues[name].to_numpy(float))
            value = area(cues[name].to_numpy(float)[usable], labels[usable])
            sign.setdefault(name, -1.0 if value < 0.5 else 1.0)
            columns[title][name] = value if sign[name] > 0 else 1.0 - value
    return pd.DataFrame(columns)


def cross_validate(
    features: str | os.PathLike,
    out: str | os.PathLike,
    settings: Callable[[str, str], object],
    *,
    k: int = 4,
    seed: int = 0,
    target: float = 0.05,
) -> tuple[pd.DataFrame, list[Path]]:
    """Train and judge on folds without common people; each fold has a threshold from its own dev people.

    Args:
        features: prepared clips. out: folder of folds and trainings.
        settings: makes a `training.TrainConfig` of (prepared folder, out folder).
        k: folds. seed: of the folds. target: worst-species APCER on dev.

    Returns:
        the test scores of all folds, every clip once, with columns fold, threshold, margin (logit
        less the threshold's) and accepted; and the checkpoints.
    """
    from liveness_utils.network.scoring import score
    from liveness_utils.network.training import train

    held, tables, checkpoints = ds.open_prepared(features), [], []
    for n, splits in enumerate(adapters.folds(held.manifest, k, seed)):
        fold = ds.resplit(features, Path(out) / f"fold{n}-seed{seed}" / "features", splits)
        checkpoint = train(settings(str(fold), str(fold.parent / "checkpoints")))
        dev, test = (by_unit(score(checkpoint, fold, split=s)) for s in ("dev", "test"))
        limit = metrics.operating_threshold(dev, target).value
        tables.append(judged(test, limit).assign(fold=n))
        checkpoints.append(Path(checkpoint))
    return pd.concat(tables, ignore_index=True), checkpoints


def at_most(n: int, confidence: float = 0.95) -> float:
    """The largest error rate that n trials without an error leave possible (the rule of three).

    >>> round(at_most(30), 3)
    0.095
    """
    return 1.0 - (1.0 - confidence) ** (1.0 / n)
