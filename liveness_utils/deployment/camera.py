"""The taught camera: a linear head on the frozen embedding, and the small JSON file that it is kept in.

What a session measured of a clip (`Evidence`) comes in, a `Reading` goes out. `teaching` fits it with scikit-learn;
here numpy is enough.
"""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from liveness_utils.bundle import Bundle
from liveness_utils.config import plain
from liveness_utils.errors import CameraError

FORMAT = 1
LIVING = "bona_fide"
COMMON = ("print", "screen")  # what everybody has at hand; whatever of it is missing is said with each verdict
FARTHEST = 4.0  # as in `network.fusion.PictureHead`
STATISTICS_SCALE = 3.0  # of the image statistics beside the embedding, both in standard deviations
STRANGE, TOO_STRANGE = 1.0, 1.3  # of the distance that taught clips have from one another: said; never accepted
CONVINCING = 2.5  # log odds of pixels: what three of four living faces stay below in simulation
UNMASKED = 2.0  # so many deviations below the taught living clips' is a doubt of a mask that is asked about
LEAST_SPREAD = 0.8  # logits; three clips of one minute vary less than a week does


@dataclass(frozen=True)
class Evidence:
    """What a session measured of one clip, as much as a taught camera needs: numbers, no picture.

    Attributes:
        embedding: (432,) the encoder's statistics, mean over the frames. statistics: (13,) see
            `image_statistics`.
        motion: log odds of what moves, geometry and IMU; infinite where that is not asked. limit: the general network's threshold as a logit, for what
            the clip has. size: width, height in px.
    """

    embedding: np.ndarray
    statistics: np.ndarray
    motion: float
    limit: float
    size: tuple[int, int]


@dataclass(frozen=True)
class Taught:
    """One clip that was taught.

    Attributes:
        kind: `LIVING` or the attack's instrument: print, screen, mask, or a species. person: a code. light: a word.
        name: of the file. sitting: in which it was taught, from 1.
        embedding, statistics, size: see `Evidence`, rounded.
    """

    kind: str
    person: str
    light: str
    name: str
    sitting: int
    embedding: tuple[float, ...]
    statistics: tuple[float, ...]
    size: tuple[int, int]


@dataclass(frozen=True)
class Reading:
    """What a taught camera says of one clip.

    Attributes:
        score: 0..1, accepted from 0.5 on. decision: bona_fide, not_sure or attack, before any gate.
        pixels: logit above the taught threshold. motion: log odds above what the general network would accept with
            convincing pixels; where even the best of pixels would not do, it is an attack. mask: how far the general
            doubt of a mask is from the taught living clips'. The least of them counts.
        distance: from the nearest taught living clip; 1 is as far as those are from one another.
        reasons: why it is not accepted. notes: what was not taught.
    """

    score: float
    decision: str
    pixels: float
    motion: float
    mask: float
    distance: float
    reasons: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Head:
    """A fitted linear head.

    Attributes:
        mean, scale: (432,) of the taught embeddings. weight: (432,). prior: weight of the general logit. bias.
        threshold: logit at which a clip is accepted. floor: below it a clip is an attack, between both *not sure*.
        unit: distance that taught living clips have from one another; infinite where there is one alone.
        errors: of clips left out in turn: living and attacks with k (wrong), n and an exact 95 % interval.
        left_out: their logits, living and attacks, to be drawn.
    """

    mean: tuple[float, ...]
    scale: tuple[float, ...]
    weight: tuple[float, ...]
    prior: float
    bias: float
    threshold: float
    floor: float
    unit: float
    errors: dict[str, Any] = field(default_factory=dict)
    left_out: dict[str, list[float]] = field(default_factory=dict)


@dataclass(frozen=True)
class TaughtCamera:
    """A head for one camera, with everything that it was taught.

    Attributes:
        name: of the camera. model: SHA-256 of the bundle's model, without which the numbers mean nothing.
        clips: taught. head: fitted to them. general: the bundle's flat head, as in `Bundle.picture_head`.
    """

    name: str
    model: str
    clips: tuple[Taught, ...]
    head: Head
    general: dict[str, Any]

    @cached_property
    def _known(self) -> tuple[np.ndarray, np.ndarray, float]:
        """Every clip as distances are measured (n, 445), which of them live (n,), and the least of a mask's log odds."""
        living = np.array([clip.kind == LIVING for clip in self.clips])
        embedding, statistics = stack(self.clips)
        return place(self.general, embedding, statistics), living, self._least_mask(embedding[living])

    @property
    def sittings(self) -> int:
        """In how many sittings it was taught."""
        return max(clip.sitting for clip in self.clips)

    @property
    def missing(self) -> tuple[str, ...]:
        """What everybody has at hand and was not taught.

        An attack that was taught as a species of the course counts as the instrument that it is.
        """
        known = {instrument(clip.kind) for clip in self.clips}
        return tuple(kind for kind in COMMON if kind not in known)

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences that every verdict repeats."""
        told = [f"{kind}s were not taught to this camera" for kind in self.missing]
        if "mask" not in {instrument(clip.kind) for clip in self.clips}:
            told.append("masks were not taught to this camera")
        return tuple(told)

    def judge(self, seen: Evidence) -> Reading:
        """Hold a clip against what was taught.

        Args:
            seen: of `LivenessSession.evidence`.
        """
        head, shown = self.head, np.asarray([seen.embedding])
        places, living, least_mask = self._known
        logit = float(logits(head, self.general, shown)[0])
        pixels, mask = logit - head.threshold, float(mask_logit(self.general, shown)[0]) - least_mask
        motion = seen.motion + CONVINCING - seen.limit
        least = min(pixels, motion, mask)
        away = np.linalg.norm(places - place(self.general, shown, seen.statistics[None]), axis=1) / head.unit
        far = float(away[living].min())
        reasons = [
            text
            for is_so, text in (
                (motion < 0, "what moves does not fit a living face in front of this device"),
                (pixels < 0, "looks more like what was taught as an attack than like the living face"),
                (mask < 0, "may be a mask, which was not taught"),
                (
                    not any(same_camera(seen.size, clip.size) for clip in self.clips),
                    f"pictures of {seen.size[0]}×{seen.size[1]} px are of another camera: teach it, too",
                ),
                (
                    far > (TOO_STRANGE if least >= 0 else STRANGE),
                    "this light, camera or distance was not taught: teach it or move",
                ),
            )
            if is_so
        ]
        # What is far from everything that was taught is not called an attack for its pixels.
        certain = motion < CONVINCING - float(self.general["bound"]) or (logit < head.floor and away.min() <= STRANGE)
        decision = "attack" if certain else "not_sure" if reasons else "bona_fide"
        score = _sigmoid(min(least, -1e-3) if reasons else least)
        near = () if reasons or far <= STRANGE else ("this light, camera or distance is hardly like what was taught",)
        return Reading(score, decision, pixels, motion, mask, far, tuple(reasons), (*self.notes, *near))

    def _least_mask(self, embedding: np.ndarray) -> float:
        """Log odds of no mask that taught living clips (n, 432) hardly fall below; none where masks were taught."""
        if "mask" in {instrument(clip.kind) for clip in self.clips}:
            return -math.inf
        living = mask_logit(self.general, embedding)
        spread = max(float(living.std(ddof=1)) if len(living) > 1 else 0.0, LEAST_SPREAD)
        return float(living.mean()) - UNMASKED * spread

    def describe(self) -> str:
        """What it was taught and what it can promise, in a few lines."""
        kinds = Counter((c.kind, c.light, c.person) for c in self.clips)
        lines = [f"camera {self.name}: {len(self.clips)} clips in {self.sittings} sitting{'s' * (self.sittings > 1)}"]
        lines += [
            f"  {n} × {kind} of {person}{f', {light}' if light else ''}" for (kind, light, person), n in kinds.items()
        ]
        for side, held in self.head.errors.items():
            lines.append(
                f"  left out in turn, {side}: {held['k']} of {held['n']} wrong "
                f"(95 %: {100 * held['low']:.0f} to {100 * held['high']:.0f} %)"
            )
        if not self.head.errors:
            lines.append("  left out in turn: too few clips to say")
        return "\n".join(lines + [f"  {note}" for note in self.notes])


# ---------------------------------------------------------------------------------------- measuring
def image_statistics(crops: np.ndarray) -> np.ndarray:
    """Level, colour, contrast and sharpness of face crops: what light and camera leave in a picture.

    Args:
        crops: (n, H, W, 3) uint8 RGB; three of them, evenly spaced, are looked at.

    Returns:
        (13,) float32, each about 1 for a change that is easily seen.
    """
    rows = []
    for k in np.unique(np.linspace(0, len(crops) - 1, 3).round().astype(int)):
        lab = cv2.cvtColor(np.float32(crops[k]) / 255, cv2.COLOR_RGB2LAB)
        level = np.ascontiguousarray(lab[..., 0])
        blurs = [level, *(cv2.GaussianBlur(level, (0, 0), s) for s in (1, 2, 4))]
        bands = [math.log(float(np.abs(a - b).mean()) + 0.05) for a, b in zip(blurs, blurs[1:], strict=False)]
        grain = math.log(float(np.median(np.abs(level - cv2.medianBlur(level, 3)))) + 0.05)
        rows.append([
            level.mean() / 15, level.std() / 6, np.percentile(level, 5) / 10, np.percentile(level, 95) / 10,
            *lab[..., 1:].mean(axis=(0, 1)) / 4, *lab[..., 1:].std(axis=(0, 1)) / 3,
            3 * (bands[0] - bands[1]), 3 * (bands[1] - bands[2]), 2 * bands[0], 2 * bands[2], 2 * grain,
        ])  # fmt: skip
    return np.mean(rows, axis=0, dtype=np.float64).astype(np.float32)


def _sigmoid(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-max(-60.0, min(60.0, x))))


def _standard(general: dict[str, Any], embedding: np.ndarray) -> np.ndarray:
    z = (embedding - np.asarray(general["level"])) / np.asarray(general["spread"])
    return np.clip(z, -FARTHEST, FARTHEST)


def general_logit(general: dict[str, Any], embedding: np.ndarray) -> np.ndarray:
    """Log odds (n,) that embeddings (n, 432) are of no print and no screen, by the bundle's flat head."""
    return _standard(general, embedding) @ np.asarray(general["weight"]) + general["bias"]


def mask_logit(general: dict[str, Any], embedding: np.ndarray) -> np.ndarray:
    """Log odds (n,) that embeddings (n, 432) are of no mask, by the bundle's own head."""
    return _standard(general, embedding) @ np.asarray(general["mask_weight"]) + general["mask_bias"]


def logits(head: Head, general: dict[str, Any], embedding: np.ndarray) -> np.ndarray:
    """Log odds (n,) of embeddings (n, 432) by a taught head; from its threshold on a clip is accepted."""
    z = (embedding - np.asarray(head.mean)) / np.asarray(head.scale)
    return z @ np.asarray(head.weight) + head.prior * general_logit(general, embedding) + head.bias


def stack(clips: Sequence[Taught]) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings (n, 432) and image statistics (n, 13) of taught clips."""
    return np.array([c.embedding for c in clips]), np.array([c.statistics for c in clips])


def place(general: dict[str, Any], embedding: np.ndarray, statistics: np.ndarray) -> np.ndarray:
    """Where clips lie, (n, 445): Euclidean distances are those of embedding and image statistics together."""
    return np.hstack([_standard(general, embedding), STATISTICS_SCALE * statistics])


def same_camera(size: Sequence[int], other: Sequence[int]) -> bool:
    """Whether pictures of two sizes may be of one camera: a cut or scaled copy differs by a few pixels."""
    return all(abs(a - b) <= 0.1 * b for a, b in zip(size, other, strict=True))


def instrument(kind: str) -> str:
    """What a kind is shown on: print, screen or mask; else the kind itself.

    >>> [instrument(kind) for kind in ("bent_print", "video_replay", "soft_mask", "injection")]
    ['print', 'screen', 'mask', 'injection']
    """
    for word in ("print", "mask"):
        if word in kind:
            return word
    return "screen" if "replay" in kind else kind


# --------------------------------------------------------------------------------------------- file
def model_of(bundle: Bundle) -> str:
    """SHA-256 of the model that a camera's numbers come from."""
    return str(bundle.files["model.tflite"]["sha256"])


def general_head(bundle: Bundle) -> dict[str, Any]:
    """The bundle's own linear heads, `Bundle.picture_head`.

    Raises:
        CameraError: it has none.
    """
    if not bundle.picture_head:
        raise CameraError(f"{bundle.folder}: this bundle cannot be taught: its manifest has no flat head.")
    return dict(bundle.picture_head)


def save(camera: TaughtCamera, path: str | os.PathLike) -> Path:
    """Write a camera's file; it appears whole or not at all."""
    path = Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    content = {"format": FORMAT, **asdict(camera)}
    del content["general"]  # the bundle's
    part.write_text(json.dumps(plain(content), separators=(",", ":")) + "\n", encoding="utf-8")
    os.replace(part, path)
    return path


def load(path: str | os.PathLike, bundle: Bundle) -> TaughtCamera:
    """Read a camera's file.

    Args:
        path: that `save` wrote. bundle: with which it is to be used.

    Raises:
        CameraError: it cannot be read, is of another version, or was taught with another bundle.
    """
    path = Path(path)
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        if held.pop("format") != FORMAT:
            raise CameraError(f"{path}: is a camera's file of another version: teach it anew.")
        arrays = {name: tuple(held["head"][name]) for name in ("mean", "scale", "weight")}
        unit = held["head"]["unit"]
        head = Head(**{**held["head"], **arrays, "unit": math.inf if unit is None else unit})
        rows = ({**c, **{n: tuple(c[n]) for n in ("embedding", "statistics", "size")}} for c in held["clips"])
        clips = tuple(Taught(**row) for row in rows)
        camera = TaughtCamera(held["name"], held["model"], clips, head, general_head(bundle))
    except OSError as error:
        raise CameraError(
            f"{path}: cannot be read ({error.strerror}); teach the camera first (`liveness teach`)."
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, CameraError):
            raise
        raise CameraError(f"{path}: is no camera's file ({error}): teach it anew (`liveness teach`).") from error
    if camera.model != model_of(bundle):
        raise CameraError(f"{path}: was taught with another bundle than {bundle.folder}: teach it anew.")
    numbers = [camera.head.threshold, camera.head.floor, camera.head.prior, camera.head.bias, *camera.head.weight]
    whole = all(isinstance(number, int | float) and math.isfinite(number) for number in numbers)
    if not (whole and len(camera.head.weight) == len(camera.general["weight"])):
        raise CameraError(f"{path}: is damaged (a number is missing): teach the camera anew.")
    return camera
