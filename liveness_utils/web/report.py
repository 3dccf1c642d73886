"""The verdict as the page and other clients read it: one JSON object with bars for the eye.

In: a `Verdict`, how the upload lay on its clocks, the challenge's result. Out: plain data. The
combined decision is bona_fide only if nothing objects: the verdict says so, or is not sure and a challenge was passed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from liveness_utils.challenge import ChallengeResult
from liveness_utils.clips import Clip
from liveness_utils.config import plain
from liveness_utils.cues import SILENT_ORBIT
from liveness_utils.deployment.settled import decided
from liveness_utils.runtime import Verdict
from liveness_utils.web.upload import Alignment


@dataclass(frozen=True)
class Bar:
    """One cue for the eye: a label, its value in words, and where it lies between 0 and 1."""

    name: str
    label: str
    text: str
    level: float


# name of the cue or quality, label, format of the value, value at 0, value at 1.
_BARS = (
    ("consistency", "Phone motion fits the video", "{:.2f}", 0.0, 1.0),
    ("consistency_correlation", "Rotation, gyroscope against video", "{:.2f}", 0.0, 1.0),
    ("parallax_slope", "Depth that goes with the phone's motion", "{:.2f}", 0.0, 1.0),
    ("planar_residual", "Not flat (share of the eye distance)", "{:.1%}", 0.0, 0.04),
    ("expression_speed", "Movement in the face", "{:.2f}", 0.0, 1.0),
    ("eyes_px", "Size of the face (pixels between the eyes)", "{:.0f}", 0.0, 120.0),
    ("luma", "Light on the face (0 to 255)", "{:.0f}", 0.0, 255.0),
)


def cue_bars(verdict: Verdict) -> list[Bar]:
    """Bars for the cues that were measured; a cue that was not is left out, not drawn as nought.

    >>> [b.text for b in cue_bars(Verdict("attack", 0.1, 0.5, cues={"planar_residual": 0.012}))]
    ['1.2%']
    """
    held: Mapping[str, Any] = {**verdict.quality, **verdict.cues}
    if not (held.get("parallax_information") or 0.0) >= math.degrees(SILENT_ORBIT):
        held = {k: v for k, v in held.items() if k != "parallax_slope"}  # the phone did not turn enough to tell
    bars = []
    for name, label, form, low, high in _BARS:
        value = plain(held.get(name))
        if isinstance(value, (int, float)):
            level = min(1.0, max(0.0, (value - low) / (high - low)))
            bars.append(Bar(name, label, form.format(value), level))
    return bars


def outcome(
    verdict: Verdict,
    clip: Clip,
    found: Alignment,
    *,
    challenge: ChallengeResult | None = None,
    recorded: str | None = None,
) -> dict[str, Any]:
    """Put one answer together.

    Args:
        verdict: of the clip. clip: as judged. found: how it was aligned. challenge: if one was asked.
        recorded: name under which the clip was kept, or None.

    Returns:
        the fields of `Verdict.to_dict` and: bars, challenge, capture, recorded.
    """
    verdict = verdict if challenge is None else decided(verdict, challenge)
    return verdict.to_dict() | {
        "bars": [asdict(bar) for bar in cue_bars(verdict)],
        "challenge": None if challenge is None else challenge.to_dict(),
        "recorded": recorded,
        "capture": plain({
            "frames": len(clip.frames), "seconds": float(clip.t[-1]), "has_imu": clip.imu is not None,
            **asdict(found),
        }),
    }  # fmt: skip
