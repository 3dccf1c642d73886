"""A motion record is evidence only if it is whole and physical; what simulated phones record of living people is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from liveness_utils import clips, config, devices, motion
from liveness_utils.clips import Imu
from liveness_utils.perception import imu_quality

START, STOP = 0.0, 2.4


def measured(seed: int) -> Imu:
    """What a simulated phone records before a living face: every device, every motion kind."""
    rng = np.random.default_rng(seed)
    phones = list(devices.DEVICES.values())
    phone = phones[seed % len(phones)]
    path = motion.camera_trajectory(motion.MOTIONS[seed // len(phones) % 5], rng)
    offset = devices.draw_imu_offset(phone, rng)
    times = motion.imu_times(phone.imu, rng)
    return motion.imu_from_trajectory(path, times, phone.imu, rng, phone.facing, offset=offset)


def swept() -> Imu:
    """A sweep on the first phone."""
    return replace(measured(3 * len(devices.DEVICES)), source="walk.csv")


def test_at_most_one_in_a_hundred_living_clips_is_refused():
    refused = [s for s in range(130) if imu_quality.problems(measured(s), START, STOP)]
    assert len(refused) <= 1, refused


def test_the_shipped_clips_are_evidence():
    for row in clips.read_manifest(config.samples_dir()).to_dict("records"):
        clip = clips.load_clip(config.samples_dir(), row["clip_id"], row=row)
        assert imu_quality.problems(clip.imu, START, float(clip.t[-1])) == ()


def kept(imu: Imu, where: np.ndarray) -> Imu:
    return replace(imu, t=imu.t[where], accel=imu.accel[where], gyro=imu.gyro[where])


def noisy(values: np.ndarray, sigma: float) -> np.ndarray:
    return (values + np.random.default_rng(0).normal(0, sigma, values.shape)).astype(np.float32)


BROKEN = {
    "no accelerometer": lambda i: replace(i, accel=None),
    "no gyroscope": lambda i: replace(i, gyro=None),
    "no accelerometer and no gyroscope": lambda i: replace(i, accel=None, gyro=None),
    "no samples": lambda i: kept(i, i.t > 99),
    "no number": lambda i: replace(i, gyro=np.where(i.t[:, None] == i.t[9], np.float32(np.nan), i.gyro)),
    "goes back at row 1": lambda i: replace(i, t=i.t[::-1]),
    "starts at -0.1": lambda i: kept(i, i.t > -0.2),
    "starts at 0.0": lambda i: kept(i, i.t > 0.08),
    "ends at 2.": lambda i: kept(i, i.t < 2.25),
    "pauses for 0.1": lambda i: kept(i, (i.t < 1.0) | (i.t > 1.11)),
    "too few": lambda i: kept(i, np.arange(len(i)) % 4 == 0),
    "in batches": lambda i: replace(i, t=i.t[np.arange(len(i)) // 5 * 5] + 1e-6 * (np.arange(len(i)) % 5)),
    "another zero": lambda i: replace(i, t=i.t + 1.7e9),
    "minutes": lambda i: replace(i, t=i.t / 60),
    "hours": lambda i: replace(i, t=i.t / 3600),
    "days": lambda i: replace(i, t=i.t / 86400),
    "not gravity's 9.8": lambda i: replace(i, accel=1.2 * i.accel),
    "on average, not gravity's": lambda i: replace(i, accel=i.accel - i.accel.mean(0)),
    "the opposite sign": lambda i: replace(i, accel=-i.accel),
    "hold the phone upright": lambda i: replace(i, accel=i.accel[:, [1, 0, 2]]),
    "from the picture's up": lambda i: replace(i, accel=i.accel[:, [0, 2, 1]], gyro=i.gyro[:, [0, 2, 1]]),
    "accelerometer is noise": lambda i: replace(i, accel=noisy(i.accel, 0.5)),
    "gyroscope is noise": lambda i: replace(i, gyro=noisy(i.gyro, 0.2)),
    "gyroscope is noise (0.01": lambda i: replace(i, gyro=noisy(0 * i.gyro, 0.015)),
    "stand still for": lambda i: replace(i, accel=0 * i.accel + i.accel[:1]),
    "values stand still for 2.": lambda i: replace(i, gyro=0 * i.gyro),
    "values stand still": lambda i: replace(i, accel=0 * i.accel + i.accel[:1], gyro=0 * i.gyro),
    "does not agree with gravity": lambda i: replace(i, gyro=np.degrees(i.gyro)),
}  # fmt: skip


@pytest.mark.parametrize("words", BROKEN)
def test_a_broken_record_is_named_with_its_remedy(words):
    said = imu_quality.problems(BROKEN[words](swept()), START, STOP)
    assert any(words in sentence for sentence in said), said
    assert all(sentence.startswith("walk.csv: ") and "; " in sentence for sentence in said)


def test_what_lies_beside_the_judged_stretch_is_not_asked_for():
    imu = swept()
    outside = (imu.t < -0.32) | (imu.t > 2.42)
    spoilt = replace(imu, accel=np.where(outside[:, None], np.float32(50.0), imu.accel))
    assert imu_quality.problems(spoilt, START, STOP) == ()
    assert imu_quality.problems(replace(imu, t=imu.t + 7.0), 7.0, 9.4) == ()
    paused = replace(imu, t=np.where(imu.t < -0.35, imu.t - 9.0, imu.t))
    assert imu_quality.problems(paused, START, STOP) == ()
