"""Simulated answers to the active challenge: people who do as they are told, and attackers who try to.

Prompts go in; clips with video and IMU come out of the simulator's own faces, instruments, sensors
and trajectories, and `outcomes` holds them against `challenge.verify`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import permutations

import numpy as np
import pandas as pd
from scipy.spatial.transform import Rotation

from liveness_utils import challenge as ch
from liveness_utils import motion, simulate
from liveness_utils.clips import CLIP_SECONDS, EXPRESSION_NAMES, Clip, Imu
from liveness_utils.devices import DEVICES, draw_imu_offset, frame_times
from liveness_utils.errors import SimulationError
from liveness_utils.landmarks import Landmarker, Track, track
from liveness_utils.motion import min_jerk
from liveness_utils.render import make_texture

MEDIA = ("bona_fide", "flat_print", "still_replay", "video_replay", "rigid_mask")


@dataclass(frozen=True)
class Script:
    """What is done over time, as functions of s sampled at (N,): angles in rad, distance as a factor.

    turn: head (or sheet) yaw to the subject's left. orbit: of the phone about the face.
    near: distance over the first distance. lids: closure 0..1.
    """

    turn: np.ndarray
    orbit: np.ndarray
    near: np.ndarray
    lids: np.ndarray


def script(prompts: Sequence[str], t: np.ndarray, rng: np.random.Generator, seconds: float = CLIP_SECONDS) -> Script:
    """Draw how a person does these prompts, one every `seconds`.

    Args:
        prompts: names from `challenge.PROMPTS`. t: (N,) s. rng: sizes, directions and reaction times.
        seconds: of one prompt.

    Raises:
        SimulationError: an unknown prompt.
    """
    turn, orbit, near, lids = np.zeros((4, len(t)))
    for k, prompt in enumerate(prompts):
        begin = k * seconds + rng.uniform(0.4, 0.7)
        if prompt in ("turn_left", "turn_right"):
            size = math.radians(rng.uniform(22.0, 40.0)) * (1 if prompt == "turn_left" else -1)
            turn += size * _out_and_back(t, begin, rng.uniform(0.5, 0.75), rng.uniform(0.1, 0.3))
        elif prompt == "blink_twice":
            for at in (begin, begin + rng.uniform(0.45, 0.8)):
                lids = np.maximum(lids, motion.lid_profile(t, at, 0.09, 0.03, 0.20))
        elif prompt == "move_closer":
            near = near - rng.uniform(0.26, 0.40) * min_jerk((t - begin) / rng.uniform(0.8, 1.3))
        elif prompt == "sweep":
            orbit += _swept(t, begin, rng)
        else:
            raise SimulationError(f"unknown prompt {prompt!r}: use one of {', '.join(ch.PROMPTS)}.")
    return Script(turn, orbit, 1.0 + near, lids)


def _out_and_back(t: np.ndarray, begin: float, rise: float, hold: float) -> np.ndarray:
    return min_jerk((t - begin) / rise) - min_jerk((t - begin - rise - hold) / rise)


def _swept(t: np.ndarray, begin: float, rng: np.random.Generator) -> np.ndarray:
    size = math.radians(rng.uniform(20.0, 32.0)) * rng.choice([-1.0, 1.0])
    if rng.random() < 0.5:
        return size * min_jerk((t - begin) / rng.uniform(1.0, 1.5))
    return size * _out_and_back(t, begin, rng.uniform(0.7, 0.85), 0.05)


# ------------------------------------------------------------------------------------------- filming
def camera_way(
    prompts: Sequence[str], rng: np.random.Generator, distance: float, seed: int, seconds: float = CLIP_SECONDS
) -> motion.Trajectory:
    """A hand-held phone that is swept and brought closer as the script says.

    Args:
        prompts: what is done. rng: of the hand. distance: m. seed: of the script.
        seconds: of one prompt.
    """
    duration = seconds * len(prompts)
    base = motion.camera_trajectory("natural", rng, distance, duration)
    t = np.linspace(base.start, base.stop, round((base.stop - base.start) * 100) + 1)
    plan, pose = script(prompts, t, np.random.default_rng(seed), seconds), base.pose(t)
    about = Rotation.from_euler("y", plan.orbit[:, None]).as_matrix()
    place = np.einsum("nij,nj->ni", about, pose[:, :3, 3]) * plan.near[:, None]
    return motion.make_trajectory(t, place, about @ pose[:, :3, :3], kind="scripted")


def _turned(poses: np.ndarray, turn: np.ndarray, neck: np.ndarray) -> np.ndarray:
    """Poses turned to the side by `turn`, about the neck (or about the middle of a sheet: zeros)."""
    out, about = poses.copy(), Rotation.from_euler("y", turn[:, None]).as_matrix()
    out[:, :3, :3] = about @ poses[:, :3, :3]
    out[:, :3, 3] += np.einsum("nij,j->ni", poses[:, :3, :3] - out[:, :3, :3], neck)
    return out


def _person(seed: int, subject: int, t: np.ndarray, rng, camera, plan: Script) -> simulate.Actor:
    """A living face that does what the script says, between blinks and glances of its own."""
    duration = float(np.ceil(t[-1] / CLIP_SECONDS - 0.1) * CLIP_SECONDS)
    poses = motion.head_trajectory(rng, "calm", follow=camera, gain=rng.uniform(0.0, 0.3), duration=duration).pose(t)
    poses = _turned(poses, plan.turn, motion.NECK)
    weights = motion.expression_timeline(rng, t, speaking=False).weights.copy()
    for name in ("eyeBlinkLeft", "eyeBlinkRight"):
        column = EXPRESSION_NAMES.index(name)
        weights[:, column] = np.maximum(weights[:, column], plan.lids)
    gaze = motion.gaze_timeline(rng, t, np.clip(motion.gaze_target(poses, camera.pose(t)), -0.5, 0.5))
    face = simulate.person(seed, subject)
    return simulate.Actor(face, make_texture(face.albedo, gloss=face.gloss), poses, weights, gaze)


def answer(
    prompts: Sequence[str] | str, medium: str = "bona_fide", seed: int = 0, subject: int = 0, device: str = "midrange_d"
) -> Clip:
    """Film one answer.

    A living person turns, blinks, sweeps and comes closer. Someone with a print, a screen or a mask
    does the same as well as it can be done with it: the sheet or the screen is turned for a turn of
    the head, the phone is truly swept and brought closer, a mask is worn and its wearer obeys.

    Args:
        prompts: one name or several, done in this order, 2.5 s each (several only when bona fide).
        medium: one of `MEDIA`. seed: of everything random. subject: who (and whose print it is).
        device: name in `devices.DEVICES`, filming and recording motion.

    Returns:
        Clip with IMU.

    Raises:
        SimulationError: an unknown medium or prompt.

    Example: see notebook 08.
    """
    todo = (prompts,) if isinstance(prompts, str) else tuple(prompts)
    if medium not in MEDIA or (medium != "bona_fide" and len(todo) > 1):
        raise SimulationError(f"no answer of {len(todo)} prompts by {medium!r}: use one of {', '.join(MEDIA)}.")
    rng, phone = np.random.default_rng([seed, 31, subject]), DEVICES[device]
    seconds = CLIP_SECONDS * len(todo)
    t = np.round(frame_times(phone, rng, seconds), 6)
    distance, way = float(rng.uniform(0.38, 0.46)), int(rng.integers(2**31))
    camera = camera_way(todo, np.random.default_rng(way), distance, way)
    plan = script(todo, t, np.random.default_rng(way))
    where = simulate.stage(int(rng.integers(80, 120)), "office", rng)
    subject_ = _presented(medium, seed, subject, t, rng, camera, plan, where, phone)
    if isinstance(subject_, simulate.Surface):
        shown = subject_.picture.eyes()[1] * subject_.tool.width / subject_.picture.frames.shape[2]
        near = float(np.clip(distance * shown / simulate.INTEROCULAR, 0.14, 0.95))
        camera = camera_way(todo, np.random.default_rng(way), near, way)
    shot = simulate.Shot(phone, camera, simulate.lens(phone, rng), t, camera.pose(t))
    film = simulate.shoot(shot, where, subject_, rng, truth=False)
    times = motion.imu_times(phone.imu, rng, seconds)
    offset = draw_imu_offset(phone, rng)
    imu = motion.imu_from_trajectory(camera, times, phone.imu, rng, phone.facing, offset=offset)
    return Clip(
        f"answer-{seed}-{subject}", film.frames, t, imu, shot.intrinsics, phone.facing, source="simulated answer"
    )


def _presented(medium: str, seed: int, subject: int, t, rng, camera, plan: Script, where, phone):
    if medium == "bona_fide":
        return _person(seed, subject, t, rng, camera, plan)
    spec = next(s for s in simulate.plan("quick", seed) if s.species == medium and s.split == "test")
    spec = replace(spec, subject=subject, other=subject + 1, capture_device="flagship_b", follow_gain=0.0)
    made = simulate._subject(spec, t, rng, camera, where.lighting.illuminance, phone.sensor.readout_s)
    if isinstance(made, simulate.Masked):
        wearer = _person(seed, subject + 1, t, rng, camera, plan)
        still = replace(made.mask, poses=wearer.poses, gaze=wearer.gaze)
        return replace(made, wearer=wearer, mask=still)
    return replace(made, poses=_turned(made.poses, plan.turn, np.zeros(3)))


# ---------------------------------------------------------------------------------------- evaluating
@dataclass(frozen=True)
class Take:
    """One filmed answer to one prompt, with its track: who, by what medium, what was done."""

    medium: str
    subject: int
    prompt: str
    clip: Clip
    track: Track


def film(
    media: Sequence[str] = MEDIA, subjects: Sequence[int] = (0, 1), seed: int = 0, prompts: Sequence[str] = ch.PROMPTS
) -> Iterable[Take]:
    """Film every prompt by every medium and subject, and track it."""
    with Landmarker() as landmarker:
        for medium in media:
            for subject in subjects:
                for k, prompt in enumerate(prompts):
                    clip = answer(prompt, medium, seed + 100 * k, subject)
                    yield Take(medium, subject, prompt, clip, track(clip, landmarker))


def with_imu(take: Take, imu: Imu | None) -> Take:
    """The same pixels with another record, as an injection would send them."""
    return replace(take, clip=replace(take.clip, imu=imu))


def outcomes(takes: Sequence[Take], steps: int = 2, *, need_imu: bool = True) -> pd.DataFrame:
    """Hold every sequence that could be asked against what each person or attacker did.

    Args:
        takes: see `film`; all prompts of a subject and medium.
        steps: prompts a challenge. need_imu: see `challenge.verify`.

    Returns:
        One row an answer: ``medium, subject, asked, done, right`` (the prompts that were asked are
        those that were done) and ``passed, reasons``. An answer to other prompts than those asked is
        what replaying the recording of an earlier challenge amounts to.
    """
    by_key = {(x.medium, x.subject, x.prompt): x for x in takes}
    people = dict.fromkeys((x.medium, x.subject) for x in takes)
    kinds = list(dict.fromkeys(x.prompt for x in takes))
    single = {(k, asked): _one(by_key[k], asked, need_imu) for k in by_key for asked in kinds}
    rows = []
    for medium, subject in people:
        for done in permutations(kinds, steps):
            for asked in permutations(kinds, steps):
                found = [single[(medium, subject, d), a] for d, a in zip(done, asked, strict=True)]
                why = tuple(dict.fromkeys(r for f in found for r in f.reasons))
                row = {"medium": medium, "subject": subject, "asked": asked, "done": done, "right": asked == done}
                rows.append(row | {"passed": all(f.passed for f in found), "reasons": "; ".join(why)})
    return pd.DataFrame(rows)


def _one(take: Take, asked: str, need_imu: bool) -> ch.ChallengeResult:
    """A challenge of separate clips passes when each of its clips does, so one prompt at a time is enough."""
    question = ch.Challenge("study", (asked,), 0.0, 30.0)
    return ch.verify(question, take.clip, take.track, need_imu=need_imu)
