"""Keeps labelled presentations as clips of the contract, for `clips.load_clip` and notebook 09.

In: a clip, its label, codes and consent, from `web` (`liveness serve --record DIR`) or `widget` (`save`).
Out: DIR/clips/<clip_id>/ and a row of DIR/manifest.parquet, each whole or not at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from filelock import FileLock

from liveness_utils.clips import Clip, load_clip, read_manifest, write_clip, write_manifest
from liveness_utils.errors import RecordError

# Nearly without loss: what is kept is what training and judging will see.
CRF = 10
CONSENT = (
    "The person shown agrees that this video and the motion data are stored on this server under a code, "
    "for research on liveness detection, and can ask for their deletion by that code."
)


@dataclass(frozen=True)
class RecordRequest:
    """A person's wish to keep the clip: its label, the subject's and the device's code, the consent."""

    label: str
    subject: str
    device: str | None
    consent: bool


class Recorder:
    """Writes clips below one folder; several servers may share it.

    Args:
        root: data folder, made if it is not there. labels: accepted, ``bona_fide`` and species.
    """

    def __init__(self, root: str | Path, labels: Sequence[str]) -> None:
        self.root, self.labels = Path(root).expanduser().resolve(), tuple(labels)
        self.root.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(self.root / ".manifest.lock", timeout=20)

    def check(self, wish: RecordRequest) -> None:
        """Refuse what must not be kept.

        Raises:
            RecordError: the label is unknown, or there is no consent.
        """
        if wish.label not in self.labels:
            raise RecordError(f"`record.label` must be one of {list(self.labels)}.")
        if not wish.consent:
            raise RecordError("Nothing is kept without consent: tick it, or send no `record`.")

    def keep(self, clip: Clip, wish: RecordRequest) -> Clip:
        """Store a clip and return it as it reads back, which is what a later evaluation sees.

        Raises:
            RecordError: see `check`. OSError: the folder cannot be written.
        """
        self.check(wish)
        row = _row(clip, wish)
        write_clip(self.root, clip, crf=CRF)
        self._append(row)
        return load_clip(self.root, clip.clip_id, row=row)

    def _append(self, row: dict[str, Any]) -> None:
        with self._lock:
            here = (self.root / "manifest.parquet").is_file()
            kept = [read_manifest(self.root)] if here else []
            write_manifest(self.root, pd.concat([*kept, pd.DataFrame([row])], ignore_index=True))


def _row(clip: Clip, wish: RecordRequest) -> dict[str, Any]:
    """A manifest row; what a real clip does not know stays null."""
    bona_fide = wish.label == "bona_fide"
    return {
        "clip_id": clip.clip_id,
        "subject_id": wish.subject,
        "is_bonafide": bona_fide,
        "pai_species": None if bona_fide else wish.label,
        "device_id": wish.device,
        "camera_facing": clip.camera_facing,
        "imu_kind": None if clip.imu is None else "measured",
        "width": clip.frames.shape[2],
        "height": clip.frames.shape[1],
        "fps": float(1.0 / np.median(np.diff(clip.t))),
        "consent": wish.consent,
        "consent_text": CONSENT,
        "recorded_on": datetime.now(UTC).date().isoformat(),
    }
