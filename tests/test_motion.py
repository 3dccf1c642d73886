"""Motion: axes and units of the IMU, its noise against the datasheet, and what the kinds promise."""

import allantools
import numpy as np
import pytest
from scipy.integrate import cumulative_simpson
from scipy.spatial.transform import Rotation

from liveness_utils import devices, motion
from liveness_utils.clips import EXPRESSION_NAMES
from liveness_utils.errors import MotionError
from liveness_utils.perception import imu_quality

FINE = np.arange(-0.3, 2.8, 1e-3)
FRAMES = np.arange(76) / 30


@pytest.mark.parametrize("facing", ["front", "rear"])
def test_an_upright_phone_at_rest_reads_gravity_on_y(facing):
    upright = motion.static_trajectory(np.diag([1.0, -1.0, -1.0, 1.0]))
    imu = motion.imu_from_trajectory(
        upright, np.arange(0, 2, 0.01), devices.ideal_imu(), np.random.default_rng(0), facing
    )
    np.testing.assert_allclose(imu.accel, np.tile([0, 9.81, 0], (200, 1)), atol=1e-5)
    np.testing.assert_allclose(imu.gyro, 0, atol=1e-9)


def test_device_axes_are_a_rotation_of_the_camera_axes():
    for turn in motion.R_DEVICE_CAMERA.values():
        assert np.linalg.det(turn) == pytest.approx(1.0)


def test_turning_the_phone_to_its_left_is_a_positive_rate_about_y():
    t = np.linspace(-1, 3, 200)
    yaw = Rotation.from_euler("y", 0.5 * t[:, None]).as_matrix()
    path = motion.make_trajectory(t, np.zeros((200, 3)), yaw @ np.diag([1.0, -1.0, -1.0]))
    for facing in ("front", "rear"):
        _, rate = motion.specific_force_and_rate(path, np.array([0.0, 1.0]), facing)
        np.testing.assert_allclose(rate, np.tile([0, 0.5, 0], (2, 1)), atol=1e-6)


@pytest.mark.parametrize("kind", motion.MOTIONS)
def test_analytic_rate_and_acceleration_are_the_derivatives_of_the_pose(kind):
    path = motion.camera_trajectory(kind, np.random.default_rng(3))
    h, t = 1e-4, np.linspace(0.0, 2.5, 40)
    before, here, after = path.pose(t - h), path.pose(t), path.pose(t + h)
    step = before[:, :3, :3].transpose(0, 2, 1) @ after[:, :3, :3]
    rate = Rotation.from_matrix(step).as_rotvec() / (2 * h)
    np.testing.assert_allclose(path.angular_rate(t), rate, atol=2e-4)
    second = (after - 2 * here + before)[:, :3, 3] / h**2
    np.testing.assert_allclose(path.acceleration(t), second, atol=2e-3)


def test_the_gyroscope_integrates_back_to_the_attitude():
    path = motion.camera_trajectory("natural", np.random.default_rng(5))
    imu = motion.imu_from_trajectory(path, FINE, devices.ideal_imu(1000.0), np.random.default_rng(0), "front")
    R = path.pose(FINE)[:, :3, :3] @ motion.R_DEVICE_CAMERA["front"].T
    attitude = Rotation.from_matrix(R[0])
    for rate in 0.5 * (imu.gyro[1:] + imu.gyro[:-1]).astype(float):
        attitude = attitude * Rotation.from_rotvec(rate * 1e-3)
    assert (attitude.inv() * Rotation.from_matrix(R[-1])).magnitude() < 2e-4


@pytest.mark.parametrize("name", ["bmi160", "icm42688", "mpu6500"])
def test_a_real_parts_integral_stays_within_its_noise_model(name):
    part, rng = devices.IMUS[name], np.random.default_rng(6)
    path = motion.camera_trajectory("hold_still", rng)
    t = motion.imu_times(part, rng)
    imu = motion.imu_from_trajectory(path, t, part, rng)
    R = path.pose(t[[0, -1]])[:, :3, :3] @ motion.R_DEVICE_CAMERA["front"].T
    attitude = Rotation.from_matrix(R[0])
    for rate, dt in zip(imu.gyro[1:].astype(float), np.diff(t), strict=True):
        attitude = attitude * Rotation.from_rotvec(rate * dt)
    error = (attitude.inv() * Rotation.from_matrix(R[-1])).magnitude()
    seconds = t[-1] - t[0]
    bias, white = part.gyro_bias * seconds, part.gyro_noise * np.sqrt(seconds / 2)
    assert error < 4 * np.sqrt(3) * np.hypot(bias, white) + 0.01


def test_the_accelerometer_integrates_twice_to_the_path():
    path = motion.camera_trajectory("sweep", np.random.default_rng(7))
    force, _ = motion.specific_force_and_rate(path, FINE, "front")
    T = path.pose(FINE)
    turn = T[:, :3, :3] @ motion.R_DEVICE_CAMERA["front"].T
    a = np.einsum("nij,nj->ni", turn, force) + motion.GRAVITY
    v = path.velocity(FINE[:1]) + cumulative_simpson(a, x=FINE, axis=0, initial=0)
    p = T[0, :3, 3] + cumulative_simpson(v, x=FINE, axis=0, initial=0)
    np.testing.assert_allclose(p, T[:, :3, 3], atol=1e-4)


@pytest.mark.parametrize("name", ["bmi160", "lsm6dso", "icm42688"])
def test_allan_deviation_of_a_record_at_rest_reads_the_datasheets_noise(name):
    part, n = devices.IMUS[name], 120_000
    accel, gyro = motion.apply_imu_errors(np.zeros((n, 3)), np.zeros((n, 3)), part, np.random.default_rng(8))
    for values, density in ((accel, part.accel_noise), (gyro, part.gyro_noise)):
        found = [_white_density(v, part.rate) for v in values.T]
        assert np.mean(found) == pytest.approx(density, rel=0.12)


def _white_density(x, rate):
    taus, deviation, _, _ = allantools.oadev(x.astype(float), rate=rate, data_type="freq", taus=[0.02, 0.05, 0.1])
    return float(np.median(deviation * np.sqrt(taus))) * np.sqrt(2)


def test_flicker_has_the_given_allan_floor():
    x = motion._flicker(np.random.default_rng(9), 200_000, 0.01, 1.0)
    floors = [allantools.oadev(c, rate=100.0, data_type="freq", taus=[1.0, 10.0])[1] for c in x.T]
    assert np.mean(floors) == pytest.approx(1.0, rel=0.3)


def test_the_low_pass_delays_and_the_browser_rounds():
    path = motion.camera_trajectory("natural", np.random.default_rng(10))
    web = devices.DEVICES["web_a"].imu
    rng = np.random.default_rng(0)
    imu = motion.imu_from_trajectory(path, motion.imu_times(web, rng), web, rng)
    steps = imu.accel / 0.1
    np.testing.assert_allclose(steps, np.round(steps), atol=1e-3)
    steps = np.degrees(imu.gyro) / 0.1
    np.testing.assert_allclose(steps, np.round(steps), atol=1e-3)


@pytest.mark.parametrize("seed", range(12))
def test_a_sweep_changes_the_viewing_direction_by_15_degrees_and_more(seed):
    rng = np.random.default_rng(seed)
    camera = motion.camera_trajectory("sweep", rng, 0.4)
    head = motion.head_trajectory(rng, "calm", follow=camera, gain=0.0)
    swept = motion.viewing_direction_change(camera.pose(FRAMES), head.pose(FRAMES))
    assert 15.0 <= swept <= 36.0


def test_a_following_head_cancels_the_sweep_in_its_own_frame():
    camera = motion.camera_trajectory("sweep", np.random.default_rng(1), sweep_deg=25.0)
    views = []
    for gain in (0.0, 0.5, 1.0):
        head = motion.head_trajectory(np.random.default_rng(2), "calm", follow=camera, gain=gain, latency=0.0)
        poses = camera.pose(FRAMES), head.pose(FRAMES)
        views.append(motion.viewing_direction_change(*poses, frame="head"))
    assert views[0] > 20 and 0.3 < views[1] / views[0] < 0.7 and views[2] < 0.45 * views[0]


@pytest.mark.parametrize("kind", motion.MOTIONS)
def test_the_face_stays_in_the_middle_of_the_picture(kind):
    for seed in range(8):
        rng = np.random.default_rng(seed)
        camera = motion.camera_trajectory(kind, rng, 0.35)
        head = motion.head_trajectory(rng, follow=camera, gain=rng.random())
        seen = np.linalg.inv(camera.pose(FRAMES)) @ head.pose(FRAMES)
        off_axis = np.degrees(np.arctan2(np.hypot(seen[:, 0, 3], seen[:, 1, 3]), seen[:, 2, 3]))
        assert off_axis.max() < 17.0 and seen[:, 2, 3].min() > 0.2


def test_motion_energy_is_ordered_as_the_names_say():
    rms = {}
    for kind in motion.MOTIONS:
        paths = [motion.camera_trajectory(kind, np.random.default_rng(s)) for s in range(6)]
        rms[kind] = np.mean([np.abs(p.angular_rate(FRAMES)).mean() for p in paths])
    assert rms["stand"] < 0.2 * rms["hold_still"] < 0.2 * rms["natural"] < 0.2 * rms["sweep"] * 1.5


def test_walking_bounces_head_and_hand_alike():
    rng = np.random.default_rng(4)
    camera = motion.camera_trajectory("walking", rng)
    head = motion.head_trajectory(rng, "calm", follow=camera)
    y = [x.pose(FRAMES)[:, 1, 3] for x in (camera, head)]
    assert np.corrcoef(*y)[0, 1] > 0.6
    assert np.abs(camera.acceleration(FRAMES)).max() > 1.0


def test_records_look_like_si_units_and_cover_the_clip():
    for seed, phone in enumerate(devices.DEVICES.values()):
        rng = np.random.default_rng(seed)
        path = motion.camera_trajectory(motion.MOTIONS[seed % 5], rng)
        offset = devices.draw_imu_offset(phone, rng)
        imu = motion.imu_from_trajectory(
            path, motion.imu_times(phone.imu, rng), phone.imu, rng, phone.facing, offset=offset
        )
        assert imu_quality.problems(imu, 0.0, 2.4) == ()
        assert np.all(np.diff(imu.t) > 0)
        assert imu.t[0] < -0.2 and imu.t[-1] > 2.7 and abs(offset) <= 0.06


def test_forged_records_differ_from_the_true_one_as_they_should():
    camera = motion.camera_trajectory("natural", np.random.default_rng(11))
    part, t = devices.IMUS["bmi270"], np.arange(0.0, 2.5, 0.01)
    truth = camera.angular_rate(t) @ motion.R_DEVICE_CAMERA["front"].T
    found = {}
    for kind in motion.FORGERIES:
        imu = motion.forge_imu(kind, np.random.default_rng(12), camera, part)
        rate = np.stack([np.interp(t, imu.t, g) for g in imu.gyro.T], axis=1)
        found[kind] = np.corrcoef(_smooth(rate).ravel(), _smooth(truth).ravel())[0, 1]
        assert np.median(np.linalg.norm(imu.accel, axis=1)) == pytest.approx(9.81, abs=1.0)
    assert found["forged"] > 0.6 and abs(found["other_motion"]) < 0.6


def _smooth(x, width=15):
    return np.apply_along_axis(np.convolve, 0, x, np.ones(width) / width, "valid")


def test_the_same_seed_gives_the_same_motion():
    def once():
        rng = np.random.default_rng(13)
        camera = motion.camera_trajectory("walking", rng)
        head = motion.head_trajectory(rng, follow=camera, gain=0.5)
        hand = motion.hand_trajectory(rng, follow=camera)
        face = motion.expression_timeline(rng, FRAMES)
        gaze = motion.gaze_timeline(rng, FRAMES)
        part = devices.IMUS["bmi160"]
        imu = motion.imu_from_trajectory(camera, motion.imu_times(part, rng), part, rng)
        poses = [x.pose(FRAMES).tobytes() for x in (camera, head, hand)]
        return poses, face.weights.tobytes(), gaze.tobytes(), imu.t.tobytes(), imu.gyro.tobytes()

    assert once() == once()


def test_blinks_are_as_frequent_and_as_asymmetric_as_the_literature_says():
    t = np.arange(0.0, 600.0, 0.01)
    result = motion.expression_timeline(np.random.default_rng(14), t, speaking=False, blink_rate=15.0)
    assert len(result.blinks) == pytest.approx(150, rel=0.25)
    down = result.blinks[:, 1] - result.blinks[:, 0]
    up = result.blinks[:, 2] - result.blinks[:, 1]
    assert 0.07 < np.mean(down) < 0.11 and 0.14 < np.mean(up) < 0.23
    lid = result.weights[:, EXPRESSION_NAMES.index("eyeBlinkLeft")]
    deep = result.blinks[result.blinks[:, 1] < 599, 1]
    assert np.mean(lid[np.round(deep / 0.01).astype(int)] > 0.85) > 0.6


def test_expressions_stay_in_range_and_speech_moves_the_jaw():
    for seed in range(10):
        weights = motion.expression_timeline(np.random.default_rng(seed), FRAMES).weights
        assert weights.shape == (76, 52) and weights.dtype == np.float32
        assert weights.min() >= 0 and weights.max() <= 1
    talk = motion.expression_timeline(np.random.default_rng(0), FRAMES, speaking=True).weights
    assert np.ptp(talk[:, EXPRESSION_NAMES.index("jawOpen")]) > 0.1


def test_gaze_rests_on_the_phone():
    rng = np.random.default_rng(15)
    camera = motion.camera_trajectory("sweep", rng)
    head = motion.head_trajectory(rng, "turn", follow=camera, gain=0.3)
    target = motion.gaze_target(head.pose(FRAMES), camera.pose(FRAMES))
    gaze = motion.gaze_timeline(rng, FRAMES, target)
    assert gaze.shape == (76, 2) and np.abs(gaze - target).mean() < np.radians(6)


def test_what_does_not_exist_is_refused():
    rng = np.random.default_rng(0)
    path = motion.camera_trajectory("stand", rng)
    for call in (
        lambda: motion.camera_trajectory("dance", rng),
        lambda: motion.camera_trajectory("stand", rng, 30.0),
        lambda: motion.head_trajectory(rng, gain=2.0),
        lambda: motion.hand_trajectory(rng, "thrown"),
        lambda: motion.forge_imu("magic", rng, path, devices.IMUS["bmi160"]),
        lambda: motion.specific_force_and_rate(path, np.zeros(1), "side"),
        lambda: path.pose(np.array([99.0])),
        lambda: devices.device("brick"),
    ):
        with pytest.raises(MotionError):
            call()


def test_frame_times_are_jittered_and_long_enough():
    for seed, phone in enumerate(devices.DEVICES.values()):
        t = devices.frame_times(phone, np.random.default_rng(seed))
        assert t[0] == 0 and np.all(np.diff(t) > 0) and t[-1] > 2.5 - 0.55 / phone.fps
        assert np.std(np.diff(t)) > 0 and 14 < (len(t) - 1) / t[-1] < 31
