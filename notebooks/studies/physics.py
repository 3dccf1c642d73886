"""Physics: is the simulated data what nature would have given? Numbers with the tolerance they must keep.

In: clips with their truth, and tracks that MediaPipe measured on them. Out: small tables for notebook 01 and tests.
Nothing here is used to make or to judge a clip; it only looks at what `simulate` has stored.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from scipy.integrate import cumulative_trapezoid
from scipy.spatial.transform import Rotation

from liveness_utils import cues, landmarks, motion
from liveness_utils.clips import Clip, Imu, Truth
from liveness_utils.devices import DEVICES, IMUS, DeviceProfile, ImuProfile

MONTE_CARLO = 12  # further doses of sensor noise from which an expected error is read
MAX_SIGMA = 3.0  # an error with a normal part on each of three axes exceeds 2.4 rms once in a thousand clips
FLAT_RESIDUAL = 0.003  # inter-ocular distances; not zero, since the true points carry the lens distortion
CLEAR_RESIDUAL = 0.012
BLINK_TOLERANCE = 0.15  # seconds between a true and a measured closure

# What every named number must lie within (low, high); None is no bound.
TOLERANCES: dict[str, tuple[float | None, float | None]] = {
    "attitude_error_sigma_p95": (None, MAX_SIGMA),
    "position_error_sigma_p95": (None, MAX_SIGMA),
    "allan_ratio_worst": (0.85, 1.15),
    "flat_residual_p95": (None, FLAT_RESIDUAL),
    "turning_face_residual_median": (CLEAR_RESIDUAL, None),
    "mediapipe_angle_error_deg": (None, 6.0),
    "mediapipe_landmark_error_iod": (None, 0.10),
    "blink_precision": (0.80, None),
    "blink_recall": (0.80, None),
    "faces_found": (0.98, None),
}


def checks(values: dict[str, float]) -> pd.DataFrame:
    """Set named numbers against `TOLERANCES`.

    Args:
        values: number by name; every name must be in `TOLERANCES`.

    Returns:
        DataFrame ``check, value, low, high, kept``; a NaN is never kept.

    >>> checks({"faces_found": 0.99}).kept.tolist()
    [True]
    """
    rows = []
    for name, value in values.items():
        low, high = TOLERANCES[name]
        kept = (low is None or value >= low) and (high is None or value <= high) and math.isfinite(value)
        rows.append({"check": name, "value": float(value), "low": low, "high": high, "kept": bool(kept)})
    return pd.DataFrame(rows, columns=["check", "value", "low", "high", "kept"])


# ------------------------------------------------------------------------------------ IMU against the path


def imu_errors(clip: Clip, *, draws: int = MONTE_CARLO) -> dict[str, float | str]:
    """Integrate a clip's IMU back to the camera's path and compare the miss with what the noise model expects.

    The gyroscope is integrated from the true attitude of the first frame to every later frame. The accelerometer
    is turned by that attitude and integrated twice; start, initial velocity and a constant tilt (an acceleration)
    are fitted, since no phone knows them. The expected errors come from giving the record `draws` further doses of
    the part's bias, scale error and noise: how far they move the result is how far the first dose may have moved it.

    Args:
        clip: simulated, with truth and IMU.
        draws: doses.

    Returns:
        dict: clip_id, imu_kind, attitude_deg and position_m (rms over the frames), the expected *_sigma of both,
        and the ratios attitude_ratio and position_ratio.

    Source: the question, whether a phone's inertial record and its video tell the same motion, is that of
    Li et al., CCS 2015, doi 10.1145/2810103.2813612; double integration with fitted tilt is our own way.
    """
    phone, truth = DEVICES[clip.meta["device_id"]], clip.truth
    imu = _on_video_clock(clip.imu, phone.imu, float(clip.meta["imu_offset"]))
    turns, places = _device_path(truth, phone)
    turn_error, place_error = _miss(imu, truth.t, turns, places)
    rng = np.random.default_rng(20300)
    doses = [_miss(_dosed(imu, phone.imu, rng), truth.t, *_integrated(imu, truth.t, turns[0])) for _ in range(draws)]
    turn_sigma, place_sigma = np.sqrt(np.mean(np.square(doses), axis=0))
    return {
        "clip_id": clip.clip_id,
        "imu_kind": clip.meta["imu_kind"],
        "motion_kind": clip.meta["motion_kind"],
        "attitude_deg": math.degrees(turn_error),
        "attitude_sigma_deg": math.degrees(turn_sigma),
        "attitude_ratio": turn_error / turn_sigma,
        "position_m": place_error,
        "position_sigma_m": float(place_sigma),
        "position_ratio": place_error / place_sigma,
    }


def _on_video_clock(imu: Imu, part: ImuProfile, offset: float) -> Imu:
    """Undo the clock's offset and the delay of the part's second-order Butterworth filter."""
    delay = math.sqrt(2.0) / (2 * math.pi * part.bandwidth) if part.bandwidth > 0 else 0.0
    return Imu(imu.t - offset - delay, imu.accel.astype(float), imu.gyro.astype(float))


def _device_path(truth: Truth, phone: DeviceProfile) -> tuple[np.ndarray, np.ndarray]:
    """Attitude R_world_device (N, 3, 3) and place of the IMU (N, 3) at the frames."""
    turn = motion.R_DEVICE_CAMERA[phone.facing]
    R = truth.T_world_camera[:, :3, :3] @ turn.T
    return R, truth.T_world_camera[:, :3, 3] + R @ np.asarray(phone.imu.lever_arm)


def integrate_gyro(imu: Imu, t: np.ndarray, start: np.ndarray) -> tuple[Rotation, Rotation]:
    """Attitude from the angular rate, by the rotation of the mean rate over every sampling interval.

    Args:
        imu: record on the clock of `t`.
        t: (N,) s, inside the record; the attitude at t[0] is `start`.
        start: (3, 3) R_world_device at t[0].

    Returns:
        Rotation at the IMU's samples from just before t[0] on (see `_window`), and at `t`.
    """
    clock, gyro = _window(imu.t, imu.gyro, t)
    steps = Rotation.from_rotvec(0.5 * (gyro[1:] + gyro[:-1]) * np.diff(clock)[:, None])
    path = [start]
    for step in steps.as_matrix():
        path.append(path[-1] @ step)
    whole = Rotation.from_matrix(np.array(path))
    k = np.clip(np.searchsorted(clock, t, side="right") - 1, 0, len(clock) - 2)
    part = (t - clock[k]) / (clock[k + 1] - clock[k])
    return whole, whole[k] * Rotation.from_rotvec(part[:, None] * steps[k].as_rotvec())


def _window(clock: np.ndarray, values: np.ndarray, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The record from exactly t[0] to the first sample after t[-1]."""
    inside = (clock > t[0]) & (clock <= clock[min(np.searchsorted(clock, t[-1]), len(clock) - 1)])
    first = np.array([np.interp(t[0], clock, column) for column in values.T])
    return np.concatenate([t[:1], clock[inside]]), np.concatenate([first[None], values[inside]])


def _integrated(imu: Imu, t: np.ndarray, start: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Attitude (N, 3, 3) and place (N, 3) at `t`, the place without start, velocity and constant acceleration."""
    along, at_frames = integrate_gyro(imu, t, start)
    clock, force = _window(imu.t, imu.accel, t)
    acceleration = along.apply(force) + motion.GRAVITY
    velocity = cumulative_trapezoid(acceleration, clock, axis=0, initial=0)
    place = cumulative_trapezoid(velocity, clock, axis=0, initial=0)
    return at_frames.as_matrix(), np.stack([np.interp(t, clock, column) for column in place.T], 1)


def _miss(imu: Imu, t: np.ndarray, turns: np.ndarray, places: np.ndarray) -> tuple[float, float]:
    """Rms error of attitude (rad) and of place (m) once a parabola of time is fitted."""
    found_turns, found_places = _integrated(imu, t, turns[0])
    angle = Rotation.from_matrix(np.swapaxes(turns, 1, 2) @ found_turns).magnitude()
    basis = np.stack([np.ones_like(t), t, t * t], 1)
    gap = found_places - places
    rest = gap - basis @ np.linalg.lstsq(basis, gap, rcond=None)[0]
    return float(np.sqrt(np.mean(angle**2))), float(np.sqrt((rest**2).sum(1).mean()))


def _dosed(imu: Imu, part: ImuProfile, rng: np.random.Generator) -> Imu:
    """The record with one more draw of the part's errors, time stamps included."""
    accel, gyro = motion.apply_imu_errors(imu.accel, imu.gyro, part, rng)
    stamps = np.sort(imu.t + rng.normal(0.0, part.timestamp_jitter, len(imu.t)))
    return Imu(stamps + 1e-9 * np.arange(len(stamps)), accel.astype(float), gyro.astype(float))


def imu_table(clips: Iterable[Clip]) -> pd.DataFrame:
    """`imu_errors` of every clip that has an IMU and truth, one row a clip."""
    return pd.DataFrame([imu_errors(c) for c in clips if c.imu is not None and c.truth is not None])


def allan_table(parts: Sequence[str] = tuple(IMUS), *, seconds: float = 600.0, seed: int = 8) -> pd.DataFrame:
    """Noise densities read back from synthetic records at rest.

    A datasheet's one-sided density n is a white noise of n √(rate/2) a sample; the overlapping Allan deviation of
    such a record falls as n / √(2 τ), so that n = √2 · σ(τ) √τ at short τ, before the bias instability shows.

    Args:
        parts: names in `devices.IMUS`.
        seconds: length of each record.
        seed: of the records.

    Returns:
        DataFrame ``part, sensor, density, measured, ratio``, densities in SI per √Hz, measured averaged over axes.

    Source: IEEE Std 952-1997, annex C.
    """
    rng, rows = np.random.default_rng(seed), []
    for name in parts:
        part = IMUS[name]
        rest = np.zeros((int(seconds * part.rate), 3))
        for sensor, values in zip(("accel", "gyro"), motion.apply_imu_errors(rest, rest, part, rng), strict=True):
            density = getattr(part, f"{sensor}_noise")
            measured = float(np.mean([white_density(column, part.rate) for column in values.T]))
            rows.append(
                {"part": name, "sensor": sensor, "density": density, "measured": measured, "ratio": measured / density}
            )
    return pd.DataFrame(rows)


def white_density(record: np.ndarray, rate: float) -> float:
    """One-sided noise density of a record (N,) at `rate` Hz from its Allan deviation at 0.02 to 0.1 s."""
    import allantools

    taus, deviation, _, _ = allantools.oadev(record.astype(float), rate=rate, data_type="freq", taus=[0.02, 0.05, 0.1])
    return float(np.median(deviation * np.sqrt(taus))) * math.sqrt(2.0)


# -------------------------------------------------------------------------------------------- flat or not


def homography_row(clip: Clip, *, frames: int = 8) -> dict[str, float | str]:
    """Largest homography residual between any two of `frames` frames, from the TRUE landmarks.

    Args:
        clip: simulated, with truth.
        frames: spread evenly over the clip.

    Returns:
        dict: clip_id, species, motion_kind, residual in inter-ocular distances, seen_angle_deg (how far the direction
        to the camera changed in the head's own frame), rank (third over first singular value of the trajectories).
    """
    truth = clip.truth
    points = truth.landmarks[np.linspace(0, len(truth.t) - 1, frames).astype(int)].astype(float)
    unit = float(np.median(landmarks.interocular_distance(points)))
    used = points[:, cues.geometry_points(eyes=False)]
    pairs = [(i, j) for i in range(frames) for j in range(i)]
    residual = max(cues.homography_residual(used[i], used[j], unit) for i, j in pairs)
    angle = motion.viewing_direction_change(truth.T_world_camera, truth.T_world_head, frame="head")
    return {
        "clip_id": clip.clip_id,
        "species": species_of(clip),
        "motion_kind": clip.meta["motion_kind"],
        "residual": residual,
        "seen_angle_deg": float(angle),
        "rank": cues.trajectory_rank(used),
    }


def homography_table(clips: Iterable[Clip]) -> pd.DataFrame:
    """`homography_row` of every clip with truth."""
    return pd.DataFrame([homography_row(clip) for clip in clips if clip.truth is not None])


def species_of(clip: Clip) -> str:
    """PAI species of a clip, ``bona_fide`` where there is none."""
    name = clip.meta.get("pai_species")
    return name if isinstance(name, str) else "bona_fide"


# ------------------------------------------------------------------------------------ MediaPipe against truth


def mediapipe_row(clip: Clip, track: landmarks.Track) -> dict[str, float | str]:
    """What MediaPipe measures on a clip against what was put in.

    The mean rotation between MediaPipe's head and the mesh's head is a matter of definition and is taken out
    of ``angle_error_deg``; ``angle_raw_deg`` keeps it.

    Args:
        clip: with truth.
        track: of the same frames.

    Returns:
        dict: clip_id, light, monk_tone, species, found (share of frames with a face), median angle errors in
        degrees, landmark_error in inter-ocular distances (median over frames and points), and the numbers of blinks
        put in, measured, and matched.
    """
    truth, seen = clip.truth, np.asarray(track.n_faces) > 0
    raw, relative = _angle_errors(truth, track, seen)
    put_in, measured, matched = _blink_counts(truth, track)
    return {
        "clip_id": clip.clip_id,
        "species": species_of(clip),
        "light": clip.meta["light"],
        "monk_tone": clip.meta["monk_tone"],
        "found": float(seen.mean()),
        "angle_raw_deg": raw,
        "angle_error_deg": relative,
        "landmark_error": _landmark_error(truth, track, seen),
        "blinks_in": put_in,
        "blinks_measured": measured,
        "blinks_matched": matched,
    }


def _angle_errors(truth: Truth, track: landmarks.Track, seen: np.ndarray) -> tuple[float, float]:
    if not seen.any():
        return math.nan, math.nan
    true = np.linalg.inv(truth.T_world_camera[seen])[:, :3, :3] @ truth.T_world_head[seen, :3, :3]
    gap = Rotation.from_matrix(np.swapaxes(true, 1, 2) @ track.T_camera_head[seen, :3, :3].astype(float))
    return (
        math.degrees(float(np.median(gap.magnitude()))),
        math.degrees(float(np.median((gap.mean().inv() * gap).magnitude()))),
    )


def _landmark_error(truth: Truth, track: landmarks.Track, seen: np.ndarray) -> float:
    if not seen.any():
        return math.nan
    true = truth.landmarks[seen].astype(float)
    gap = np.linalg.norm(track.points[seen][..., :2] - true, axis=-1)
    return float(np.nanmedian(gap / landmarks.interocular_distance(true)[:, None]))


def true_blinks(truth: Truth, *, depth: float = 0.5) -> np.ndarray:
    """Times (B,) s at which the lids put in were most closed, of closures deeper than `depth` inside the clip."""
    lids = landmarks.blink_signal(truth.expression)
    closed = np.concatenate([[False], lids > depth, [False]])
    edges = np.flatnonzero(np.diff(closed.astype(int))).reshape(-1, 2)
    return np.array([truth.t[a + np.argmax(lids[a:b])] for a, b in edges if a > 0 and b < len(lids)])


def _blink_counts(truth: Truth, track: landmarks.Track) -> tuple[int, int, int]:
    """Blinks put in, measured and matched; the first and last tenth of a second do not count."""
    span = truth.t[0] + 0.1, truth.t[-1] - 0.1
    signal = landmarks.blink_signal(track.blendshapes)
    measured = np.array([b.peak for b in landmarks.detect_blinks(signal, track.t)])
    put_in = true_blinks(truth)
    put_in, measured = (x[(x > span[0]) & (x < span[1])] if len(x) else x for x in (put_in, measured))
    free, matched = list(measured), 0
    for blink in put_in:
        near = [m for m in free if abs(m - blink) <= BLINK_TOLERANCE]
        if near:
            free.remove(min(near, key=lambda m: abs(m - blink)))
            matched += 1
    return len(put_in), len(measured), matched


def mediapipe_table(clips: Iterable[Clip], tracks: Iterable[landmarks.Track]) -> pd.DataFrame:
    """`mediapipe_row` of every clip."""
    return pd.DataFrame([mediapipe_row(c, t) for c, t in zip(clips, tracks, strict=True)])


def grouped(rows: pd.DataFrame, by: str) -> pd.DataFrame:
    """Summarise `mediapipe_table` by ``light``, ``monk_tone`` or ``species``.

    Returns:
        DataFrame indexed by the group: clips, found, angle_error_deg, landmark_error (medians), blinks,
        blink_precision, blink_recall.
    """
    groups = rows.groupby(by, sort=True)
    table = groups[["found", "angle_error_deg", "landmark_error"]].median()
    table["found"] = groups["found"].mean()
    table.insert(0, "clips", groups.size())
    total = groups[["blinks_in", "blinks_measured", "blinks_matched"]].sum()
    table["blinks"] = total.blinks_in
    table["blink_precision"] = total.blinks_matched / total.blinks_measured.where(total.blinks_measured > 0)
    table["blink_recall"] = total.blinks_matched / total.blinks_in.where(total.blinks_in > 0)
    return table


# -------------------------------------------------------------------------------------------------- summary


def summary(
    imu: pd.DataFrame | None = None,
    allan: pd.DataFrame | None = None,
    homography: pd.DataFrame | None = None,
    mediapipe: pd.DataFrame | None = None,
    *,
    turning_deg: float = 15.0,
) -> pd.DataFrame:
    """All numbers that have a tolerance, from whichever tables are given.

    Args:
        imu, allan, homography, mediapipe: as the functions of this module return them.
        turning_deg: faces whose view changed by more count as turning.

    Returns:
        `checks` of the numbers.
    """
    values: dict[str, float] = {}
    if imu is not None:
        own = imu[imu.imu_kind == "measured"]
        values["attitude_error_sigma_p95"] = own.attitude_ratio.quantile(0.95)
        values["position_error_sigma_p95"] = own.position_ratio.quantile(0.95)
    if allan is not None:
        values["allan_ratio_worst"] = allan.ratio[(np.log(allan.ratio)).abs().idxmax()]
    if homography is not None:
        values |= _homography_numbers(homography, turning_deg)
    if mediapipe is not None:
        values |= _mediapipe_numbers(mediapipe[mediapipe.species == "bona_fide"])
    return checks(values)


def _homography_numbers(rows: pd.DataFrame, turning_deg: float) -> dict[str, float]:
    flat = rows[rows.species.isin(["flat_print", "still_replay"])]
    turning = rows[rows.species.isin(["bona_fide", "injection"]) & (rows.seen_angle_deg > turning_deg)]
    return {
        "flat_residual_p95": flat.residual.quantile(0.95),
        "turning_face_residual_median": turning.residual.median(),
    }


def _mediapipe_numbers(rows: pd.DataFrame) -> dict[str, float]:
    whole = grouped(rows.assign(all="all"), "all").iloc[0]
    return {
        "mediapipe_angle_error_deg": whole.angle_error_deg,
        "mediapipe_landmark_error_iod": whole.landmark_error,
        "blink_precision": whole.blink_precision,
        "blink_recall": whole.blink_recall,
        "faces_found": whole.found,
    }
