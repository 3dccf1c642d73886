"""What every adapter speaks of: a layout, and the presentations that a folder of that layout holds.

File names and lists come in; `Presentation`s go out to `adapters.store`. No pixel is read here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from liveness_utils.clips import IMAGE_SUFFIXES
from liveness_utils.errors import AdapterError

VIDEO_SUFFIXES = (".mp4", ".mov", ".avi", ".webm", ".mkv", ".m4v", ".3gp")
REAL_NAMES = ("real", "live", "genuine", "bonafide", "bona_fide")
FAKE_NAMES = ("fake", "spoof", "attack", "imposter", "attacks")
SPLIT_NAMES = {
    "train": "train", "training": "train", "val": "validation", "valid": "validation",
    "validation": "validation", "dev": "dev", "devel": "dev", "development": "dev",
    "test": "test", "testing": "test", "eval": "test",
}  # fmt: skip


@dataclass(frozen=True)
class Presentation:
    """One presentation of a data set, as its names and lists tell it; None where they do not.

    Attributes:
        paths: the video, the picture or the container; of a frame folder its pictures in order.
        kind: how to read them: image, frames, video, hdf5_array (3DMAD), hdf5_frames (WMCA), clip.
        is_bonafide: None only for recordings that nobody has labelled.
        pai_species: in the words of `instruments.SPECIES` where one fits, else a word of its own.
        subject_id: the person shown. video: the recording that a still was taken from.
        split: train, validation, dev or test; None is decided by subject when clips are written.
        fps: of frames without times of their own.
        known: further manifest columns (instrument_id, capture_device_id, light, scene_id …).
    """

    paths: tuple[Path, ...]
    kind: str
    is_bonafide: bool | None
    pai_species: str | None = None
    subject_id: str | None = None
    split: str | None = None
    fps: float | None = None
    video: str | None = None
    known: dict[str, Any] = field(default_factory=dict)


Find = Callable[[Path, str, "Options"], list[Presentation]]


@dataclass(frozen=True)
class Options:
    """What a command line adds to a layout: `fps` of frames, `subject` a pattern for file names."""

    fps: float | None = None
    subject: str | None = None


@dataclass(frozen=True)
class Layout:
    """A way of laying out data on disk, where it is published, and how it is read.

    Attributes:
        name: as the command takes it. title: of the data set. tree: what its folder looks like.
        licence, obtain, citation: in words. described: pages that describe layout and protocol.
        protocols: names, the first is the default; empty if there is one only.
        find: lists the presentations below a folder for a protocol.
        note: what of the published protocol is done otherwise here, or is good to know.
    """

    name: str
    title: str
    tree: str
    licence: str
    obtain: str
    citation: str
    described: tuple[str, ...]
    find: Find
    protocols: tuple[str, ...] = ()
    note: str = ""

    def about(self) -> str:
        """A paragraph for the terminal."""
        rows = [("layout", self.tree), ("licence", self.licence), ("obtain", self.obtain), ("cite", self.citation)]
        rows += [("described", " ".join(self.described))] if self.described else []
        rows += [("protocols", ", ".join(self.protocols))] if self.protocols else []
        rows += [("note", self.note)] if self.note else []
        return "\n".join([f"{self.name}: {self.title}", *(f"  {k:10} {v}" for k, v in rows)])


# ------------------------------------------------------------------------------- walking a folder
def files(folder: Path, suffixes: Sequence[str]) -> list[Path]:
    """Files below a folder with one of the suffixes, in order; hidden ones are left out."""
    found = (p for p in folder.rglob("*") if p.suffix.lower() in suffixes and not p.name.startswith("."))
    return sorted(p for p in found if p.is_file())


def pictures(folder: Path) -> list[Path]:
    """Pictures below a folder, numbers in names counted as numbers: frame2 before frame10."""
    return sorted(files(folder, IMAGE_SUFFIXES), key=natural)


def natural(path: Path) -> list[tuple[int, int | str]]:
    """Sorting key that counts numbers as numbers.

    >>> [p.name for p in sorted([Path("f10.jpg"), Path("f2.jpg")], key=natural)]
    ['f2.jpg', 'f10.jpg']
    """
    return [(0, int(x)) if x.isdigit() else (1, x) for x in re.split(r"(\d+)", str(path)) if x]


def below(source: Path, *names: str, layout: str, tree: str) -> Path:
    """The folder that holds all of `names`: the source, or a folder up to two levels inside it.

    Raises:
        AdapterError: there is none.
    """
    candidates = [source, *sorted(source.glob("*/")), *sorted(source.glob("*/*/"))]
    for folder in candidates:
        if all((folder / name).exists() for name in names):
            return folder
    raise AdapterError(f"{source}: not laid out as {layout}; expected {tree} (no {names[0]} found): check the path.")


def need(found: Iterable[Presentation], source: Path, layout: str, tree: str) -> list[Presentation]:
    """The presentations, or a sentence if there are none.

    Raises:
        AdapterError: nothing was found.
    """
    listed = list(found)
    if not listed:
        raise AdapterError(f"{source}: holds no presentation of {layout}; expected {tree}: check the path.")
    return listed


def parsed(pattern: str, path: Path, layout: str) -> dict[str, str]:
    """The named parts of a file's stem.

    Raises:
        AdapterError: the name is of another form.
    """
    match = re.fullmatch(pattern, path.stem)
    if match is None:
        raise AdapterError(f"{path}: no file name of {layout}; remove the file or choose another layout.")
    return {k: v for k, v in match.groupdict().items() if v is not None}


def chosen(protocol: str, known: Sequence[str], layout: str) -> str:
    """The protocol asked for, or the first; ``Protocol_`` before it and ``_`` for ``.`` are allowed.

    Raises:
        AdapterError: the layout has no such protocol.
    """
    asked = protocol.removeprefix("Protocol_").replace("_", ".") if known and known[0][0].isdigit() else protocol
    if asked and asked not in known:
        raise AdapterError(f"{layout} has no protocol {protocol!r}: choose one of {', '.join(known) or 'none'}.")
    return asked or (known[0] if known else "")
