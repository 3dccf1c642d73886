"""Whether a motion record is evidence: both sensors, whole over the video, and possible for a phone in a hand.

In: a `clips.Imu` and the stretch of video it stands beside. Out: sentences, each with its remedy. Prediction,
service, widget, challenge and training ask here, so that less evidence is refused and never judged more loosely.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from liveness_utils.clips import Imu, gravity_misfit
from liveness_utils.cues import gyro_record, imu_consistency

# The network looks at 32 samples (0.31 s) before each frame (`clips.imu_windows`), and holds one for 0.1 s.
LEAD = 0.31
SLACK = 0.1
# Browsers give 60 Hz, Android's game rate is 50 Hz; the network has seen 60 and 100 Hz.
MIN_RATE = 40.0
# Bias and scale of phone parts leave a reading within ±0.5 m/s² of gravity (datasheets in `devices`), moving adds less.
GRAVITY, GRAVITY_SLACK = 9.81, 1.0
# Within 60° of upright: a phone that lies flat or on its side, or whose axes are others, films no face like this.
UPRIGHT = 0.5
# rms that one sample differs by from its neighbours: parts have 0.02 m/s² and 0.001 rad/s, a trembling hand adds as
# much; of simulated bona fide clips the largest have 0.11 m/s² and 0.019 rad/s, browsers' rounding included.
ACCEL_NOISE, GYRO_NOISE = 0.15, 0.1
# Above a part's own noise, a gyroscope in a hand is smooth (at most 0.43 of an axis' deviation; white noise is 1).
GYRO_QUIET, WHITE = 0.005, 0.7
# m/s², see `clips.gravity_misfit`; the largest of simulated bona fide clips have 0.8 and 0.07.
MISFIT, MISFIT_ADDED = 1.5, 0.3
LONGEST = 3.0  # s at a time: the bias of a gyroscope adds up
# s without any change: a browser's rounding repeats itself for 0.07 s on a stand.
FROZEN = 0.5
# s between the clocks of sensors and camera that phones have and the network knows, and what it takes to tell more:
# correlation of the rates, and rad/s of turning.
CLOCKS, IN_STEP, TURNS = 0.12, 0.8, 0.06
_UNITS = (("minutes", 60.0), ("hours", 3600.0), ("days", 86400.0))


def problems(imu: Imu, start: float, stop: float) -> tuple[str, ...]:
    """Say what keeps a motion record from being evidence for a stretch of video; empty if nothing does.

    Args:
        imu: in SI units, W3C axes of upright video and the video's clock (`clips.read_imu`, `clips.normalise_imu`).
        start: s, time of the first frame that is judged.
        stop: s, time of the last one.

    Returns:
        sentences that name record and remedy, those on its clock before those on its values.

    Example:
        >>> still = np.zeros((300, 3), np.float32)
        >>> problems(Imu(np.arange(300) / 100, still + (0, 9.8, 0), None, "walk.csv"), 0.5, 2.5)
        ('walk.csv: has no gyroscope; record accelerometer and gyroscope together',)
    """
    name = imu.source or "the motion record"
    found = _missing(imu) or list(_clock(imu, start, stop)) or list(_values(part(imu, start, stop)))
    return tuple(f"{name}: {sentence}" for sentence in found)


def out_of_step(imu: Imu, facing: str, t: np.ndarray, video: np.ndarray) -> tuple[str, ...]:
    """Say that a record is of this video and by another clock, where the camera's turning shows it beyond doubt.

    Args:
        imu: as for `problems`.
        facing: of the camera, front or rear.
        t: (N,) s, of the frames.
        video: (N, 3) rad/s, the camera's rotation up to each frame as the picture shows it, NaN where unknown.

    Returns:
        one sentence with the time to take off, or none.
    """
    match = imu_consistency(video, gyro_record(imu, facing), t, max_lag=1.0, step=0.02)
    if not (abs(match.lag) > CLOCKS and match.correlation > IN_STEP and match.video_rms > TURNS):
        return ()
    name, how = imu.source or "the motion record", "late" if match.lag > 0 else "early"
    return (
        f"{name}: is out of step with the video, {abs(match.lag):.2f} s {how}; "
        f"subtract {match.lag:.2f} s from its times, or record both by one clock",
    )


def _missing(imu: Imu) -> list[str]:
    absent = [word for word, values in (("accelerometer", imu.accel), ("gyroscope", imu.gyro)) if values is None]
    if absent:
        return [f"has no {' and no '.join(absent)}; record accelerometer and gyroscope together"]
    if len(imu) < 2:
        return ["holds no samples of this video; allow the motion sensors and record again"]
    bad = np.flatnonzero(~np.isfinite(np.column_stack([imu.t, imu.accel, imu.gyro])).all(axis=1))
    if len(bad):
        return [f"row {bad[0]} holds a value that is no number; record again"]
    back = np.flatnonzero(np.diff(imu.t) <= 0)
    if len(back):
        return [f"its clock stands still or goes back at row {back[0] + 1}; record again"]
    return []


def _clock(imu: Imu, start: float, stop: float) -> Iterator[str]:
    """What is wrong with the times: another zero or unit, a late start, an early end, pauses, too few."""
    t, judged = imu.t, part(imu, start, stop)
    step = np.diff(judged.t if len(judged) > 1 else t)
    interval = float(step.mean())
    named = [word for word, unit in _UNITS if 1e-3 <= interval * unit <= 0.1]
    if abs(t[0] - start) > 1e5:
        yield (
            f"its times count from another zero ({t[0]:.2f}, perhaps a date); "
            "subtract the time of the first video frame and give seconds"
        )
    elif interval < 1e-3:
        yield f"its times look like {named[0] if named else 'no seconds'}; give seconds from the first video frame"
    elif interval > 1 / MIN_RATE:
        yield f"holds {1 / interval:.0f} samples a second, too few; record at least {MIN_RATE:.0f}"
    elif np.mean(step < 0.1 * interval) > 0.2:
        yield "its samples are stamped in batches; give every sample the time at which it was measured"
    elif t[0] > start - LEAD + SLACK:
        yield (
            f"starts at {t[0]:.2f} s, less than {LEAD - SLACK:.1f} s before the first frame that is judged "
            f"({start:.2f} s); start the sensors before the video, and check that both have one clock"
        )
    elif t[-1] < stop - SLACK:
        yield (
            f"ends at {t[-1]:.2f} s, before the last frame that is judged ({stop:.2f} s); "
            "stop the sensors after the video, and check that both have one clock"
        )
    elif (pause := step.max()) > SLACK:
        yield f"pauses for {pause:.2f} s; record without interruption"


def part(imu: Imu, start: float, stop: float) -> Imu:
    """Return the samples that count for the frames from `start` to `stop` (s), and the one before them."""
    first = max(int(np.searchsorted(imu.t, start - LEAD, side="right")) - 1, 0)
    kept = slice(first, int(np.searchsorted(imu.t, stop, side="right")))
    return _rows(imu, kept)


def _rows(imu: Imu, kept: slice | np.ndarray) -> Imu:
    return replace(imu, t=imu.t[kept], accel=imu.accel[kept], gyro=imu.gyro[kept])


def _values(imu: Imu) -> Iterator[str]:
    """What no phone in a hand before a face measures."""
    force = imu.accel.astype(float)
    mean = force.mean(axis=0)
    size = float(np.linalg.norm(force, axis=1).mean())
    if abs(size - GRAVITY) > GRAVITY_SLACK:
        yield (
            f"its accelerometer reads {size:.2f} m/s² on average, not gravity's 9.8; "
            "give acceleration including gravity in m/s²"
        )
    elif mean[1] < -UPRIGHT * size:
        yield (
            f"an upright phone reads +9.8 m/s² on y, this record {mean[1]:.1f}; give ax, ay, az the opposite sign "
            "(as iOS needs it), or turn the phone the right way up"
        )
    elif mean[1] < UPRIGHT * size:
        yield (
            f"gravity lies {np.degrees(np.arccos(mean[1] / size)):.0f}° from the picture's up; "
            "hold the phone upright, or give the axes x right, y up, z out of the screen"
        )
    rough, turns = _roughness(force), _roughness(imu.gyro.astype(float))
    white = (turns > GYRO_QUIET) & (turns > WHITE * imu.gyro.std(axis=0))
    if rough.max() > ACCEL_NOISE:
        yield f"its accelerometer is noise ({rough.max():.2g} m/s² from sample to sample); record it again, in m/s²"
    if turns.max() > GYRO_NOISE or white.any():
        yield f"its gyroscope is noise ({turns.max():.2g} rad/s from sample to sample); record it again, in rad/s"
    if (frozen := _longest_rest(imu)) > FROZEN:
        yield f"its values stand still for {frozen:.1f} s; record from the sensors themselves"
    pieces = np.array_split(np.arange(len(imu)), max(1, round((imu.t[-1] - imu.t[0]) / LONGEST)))
    misfit, added = np.max([gravity_misfit(_rows(imu, piece)) for piece in pieces], axis=0)
    if misfit > MISFIT or added > MISFIT_ADDED:
        yield (
            "its accelerometer does not agree with gravity as the gyroscope turns it; give both sensors "
            "the same axes, signs and clock, in m/s² and rad/s"
        )


def _roughness(values: np.ndarray) -> np.ndarray:
    """By how much (rms) each axis of (M, 3) values differs from sample to sample: of white noise its deviation."""
    return np.sqrt(np.mean(np.diff(values, 2, axis=0) ** 2, axis=0) / 6)


def _longest_rest(imu: Imu) -> float:
    """Longest time, s, in which the gyroscope's three values do not change, or the accelerometer's while it turns."""
    longest = 0.0
    for values, other, moves in ((imu.accel, imu.gyro, 0.01), (imu.gyro, imu.accel, 0.0)):
        changed = np.flatnonzero(np.any(np.diff(values, axis=0) != 0, axis=1)) + 1
        ends = np.concatenate([[0], changed, [len(imu)]])
        for a, b in zip(ends[:-1], ends[1:], strict=True):
            length = float(imu.t[b - 1] - imu.t[a])
            if length > longest and (np.ptp(other[a:b], axis=0).max() == 0 or other[a:b].std(axis=0).max() > moves):
                longest = length
    return longest
