"""Presentations into the clip contract: splits by subject, pixels on disk, one manifest.

`record.Presentation`s of any layout come in; a folder that `dataset.prepare` reads goes out. Each
clip appears whole or not at all, and what is there already is not written again.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from liveness_utils.adapters.record import Layout, Options, Presentation, natural
from liveness_utils.clips import (
    Clip,
    clip_id_for,
    is_image,
    load_clip,
    media_file,
    read_image,
    read_manifest,
    read_video,
    write_clip,
    write_manifest,
)  # fmt: skip
from liveness_utils.config import write_json
from liveness_utils.errors import AdapterError, LivenessError

MAX_SIDE = 640
MAX_STILL_SIDE = 1280
SECONDS = 3.0
CRF = 12  # H.264 that leaves the texture alone
MAX_BROKEN = 0.1
SHARES = {"train": 0.5, "validation": 0.1, "dev": 0.15, "test": 0.25}
LEAST_SUBJECTS = 4


@dataclass(frozen=True)
class Imported:
    """What an import did.

    Attributes:
        folder: of the clips. manifest: one row a clip, as written. broken: a sentence for each file
            that could not be read and was left out. notes: what to know before believing a rate.
    """

    folder: Path
    manifest: pd.DataFrame
    broken: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def lines(self) -> list[str]:
        """Lines for the terminal."""
        table = self.manifest
        counts = table.groupby("split", dropna=False)["is_bonafide"].agg(
            bona_fide=lambda v: int((v == True).sum()),  # noqa: E712 (nullable booleans)
            attacks=lambda v: int((v == False).sum()),  # noqa: E712
        )
        rows = [f"{s!s:12}{r.bona_fide:7} bona fide {r.attacks:7} attacks" for s, r in counts.iterrows()]
        return [f"{len(table)} clips", *rows, *self.notes, *self.broken[:3]]


# ------------------------------------------------------------------------------------------ splits
def unit_of(item: Presentation) -> str:
    """Who must not be in two splits: the person; where unknown, the recording; else the file."""
    return item.subject_id or item.video or str(item.paths[0])


def assign_splits(items: Sequence[Presentation], seed: int = 0) -> list[Presentation]:
    """Give every presentation a split, no person in two of those that are chosen here.

    A published split is kept. Without any, people go to train, validation, dev and test. Where
    only validation or dev is missing, people of train are moved there. Fewer than four people
    cannot be split: they all go to test, where a model can be tried on them.

    Args:
        items: of one import. seed: of the drawing.
    """
    given = {item.split for item in items} - {None}
    if not given:
        return _shared_out(items, _drawn_alike(items, SHARES, seed))
    missing = [s for s in ("validation", "dev") if s not in given]
    people = {unit_of(i) for i in items if i.split == "train"} - {unit_of(i) for i in items if i.split != "train"}
    if "train" not in given or not missing or len(people) < LEAST_SUBJECTS:
        return list(items)
    shares = {"train": 1.0 - sum(SHARES[s] for s in missing)} | {s: SHARES[s] for s in missing}
    moved = _drawn_alike([i for i in items if unit_of(i) in people], shares, seed)
    return [replace(i, split=moved.get(unit_of(i), "train")) if i.split == "train" else i for i in items]


def _shared_out(items: Sequence[Presentation], splits: dict[str, str]) -> list[Presentation]:
    return [replace(item, split=splits[unit_of(item)]) for item in items]


def _drawn_alike(items: Sequence[Presentation], shares: dict[str, float], seed: int) -> dict[str, str]:
    """People to splits, those who show one class only apart from the others, so that no split lacks a class.

    Groups of too few people to be split by themselves are drawn together.
    """
    seen: dict[str, set] = {}
    for item in items:
        seen.setdefault(unit_of(item), set()).add(item.is_bonafide)
    groups: dict[frozenset, set[str]] = {}
    for person, classes in seen.items():
        groups.setdefault(frozenset(classes), set()).add(person)
    large = [g for g in groups.values() if len(g) >= LEAST_SUBJECTS]
    rest = set(seen) - set().union(*large)
    if large and 0 < len(rest) < LEAST_SUBJECTS:
        large[0] |= rest
        rest = set()
    found: dict[str, str] = {}
    for group in sorted([*large, rest], key=len, reverse=True):
        found |= _drawn(group, shares, seed)
    return found


def _drawn(people: set[str], shares: dict[str, float], seed: int) -> dict[str, str]:
    """People to splits; every split gets one at least, the rest by the shares."""
    if len(people) < LEAST_SUBJECTS:
        return dict.fromkeys(people, "test")
    order = list(np.random.default_rng(seed).permutation(sorted(people, key=lambda p: natural(Path(p)))))
    counts = {s: max(1, round(share * len(order))) for s, share in shares.items() if s != "train"}
    names = [s for s, n in counts.items() for _ in range(n)]
    return dict(zip(map(str, order), names + ["train"] * (len(order) - len(names)), strict=True))


def folds(manifest: pd.DataFrame, k: int = 5, seed: int = 0) -> list[dict[str, str]]:
    """Splits of every fold of a cross-validation in which no person is in two.

    Each fold in turn is test, the next one dev (thresholds), the one after it validation (early
    stopping), the rest train. Unlabelled clips take part in none. People with living and attack clips are dealt
    first: so every fold has both where k people or more have both.

    Args:
        manifest: with subject_id (null: each clip a person of its own, as far as is known).
        k: number of folds, 4 at least.

    Returns:
        k dicts of clip_id to split, for `dataset.resplit`.

    Raises:
        AdapterError: fewer people than folds.
    """
    known = manifest[manifest["is_bonafide"].notna()]
    people = known["subject_id"].fillna(known["clip_id"]).astype(str)
    names = sorted(set(people), key=lambda p: natural(Path(p)))
    if k < LEAST_SUBJECTS or len(names) < k:
        raise AdapterError(f"{len(names)} people make no {k} folds: use 4 folds or more, and as many people at least.")
    classes = known["is_bonafide"].astype(bool).groupby(people.to_numpy()).nunique()
    dealt = sorted(np.random.default_rng(seed).permutation(names), key=lambda name: -classes[name])
    place = {name: n % k for n, name in enumerate(dealt)}
    part = {0: "test", 1: "dev", 2: "validation"}
    where = people.map(place).to_numpy()
    return [dict(zip(known["clip_id"], [part.get((w - f) % k, "train") for w in where], strict=True)) for f in range(k)]


def leaks(items: Sequence[Presentation]) -> dict[str, int]:
    """How many people a published protocol shows in two splits: {"train and test": 3}."""
    seen: dict[str, set[str]] = {}
    for item in items:
        if item.split and item.subject_id:
            seen.setdefault(item.subject_id, set()).add(item.split)
    pairs = Counter(" and ".join(sorted(s, reverse=True)) for s in seen.values() if len(s) > 1)
    return dict(pairs)


# ---------------------------------------------------------------------------------------- reading
def read_presentation(item: Presentation, seconds: float = SECONDS) -> Clip:
    """Pixels and times of a presentation, at most `seconds` of it and 640 px a side.

    Raises:
        ClipError, AdapterError: a file that cannot be read, naming it.
    """
    readers = {"image": _read_still, "frames": _read_frames, "video": _read_video, "clip": _read_clip,
               "hdf5_array": _read_hdf5, "hdf5_frames": _read_hdf5}  # fmt: skip
    return readers[item.kind](item, seconds)


def _clip(item: Presentation, frames: np.ndarray, t: np.ndarray) -> Clip:
    return Clip(clip_id="x", frames=frames, t=t, source=str(item.paths[0]))


def _read_still(item: Presentation, _: float) -> Clip:
    return _clip(item, read_image(item.paths[0], max_side=MAX_STILL_SIDE)[None], np.zeros(1))


def _read_frames(item: Presentation, seconds: float) -> Clip:
    count = max(1, int(seconds * item.fps) + 1)
    images = [read_image(p, max_side=MAX_SIDE) for p in item.paths[:count]]
    if len({i.shape for i in images}) > 1:
        raise AdapterError(f"{item.paths[0].parent}: its pictures differ in size; crop them alike.")
    return _clip(item, np.stack(images), np.arange(len(images)) / item.fps)


def _read_video(item: Presentation, seconds: float) -> Clip:
    return _clip(item, *read_video(item.paths[0], max_side=MAX_SIDE, max_seconds=seconds, max_frames=480))


def _read_clip(item: Presentation, _: float) -> Clip:
    folder = item.paths[0].parent
    return load_clip(folder.parent.parent, folder.name, row=item.known)


def _read_hdf5(item: Presentation, seconds: float) -> Clip:
    import h5py

    path, count = item.paths[0], int(seconds * item.fps) + 1
    try:
        with h5py.File(path) as held:
            frames = _array_frames(held, count) if item.kind == "hdf5_array" else _grouped_frames(held, count)
    except (OSError, KeyError, ValueError) as error:
        raise AdapterError(f"{path}: not a readable file of this data set ({error}); copy it again.") from error
    return _clip(item, frames, np.arange(len(frames)) / item.fps)


def _array_frames(held: Any, count: int) -> np.ndarray:
    return _channels_last(held["Color_Data"][:count])


def _grouped_frames(held: Any, count: int) -> np.ndarray:
    names = sorted((n for n in held if n.startswith("Frame_")), key=lambda n: natural(Path(n)))[:count]
    return _channels_last(np.stack([held[n]["array"][()] for n in names]))


def _channels_last(frames: np.ndarray) -> np.ndarray:
    frames = frames.transpose(0, 2, 3, 1) if frames.shape[1] == 3 else frames
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8:
        raise ValueError(f"frames of shape {frames.shape} and type {frames.dtype}, not colour")
    return np.ascontiguousarray(frames)


# ---------------------------------------------------------------------------------------- writing
def import_layout(
    layout: Layout,
    source: str | os.PathLike,
    target: str | os.PathLike,
    *,
    protocol: str = "",
    options: Options | None = None,
    seconds: float = SECONDS,
    seed: int = 0,
    progress: bool = True,
) -> Imported:
    """Turn a folder of data into clips of the contract; resumes where it stopped.

    Args:
        layout: see `adapters.layout`. source: the data as it was downloaded. target: new folder.
        protocol: of the layout; empty takes its first. options: frame rate, pattern of subjects.
        seconds: how much of each video is kept. seed: of splits that are not published.
        progress: show a bar.

    Raises:
        AdapterError: another layout, an occupied target, or too many files that cannot be read.
    """
    source, out = Path(source), Path(target)
    if not source.is_dir():
        raise AdapterError(f"{source}: no such folder; check the path.")
    options = options or Options()
    items = assign_splits(layout.find(source, protocol, options), seed)
    mark = {"layout": layout.name, "protocol": protocol, "seconds": seconds, "fps": options.fps}
    _claim(out, mark)
    rows, broken = _write_all(layout.name, source, out, items, mark, progress)
    if len(broken) > MAX_BROKEN * len(items):
        raise AdapterError(f"{len(broken)} of {len(items)} files cannot be read; the first: {broken[0]}")
    write_manifest(out, rows)
    return Imported(out, read_manifest(out), tuple(broken), tuple(_notes(items)))


def _claim(out: Path, mark: dict[str, Any]) -> None:
    """One import a folder: a second one of other data would orphan the first one's clips."""
    path = out / "import.json"
    held = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    if held not in (None, mark) or (held is None and (out / "manifest.parquet").exists()):
        raise AdapterError(f"{out}: already holds other clips; choose another folder or remove this one.")
    write_json(path, mark)


def _write_all(name: str, source: Path, out: Path, items: Sequence[Presentation], mark: dict, progress: bool):
    from tqdm.auto import tqdm

    rows, broken = [], []
    for item in tqdm(items, desc="import", disable=not progress):
        place = item.paths[0].parent if item.kind == "frames" else item.paths[0]
        clip_id = clip_id_for(name, place.relative_to(source).as_posix())
        try:
            size = _write_one(out, clip_id, item, mark["seconds"])
        except (LivenessError, OSError) as error:
            broken.append(str(error))
            continue
        rows.append(_row(name, clip_id, item, place.relative_to(source).as_posix()) | size)
    return rows, broken


def _write_one(out: Path, clip_id: str, item: Presentation, seconds: float) -> dict[str, Any]:
    """Store one clip unless it is there; its size goes into the manifest, kept beside until then."""
    noted = out / "clips" / clip_id / "size.json"
    if noted.is_file() and media_file(out, clip_id).is_file():
        return json.loads(noted.read_text(encoding="utf-8"))
    clip = replace(read_presentation(item, seconds), clip_id=clip_id)
    original = item.paths[0] if item.kind == "image" and _fits(clip, item.paths[0]) else None
    write_clip(out, clip, crf=CRF, original=original)
    height, width = clip.frames.shape[1:3]
    fps = float((len(clip.t) - 1) / clip.t[-1]) if len(clip.t) > 1 and clip.t[-1] > 0 else None
    size = {"width": width, "height": height, "fps": fps}
    write_json(noted, size)
    return size


def _fits(clip: Clip, path: Path) -> bool:
    """Whether the file itself is what was read: not one that was shrunk on the way."""
    return is_image(path) and max(clip.frames.shape[1:3]) < MAX_STILL_SIDE


def _row(name: str, clip_id: str, item: Presentation, place: str) -> dict[str, Any]:
    subject = None if item.subject_id is None else f"{name}-{item.subject_id}"
    kept = {k: v for k, v in item.known.items() if k not in ("clip_id", "width", "height", "fps")}
    return kept | {
        "clip_id": clip_id, "subject_id": subject, "is_bonafide": item.is_bonafide, "split": item.split,
        "pai_species": item.pai_species, "video_id": item.video, "data_set": name, "source_file": place,
        "imu_kind": item.known.get("imu_kind"),
    }  # fmt: skip


def _notes(items: Sequence[Presentation]) -> list[str]:
    notes = [
        f"{n} people are in {pair}: this split does not show how unknown people fare."
        for pair, n in leaks(items).items()
    ]
    people = {unit_of(i) for i in items}
    if len(people) < LEAST_SUBJECTS:
        notes.append(
            f"{len(people)} people cannot be split; all clips are test. Training needs {LEAST_SUBJECTS} or more."
        )
    if any(i.subject_id is None for i in items):
        notes.append(
            "Some clips name no person: they may be in two splits. Say --subject, or add a table with a column subject."
        )
    if any(i.is_bonafide is None for i in items):
        notes.append(f"{sum(i.is_bonafide is None for i in items)} clips are not labelled; no rate counts them.")
    return notes
