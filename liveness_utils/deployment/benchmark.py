"""What a detector is worth on somebody's data: a bundle as it ships, and cameras taught on the spot.

Imported data sets come in (`liveness import`), stills or clips; a table of rates by video goes out. People are
disjoint: nobody who teaches a camera is tested. A camera is taught as `liveness teach` does it, on the embedding of
the bundle's own model; of its verdict the pixels alone are measured, for stills do not move.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from liveness_utils import bundle as bundles
from liveness_utils import dataset as ds
from liveness_utils import metrics, real
from liveness_utils.deployment import camera as cameras
from liveness_utils.deployment import teaching
from liveness_utils.errors import DatasetError, MetricError
from liveness_utils.evaluation.taught import Fit, Frames, taught

ALL = "all"  # species are taught, none is left out
NONE = "every attack"  # is left out: bona fide alone is taught
EACH = "each camera"  # by itself, mean of them


@dataclass(frozen=True)
class Settings:
    """How heads are taught and where measurements are kept.

    Attributes:
        people: how many teach.
        clips: how many of their videos, beside all of them.
        draws: of people, for each number.
        seed: of the draws and the bootstrap.
        workers: processes that track and crop.
        work: folder of prepared arrays, one a data set; they are made once.
        progress: show bars.
    """

    people: tuple[int, ...] = (1, 2, 4)
    clips: tuple[int, ...] = (2, 4, 8)
    draws: int = 10
    seed: int = 0
    workers: int = 2
    work: Path = Path("runs/benchmark")
    progress: bool = False


@dataclass(frozen=True)
class Result:
    """One data set's measurements.

    Attributes:
        name: of the data set's folder.
        untouched: of the bundle at its own threshold: pattern, threshold, auc, eer, BPCER, APCER by species, no
            decisions; rates with k, n and interval.
        taught: one row a camera (`ALL` mixed, `EACH` by itself), number of people, of clips (0 for all of theirs) and
            species left out (`ALL` for none, `NONE` where bona fide alone is taught): AUC and EER, means over draws
            and the range of 95 % of them, and at the taught threshold BPCER and the worst species' APCER, pooled over
            draws; None where the data names too few people.
        elsewhere: one row a number of people, where the data names cameras, lights or sessions: taught in one of them,
            the share of videos that is announced as not taught, in the others and there; and the share of attacks of
            the others that is accepted all the same.
        note: why `taught` is None.
    """

    name: str
    untouched: dict[str, Any]
    taught: pd.DataFrame | None
    elsewhere: pd.DataFrame | None = None
    note: str = ""


def measure(folder: str | os.PathLike, bundle: bundles.Bundle, settings: Settings) -> Result:
    """Measure one imported data set.

    Args:
        folder: of clips, with manifest.parquet (`liveness import`).
        bundle: judged with as it ships; cameras are taught on its embedding.
        settings: see `Settings`.

    Returns:
        Result; videos, not frames, are counted.

    Raises:
        DatasetError: the folder holds no clips. MetricError: it holds one class only.
    """
    folder = Path(folder)
    if not (folder / "manifest.parquet").is_file():
        raise DatasetError(f"{folder} holds no manifest.parquet: turn the data into clips first (`liveness import`).")
    name = folder.resolve().name
    where = ds.prepare(folder, settings.work / name, workers=settings.workers, progress=settings.progress)
    prepared = ds.open_prepared(where)
    outputs = model_outputs(prepared, bundle, settings)
    table, away, note = None, None, ""
    try:
        frames = frames_of(prepared, outputs["embedding"])
        table = taught_table(frames, bundle.picture_head, settings)
        away = elsewhere(frames, bundle, settings)
    except MetricError as error:
        note = str(error)
    return Result(name, untouched(prepared, outputs, bundle, settings), table, away, note)


def model_outputs(prepared: ds.Prepared, bundle: bundles.Bundle, settings: Settings) -> dict[str, np.ndarray]:
    """What the shipped model says of every clip; kept beside the arrays.

    Args:
        prepared: of one data set. bundle: whose model runs. settings: threads and progress.

    Returns:
        logit, consistency (n,), embedding (n, 432).
    """
    from liveness_utils import export

    path = prepared.folder / f"outputs_{cameras.model_of(bundle)[:12]}_{prepared.mark}.npz"
    names = ("logit", "consistency", "embedding")
    if not path.is_file():
        fill, rows = np.asarray(bundle.feature_fill, np.float32), np.arange(len(prepared))
        found = export.run_file(
            bundle.path("model.tflite"), prepared, fill, rows=rows, names=names, threads=settings.workers,
            progress=settings.progress,
        )  # fmt: skip
        part = path.with_name(f".{path.name}")
        np.savez(part, **found)
        os.replace(part if part.suffix == ".npz" else part.with_suffix(".npz"), path)
    with np.load(path) as held:
        return {name: held[name] for name in names}


def untouched(
    prepared: ds.Prepared, outputs: Mapping[str, np.ndarray], bundle: bundles.Bundle, settings: Settings
) -> dict[str, Any]:
    """Rates of a bundle at the threshold that it ships, for what the data set's clips hold.

    Stills count as they are. Clips are judged whole: under 2.4 s they are no decision here, where `liveness predict`
    has thresholds of their length.

    Args:
        prepared: of one data set.
        outputs: of the bundle's model on it, logit and consistency (n,).
        bundle: whose threshold judges.
        settings: see `Settings`.

    Returns:
        see `Result`.

    Raises:
        MetricError: one class only.
    """
    from liveness_utils.network.scoring import score_table

    rows, presence = np.arange(len(prepared)), np.median(prepared.presence, axis=0)
    scores = score_table(prepared, rows, dict(outputs))
    scores = real.by_video(scores.assign(video_id=videos(prepared)))
    threshold = bundle.threshold(presence)["value"]
    judged = real.judged(scores, threshold)
    return {
        "pattern": bundles.pattern_name(presence),
        "threshold": threshold,
        "auc": vars(real.auc(judged, seed=settings.seed)),
        "eer": metrics.eer(judged["raw_score"], judged["is_bonafide"].astype(int)),
        "rates": {name: rate.as_dict() for name, rate in real.errors(judged).items()},
        "no_decision": int(judged["score"].isna().sum()),
        "videos": len(judged),
    }


def videos(prepared: ds.Prepared) -> np.ndarray:
    """Name of the video of each clip or still, (n,) str: its own where the data names none."""
    manifest = prepared.manifest
    named = manifest["video_id"] if "video_id" in manifest else pd.Series(pd.NA, manifest.index)
    return named.astype("string").fillna(manifest["clip_id"].astype("string")).to_numpy(str)


def frames_of(prepared: ds.Prepared, embedding: np.ndarray) -> Frames:
    """A data set's stills or clips as `Frames`: a row each, grouped by camera, light or session where they are named.

    Args:
        prepared: of one data set.
        embedding: (n, 432) of the bundle's model.

    Raises:
        MetricError: the data names no people.
    """
    manifest = prepared.manifest
    if manifest["subject_id"].isna().any():
        raise MetricError("Some clips name no person: cameras cannot be taught by some people and tested on others.")
    known = np.flatnonzero(np.isfinite(prepared.labels))
    statistics = np.stack([cameras.image_statistics(prepared.crops[k][: prepared.pictures]) for k in known])
    of_clip = [prepared.labels, manifest["subject_id"].to_numpy(str), videos(prepared), prepared.species_names]
    return Frames(embedding[known], *(v[known] for v in of_clip), statistics, _groups(manifest)[known])


def _groups(manifest: pd.DataFrame) -> np.ndarray:
    """Camera, else light, else session of each clip, as far as the manifest names several; "" where it names none."""
    for name in ("capture_device_id", "light", "scene_id"):
        if name in manifest and manifest[name].notna().all() and manifest[name].nunique() > 1:
            return manifest[name].to_numpy(str)
    return np.full(len(manifest), "")


def taught_rows(frames: Frames) -> list[cameras.Taught]:
    """A data set's rows as clips to teach."""
    return [
        cameras.Taught(
            cameras.LIVING if alive else str(kind),
            str(person),
            "",
            str(video),
            1,
            tuple(embedding),
            tuple(statistics),
            (0, 0),
        )
        for embedding, statistics, alive, person, video, kind in zip(
            frames.embedding, frames.statistics, frames.alive, frames.person, frames.video, frames.kind, strict=True
        )
    ]


def taught_head(general: Mapping[str, Any]) -> Fit:
    """Teach as `teaching.teach` does; scores are logits above the taught threshold.

    Args:
        general: `Bundle.picture_head`.
    """

    def fit(learnt: Frames):
        head = teaching.fit(taught_rows(learnt), dict(general))
        return lambda frames: cameras.logits(head, dict(general), frames.embedding) - head.threshold

    return fit


def taught_table(frames: Frames, general: Mapping[str, Any], settings: Settings) -> pd.DataFrame:
    """What cameras taught by so many people and clips are worth; see `Result.taught`.

    Where a species is left out, only it is tested, beside the living faces: what was not taught is not known.

    Args:
        frames: of one data set. general: `Bundle.picture_head`. settings: see `Settings`.

    Raises:
        MetricError: too few people.
    """
    species = sorted(set(frames.kind[frames.alive == 0]))
    options = {"draws": settings.draws, "seed": settings.seed, "fit": taught_head(general)}
    wanted: list[tuple[str, int, dict]] = [(ALL, 0, {}), (NONE, 0, {"kinds": ()})]
    wanted += [
        (left, 0, {"kinds": [name for name in species if name != left], "tested": [left]})
        for left in (species if len(species) > 1 else ())
    ]
    wanted += [(ALL, count, {"clips": count, "people": settings.people[-1:]}) for count in settings.clips]
    groups = [g for g in np.unique(frames.group) if g]
    rows = []
    for place in (ALL, EACH) if groups else (ALL,):
        parts = [frames] if place == ALL else [frames.where(frames.group == g) for g in groups]
        for left, clips, chosen in wanted:
            able = [part for part in parts if left in (ALL, NONE) or left in part.kind[part.alive == 0]]
            tables = [taught(part, **{"people": settings.people, **options, **chosen}) for part in able]
            for count, table in pd.concat(tables).groupby("people", sort=False):
                rows.append({"camera": place, "people": count, "clips": clips, "left_out": left, **_pooled(table)})
    return pd.DataFrame(rows)


def _pooled(table: pd.DataFrame) -> dict[str, float]:
    """Means and ranges over draws (of each camera alike), and rates at the threshold over all of them."""
    row: dict[str, float] = {"draws": len(table)}
    for name in ("auc", "eer"):
        low, high = np.percentile(table[name], [2.5, 97.5])
        row |= {name: table[name].mean(), f"{name}_low": low, f"{name}_high": high}
    wrong, all_of = (pd.DataFrame(list(table[f"apcer_{c}"])).sum() for c in "kn")
    rates = wrong / all_of
    return row | {
        "bpcer": table["bpcer_k"].sum() / table["bpcer_n"].sum(), "apcer": float(wrong.sum() / all_of.sum()),
        "apcer_worst": float(rates.max()), "worst": str(rates.idxmax()),
    }  # fmt: skip


def elsewhere(frames: Frames, bundle: bundles.Bundle, settings: Settings) -> pd.DataFrame | None:
    """Teach in one camera, light or session and judge all of them; see `Result.elsewhere`.

    Args:
        frames: of one data set. bundle: whose embedding it is. settings: see `Settings`.

    Returns:
        Columns people, announced, announced_there, accepted_attacks, accepted_living, videos; None where the data
        names no groups.
    """
    groups = [g for g in np.unique(frames.group) if g]
    rows = []
    for draw in range(settings.draws if groups else 0):
        order = np.random.default_rng([settings.seed, draw]).permutation(np.unique(frames.person))
        for count in (n for n in settings.people if n > 1):
            for group in groups:
                teach = np.isin(frames.person, order[:count])
                if len(np.unique(frames.alive[teach & (frames.group == group)])) == 2:
                    rows.append({"people": count, **_elsewhere(frames, teach, group, bundle)})
    if not rows:
        return None
    sums = pd.DataFrame(rows).groupby("people", sort=False).sum()
    return pd.DataFrame({
        "people": sums.index, "announced": (sums["strange_out"] / sums["out"]).to_numpy(),
        "announced_there": (sums["strange_in"] / sums["in"]).to_numpy(),
        "accepted_attacks": (sums["accepted_attacks"] / sums["attacks"]).to_numpy(),
        "accepted_living": (sums["accepted_living"] / sums["living"]).to_numpy(), "videos": sums["out"].to_numpy(),
    })  # fmt: skip


def _elsewhere(frames: Frames, teach: np.ndarray, group: str, bundle: bundles.Bundle) -> dict[str, int]:
    here = frames.group == group
    rows = taught_rows(frames.where(teach & here))
    general = dict(bundle.picture_head)
    camera = cameras.TaughtCamera(group, "", tuple(rows), teaching.fit(rows, general), general)
    tested = frames.where(~teach)
    read = [camera.judge(seen) for seen in _by_video_evidence(tested)]
    _, first = np.unique(tested.video, return_index=True)
    out, alive = tested.group[first] != group, tested.alive[first] == 1
    strange = np.array([r.distance > cameras.STRANGE for r in read])
    accepted = np.array([r.decision == "bona_fide" for r in read])
    return {
        "strange_out": int(strange[out].sum()), "out": int(out.sum()),
        "strange_in": int(strange[~out & alive].sum()), "in": int((~out & alive).sum()),
        "accepted_attacks": int(accepted[out & ~alive].sum()), "attacks": int((out & ~alive).sum()),
        "accepted_living": int(accepted[~out & alive].sum()), "living": int((~out & alive).sum()),
    }  # fmt: skip


def _by_video_evidence(frames: Frames) -> list[cameras.Evidence]:
    """What a session would have measured of each video, in the order of their names, its motion aside."""
    return [
        cameras.Evidence(
            frames.embedding[frames.video == name].mean(axis=0), frames.statistics[frames.video == name].mean(axis=0),
            math.inf, 0.0, (0, 0),
        )
        for name in np.unique(frames.video)
    ]  # fmt: skip
