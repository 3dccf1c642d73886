"""How far a clip may degrade before the verdict changes: perturbed clips, measured anew.

Clips on disk and a trained network come in; one score a clip, condition and level goes out, for
`metrics` to count. Whatever is perturbed passes landmarks, cues and quality gates again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from liveness_utils import inputs
from liveness_utils.dataset import species_names
from liveness_utils.errors import ClipError, DatasetError, LandmarkError

if TYPE_CHECKING:
    import pandas as pd

    from liveness_utils.clips import Clip, Imu
    from liveness_utils.dataset import Prepared
    from liveness_utils.landmarks import Landmarker
    from liveness_utils.network.fusion import FusionNet

CLEAN = ("clean", 0.0)
_APART = 1e-3  # s between two frames at least
_ACCEL_PER_GYRO = 10.0  # m/s² of noise for each rad/s: the ratio of two cheap parts' densities


# ------------------------------------------------------------------------------- perturbations
def blurred(clip: Clip, sigma: float, rng: np.random.Generator) -> Clip:
    """Gaussian blur of `sigma` pixels of the stored frame."""
    import cv2

    return replace(clip, frames=np.stack([cv2.GaussianBlur(f, (0, 0), sigma) for f in clip.frames]))


def noisy(clip: Clip, sigma: float, rng: np.random.Generator) -> Clip:
    """White noise of `sigma` grey levels, anew in every frame."""
    noise = rng.standard_normal(clip.frames.shape, np.float32)
    return replace(clip, frames=np.clip(clip.frames + sigma * noise + 0.5, 0, 255).astype(np.uint8))


def exposed(clip: Clip, stops: float, rng: np.random.Generator) -> Clip:
    """Exposure changed by `stops`, in linear light behind a gamma of 2.2, clipped at white."""
    level = np.arange(256) / 255.0
    table = 255 * np.clip(2.0**stops * level**2.2, 0, 1) ** (1 / 2.2) + 0.5
    return replace(clip, frames=table.astype(np.uint8)[clip.frames])


def recompressed(clip: Clip, crf: float, rng: np.random.Generator) -> Clip:
    """H.264 once more, at constant rate factor `crf`."""
    import tempfile

    from liveness_utils.clips import read_video, write_video

    with tempfile.TemporaryDirectory() as folder:
        path = write_video(Path(folder) / "again.mp4", clip.frames, clip.t, crf=int(crf))
        frames, _ = read_video(path)
    return replace(clip, frames=frames)


def dropped(clip: Clip, share: float, rng: np.random.Generator) -> np.ndarray:
    """Indices of the frames that are left when `share` of them, never the first and last, is lost."""
    inner = np.arange(1, len(clip.t) - 1)
    lost = rng.choice(inner, int(round(share * len(inner))), replace=False)
    return np.setdiff1d(np.arange(len(clip.t)), lost)


def misdated(clip: Clip, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Times of the frames when each is dated `sigma` seconds (standard deviation) off, in the order they come in.

    A stand-in for a camera that films at one rate what is shown at another, whose errors are regular, and for a
    clock that is read after a queue.
    """
    t = np.sort(clip.t + sigma * rng.standard_normal(len(clip.t)))
    t = np.maximum.accumulate(t - _APART * np.arange(len(t))) + _APART * np.arange(len(t))
    return t - t[0] + clip.t[0]


def delayed_imu(imu: Imu, seconds: float, rng: np.random.Generator) -> Imu:
    """The IMU's clock runs `seconds` behind: every sample is dated later."""
    return replace(imu, t=imu.t + seconds)


def noisy_imu(imu: Imu, sigma: float, rng: np.random.Generator) -> Imu:
    """White noise of `sigma` rad/s on the gyroscope and ten times as many m/s² on the accelerometer."""
    parts = {"gyro": (imu.gyro, sigma), "accel": (imu.accel, _ACCEL_PER_GYRO * sigma)}
    noise = {k: v + s * rng.standard_normal(v.shape).astype(np.float32) for k, (v, s) in parts.items() if v is not None}
    return replace(imu, **noise)


def absent_imu(imu: Imu, level: float, rng: np.random.Generator) -> None:
    """No IMU at all."""
    return None


@dataclass(frozen=True)
class Kind:
    """A way to degrade a clip: what it touches (pixels, frames, times or imu), how, and how strongly."""

    touches: str
    function: Callable
    levels: tuple[float, ...]
    unit: str


KINDS = {
    "blur": Kind("pixels", blurred, (1.5, 3.0), "σ (px)"),
    "noise": Kind("pixels", noisy, (10.0, 25.0), "σ (grey levels)"),
    "exposure": Kind("pixels", exposed, (-2.0, 2.0), "stops"),
    "compression": Kind("pixels", recompressed, (34.0, 42.0), "x264 CRF"),
    "dropped frames": Kind("frames", dropped, (0.2, 0.5), "share"),
    "frame times": Kind("times", misdated, (0.005, 0.01, 0.02), "σ (s)"),
    "IMU delay": Kind("imu", delayed_imu, (-0.1, 0.05, 0.1, 0.2), "s"),
    "IMU noise": Kind("imu", noisy_imu, (0.02, 0.05, 0.1), "σ (rad/s)"),
    "IMU absent": Kind("imu", absent_imu, (1.0,), ""),
}


def conditions(every_level: bool = True) -> tuple[tuple[str, float], ...]:
    """Conditions to measure: the clean clip, then each kind at all its levels or at its last one.

    >>> conditions(every_level=False)[:3]
    (('clean', 0.0), ('blur', 3.0), ('noise', 25.0))
    """
    chosen = [(name, level) for name, kind in KINDS.items() for level in kind.levels[0 if every_level else -1 :]]
    return (CLEAN, *chosen)


# ------------------------------------------------------------------------------------ measuring
def perturbed_inputs(
    clip: Clip, wanted: Sequence[tuple[str, float]], landmarker: Landmarker | None = None, seed: int = 0
) -> dict:
    """What the network sees of one clip under each condition.

    Landmarks are found anew where pixels change; changed times and a changed IMU keep the track it had.

    Args:
        clip: clips.Clip. wanted: (kind, level) pairs, see `conditions`. landmarker: reused if given.
        seed: of noise, times and dropped frames.

    Returns:
        condition to (inputs.ClipInputs, reason); the reason is "" where the gates let it pass.
    """
    from liveness_utils import cues, landmarks

    track = landmarks.track(clip, landmarker)
    motion = cues.measure_motion(clip, track)
    found = {}
    for name, level in wanted:
        rng = np.random.default_rng([seed, int(1000 * abs(level)), len(name)])
        kind = KINDS.get(name)
        if kind is None:
            found[name, level] = _seen(clip, track, motion)
        elif kind.touches == "imu":
            imu = None if clip.imu is None else kind.function(clip.imu, level, rng)
            found[name, level] = _seen(replace(clip, imu=imu), track, motion)
        elif kind.touches == "frames":
            found[name, level] = _seen(*_subset(clip, track, kind.function(clip, level, rng)))
        elif kind.touches == "times":
            t = kind.function(clip, level, rng)
            found[name, level] = _seen(replace(clip, t=t), replace(track, t=t))
        else:
            changed = kind.function(clip, level, rng)
            found[name, level] = _seen(changed, landmarks.track(changed, landmarker))
    return found


def _subset(clip, track, keep: np.ndarray) -> tuple:
    from dataclasses import fields

    left = type(track)(*(getattr(track, f.name)[keep] for f in fields(track)))
    return replace(clip, frames=clip.frames[keep], t=clip.t[keep], truth=None), left


def _seen(clip, track, motion=None) -> tuple[inputs.ClipInputs, str]:
    from liveness_utils import cues

    features = cues.frame_features(clip, track, motion).values
    try:
        found, problem = inputs.clip_inputs(clip, track, features), ""
    except (ClipError, LandmarkError) as error:
        index = np.linspace(0, len(clip.t) - 1, inputs.FRAMES).astype(int)
        found, problem = inputs.clip_inputs(clip, track, features, index), str(error)
    summary = inputs.summarise_quality(found.quality_rows, found.t)
    return found, problem or "; ".join(inputs.quality_reasons(summary))


def _batch(data_dir: str, todo: Sequence[tuple], seed: int) -> list[tuple[str, dict]]:
    import cv2

    from liveness_utils import clips, landmarks

    cv2.setNumThreads(1)
    with landmarks.Landmarker() as landmarker:
        loaded = ((clips.load_clip(data_dir, row["clip_id"], row=row), wanted) for row, wanted in todo)
        return [(clip.clip_id, perturbed_inputs(clip, wanted, landmarker, seed)) for clip, wanted in loaded]


def scores(net: FusionNet, found: Sequence[tuple[inputs.ClipInputs, str]], batch_size: int = 8) -> np.ndarray:
    """P(bona fide) of some inputs, (n,); NaN where a reason forbids a decision."""
    import torch

    out = []
    fill = net.features.mean.numpy()
    with torch.inference_mode():
        for k in range(0, len(found), batch_size):
            part = [seen for seen, _ in found[k : k + batch_size]]
            frames = torch.from_numpy(np.stack([p.crops for p in part])).float() / 255.0
            features = np.stack([inputs.fill_missing(p.features, fill) for p in part])
            arrays = (features, np.stack([p.imu for p in part]), np.stack([p.presence for p in part]))
            result = net(frames, *(torch.from_numpy(np.asarray(a, np.float32)) for a in arrays))
            out.append(torch.sigmoid(result["logit"]).numpy())
    refused = np.array([reason != "" for _, reason in found])
    return np.where(refused, np.nan, np.concatenate(out))


def sample(manifest: pd.DataFrame, n: int, seed: int = 0, split: str = "test") -> pd.DataFrame:
    """Choose up to `n` clips of a split, a third of them bona fide, the rest even over the species.

    Raises:
        DatasetError: the split is empty.
    """
    rows = manifest.assign(pai_species=species_names(manifest))
    rows = rows[rows["split"] == split].sample(frac=1, random_state=seed)
    if rows.empty:
        raise DatasetError(f"There are no clips in split {split!r}: generate clips with notebook 01.")
    alive = rows["pai_species"] == "bona_fide"
    kept = rows[alive].head(max(1, round(n / 3)))
    # One of each species, then the second of each, and so on.
    turn = rows[~alive].groupby("pai_species").cumcount().sort_values(kind="stable")
    chosen = kept.index.union(turn.index[: max(1, n - len(kept))])
    return rows.loc[chosen].reset_index(drop=True)


def measure(
    checkpoint: str | os.PathLike,
    data_dir: str | os.PathLike,
    rows: pd.DataFrame,
    out_dir: str | os.PathLike,
    *,
    wanted: Sequence[tuple[str, float]] = conditions(),
    workers: int = 2,
    seed: int = 0,
    progress: bool = True,
):
    """Score clips under every condition; resumes where it stopped, and adds conditions to those that are there.

    Args:
        checkpoint: of the network. data_dir: folder of clips. rows: of the manifest (DataFrame).
        out_dir: one small file a clip is kept here, under a name of the checkpoint's own.
        wanted: conditions. workers: processes. seed: of the noise. progress: show a bar.

    Returns:
        DataFrame with a row a clip and condition: kind, level, score (NaN = no decision), and the
        manifest's columns.
    """
    from liveness_utils.config import write_json
    from liveness_utils.network.fusion import load_checkpoint

    net, _ = load_checkpoint(checkpoint)
    folder = Path(out_dir) / _mark(checkpoint, seed)
    held = {name: _read_scores(folder / f"{name}.json") for name in rows["clip_id"]}
    todo = [
        (r, missing) for r in rows.to_dict("records") if (missing := [c for c in wanted if c not in held[r["clip_id"]]])
    ]
    for name, found in _extracted(str(data_dir), todo, workers, seed, progress):
        held[name] |= zip(found, scores(net, list(found.values())).tolist(), strict=True)
        write_json(folder / f"{name}.json", [[*c, v] for c, v in held[name].items()])
    return _collected(held, rows, wanted)


def _mark(checkpoint, seed: int) -> str:
    return hashlib.sha256(Path(checkpoint).read_bytes() + str(seed).encode()).hexdigest()[:12]


def _read_scores(path: Path) -> dict[tuple[str, float], float]:
    if not path.is_file():
        return {}
    return {(kind, level): score for kind, level, score in json.loads(path.read_text(encoding="utf-8"))}


def _extracted(data_dir: str, todo: list[tuple], workers: int, seed: int, progress: bool) -> Iterator:
    from joblib import Parallel, delayed
    from tqdm.auto import tqdm

    # Small batches: each brings back a megabyte a clip and condition.
    size = max(1, min(3, -(-len(todo) // workers)))
    batches = [todo[k : k + size] for k in range(0, len(todo), size)]
    jobs = (delayed(_batch)(data_dir, batch, seed) for batch in batches)
    with tqdm(total=len(todo), desc="perturb", disable=not progress) as bar:
        for batch in Parallel(n_jobs=workers, return_as="generator_unordered", pre_dispatch=workers)(jobs):
            bar.update(len(batch))
            yield from batch


def _collected(held: dict, rows, wanted):
    import pandas as pd

    found = [
        {"clip_id": name, "kind": kind, "level": level, "score": held[name][kind, level]}
        for name in rows["clip_id"]
        for kind, level in wanted
    ]
    return pd.DataFrame(found).astype({"score": float}).merge(rows, on="clip_id", how="left")


def after_frames(net: FusionNet, prepared: Prepared, rows: np.ndarray, seen: Sequence[int] = (5, 10, 15, 20, 25)):
    """Scores after the first few frames of clips, as a shorter recording would give them.

    The gates are left aside, which would refuse clips under 1.1 s.

    Args:
        net: in evaluation mode. prepared: `dataset.Prepared`. rows: which. seen: numbers of frames.

    Returns:
        DataFrame: kind ("length"), level (s), score, is_bonafide, pai_species, clip_id.
    """
    import pandas as pd

    from liveness_utils.network.picture_training import opinions
    from liveness_utils.network.scoring import score

    known = opinions(net, prepared, rows).plain
    columns = ["clip_id", "subject_id", "is_bonafide", "pai_species"]
    parts = [score(net, prepared, rows=rows, frames=n, opinions=known) for n in seen]
    return pd.concat(
        [
            part[columns].assign(kind="length", level=(n - 1) / inputs.RATE, score=part["raw_score"])
            for part, n in zip(parts, seen, strict=True)
        ],
        ignore_index=True,
    )


def error_curve(table: pd.DataFrame, threshold: float) -> pd.DataFrame:
    """Rates of each condition at one threshold.

    Args:
        table: of `measure` or `after_frames`. threshold: accept at this score and above.

    Returns:
        DataFrame: kind, level, apcer (all species pooled: a curve's clips are too few for each),
        apcer_k, apcer_n, bpcer, bpcer_k, bpcer_n, no_decision (share of clips).
    """
    import pandas as pd

    from liveness_utils.metrics import apcer, bpcer

    rows = []
    for (kind, level), part in table.groupby(["kind", "level"], sort=False):
        s, y = part["score"].to_numpy(float), part["is_bonafide"].to_numpy(int)
        attack, alive = apcer(s, y, threshold)["attack"], bpcer(s, y, threshold)
        rates = {"apcer": attack, "bpcer": alive}
        flat = {k + end: v for k, r in rates.items() for end, v in (("", r.value), ("_k", r.k), ("_n", r.n))}
        rows.append({"kind": kind, "level": level, **flat, "no_decision": float(np.isnan(s).mean())})
    return pd.DataFrame(rows)
