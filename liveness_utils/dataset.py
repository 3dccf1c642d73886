"""From a folder of clips to arrays that training reads without decoding anything.

In come clips with their tracks and cues; `prepare` leaves memory-mapped arrays and tables, and
`LivenessDataset` deals them out, augmented, to `training`.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from liveness_utils import inputs
from liveness_utils.errors import ClipError, DatasetError, LandmarkError
from liveness_utils.inputs import ClipInputs, clip_inputs
from liveness_utils.instruments import PRINTS, REPLAYS, SPECIES

if TYPE_CHECKING:
    import pandas as pd

VERSION = 2
OTHERS = 2
FORGED = ("forged", "rest")
DEPTH = 14
FLAT_SPECIES = (*PRINTS, *REPLAYS)
ARRAYS = ("crops", "features", "imu", "presence", "depth", "quality_rows", "decoy_features", "decoy_imu", "decoy_valid")
_DEPTH_RANGE = (-2.5, 1.5)


# ----------------------------------------------------------------------------------- depth's target
def depth_target(clip, track, index: np.ndarray) -> np.ndarray:
    """What the depth head should say: relief in units of the inter-ocular distance.

    Relief is how much nearer than the eyes a point lies. A flat instrument gets zeros, whatever
    way it is tilted; heads and masks get theirs; what is no face, or not known, is NaN.

    Args:
        clip: a clip with truth. track: its landmarks. index: (n,) chosen frames.

    Returns:
        (n, 14, 14) float16 over the face crop, NaN where nothing is to be learned.
    """
    if clip.truth is None or not track.found.any():
        return np.full((len(index), DEPTH, DEPTH), np.nan, np.float16)
    flat = clip.meta.get("pai_species") in FLAT_SPECIES
    eyes = _eye_distance_metres(clip, track)
    found = np.flatnonzero(track.found)
    maps = []
    for k in index:
        box = track.box[found[np.argmin(np.abs(found - k))]]
        maps.append(_crop_relief(clip, k, box, eyes, flat))
    return np.stack(maps).astype(np.float16)


def depth_of_picture(clip) -> np.ndarray:
    """`depth_target` of a clip of one frame with its true landmarks in place of measured ones, (14, 14) float16."""
    from liveness_utils.landmarks import face_box, interocular_distance

    marks = clip.truth.landmarks
    eyes = float(interocular_distance(marks)[0] * _face_depth(clip.truth, 0) / clip.intrinsics.fx)
    flat = clip.meta.get("pai_species") in FLAT_SPECIES
    eyes = float(np.clip(eyes, 0.03, 0.2))
    return _crop_relief(clip, 0, face_box(marks)[0], eyes, flat).astype(np.float16)


def _eye_distance_metres(clip, track) -> float:
    from liveness_utils.landmarks import interocular_distance

    focal = clip.intrinsics.fx if clip.intrinsics else float(clip.frames.shape[2])
    pixels = interocular_distance(track.points[track.found])
    depth = [_face_depth(clip.truth, k) for k in np.flatnonzero(track.found)]
    # The largest over the clip: a turned head shortens what is seen.
    return float(np.clip(np.nanquantile(pixels * np.array(depth) / focal, 0.9), 0.03, 0.2))


def _face_depth(truth, k: int) -> float:
    inside = truth.depth[k].astype(np.float32)[truth.face_mask[k]]
    inside = inside[np.isfinite(inside) & (inside > 0)]
    return float(np.median(inside)) if len(inside) else np.nan


def _crop_relief(clip, k: int, box: np.ndarray, eyes: float, flat: bool) -> np.ndarray:
    from liveness_utils.landmarks import crop_square

    height, width = clip.frames.shape[1:3]
    cx, cy, side = crop_square(box, inputs.MARGIN)
    ticks = (np.arange(DEPTH) + 0.5) / DEPTH - 0.5
    rows, columns = clip.truth.depth.shape[1:]
    r = np.floor((cy + 0.5 + side * ticks) * rows / height).astype(int)
    c = np.floor((cx + 0.5 + side * ticks) * columns / width).astype(int)
    inside = ((r >= 0) & (r < rows))[:, None] & ((c >= 0) & (c < columns))[None, :]
    grid = np.ix_(np.clip(r, 0, rows - 1), np.clip(c, 0, columns - 1))
    depth = clip.truth.depth[k].astype(np.float32)[grid]
    face = clip.truth.face_mask[k][grid] & inside
    relief = np.zeros_like(depth) if flat else (_face_depth(clip.truth, k) - depth) / eyes
    return np.where(face, np.clip(relief, *_DEPTH_RANGE), np.nan)


# ------------------------------------------------------------------------------------- preparing
def prepare(
    data_dir: str | os.PathLike,
    out_dir: str | os.PathLike,
    *,
    workers: int = 2,
    progress: bool = True,
    manifest: pd.DataFrame | None = None,
) -> Path:
    """Track, measure and crop every clip of a folder; resumes where it stopped.

    Args:
        data_dir: folder with manifest.parquet and clips/.
        out_dir: folder of the arrays; complete when it holds index.json.
        workers: processes.
        progress: show a bar.
        manifest: rows to use; None takes the whole manifest.

    Returns:
        out_dir, holding crops.npy (n, 25, 112, 112, 3), features.npy, imu.npy, presence.npy,
        depth.npy, quality_rows.npy, manifest.parquet, cues.parquet, quality.parquet, index.json.

    Raises:
        DatasetError: nothing to prepare, or another data set is already there.
    """
    from liveness_utils.clips import read_manifest

    table = read_manifest(data_dir) if manifest is None else manifest
    table = table.reset_index(drop=True)
    if len(table) == 0:
        raise DatasetError(f"{data_dir}: the manifest names no clip; generate some first.")
    out, source = Path(out_dir), source_mark(data_dir, table["clip_id"])
    if is_prepared(out, table["clip_id"], source):
        return out
    parts = out / f"parts-{source}"
    parts.mkdir(parents=True, exist_ok=True)
    _prepare_parts(Path(data_dir), parts, table, workers, progress)
    _pack(parts, out, table, source)
    return out


def source_mark(data_dir: str | os.PathLike, clip_ids: Sequence[str]) -> str:
    """A short hash of the clips' names and video sizes, and of the names of what is measured.

    Clips that were made anew, or cues that were added since, get another one.
    """
    from liveness_utils.clips import media_file
    from liveness_utils.cues import CUE_NAMES, FRAME_FEATURES

    digest = hashlib.sha256(" ".join((*CUE_NAMES, *FRAME_FEATURES)).encode())
    for clip_id in sorted(str(c) for c in clip_ids):
        video = media_file(data_dir, clip_id)
        digest.update(f"{clip_id} {video.stat().st_size if video.is_file() else 0}\n".encode())
    return digest.hexdigest()[:12]


def is_prepared(out_dir: str | os.PathLike, clip_ids: Sequence[str] | None = None, source: str | None = None) -> bool:
    """Whether a folder holds finished arrays of this version (and of just these clips)."""
    index = Path(out_dir) / "index.json"
    if not index.is_file():
        return False
    held = json.loads(index.read_text(encoding="utf-8"))
    same = clip_ids is None or held["clip_ids"] == [str(c) for c in clip_ids]
    return held["version"] == VERSION and same and source in (None, held.get("source"))


def _prepare_parts(data_dir: Path, parts: Path, table, workers: int, progress: bool) -> None:
    from joblib import Parallel, delayed
    from tqdm.auto import tqdm

    rows = [row for row in table.to_dict("records") if not _part(parts, row["clip_id"]).exists()]
    others = {split: list(group) for split, group in table.groupby("split")["clip_id"]}
    # Batches: a landmarker is opened once for several clips.
    batches = [rows[i : i + 8] for i in range(0, len(rows), 8)]
    jobs = (delayed(_prepare_batch)(data_dir, parts, batch, others) for batch in batches)
    bar = tqdm(total=len(table), initial=len(table) - len(rows), desc="prepare", disable=not progress)
    with bar:
        for done in Parallel(n_jobs=workers, return_as="generator_unordered")(jobs):
            bar.update(done)


def _part(parts: Path, clip_id: str) -> Path:
    return parts / f"{clip_id}.npz"


def _prepare_batch(data_dir: Path, parts: Path, rows: list[dict], others: dict[str, list[str]]) -> int:
    cv2.setNumThreads(1)
    with closing(_Landmarkers()) as landmarker:
        for row in rows:
            arrays = _prepare_clip(data_dir, row, landmarker, others.get(row["split"], []))
            path = _part(parts, row["clip_id"])
            with open(path.with_suffix(".tmp"), "wb") as file:
                np.savez(file, **arrays)
            os.replace(path.with_suffix(".tmp"), path)
    return len(rows)


def _prepare_clip(data_dir: Path, row: dict, landmarker, others: list[str]) -> dict:
    from liveness_utils import clips, cues

    has_truth = (data_dir / "clips" / row["clip_id"] / "truth.npz").is_file()
    clip = clips.load_clip(data_dir, row["clip_id"], truth=has_truth, row=row)
    seen = cues.analyse(clip, _track(clip, landmarker))
    found, problem = _inputs_or_problem(clip, seen)
    return {
        "crops": found.crops,
        "features": found.features,
        "imu": found.imu,
        "presence": found.presence,
        "depth": depth_target(clip, seen.track, found.index),
        "quality_rows": found.quality_rows,
        "t": found.t,
        "cues": json.dumps({k: float(v) for k, v in seen.cues.items()}),
        "problem": problem,
        **_decoys(data_dir, clip, seen, found, others),
    }


def _track(clip, landmarker):
    """Landmarks of a clip; a still is no stream, and goes to the landmarker for images."""
    from liveness_utils import landmarks

    is_still = len(clip.t) == 1
    return inputs.still_track(clip, landmarker.still) if is_still else landmarks.track(clip, landmarker.video)


class _Landmarkers:
    """MediaPipe for streams and for stills, each opened when it is first needed."""

    @cached_property
    def video(self):
        """One face, followed."""
        from liveness_utils.landmarks import Landmarker

        return Landmarker()

    @cached_property
    def still(self):
        """Up to two faces, each picture for itself."""
        from liveness_utils.landmarks import Landmarker

        return Landmarker(2, "image")

    def close(self) -> None:
        """Free what was opened."""
        for opened in vars(self).values():
            opened.close()


def _decoys(data_dir: Path, clip, seen, found: ClipInputs, others: list[str]) -> dict[str, np.ndarray]:
    """What the clip would look like with the IMU of other clips of its split, or with a made-up one.

    Training uses them as injections that cost no rendering.
    """
    from dataclasses import replace

    count = OTHERS + len(FORGED)
    features = np.repeat(found.features[None], count, axis=0)
    windows = np.repeat(found.imu[None], count, axis=0)
    valid = np.zeros(count, np.float32)
    for k, imu in enumerate((*_other_imus(data_dir, clip, others), *_made_up_imus(clip))):
        swapped = replace(clip, imu=imu)
        windows[k], valid[k], features[k] = _with_imu(swapped, seen, found.index)
    return {"decoy_features": features, "decoy_imu": windows, "decoy_valid": valid}


def _with_imu(clip, seen, index: np.ndarray) -> tuple[np.ndarray, float, np.ndarray]:
    from liveness_utils import clips, cues

    windows, known = clips.imu_windows(clip.imu, clip.t[index])
    features = cues.frame_features(clip, seen.track, seen.motion, seen.features).values[index]
    return inputs.hold_imu(windows, known), float(known.mean() >= 0.9), features


def _other_imus(data_dir: Path, clip, others: list[str]) -> list:
    from liveness_utils.clips import read_imu

    if not _is_taught(clip):
        return []
    names = sorted(name for name in others if name != clip.clip_id)
    rng = np.random.default_rng(list(clip.clip_id.encode()))
    paths = [data_dir / "clips" / names[k] / "imu.parquet" for k in rng.permutation(len(names))[:OTHERS]]
    return [read_imu(path, check_units=False) for path in paths if path.is_file()]


def _is_taught(clip) -> bool:
    return clip.imu is not None and clip.meta.get("split") in ("train", "validation")


def _made_up_imus(clip) -> list:
    """Records that an attacker would send along with this very video: read off it, or of a resting phone.

    Only for simulated phones, whose sensors' noise is known; a record without any would give
    itself away.
    """
    from liveness_utils import motion
    from liveness_utils.devices import DEVICES

    phone = DEVICES.get(clip.meta.get("device_id"))
    if phone is None or not _is_taught(clip) or clip.imu.accel is None or clip.imu.gyro is None:
        return []
    rng = np.random.default_rng([*clip.clip_id.encode(), 1])
    length = float(clip.t[-1])
    path = path_of_record(clip.imu, clip.camera_facing, length)
    settings = {"facing": clip.camera_facing, "duration": length}
    return [motion.forge_imu(kind, rng, path, phone.imu, **settings) for kind in FORGED]


def path_of_record(imu, facing: str, length: float):
    """The turning of a phone as its own gyroscope tells it, at one place.

    Args:
        imu: clips.Imu with both sensors. facing: camera that films. length: of the video, s.

    Returns:
        motion.Trajectory of the camera from one second before the video to one after it; past
        the record's ends it stands still.
    """
    from scipy.spatial.transform import Rotation, Slerp

    from liveness_utils.motion import R_DEVICE_CAMERA, make_trajectory

    to_camera = R_DEVICE_CAMERA[facing]
    up = (imu.accel.astype(float) @ to_camera).mean(axis=0)
    attitude = Rotation.align_vectors([[0.0, 1.0, 0.0]], [up / np.linalg.norm(up)])[0]
    rate = imu.gyro.astype(float) @ to_camera
    turns = Rotation.from_rotvec(0.5 * (rate[1:] + rate[:-1]) * np.diff(imu.t)[:, None])
    attitudes = [attitude]
    for turn in turns:
        attitudes.append(attitudes[-1] * turn)
    t = np.arange(-1.0, length + 1.0, 0.01)
    held = Slerp(imu.t, Rotation.concatenate(attitudes))(np.clip(t, imu.t[0], imu.t[-1]))
    return make_trajectory(t, np.zeros((len(t), 3)), held.as_matrix())


def _inputs_or_problem(clip, seen) -> tuple[ClipInputs, str]:
    """A clip that cannot be judged stays in the set, with the reason: it counts as rejected."""
    if len(clip.t) == 1:
        return inputs.still_inputs(clip, seen.track, seen.features.values), ""
    try:
        return clip_inputs(clip, seen.track, seen.features.values), ""
    except (ClipError, LandmarkError) as error:
        index = np.linspace(0, len(clip.t) - 1, inputs.FRAMES).astype(int)
        return clip_inputs(clip, seen.track, seen.features.values, index), str(error)


def _pack(parts: Path, out: Path, table, source: str) -> None:
    """Fold the parts into one array each; index.json, written last, makes the folder valid."""
    import pandas as pd

    (out / "index.json").unlink(missing_ok=True)
    arrays, cue_rows, quality = {}, [], []
    pictures = 1 if all(_is_still(_part(parts, c)) for c in table["clip_id"]) else inputs.FRAMES
    for k, clip_id in enumerate(table["clip_id"]):
        with np.load(_part(parts, clip_id)) as part:
            for name in ARRAYS:
                if name not in arrays:
                    shape = (len(table), *part[name].shape)
                    shape = (len(table), pictures, *shape[2:]) if name == "crops" else shape
                    arrays[name] = np.lib.format.open_memmap(out / f"{name}.npy", "w+", part[name].dtype, shape)
                repeated = name == "crops" and len(part[name]) < pictures
                arrays[name][k] = inputs.still_views(part[name][0]) if repeated else part[name]
            cue_rows.append({"clip_id": clip_id, **json.loads(str(part["cues"]))})
            quality.append(_quality_row(clip_id, part))
    for array in arrays.values():
        array.flush()
    table.to_parquet(out / "manifest.parquet", index=False)
    pd.DataFrame(cue_rows).to_parquet(out / "cues.parquet", index=False)
    pd.DataFrame(quality).to_parquet(out / "quality.parquet", index=False)
    _write_index(out, table["clip_id"], source)
    for old in out.glob("parts*"):
        shutil.rmtree(old)


def _is_still(part: Path) -> bool:
    with np.load(part) as held:
        return not held["t"].any()


def _quality_row(clip_id: str, part) -> dict:
    summary = inputs.summarise_quality(part["quality_rows"], part["t"])
    limits = inputs.QualityLimits() if part["t"].any() else inputs.STILL_LIMITS
    reasons = [str(part["problem"])] if str(part["problem"]) else inputs.quality_reasons(summary, limits)
    return {"clip_id": clip_id, **summary, "reasons": "; ".join(reasons)}


def _write_index(out: Path, clip_ids: Sequence[str], source: str) -> None:
    from liveness_utils.cues import FEATURE_MODALITY, FRAME_FEATURES

    index = {
        "version": VERSION,
        "source": source,
        "clip_ids": [str(c) for c in clip_ids],
        "feature_names": list(FRAME_FEATURES),
        "imu_columns": [k for k, m in enumerate(FEATURE_MODALITY) if m == "imu"],
        "margin": inputs.MARGIN,
    }
    part = out / "index.json.tmp"
    part.write_text(json.dumps(index), encoding="utf-8")
    os.replace(part, out / "index.json")


# --------------------------------------------------------------------------------------- reading
@dataclass(frozen=True)
class Prepared:
    """Prepared arrays, memory-mapped, and their tables; row k of each is the same clip."""

    folder: Path
    manifest: object
    quality: object
    feature_names: tuple[str, ...]
    imu_columns: tuple[int, ...]
    crops: np.ndarray
    features: np.ndarray
    imu: np.ndarray
    presence: np.ndarray
    depth: np.ndarray
    quality_rows: np.ndarray
    decoy_features: np.ndarray
    decoy_imu: np.ndarray
    decoy_valid: np.ndarray

    def __len__(self) -> int:
        return len(self.manifest)

    @property
    def stills(self) -> bool:
        """Whether every clip is a single picture, which is stored once."""
        return self.crops.shape[1] > 1 and self.crops.strides[1] == 0

    @property
    def pictures(self) -> int:
        """How many different pictures a clip has to learn from: 25, of a still 1."""
        return 1 if self.stills else inputs.FRAMES

    def shown(self, row: int) -> np.ndarray:
        """The 25 pictures (25, 112, 112, 3) that the network sees of a clip; of a still, see `inputs.still_views`."""
        return inputs.still_views(self.crops[row][0]) if self.stills else np.asarray(self.crops[row])

    @property
    def mark(self) -> str:
        """A short hash of the clips and of what was measured on them."""
        sample = np.ascontiguousarray(self.features[:: max(1, len(self) // 256)])
        held = "".join(self.manifest["clip_id"]).encode() + sample.tobytes()
        return hashlib.sha256(held).hexdigest()[:12]

    @property
    def labels(self) -> np.ndarray:
        """(n,) float32, 1 = bona fide; NaN where not known."""
        return self.manifest["is_bonafide"].astype("Float64").to_numpy(np.float32, na_value=np.nan)

    @property
    def species(self) -> np.ndarray:
        """(n,) int64 index into SPECIES, −1 for others (real data has species of its own)."""
        names = self.manifest["pai_species"].astype("string").fillna("")
        names = names.mask(self.labels == 1, "bona_fide")
        return np.array([SPECIES.index(s) if s in SPECIES else -1 for s in names], np.int64)

    @property
    def species_names(self) -> np.ndarray:
        """(n,) str: bona_fide, the name of the species, or unknown."""
        return species_names(self.manifest)

    def rows(self, split: str | Sequence[str], exclude: Sequence[str] = ()) -> np.ndarray:
        """Rows of one split (or several), without the named species."""
        splits = [split] if isinstance(split, str) else list(split)
        keep = self.manifest["split"].isin(splits) & ~self.manifest["pai_species"].isin(list(exclude))
        return np.flatnonzero(keep.to_numpy(bool))

    def cues(self):
        """Clip-level cues, one row a clip, in the order of the manifest (DataFrame)."""
        import pandas as pd

        return pd.read_parquet(self.folder / "cues.parquet")


def species_names(manifest: pd.DataFrame) -> np.ndarray:
    """Names of what is presented, (n,) str: a manifest leaves the species of bona fide clips empty."""
    names = manifest["pai_species"].astype("string").fillna("").replace("", "unknown")
    alive = manifest["is_bonafide"].astype("Float64").eq(1).fillna(False)
    return np.where(alive.to_numpy(bool), "bona_fide", names.to_numpy(str))


def open_prepared(folder: str | os.PathLike) -> Prepared:
    """Map what `prepare` left.

    Raises:
        DatasetError: the folder is unfinished or of another version.
    """
    import pandas as pd

    folder = Path(folder)
    if not is_prepared(folder):
        raise DatasetError(f"{folder}: no prepared clips of this version; run `prepare` (notebook 02) first.")
    index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in ARRAYS}
    if arrays["crops"].shape[1] == 1:  # stills: a view that repeats the one picture
        shape = arrays["crops"].shape
        arrays["crops"] = np.broadcast_to(arrays["crops"], (shape[0], inputs.FRAMES, *shape[2:]))
    tables = [pd.read_parquet(folder / f"{name}.parquet") for name in ("manifest", "quality")]
    names, columns = (tuple(index[k]) for k in ("feature_names", "imu_columns"))
    return Prepared(folder, *tables, names, columns, **arrays)


def resplit(prepared: str | os.PathLike, out_dir: str | os.PathLike, splits: dict[str, str]) -> Path:
    """The same prepared clips under other splits, without copying an array.

    Folds are this: `training.train` reads a folder, and a fold is a folder whose arrays are
    links to those of another and whose manifest says otherwise.

    Args:
        prepared: folder that `prepare` left. out_dir: folder of the fold; made anew.
        splits: clip_id to train, validation, dev, test; clips not named are in none ("unused").

    Returns:
        out_dir.

    Raises:
        DatasetError: `prepared` is unfinished, or a split has another name.
    """
    source, out = Path(prepared).resolve(), Path(out_dir)
    table = open_prepared(source).manifest.copy()
    if wrong := set(splits.values()) - {"train", "validation", "dev", "test", "unused"}:
        raise DatasetError(f"{sorted(wrong)} are no splits: use train, validation, dev, test or unused.")
    out.mkdir(parents=True, exist_ok=True)
    (out / "index.json").unlink(missing_ok=True)
    table["split"] = table["clip_id"].map(splits).fillna("unused").astype("string")
    table.to_parquet(out / "manifest.parquet", index=False)
    for name in (*(f"{a}.npy" for a in ARRAYS), "cues.parquet", "quality.parquet"):
        (out / name).unlink(missing_ok=True)
        os.symlink(source / name, out / name)
    shutil.copyfile(source / "index.json", out / "index.json")
    return out


@dataclass(frozen=True)
class Scaling:
    """Mean and deviation of the inputs over the training clips, in the inputs' units."""

    feature_mean: np.ndarray
    feature_std: np.ndarray
    imu_std: np.ndarray


def scaling_of(prepared: Prepared, rows: np.ndarray) -> Scaling:
    """Robust statistics of features (median, 1.48 MAD) and spread of the IMU over some rows.

    A feature that is rarely other than constant gets its standard deviation.
    """
    features = np.asarray(prepared.features[rows], np.float64).reshape(-1, prepared.features.shape[-1])
    features = np.where(np.isfinite(features), features, np.nan)
    empty = ~np.isfinite(features).any(axis=0)
    features[:, empty] = 0.0
    middle = np.nanmedian(features, axis=0)
    spread = 1.4826 * np.nanmedian(np.abs(features - middle), axis=0)
    spread = np.maximum(spread, 0.25 * np.nanstd(features, axis=0))
    imu = np.asarray(prepared.imu[rows], np.float64)[prepared.presence[rows, 2] > 0]
    swing = imu - imu.mean(axis=2, keepdims=True) * (1, 1, 1, 0, 0, 0) if len(imu) else np.ones((1, 6))
    deviation = np.sqrt((swing**2).reshape(-1, 6).mean(axis=0))
    return Scaling(*(np.maximum(v, low).astype(np.float32) for v, low in
                     ((middle, -np.inf), (spread, 1e-4), (deviation, 1e-3))))  # fmt: skip


# ---------------------------------------------------------------------------------- augmentation
def augment_crops(
    crops: np.ndarray, depth: np.ndarray, rng: np.random.Generator, *, wide: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Photometric and small geometric changes, the same for every frame of a clip.

    No mirroring here: landmarks and IMU have to be mirrored with it (`Mirror`).

    Args:
        crops: (F, 112, 112, 3) uint8. depth: (F, 14, 14), moved along with the picture.
        wide: other framing, light from a side and a camera's sharpening as well.

    Returns:
        changed copies of both.
    """
    crops = cv2.LUT(np.ascontiguousarray(crops).reshape(-1, inputs.CROP, 3), _tone_table(rng))
    crops = crops.reshape(-1, inputs.CROP, inputs.CROP, 3)
    crops, depth = _shift(crops, depth, rng, *(WIDE_SHIFT if wide else SHIFT))
    if wide and rng.random() < 0.4:
        crops = _relight(crops, rng)
    if rng.random() < 0.3:
        crops = _recolour(crops, rng)
    if rng.random() < 0.25:
        crops = _coarsen(crops, rng)
    elif rng.random() < 0.3:
        sigma = rng.uniform(0.3, 1.2)
        crops = np.stack([cv2.GaussianBlur(c, (0, 0), sigma) for c in crops])
    if rng.random() < 0.3:
        crops = _add_noise(crops, rng)
    if wide and rng.random() < 0.35:
        crops = _sharpen(crops, rng)
    if rng.random() < 0.3:
        crops = _recompress(crops, int(rng.integers(35, 95)))
    return (_hide(crops, rng) if rng.random() < 0.3 else crops), depth


def _hide(crops: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Cover a part, so that not one spot decides. Source: DeVries & Taylor 2017, arXiv 1708.04552."""
    height, width = rng.integers(12, 45, 2)
    top, left = (int(rng.integers(0, inputs.CROP - side)) for side in (height, width))
    crops = crops.copy()
    crops[:, top : top + height, left : left + width] = rng.integers(0, 256, 3)
    return crops


def _recolour(crops: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Paler or more vivid, now and then grey: how a camera renders colour is no sign of life."""
    amount = 0.0 if rng.random() < 0.1 else float(np.exp(rng.normal(0, 0.35)))
    grey = cv2.transform(crops.reshape(-1, inputs.CROP, 3), np.array([[0.299, 0.587, 0.114]])).reshape(
        *crops.shape[:3], 1
    )
    mixed = grey + np.float32(amount) * (crops - grey.astype(np.float32))
    return np.clip(mixed, 0, 255).astype(np.uint8)


def _coarsen(crops: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The detail of a camera with fewer pixels: 40 to 90 % of the side."""
    side = int(inputs.CROP * rng.uniform(0.4, 0.9))
    how = cv2.INTER_LINEAR if rng.random() < 0.5 else cv2.INTER_CUBIC
    small = (cv2.resize(c, (side, side), interpolation=cv2.INTER_AREA) for c in crops)
    return np.stack([cv2.resize(c, (inputs.CROP, inputs.CROP), interpolation=how) for c in small])


def _tone_table(rng: np.random.Generator) -> np.ndarray:
    """Gain, offset, gamma and white balance in one look-up table (1, 256, 3) uint8."""
    level = np.arange(256)[:, None] / 255.0
    gamma = np.exp(rng.normal(0, 0.25))
    gain = np.exp(rng.normal(0, 0.15)) * np.exp(rng.normal(0, 0.09, 3))
    value = gain * level**gamma + rng.normal(0, 0.04)
    return np.clip(255 * value + 0.5, 0, 255).astype(np.uint8)[None]


def _relight(crops: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Brighter to one side, and brighter or darker in the middle."""
    y, x = np.mgrid[-1 : 1 : inputs.CROP * 1j, -1 : 1 : inputs.CROP * 1j].astype(np.float32)
    across, down, middle = rng.normal(0, (0.35, 0.35, 0.25))
    light = np.exp(across * x + down * y - middle * (x * x + y * y)).astype(np.float32)
    return np.clip(crops * light[..., None], 0, 255).astype(np.uint8)


def _sharpen(crops: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Halos about edges, as cameras draw them: an unsharp mask."""
    sigma, amount = rng.uniform(0.6, 2.0), np.float32(rng.uniform(0.3, 1.8))
    soft = (cv2.GaussianBlur(c, (0, 0), sigma) for c in crops)
    edges = (c + amount * (c.astype(np.float32) - s) for c, s in zip(crops, soft, strict=True))
    return np.stack([np.clip(c, 0, 255).astype(np.uint8) for c in edges])


SHIFT, WIDE_SHIFT = (4.0, 0.05, 0.03), (5.0, 0.1, 0.04)  # degrees, log scale, sides


def _shift(
    crops: np.ndarray, depth: np.ndarray, rng: np.random.Generator, degrees: float, enlarge: float, shift: float
) -> tuple[np.ndarray, np.ndarray]:
    """Turn, enlarge and move a little, by so much (standard deviations)."""
    where = np.exp(rng.normal(0, enlarge)), rng.normal(0, shift, 2), rng.normal(0, degrees)
    unknown = {"flags": cv2.INTER_NEAREST, "borderMode": cv2.BORDER_CONSTANT, "borderValue": float("nan")}
    relief = [inputs.moved(m, *where, **unknown) for m in depth.astype(np.float32)]
    return np.stack([inputs.moved(c, *where) for c in crops]), np.stack(relief)


def _add_noise(crops: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    # One noise field, rolled: drawing normals for every frame would cost more than the network.
    field = rng.normal(0, rng.uniform(1, 6), crops.shape[1:]).astype(np.float32)
    rolls = rng.integers(0, inputs.CROP, (len(crops), 2))
    noise = np.stack([np.roll(field, tuple(r), (0, 1)) for r in rolls])
    return np.clip(crops + noise, 0, 255).astype(np.uint8)


def _recompress(crops: np.ndarray, quality: int) -> np.ndarray:
    options = [cv2.IMWRITE_JPEG_QUALITY, quality]
    return np.stack([cv2.imdecode(cv2.imencode(".jpg", c, options)[1], cv2.IMREAD_COLOR) for c in crops])


# What changes its sign when left and right are swapped, and what changes places.
_ODD = (
    "pose_yaw", "pose_roll", "pose_yaw_rate", "pose_roll_rate", "gaze_side", "face_x", "nose_x",
    "face_dx", "face_spin", "background_dx", "background_spin", "face_minus_background_x",
    "video_rate_y", "video_rate_z", "gyro_rate_y", "gyro_rate_z", "rate_difference_y",
    "rate_difference_z",
)  # fmt: skip
_SIDES = {"ear_left": "ear_right", "blink_left": "blink_right"}


@dataclass(frozen=True)
class Mirror:
    """The same presentation with left and right swapped: pixels, features and IMU together.

    Device axes: x runs along the screen's width, so its acceleration turns over, and so do the
    rates about the two other axes.

    Attributes:
        source: (G,) int, which feature each feature takes the place of.
        sign: (G,) float32. imu_sign: (6,) float32.
    """

    source: np.ndarray
    sign: np.ndarray
    imu_sign: np.ndarray

    def features(self, values: np.ndarray) -> np.ndarray:
        """Mirror (..., G)."""
        return values[..., self.source] * self.sign


def mirror_of(names: Sequence[str]) -> Mirror | None:
    """How to mirror these features; None if one of them is not known.

    >>> mirror_of(["face_x", "ear_left", "ear_right"]).features(np.array([1.0, 2.0, 3.0])).tolist()
    [-1.0, 3.0, 2.0]
    """
    from liveness_utils.cues import FRAME_FEATURES

    names = list(names)
    if not set(names) <= set(FRAME_FEATURES):
        return None
    other = _SIDES | {b: a for a, b in _SIDES.items()}
    source = np.array([names.index(other.get(name, name)) for name in names])
    sign = np.array([-1.0 if name in _ODD else 1.0 for name in names], np.float32)
    return Mirror(source, sign, np.array([-1, 1, 1, 1, -1, -1], np.float32))


def sample_frames(n: int, k: int, rng: np.random.Generator | None) -> np.ndarray:
    """Choose k of n frames in order, one from each of k equal stretches (the first when no rng).

    >>> sample_frames(25, 5, None).tolist()
    [0, 5, 10, 15, 20]
    """
    edges = np.linspace(0, n, k + 1)
    inside = np.zeros(k) if rng is None else rng.random(k)
    return np.minimum((edges[:-1] + inside * np.diff(edges)).astype(int), n - 1)


def changed_view(prepared: Prepared, row: int, view: int, mirrored: bool, seed: int) -> np.ndarray:
    """All 25 pictures of a clip, changed alike (`augment_crops`) as `seed`, `view` and `row` say: uint8."""
    rng = np.random.default_rng((seed, 3, view, row))
    crops = prepared.shown(row) if not prepared.stills else prepared.crops[row]
    crops = augment_crops(np.asarray(crops), np.zeros((inputs.FRAMES, 1, 1), np.float32), rng)[0]
    return np.ascontiguousarray(crops[:, :, ::-1]) if mirrored else crops


class LivenessDataset:
    """Clips of some rows as tensors' worth of arrays, for torch's DataLoader.

    Args:
        prepared: arrays on disk. rows: which clips. scaling: fills what was not measured.
        frames: pictures dealt of the 25 (features and IMU always cover all 25).
        augment: change the pictures, mirror, jitter the IMU, drop modalities.
        modalities: what the network may use; the rest is masked.
        seed: with the epoch and the row it fixes every random choice.
        opinions: what a picture head makes of the pictures (`picture_training.Opinions`), in their place.
    """

    # All, video alone, video and landmarks, video and IMU; and all but the pictures: these are
    # learned by heart first, and the rest has to be able to do without them.
    KEEP = ((0.45, (1, 1, 1)), (0.1, (1, 0, 0)), (0.15, (1, 1, 0)), (0.1, (1, 0, 1)), (0.2, (0, 1, 1)))

    def __init__(
        self,
        prepared: Prepared,
        rows: np.ndarray,
        scaling: Scaling,
        *,
        frames: int = inputs.FRAMES,
        augment: bool = False,
        modalities: Sequence[str] = inputs.MODALITIES,
        seed: int = 0,
        opinions=None,
    ) -> None:
        self.prepared, self.rows, self.scaling = prepared, np.asarray(rows), scaling
        self.frames, self.augment, self.seed, self.epoch = frames, augment, seed, 0
        self.allowed = np.array([m in modalities for m in inputs.MODALITIES], np.float32)
        self.labels, self.species, self.opinions = prepared.labels, prepared.species, opinions
        self.mirror = mirror_of(prepared.feature_names) if augment else None

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, k: int) -> dict[str, np.ndarray]:
        """One clip.

        frames (F, 112, 112, 3) uint8, or opinion (25, 2 + S) in their place; features (25, G), imu (25, W, 6),
        presence (3,), label, species, row; in training also decoy_features, decoy_imu
        and decoy_valid: the same clip with another phone's IMU or a made-up one.
        """
        row = int(self.rows[k])
        rng = np.random.default_rng((self.seed, self.epoch, row)) if self.augment else None
        held = self.prepared
        item = {
            "features": inputs.fill_missing(held.features[row], self.scaling.feature_mean),
            "imu": np.array(held.imu[row], np.float32),
            "presence": (held.presence[row] * self.allowed).astype(np.float32),
            "label": np.float32(self.labels[row]),
            "species": self.species[row],
            "row": np.int64(row),
        }
        pixels, mirrored = self._pixels(row, rng)
        if rng is None:
            return item | pixels
        item |= self._disturbed(item, row, rng) | pixels
        return self._mirrored(item) if mirrored else item

    def _pixels(self, row: int, rng: np.random.Generator | None) -> tuple[dict, bool]:
        """Pictures or opinions, and whether they show the clip mirrored (pictures are yet to be)."""
        if self.opinions is not None:
            views = len(self.opinions.mirrored)
            if rng is None or not views:
                return {"opinion": self.opinions.plain[row]}, False
            view = int(rng.integers(views))
            return {"opinion": self.opinions.view(row, view)}, bool(self.opinions.mirrored[view])
        crops = self.prepared.shown(row)[sample_frames(inputs.FRAMES, self.frames, rng)]
        if rng is None:
            return {"frames": crops}, False
        crops, _ = augment_crops(crops, np.zeros((len(crops), 1, 1), np.float32), rng)
        return {"frames": crops}, self.mirror is not None and rng.random() < 0.5

    def _disturbed(self, item: dict, row: int, rng: np.random.Generator) -> dict:
        """What training changes of features, IMU and presence, and a decoy."""
        decoy, valid = self._decoy(row, rng)
        other = inputs.fill_missing(self.prepared.decoy_features[row, decoy], self.scaling.feature_mean)
        imu, features = self._jitter(item["imu"], item["features"], rng)
        decoy_imu, decoy_features = self._jitter(self.prepared.decoy_imu[row, decoy], other, rng)
        return {
            "imu": imu,
            "features": features,
            "decoy_imu": decoy_imu,
            "decoy_features": decoy_features,
            "decoy_valid": valid,
            "presence": self._dropout(item["presence"], rng),
        }

    def _decoy(self, row: int, rng: np.random.Generator) -> tuple[int, np.float32]:
        """Which of the clip's decoys to deal, and whether there is one."""
        valid = np.flatnonzero(self.prepared.decoy_valid[row] > 0)
        return (int(rng.choice(valid)), np.float32(1)) if len(valid) else (0, np.float32(0))

    def _mirrored(self, item: dict) -> dict:
        flipped = {k: np.ascontiguousarray(item[k][:, :, ::-1]) for k in ("frames",) if k in item}
        turned = {k: self.mirror.features(item[k]) for k in ("features", "decoy_features")}
        return item | flipped | turned | {k: item[k] * self.mirror.imu_sign for k in ("imu", "decoy_imu")}

    def _dropout(self, presence: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Take modalities away, but never the last one."""
        weights = [w for w, _ in self.KEEP]
        left = presence * np.array(self.KEEP[rng.choice(len(weights), p=weights)][1], np.float32)
        return left if left.any() else presence

    def _jitter(self, imu, features, rng) -> tuple[np.ndarray, np.ndarray]:
        """A bias as phones differ in it, and noise in proportion to each value: at most a tenth of the features' spread.

        Small values keep their digits, since in them a phone on a stand differs from one in a quiet hand.
        """
        bias = rng.normal(0, 1, 6) * (0.1, 0.1, 0.1, 0.005, 0.005, 0.005)
        spread = self.scaling.feature_std
        noise = 0.1 * np.minimum(spread, np.abs(features) + spread / 100) * rng.standard_normal(features.shape)
        return (imu + bias).astype(np.float32), (features + noise).astype(np.float32)


class PictureDataset:
    """What the picture head learns from: augmented pictures of the clips, other ones in every epoch, and single ones.

    Args:
        prepared: arrays on disk. rows: which clips. seed: with the epoch and the number it fixes every choice.
        singles: `pictures.Pictures` to mix in, once an epoch each, or None.
        exclude: species of which no single picture is dealt.
        each: pictures of every clip an epoch.
    """

    def __init__(
        self,
        prepared: Prepared,
        rows: np.ndarray,
        seed: int = 0,
        singles=None,
        exclude: Sequence[str] = (),
        each: int = 1,
    ) -> None:
        self.prepared, self.seed, self.epoch = prepared, seed, 0
        self.rows, self.singles = np.repeat(np.asarray(rows), each), singles
        left_out = [SPECIES.index(name) for name in exclude]
        self.single = np.zeros(0, int) if singles is None else np.flatnonzero(~np.isin(singles.species, left_out))
        # An injection's pixels are bona fide.
        injection = prepared.species == SPECIES.index("injection")
        seen = np.where(injection, SPECIES.index("bona_fide"), prepared.species)[self.rows]
        self.species = seen if singles is None else np.concatenate([seen, singles.species[self.single]])

    def __len__(self) -> int:
        return len(self.species)

    def __getitem__(self, k: int) -> dict[str, np.ndarray]:
        """frame (112, 112, 3) uint8, depth (14, 14) float32, species int."""
        rng = np.random.default_rng((self.seed, 1, self.epoch, k))
        crops, depth = augment_crops(*self._picture(k, rng), rng, wide=True)
        way = -1 if rng.random() < 0.5 else 1
        picture, relief = (np.ascontiguousarray(x[0][:, ::way]) for x in (crops, depth))
        return {"frame": picture, "depth": relief, "species": np.int64(self.species[k])}

    def plain(self, k: int) -> np.ndarray:
        """A picture as it is, (112, 112, 3) uint8."""
        return np.ascontiguousarray(self._picture(k, np.random.default_rng((self.seed, 0, k)))[0][0])

    def _picture(self, k: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        if k >= len(self.rows):
            held, at = self.singles, int(self.single[k - len(self.rows)])
            return held.crops[at : at + 1], np.array(held.depth[at : at + 1], np.float32)
        held, row, at = self.prepared, int(self.rows[k]), int(rng.integers(self.prepared.pictures))
        return held.crops[row][at : at + 1], np.array(held.depth[row][at : at + 1], np.float32)


def batches(dataset: LivenessDataset, size: int) -> Callable:
    """Stack clips of a data set into arrays, without torch; yields dicts of `size` clips."""
    for first in range(0, len(dataset), size):
        items = [dataset[k] for k in range(first, min(first + size, len(dataset)))]
        yield {name: np.stack([item[name] for item in items]) for name in items[0]}
