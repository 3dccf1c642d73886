"""Devices: phones as cameras and inertial sensors, in numbers that datasheets give.

Nothing comes in; `simulate` takes a `DeviceProfile` and asks `sensor` and `motion` to behave like it.
Parts are real and cited; the phones that carry them are typical, not portraits of products.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from liveness_utils.clips import CLIP_SECONDS
from liveness_utils.errors import MotionError
from liveness_utils.sensor import SensorProfile

_G = 9.80665
_DEG = math.pi / 180.0


# ------------------------------------------------------------------------------------------- IMU parts
@dataclass(frozen=True)
class ImuProfile:
    """An inertial part as an app reads it, in SI units.

    Attributes:
        name: part number, and the way it is read.
        source: datasheet.
        rate: nominal sampling rate, Hz.
        rate_tolerance: relative standard deviation of the true rate.
        timestamp_jitter: standard deviation of a time stamp, s.
        bandwidth: −3 dB of the low-pass filter, Hz; 0 for none.
        accel_noise: white noise density, m/s²/√Hz.
        accel_instability: bias instability as the Allan floor, m/s².
        accel_random_walk: m/s²/√s.
        accel_bias: standard deviation of the bias that a unit has left, m/s².
        accel_scale: standard deviation of the scale factor error.
        accel_range: ± full scale, m/s².
        accel_step: quantisation, m/s²; 0 for none.
        gyro_noise: rad/s/√Hz.
        gyro_instability: rad/s.
        gyro_random_walk: rad/s/√s.
        gyro_bias: rad/s.
        gyro_scale: standard deviation of the scale factor error.
        gyro_range: rad/s.
        gyro_step: rad/s.
        misalignment: standard deviation of cross-axis terms, rad.
        lever_arm: (3,) place of the IMU seen from the camera, device axes, m.
    """

    name: str
    source: str
    rate: float
    rate_tolerance: float
    timestamp_jitter: float
    bandwidth: float
    accel_noise: float
    accel_instability: float
    accel_random_walk: float
    accel_bias: float
    accel_scale: float
    accel_range: float
    accel_step: float
    gyro_noise: float
    gyro_instability: float
    gyro_random_walk: float
    gyro_bias: float
    gyro_scale: float
    gyro_range: float
    gyro_step: float
    misalignment: float = 0.005
    lever_arm: tuple[float, float, float] = (0.0, 0.0, 0.0)


def _part(
    name: str, source: str, *, ug: float, mdps: float, offset_mg: float,
    instability_ug: float, instability_dph: float, accel_g: float = 8.0, gyro_dps: float = 1000.0,
    sensitivity: float = 0.005, bits: int = 16,
) -> ImuProfile:  # fmt: skip
    """A part from datasheet units: µg/√Hz, mdps/√Hz, mg, µg, °/h, ± g, ± °/s, bits a sample.

    A phone removes the gyroscope's zero-rate offset while at rest; 0.15 °/s is left.
    """
    return ImuProfile(
        name=name, source=source, rate=100.0, rate_tolerance=0.008, timestamp_jitter=2e-4,
        bandwidth=40.0, accel_noise=ug * 1e-6 * _G, accel_instability=instability_ug * 1e-6 * _G,
        accel_random_walk=2e-5, accel_bias=offset_mg * 1e-3 * _G, accel_scale=sensitivity,
        accel_range=accel_g * _G, accel_step=accel_g * _G / 2 ** (bits - 1), gyro_noise=mdps * 1e-3 * _DEG,
        gyro_instability=instability_dph / 3600 * _DEG, gyro_random_walk=2e-6,
        gyro_bias=0.15 * _DEG, gyro_scale=sensitivity, gyro_range=gyro_dps * _DEG,
        gyro_step=gyro_dps * _DEG / 2 ** (bits - 1),
    )  # fmt: skip


# Noise densities are the datasheets' typical values, of ST's accelerometers those at ± 8 g. Offsets
# lie below the datasheets' zero-g offsets (20 to 60 mg), as a phone is calibrated in the factory. No
# datasheet here states a bias instability: those are the usual magnitudes of phones (5 to 20 °/h,
# some tens of µg).
IMUS = {
    "bmi160": _part(
        "Bosch BMI160", "Bosch Sensortec BST-BMI160-DS000",
        ug=180.0, mdps=7.0, offset_mg=25.0, instability_ug=40.0, instability_dph=12.0, sensitivity=0.0,
    ),
    "bmi270": _part(
        "Bosch BMI270", "Bosch Sensortec BST-BMI270-DS000 (160 µg/√Hz, 7 mdps/√Hz)",
        ug=160.0, mdps=7.0, offset_mg=15.0, instability_ug=35.0, instability_dph=10.0,
    ),
    "lsm6dso": _part(
        "ST LSM6DSO", "STMicroelectronics DS12140",
        ug=80.0, mdps=3.8, offset_mg=12.0, instability_ug=30.0, instability_dph=7.0, sensitivity=0.0,
    ),
    "lsm6dsl": _part(
        "ST LSM6DSL", "STMicroelectronics DocID028475",
        ug=90.0, mdps=4.0, offset_mg=20.0, instability_ug=35.0, instability_dph=9.0, sensitivity=0.0,
    ),
    "icm42688": _part(
        "TDK ICM-42688-P", "TDK InvenSense DS-000347 (70 µg/√Hz, 2.8 mdps/√Hz)",
        ug=70.0, mdps=2.8, offset_mg=12.0, instability_ug=25.0, instability_dph=6.0, bits=18,
    ),
    "icm42605": _part(
        "TDK ICM-42605", "TDK InvenSense DS-000292 (70 µg/√Hz, 3.8 mdps/√Hz)",
        ug=70.0, mdps=3.8, offset_mg=15.0, instability_ug=30.0, instability_dph=8.0,
    ),
    "mpu6500": _part(
        "InvenSense MPU-6500", "InvenSense PS-MPU-6500A",
        ug=300.0, mdps=10.0, offset_mg=30.0, instability_ug=60.0, instability_dph=18.0, sensitivity=0.0,
    ),
}  # fmt: skip


def in_browser(part: ImuProfile) -> ImuProfile:
    """The same part behind a browser's devicemotion event: coarse steps, 60 Hz, late stamps.

    Chromium rounds to 0.1 m/s² and 0.1 °/s, to make phones harder to tell apart.
    """
    return replace(
        part, name=f"{part.name} in a browser", rate=60.0, rate_tolerance=0.01,
        timestamp_jitter=2e-3, bandwidth=25.0, accel_step=0.1, gyro_step=0.1 * _DEG,
    )  # fmt: skip


def ideal_imu(rate: float = 100.0) -> ImuProfile:
    """An IMU without any error, for tests and for drawing the truth."""
    return ImuProfile("ideal", "none", rate, 0.0, 0.0, 0.0, *[0.0] * 5, math.inf, 0.0, *[0.0] * 5, math.inf, 0.0, 0.0)


# ------------------------------------------------------------------------------------------------ phones
@dataclass(frozen=True)
class DeviceProfile:
    """A phone: camera, processing, encoder, clock and IMU.

    Attributes:
        name: device_id in the manifest.
        sensor: camera module and its processing.
        imu: inertial part.
        facing: ``front`` or ``rear``.
        fps: nominal frame rate, 15 to 30 Hz.
        frame_jitter: standard deviation of a frame's time, s.
        crf: x264 quality that stands for the phone's encoder; more is worse.
        preset: x264 preset.
        imu_offset: mean of t_imu − t_video, s.
        imu_offset_jitter: its standard deviation from clip to clip, s.
    """

    name: str
    sensor: SensorProfile
    imu: ImuProfile
    facing: str = "front"
    fps: float = 30.0
    frame_jitter: float = 8e-4
    crf: int = 23
    preset: str = "superfast"
    imu_offset: float = 0.0
    imu_offset_jitter: float = 3e-3


def _imu(part: str, arm: tuple[float, float, float], *, browser: bool = False) -> ImuProfile:
    profile = replace(IMUS[part], lever_arm=arm)
    return in_browser(profile) if browser else profile


def _devices() -> dict[str, DeviceProfile]:
    phones = (
        DeviceProfile(
            "flagship_a",
            SensorProfile(
                focal_px_256=262.0, sensitivity=2730.0, full_well_e=21000.0, read_noise_e=3.0,
                psf_px=0.29, denoise=0.73, sharpen=0.22, saturation=1.17, readout_s=0.012, k1=0.004,
            ),
            _imu("icm42688", (0.010, -0.045, 0.0)), fps=30.0, crf=19, imu_offset=0.006,
        ),
        DeviceProfile(
            "flagship_b",
            SensorProfile(
                focal_px_256=275.0, sensitivity=2520.0, full_well_e=19600.0, read_noise_e=3.5,
                psf_px=0.29, denoise=0.92, sharpen=0.38, saturation=1.2, contrast=0.72, readout_s=0.014,
            ),
            _imu("lsm6dso", (-0.015, -0.030, 0.0)), fps=30.0, crf=20, imu_offset=-0.012,
        ),
        DeviceProfile(
            "flagship_c",
            SensorProfile(
                focal_px_256=250.0, sensitivity=2310.0, read_noise_e=3.5, psf_px=0.33, k1=0.008,
                denoise=0.62, sharpen=0.13, saturation=1.08, contrast=0.45, readout_s=0.010, wb_error=0.01,
            ),
            _imu("lsm6dso", (0.020, -0.060, 0.0)), fps=24.0, crf=20, imu_offset=0.018,
        ),
        DeviceProfile(
            "midrange_a",
            SensorProfile(
                focal_px_256=290.0, sensitivity=1785.0, read_noise_e=5.5, psf_px=0.39, denoise=0.97,
                sharpen=0.38, saturation=1.2, readout_s=0.020, k1=0.012, vignetting=0.3,
            ),
            _imu("bmi160", (0.012, -0.055, 0.0)), fps=30.0, frame_jitter=1.5e-3, crf=22, imu_offset=0.024,
        ),
        DeviceProfile(
            "midrange_b",
            SensorProfile(
                focal_px_256=280.0, sensitivity=1680.0, read_noise_e=6.0, psf_px=0.39, denoise=0.82,
                sharpen=0.31, saturation=1.2, readout_s=0.022, wb_strength=0.75, flicker=60.0,
            ),
            _imu("lsm6dsl", (-0.018, -0.050, 0.0)), fps=30.0, crf=23, imu_offset=-0.020,
        ),
        DeviceProfile(
            "midrange_c",
            SensorProfile(
                focal_px_256=268.0, sensitivity=1575.0, read_noise_e=5.0, psf_px=0.36, denoise=0.97,
                sharpen=0.23, saturation=1.13, contrast=0.65, readout_s=0.018, ae_target=0.52,
            ),
            _imu("bmi270", (0.005, -0.035, 0.0)), fps=25.0, frame_jitter=2e-3, crf=22, imu_offset=0.010,
        ),
        DeviceProfile(
            "midrange_d",
            SensorProfile(
                focal_px_256=300.0, sensitivity=1995.0, read_noise_e=4.5, psf_px=0.33, denoise=0.78,
                sharpen=0.38, saturation=1.2, contrast=0.78, readout_s=0.016, vignetting=0.2,
            ),
            _imu("icm42605", (0.015, -0.040, 0.0)), fps=30.0, crf=21, imu_offset=0.035,
            imu_offset_jitter=5e-3,
        ),
        DeviceProfile(
            "budget_a",
            SensorProfile(
                focal_px_256=310.0, sensitivity=1050.0, full_well_e=9800.0, read_noise_e=9.0, row_noise_e=2.5,
                psf_px=0.55, denoise=0.97, sharpen=0.38, saturation=1.02, readout_s=0.030, k1=0.02,
                vignetting=0.4, wb_error=0.03, exposure_max_s=1 / 20,
            ),
            _imu("mpu6500", (-0.010, -0.060, 0.0)), fps=20.0, frame_jitter=4e-3, crf=25, imu_offset=0.045,
            imu_offset_jitter=6e-3,
        ),
        DeviceProfile(
            "budget_b",
            SensorProfile(
                focal_px_256=285.0, sensitivity=1155.0, full_well_e=10500.0, read_noise_e=8.0, row_noise_e=2.0,
                psf_px=0.52, denoise=0.92, sharpen=0.18, saturation=0.98, contrast=0.39, readout_s=0.028,
                k1=0.018, vignetting=0.35, wb_error=0.03, ae_target=0.40, exposure_max_s=1 / 15,
            ),
            _imu("bmi160", (0.008, -0.065, 0.0)), fps=15.0, frame_jitter=3e-3, crf=24, imu_offset=-0.035,
            imu_offset_jitter=6e-3,
        ),
        DeviceProfile(
            "web_a",
            SensorProfile(
                focal_px_256=272.0, sensitivity=1890.0, read_noise_e=5.0, psf_px=0.39, denoise=0.88,
                sharpen=0.31, readout_s=0.018,
            ),
            _imu("lsm6dso", (0.010, -0.045, 0.0), browser=True), fps=30.0, frame_jitter=4e-3, crf=25,
            imu_offset=0.028, imu_offset_jitter=8e-3,
        ),
        DeviceProfile(
            "web_b",
            SensorProfile(
                focal_px_256=288.0, sensitivity=1575.0, read_noise_e=6.0, psf_px=0.42, denoise=0.97,
                sharpen=0.38, saturation=1.2, readout_s=0.022, wb_strength=0.69,
            ),
            _imu("bmi160", (-0.012, -0.055, 0.0), browser=True), fps=24.0, frame_jitter=5e-3, crf=26,
            imu_offset=-0.010, imu_offset_jitter=8e-3,
        ),
        DeviceProfile(
            "rear_a",
            SensorProfile(
                focal_px_256=242.0, sensitivity=3360.0, full_well_e=25200.0, read_noise_e=2.5,
                psf_px=0.26, denoise=0.62, sharpen=0.23, saturation=1.2, readout_s=0.010, k1=0.003,
                vignetting=0.15,
            ),
            _imu("icm42688", (0.025, -0.050, 0.0)), facing="rear", fps=30.0, crf=19, imu_offset=0.008,
        ),
        DeviceProfile(
            "rear_b",
            SensorProfile(
                focal_px_256=255.0, sensitivity=2100.0, read_noise_e=4.0, psf_px=0.33, denoise=0.82,
                sharpen=0.36, saturation=1.2, readout_s=0.016, vignetting=0.25,
            ),
            _imu("bmi270", (-0.020, -0.045, 0.0)), facing="rear", fps=30.0, crf=21, imu_offset=-0.025,
        ),
    )  # fmt: skip
    return {phone.name: phone for phone in phones}


DEVICES = _devices()


def device(name: str) -> DeviceProfile:
    """The device of this name.

    Raises:
        MotionError: if there is none.

    Example:
        >>> device("rear_a").facing
        'rear'
    """
    if name not in DEVICES:
        raise MotionError(f"device {name!r} is unknown; choose one of {sorted(DEVICES)}.")
    return DEVICES[name]


def frame_times(phone: DeviceProfile, rng: np.random.Generator, duration: float = CLIP_SECONDS) -> np.ndarray:
    """Frame times (N,) s of one clip, first at 0: the nominal rate, a little off, jittered.

    Times mean mid-exposure of the middle row. There is always a frame within half a frame of
    the end, so that ten frames a second fit.
    """
    rate = phone.fps * (1.0 + np.clip(rng.normal(0.0, 0.003), -0.01, 0.01))
    count = math.ceil(duration * rate) + 1
    jitter = np.clip(rng.normal(0.0, phone.frame_jitter, count), -0.3 / rate, 0.3 / rate)
    t = np.arange(count) / rate + jitter
    t = t - t[0]
    return t[t <= duration + 0.5 / rate]


def draw_imu_offset(phone: DeviceProfile, rng: np.random.Generator) -> float:
    """t_imu − t_video of one clip, s: the device's mean and a jitter, within ±60 ms."""
    return float(np.clip(rng.normal(phone.imu_offset, phone.imu_offset_jitter), -0.06, 0.06))
