"""Folders that anybody can make: pictures, frames, videos, and recordings of our own recorder.

``real|fake`` (or ``live|spoof`` …) names the class, ``train|dev|test`` above it the split if there
is one, and a table beside them may say more: subject, video, kind of attack.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from liveness_utils.adapters.record import (
    FAKE_NAMES,
    REAL_NAMES,
    SPLIT_NAMES,
    VIDEO_SUFFIXES,
    Layout,
    Options,
    Presentation,
    files,
    natural,
    need,
    pictures,
)  # fmt: skip
from liveness_utils.clips import IMAGE_SUFFIXES, media_file, read_manifest
from liveness_utils.errors import AdapterError

TABLES = ("images.csv", "videos.csv", "labels.csv")
# What tables of attacks are seen to say, in the course's words.
KINDS = {
    "warped_photo": "bent_print", "bent_photo": "bent_print", "cut_photo": "eye_hole_print",
    "print": "flat_print", "printed_photo": "flat_print", "photo": "flat_print", "paper": "flat_print",
    "replay_video": "video_replay", "replay": "video_replay", "video": "video_replay", "screen": "still_replay",
    "replay_photo": "still_replay", "mask": "rigid_mask", "silicone_mask": "soft_mask",
}  # fmt: skip
_OWN = "yours: what the people in it agreed to"
_RULE = "Without a table or --subject every file counts as a person of its own, and near-copies leak between splits."


def label_of(parts: tuple[str, ...]) -> bool | None:
    """The class that the folders of a path name, or None.

    >>> label_of(("train", "Real", "a")), label_of(("x",))
    (True, None)
    """
    names = [p.lower() for p in parts]
    real, fake = any(n in REAL_NAMES for n in names), any(n in FAKE_NAMES for n in names)
    return None if real == fake else real


def split_of(parts: tuple[str, ...]) -> str | None:
    """The split that the folders of a path name, or None."""
    return next((SPLIT_NAMES[p.lower()] for p in parts if p.lower() in SPLIT_NAMES), None)


def species_of(kind: object) -> str | None:
    """A table's word for an attack in the course's words, or as it is.

    >>> species_of("warped_photo"), species_of("Wig"), species_of("bona_fide")
    ('bent_print', 'wig', None)
    """
    word = "" if pd.isna(kind) else str(kind).strip().lower().replace(" ", "_").replace("-", "_")
    return None if word in ("", *REAL_NAMES) else KINDS.get(word, word)


def _table(source: Path) -> dict[str, dict]:
    """Rows of images.csv, videos.csv or labels.csv by file, if the folder has one."""
    path = next((source / name for name in TABLES if (source / name).is_file()), None)
    if path is None:
        return {}
    try:
        table = pd.read_csv(path, dtype={"subject": "string", "video": "string", "subject_id": "string"})
    except Exception as error:  # the reader raises a dozen kinds of its own
        raise AdapterError(f"{path}: not a readable CSV table; export it again.") from error
    if "file" not in table:
        raise AdapterError(f"{path}: lacks the column file; name the files as they lie below {source.name}.")
    return {str(row["file"]): row for row in table.to_dict("records")}


def _word(row: dict, *names: str) -> str | None:
    return next((str(row[n]) for n in names if n in row and not pd.isna(row[n])), None)


def _subject(name: str, row: dict, options: Options) -> str | None:
    if options.subject:
        match = re.search(options.subject, name)
        if match is None or not match.groups():
            raise AdapterError(
                f"{name}: --subject {options.subject!r} finds no group in it; put (…) around the person."
            )
        return match.group(1)
    return _word(row, "subject", "subject_id")


def _presentation(source: Path, paths: tuple[Path, ...], where: Path, rows: dict, options: Options, kind: str):
    """One presentation out of its place, and its row in the table; None if the table has no label for it."""
    name = where.relative_to(source).as_posix()
    row = rows.get(name, {})
    alive = label_of(where.relative_to(source).parts[:-1])
    if "is_bonafide" in row:
        alive = None if pd.isna(row["is_bonafide"]) else bool(int(row["is_bonafide"]))
    if alive is None:
        return None
    subject, video = _subject(name, row, options), _word(row, "video", "video_id")
    words = {"instrument_id": (), "capture_device_id": ("camera",), "scene_id": ("session",), "light": ()}
    known = {name: _word(row, name, *others) for name, others in words.items()}
    split = SPLIT_NAMES.get(str(row.get("split", "")).lower()) or split_of(where.relative_to(source).parts[:-1])
    species = None if alive else _word(row, "pai_species") or species_of(row.get("kind"))
    fps = options.fps if kind == "frames" else None
    # Some data sets number living and attack videos alike.
    named = f"{subject}-{video}{'' if alive else '-attack'}" if video else None
    return Presentation(paths, kind, alive, species, subject, split, fps, named, known)


def _listed(source: Path, found: Iterator[Presentation | None], layout: str, tree: str) -> list[Presentation]:
    if not source.is_dir():
        raise AdapterError(f"{source}: no such folder; check the path.")
    return need((p for p in found if p is not None), source, layout, tree)


def images(source: Path, _: str, options: Options) -> list[Presentation]:
    """Every picture is a presentation."""
    rows = _table(source)
    found = (_presentation(source, (p,), p, rows, options, "image") for p in pictures(source))
    return _listed(source, found, "image-folder", IMAGES.tree)


def frames(source: Path, _: str, options: Options) -> list[Presentation]:
    """Every folder that holds pictures is a video, its pictures are the frames in order."""
    if not options.fps or options.fps <= 0:
        raise AdapterError("frame-folder: pictures have no times; say how many a second there are with --fps.")
    rows = _table(source)
    folders = sorted({p.parent for p in files(source, IMAGE_SUFFIXES)} - {source}, key=natural)
    inside = {
        f: tuple(sorted((p for p in f.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES), key=natural)) for f in folders
    }
    if flat := next((f for f in folders if label_of((f.name,)) is not None), None):
        raise AdapterError(f"{flat}: holds pictures, not one folder a video; import it as image-folder.")
    found = (_presentation(source, inside[f], f, rows, options, "frames") for f in folders)
    return _listed(source, found, "frame-folder", FRAMES.tree)


def videos(source: Path, _: str, options: Options) -> list[Presentation]:
    """Every video is a presentation."""
    rows = _table(source)
    found = (_presentation(source, (p,), p, rows, options, "video") for p in files(source, VIDEO_SUFFIXES))
    return _listed(source, found, "video-folder", VIDEOS.tree)


def recordings(source: Path, _: str, __: Options) -> list[Presentation]:
    """Clips of the contract, with their IMU, as the recorder leaves them."""
    table = read_manifest(source)
    rows = table.astype(object).where(table.notna(), None).to_dict("records")
    return need((_recording(source, row) for row in rows), source, "recordings", RECORDINGS.tree)


def _recording(source: Path, row: dict) -> Presentation:
    path = media_file(source, row["clip_id"])
    if not path.is_file():
        raise AdapterError(f"{path}: named in the manifest but missing; copy the clip or drop its row.")
    alive, split = row.pop("is_bonafide"), row.pop("split", None)
    split = split if split in set(SPLIT_NAMES.values()) else None
    species, subject = row.pop("pai_species", None), row.pop("subject_id", None)
    return Presentation((path,), "clip", None if alive is None else bool(alive), species, subject, split, known=row)


IMAGES = Layout(
    "image-folder", "single pictures", "[train|test/]real|fake/*.jpg|png, and perhaps images.csv (file, subject, video, kind, camera, light, session)",
    _OWN, "make it", "none", (), images,
    note=f"Stills: no motion, no IMU, judged by pixels alone. {_RULE}",
)  # fmt: skip
FRAMES = Layout(
    "frame-folder", "videos taken apart into pictures", "[train|test/]real|fake/VIDEO/*.jpg|png, with --fps",
    _OWN, "make it", "none", (), frames, note=_RULE,
)  # fmt: skip
VIDEOS = Layout(
    "video-folder", "videos", "[train|test/]real|fake/*.mp4, or any place with videos.csv (file, is_bonafide, subject, kind)",
    _OWN, "make it", "none", (), videos, note=_RULE,
)  # fmt: skip
RECORDINGS = Layout(
    "recordings", "clips of our own recorder, with IMU", "manifest.parquet, clips/CLIP/video.mp4, imu.parquet",
    _OWN, "liveness serve --record DIR, and the phone's camera page", "none", (), recordings,
    note="Label them while recording; a clip without a label is imported, and no rate counts it.",
)  # fmt: skip
