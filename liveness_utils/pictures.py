"""Single pictures by the thousand: many more people, instruments, rooms and cameras than the clips have.

Clips teach motion. Which surface a face is shown on can be seen in one picture, and for that the training clips are
few: a hundred people, ten instruments a species, seven phones. So the renderer also makes single pictures of people
and instruments that are in no clip, by cameras that differ more than phones do. They go to the picture head only
(`network.picture_training`), as arrays; nothing is ever measured on them. Where there is a folder of portraits, half
of the people can have faces that are lifted from them.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from liveness_utils import dataset as ds
from liveness_utils import inputs
from liveness_utils.clips import clip_id_for, read_video, write_video
from liveness_utils.config import write_json
from liveness_utils.devices import DEVICES, DeviceProfile
from liveness_utils.face_photo import photos_mark, portraits
from liveness_utils.instruments import INSTRUMENTS_PER_SPECIES, SPECIES
from liveness_utils.landmarks import face_box, face_crop
from liveness_utils.simulate import FURTHER, GENERATOR_VERSION, MOTION_MIX, POOLS, ClipSpec, lights_for, still

VERSION = 1
# How many of 64 pictures show what; a replayed video's picture is that of a still, an injection's that of a face.
# Masks come most often: they are the hardest to tell.
MIX = {"bona_fide": 16, "flat_print": 6, "bent_print": 6, "eye_hole_print": 6, "still_replay": 8, "rigid_mask": 10, "soft_mask": 12}  # fmt: skip
PEOPLE, ROOMS = 4, 4  # of a group of 64 pictures
GROUP = sum(MIX.values())
_ARRAYS = ("crops", "depth", "species")
_GROUPS_A_TASK = 6


@dataclass(frozen=True)
class Pictures:
    """Arrays of single pictures: crops (n, 112, 112, 3) uint8, depth (n, 14, 14) float16, species (n,) int64.

    `mark` names the very pictures: version, generator, count, seed, and photos where there are any.
    """

    crops: np.ndarray
    depth: np.ndarray
    species: np.ndarray
    mark: dict

    def __len__(self) -> int:
        return len(self.species)


def plan(count: int, seed: int = 0, photos: str = "") -> list[list[ClipSpec]]:
    """Decide `count` pictures, in groups of at most 64 that share people and rooms.

    With a folder of `photos` the people of every second group are lifted from them; everything else stays as it is.

    >>> sum(len(group) for group in plan(40, 0))
    40
    """
    groups = [_group(k, min(GROUP, count - k * GROUP), seed) for k in range(-(-count // GROUP))]
    return [[replace(s, photos=photos if k % 2 else "") for s in group] for k, group in enumerate(groups)]


def _group(number: int, count: int, seed: int) -> list[ClipSpec]:
    size = sum(MIX.values())
    rng = np.random.default_rng([seed, 7013, number])
    people = FURTHER + PEOPLE * number + np.arange(PEOPLE)
    scenes = FURTHER + ROOMS * number + np.arange(ROOMS)
    rooms = [(int(scene), str(rng.choice(lights_for(int(scene))))) for scene in scenes]
    shown = rng.permutation([species for species, n in MIX.items() for _ in range(n)])[:count]
    made = [_spec(FURTHER + number * size + k, str(s), people, rooms, seed, rng) for k, s in enumerate(shown)]
    return sorted(made, key=lambda spec: spec.scene)  # a room is built once


def _spec(number: int, species: str, people: np.ndarray, rooms: list, seed: int, rng: np.random.Generator) -> ClipSpec:
    subject, other = (int(p) for p in rng.choice(people, 2, replace=False))
    (scene, light), (capture_scene, capture_light) = (rooms[j] for j in rng.permutation(ROOMS)[:2])
    device, capture = (str(d) for d in rng.choice(POOLS["train"]["devices"], 2, replace=False))
    return ClipSpec(
        clip_id=clip_id_for("picture", seed, number), number=number, seed=seed, split="train", control=False,
        species=species, subject=subject, other=other,
        instrument=-1 if species == "bona_fide" else int(rng.integers(INSTRUMENTS_PER_SPECIES, FURTHER)),
        device=device, capture_device=capture, scene=scene, capture_scene=capture_scene,
        light=light, capture_light=capture_light,
        motion_kind=str(rng.choice(list(MOTION_MIX))), follow_gain=0.0,
    )  # fmt: skip


def varied(device: DeviceProfile, rng: np.random.Generator) -> DeviceProfile:
    """A camera somewhat like this one, with an encoder of any quality: more kinds than phones here have."""
    s = device.sensor
    scale = lambda value, part: float(value * np.exp(rng.normal(0.0, part)))  # noqa: E731
    sensor = replace(
        s,
        focal_px_256=scale(s.focal_px_256, 0.08),
        psf_px=scale(s.psf_px, 0.35),
        sensitivity=scale(s.sensitivity, 0.4),
        denoise=float(np.clip(s.denoise + rng.normal(0, 0.15), 0.0, 0.95)),
        sharpen=float(np.clip(s.sharpen + rng.normal(0, 0.12), 0.0, 0.7)),
        saturation=scale(s.saturation, 0.12),
        contrast=float(np.clip(s.contrast + rng.normal(0, 0.12), 0.0, 0.9)),
        wb_error=scale(s.wb_error, 0.5),
        wb_strength=float(np.clip(s.wb_strength + rng.normal(0, 0.1), 0.3, 1.0)),
        vignetting=float(np.clip(s.vignetting + rng.normal(0, 0.08), 0.0, 0.6)),
    )
    return replace(device, sensor=sensor, crf=int(rng.integers(16, 36)))


def picture(spec: ClipSpec) -> tuple[np.ndarray, ...]:
    """Make one picture.

    Args:
        spec: from `plan`.

    Returns:
        Face crop (112, 112, 3) uint8 and depth target (14, 14) float16, see `dataset.depth_target`. The box is that
        of the true landmarks.
    """
    rng = np.random.default_rng([spec.seed, 37, spec.number])
    camera = varied(DEVICES[spec.device], rng)
    clip = still(spec, camera)
    clip = replace(clip, frames=_through_codec(clip.frames, camera))
    box = face_box(clip.truth.landmarks[0])
    return face_crop(clip.frames[0], box, inputs.CROP, inputs.MARGIN), ds.depth_of_picture(clip)


def _through_codec(frames: np.ndarray, camera: DeviceProfile) -> np.ndarray:
    with tempfile.TemporaryDirectory() as folder:
        path = write_video(Path(folder) / "picture.mp4", frames, np.zeros(1), crf=camera.crf, preset=camera.preset)
        return read_video(path)[0]


def _make(specs: Sequence[ClipSpec]) -> dict[str, np.ndarray]:
    """Arrays of some pictures, in their order."""
    made = zip(*(picture(spec) for spec in specs), strict=True)
    kinds = [SPECIES.index(spec.species) for spec in specs]
    return {"species": np.array(kinds)} | {name: np.array(m) for name, m in zip(("crops", "depth"), made, strict=True)}


def prepare(
    out_dir: str | os.PathLike,
    count: int,
    *,
    seed: int = 0,
    photos: str | os.PathLike | None = None,
    workers: int = 2,
    progress: bool = True,
) -> Path:
    """Make pictures, once: a folder that holds these very ones is left as it is.

    Args:
        out_dir: folder of crops.npy, depth.npy, species.npy and, when complete, index.json.
        count: how many. seed: of the data set.
        photos: folder of portraits that half of the people are lifted from (`faces.faces_from_photos`).
        workers: processes. progress: show a bar.

    Returns:
        out_dir.

    Raises:
        FaceError: the folder of photos shows nobody.
    """
    from joblib import Parallel, delayed
    from tqdm.auto import tqdm

    out = Path(out_dir)
    wanted = mark(count, seed, photos)
    if _mark_of(out) == wanted:
        return out
    if photos:
        portraits(str(photos))  # fails here rather than in a worker
    out.mkdir(parents=True, exist_ok=True)
    (out / "index.json").unlink(missing_ok=True)
    groups = plan(count, seed, str(photos or ""))
    # Long tasks: a worker whose caches have grown is replaced after a task, and a new one compiles first.
    tasks = [sum(groups[k : k + _GROUPS_A_TASK], []) for k in range(0, len(groups), _GROUPS_A_TASK)]
    made = Parallel(n_jobs=workers, return_as="generator")(delayed(_make)(task) for task in tasks)
    parts = list(tqdm(made, total=len(tasks), desc="pictures", unit="task", disable=not progress))
    for name in parts[0]:
        np.save(out / f"{name}.npy", np.concatenate([part[name] for part in parts]))
    write_json(out / "index.json", wanted)
    return out


def mark(count: int, seed: int = 0, photos: str | os.PathLike | None = None) -> dict:
    """What makes pictures these very ones, as their folder keeps it; photographs by their names and sizes.

    Raises:
        FaceError: there are no photos.
    """
    told = {"version": VERSION, "generator": GENERATOR_VERSION, "count": count, "seed": seed}
    return told | ({"photos": photos_mark(photos)} if photos else {})


def _mark_of(folder: Path) -> dict:
    index = folder / "index.json"
    return json.loads(index.read_text(encoding="utf-8")) if index.is_file() else {}


def open_pictures(folder: str | os.PathLike) -> Pictures | None:
    """Map what `prepare` left; None where there is nothing (complete)."""
    folder = Path(folder)
    told = _mark_of(folder)
    return Pictures(**{n: np.load(folder / f"{n}.npy", mmap_mode="r") for n in _ARRAYS}, mark=told) if told else None
