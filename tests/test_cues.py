"""Cues on scenes with known answers: a point head, a point photo, a textured wall, a made gyroscope."""

import warnings
from dataclasses import replace

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from liveness_utils import cues, landmarks
from liveness_utils.clips import Clip, Imu, Intrinsics, load_recording, normalise_imu
from liveness_utils.config import real_dir
from liveness_utils.errors import LivenessError

CAMERA = Intrinsics(256, 256, 230.0, 230.0, 127.5, 127.5)
N, RATE = 60, 25.0
T = np.arange(N) / RATE
FLIP = np.diag([1.0, -1.0, -1.0])
SWEEP = np.radians(18) * np.sin(2 * np.pi * T / 4)
STILL = np.zeros(N)


def turn_about_y(angle):
    return Rotation.from_rotvec(np.outer(angle, [0.0, 1.0, 0.0])).as_matrix()


def poses(camera_turn, camera_place, head_turn):
    """T_camera_head over time; turns (N,) about the camera's y axis, places (N, 3) in metres."""
    R_wc, R_wh = turn_about_y(camera_turn), turn_about_y(head_turn) @ FLIP
    out = np.tile(np.eye(4), (N, 1, 1))
    out[:, :3, :3] = np.swapaxes(R_wc, 1, 2) @ R_wh
    out[:, :3, 3] = np.einsum("nji,nj->ni", R_wc, np.array([0, 0, 0.4]) - camera_place)
    return out


def orbit_place(angle, distance=0.4):
    """Camera places that keep a face at `distance` on the optical axis while turning by `angle`."""
    zero = np.zeros_like(angle)
    return distance * np.stack([-np.sin(angle), zero, 1 - np.cos(angle)], 1)


def head_points():
    points = np.zeros((478, 3))
    points[: landmarks.N_MESH] = landmarks.canonical_face()[0]
    return points


def film(T_camera_head, relief=1.0):
    points = head_points() * [1, 1, relief]
    p = np.einsum("nij,pj->npi", T_camera_head[:, :3, :3], points) + T_camera_head[:, None, :3, 3]
    return np.concatenate([p[..., :2] / p[..., 2:] * 230 + 127.5, p[..., 2:]], -1).astype(np.float32)


def made_track(T_camera_head, points):
    shapes = np.zeros(52, np.float32)
    faces = [landmarks.FaceObservation(p, shapes, T) for p, T in zip(points, T_camera_head, strict=True)]
    return landmarks.make_track(T, faces, np.ones(N))


def made_imu(turn_of_time, rate=100.0, offset=0.0, facing="front"):
    """Gyroscope of a phone that turns by turn_of_time(t) about the camera's y axis."""
    t = np.arange(-0.3, T[-1] + 0.3, 1 / rate)
    h = 1e-4
    camera = np.outer((turn_of_time(t + h) - turn_of_time(t - h)) / (2 * h), [0.0, 1.0, 0.0])
    sign = {"front": [-1, -1, 1], "rear": [1, -1, -1]}[facing]
    return Imu(t + offset, np.zeros_like(camera, np.float32), (camera * sign).astype(np.float32))


def sweep(t):
    return np.radians(18) * np.sin(2 * np.pi * t / 4)


def made_clip(imu):
    frames = np.zeros((N, 256, 256, 3), np.uint8)
    return Clip("made", frames, T, imu, CAMERA, "front", {}, None, "made")


def test_homography_explains_a_photo_and_not_a_head():
    turned = poses(STILL, np.zeros((N, 3)), SWEEP)
    indices = cues.geometry_points()
    unit = 40.0
    head, photo = film(turned), film(turned, relief=0.0)
    far = int(np.argmax(SWEEP))
    assert cues.homography_residual(photo[0, indices, :2], photo[far, indices, :2], unit) < 1e-3
    assert cues.homography_residual(head[0, indices, :2], head[far, indices, :2], unit) > 0.03
    assert np.isnan(cues.homography_residual(np.full((9, 2), np.nan), np.ones((9, 2))))


def test_trajectory_rank_of_plane_and_relief():
    turned = poses(STILL, np.zeros((N, 3)), SWEEP)
    # Weak perspective is what the rank is about: the same scene through a long lens from afar.
    turned[:, 2, 3] *= 30
    assert cues.trajectory_rank(film(turned, relief=0.0)[:, :468, :2].astype(float)) < 2e-3
    assert cues.trajectory_rank(film(turned)[:, :468, :2].astype(float)) > 0.03
    assert np.isnan(cues.trajectory_rank(np.full((5, 9, 2), np.nan)))


def test_relief_share_knows_a_face_from_noise_on_a_photo():
    turned = poses(STILL, np.zeros((N, 3)), SWEEP / 2)
    rng = np.random.default_rng(0)
    head, photo = (film(turned, relief=r)[..., :2] + rng.normal(0, 0.2, (N, 478, 2)) for r in (1.0, 0.0))
    assert cues.relief_share(head) > 0.8 > 0.5 > cues.relief_share(photo)
    mesh = slice(0, landmarks.N_MESH)
    assert cues.trajectory_gap(head[:, mesh]) > 3 > cues.trajectory_gap(photo[:, mesh])
    assert np.isnan(cues.relief_share(np.full((9, 478, 2), np.nan)))


def rolled(radius=0.15):
    """The canonical face printed on a sheet bent about its vertical axis."""
    points = head_points()
    points[:, 2] = radius * (np.cos(points[:, 0] / radius) - 1)
    points[:, 0] = radius * np.sin(points[:, 0] / radius)
    return points


def afar(points, noise_px=0.15):
    """Pixels of the points under a turn both ways, through a long lens, with a landmarker's noise."""
    R = Rotation.from_rotvec(np.outer(SWEEP, [0.3, 1.0, 0.0])).as_matrix() @ FLIP
    p = np.einsum("nij,pj->npi", R, points) + [0, 0, 12.0]
    pixels = p[..., :2] / p[..., 2:] * 6900 + 127.5
    return pixels + np.random.default_rng(0).normal(0, noise_px, pixels.shape)


def test_surface_cues_tell_a_head_from_a_bent_sheet_and_a_flat_one():
    shapes = (head_points(), rolled(), head_points() * [1, 1, 0])
    head, sheet, flat = (cues.surface_cues(afar(p)) for p in shapes)
    assert set(head) == set(cues.SURFACE_CUES)
    # A head narrows towards the chin and has a nose; a sheet bent about the vertical has x² and noise.
    for mode in ("surface_face_x", "surface_x2y_x"):
        assert head[mode] > sheet[mode] + 2
    assert np.exp(sheet["surface_x2_x"]) > 0.7 > 0.1 > np.exp(flat["surface_x2_x"])
    assert np.exp(flat["surface_rest_x"]) + np.exp(flat["surface_rest_y"]) > 0.8


def test_surface_cues_are_shares_and_leave_eyes_brows_and_mouth_out():
    pixels = afar(head_points())
    head = cues.surface_cues(pixels)
    assert np.exp(list(head.values())).sum() == pytest.approx(1.0, abs=0.01)
    turned = np.array([[0.0, 1.7], [-1.7, 0.0]])
    np.testing.assert_allclose(list(cues.surface_cues(pixels @ turned).values()), list(head.values()), atol=0.01)
    talking = pixels.copy()
    talking[::2, [*cues.EYE_POINTS, 105, 334, 13, 14, 152]] += 8.0
    assert cues.surface_cues(talking) == head
    assert np.isfinite(list(cues.surface_cues(np.repeat(pixels[:1], 9, 0)).values())).all()
    assert cues.surface_cues(np.full((9, 478, 2), np.nan)) == {}


def test_nose_sways_with_the_head_and_not_with_a_photo():
    turned = poses(STILL, np.zeros((N, 3)), -SWEEP)
    yaw = landmarks.head_pose_angles(turned[:, :3, :3])[:, 0]
    head, photo = (cues.nose_parallax(film(turned, relief=r))[:, 0] for r in (1.0, 0.0))
    assert 0.5 < np.polyfit(yaw, head, 1)[0] < 1.0
    assert np.ptp(photo) < 0.1 * np.ptp(head)


@pytest.mark.parametrize("rotation", [(0.02, 0, 0), (0, -0.03, 0), (0, 0, 0.05), (0.01, 0.02, -0.02)])
def test_rotation_from_flow_recovers_sign_and_size(rotation):
    rng = np.random.default_rng(0)
    p = np.concatenate([rng.uniform(-0.5, 0.5, (80, 2)), np.ones((80, 1))], 1) * 3.0
    q = p @ Rotation.from_rotvec(rotation).as_matrix()  # static points in the camera's new axes
    a, b = (v[:, :2] / v[:, 2:] * 230 + 127.5 for v in (p, q))
    b[:8] += rng.normal(0, 5, (8, 2))
    found, _ = cues.rotation_from_flow(a, b, CAMERA)
    np.testing.assert_allclose(found, rotation, atol=1e-3)


def test_similarity_recovers_what_was_put_in():
    a = np.random.default_rng(0).normal(size=(30, 2)) * 40
    R = Rotation.from_euler("z", 0.1).as_matrix()[:2, :2]
    b = 1.05 * (a - a.mean(0)) @ R.T + a.mean(0) + [3, -2]
    b[:5] += 30
    fit, _ = cues.robust_similarity(a, b)
    np.testing.assert_allclose(fit, [3, -2, 0.1, np.log(1.05)], atol=1e-6)


def test_motion_meter_sees_a_moving_wall():
    rng = np.random.default_rng(0)
    wall = cv2.resize(rng.integers(0, 255, (60, 60, 3)).astype(np.uint8), (400, 400))
    meter = cues.MotionMeter(CAMERA)
    views = [wall[40:296, 40 + 2 * k : 296 + 2 * k].copy() for k in range(6)]
    rows = [meter.push(v, k / 25, None) for k, v in enumerate(views)]
    assert np.isnan(rows[0].camera).all() and rows[0].tracks == 0
    for row in rows[1:]:
        assert row.background[0] == pytest.approx(-2 / 256 * 25, rel=0.05)
        assert row.camera[1] == pytest.approx(2 / 230 * 25, rel=0.15)


@pytest.mark.parametrize("facing", ["front", "rear"])
def test_consistency_recovers_gain_and_offset(facing):
    imu = made_imu(lambda t: 0.1 * np.sin(9 * t) + 0.03 * np.sin(31 * t), offset=0.062, facing=facing)
    record = cues.gyro_record(imu, facing)
    clean = cues.gyro_record(replace(imu, t=imu.t - 0.062), facing)
    found = cues.imu_consistency(cues.frame_rates(clean, T), record, T)
    assert found.correlation > 0.99 and found.gain == pytest.approx(1.0, abs=0.02)
    assert found.lag == pytest.approx(0.062, abs=0.004)
    assert found.correlation_at_zero < found.correlation


def test_consistency_is_low_for_foreign_and_silent_for_missing_motion():
    rng = np.random.default_rng(3)
    mine = made_imu(lambda t: 0.1 * np.sin(9 * t))
    foreign = 0.4 * cv2.GaussianBlur(rng.normal(size=(N, 3)), (1, 5), 0)
    found = cues.imu_consistency(foreign, cues.gyro_record(mine, "front"), T)
    assert found.correlation < 0.6
    resting = cues.gyro_record(made_imu(lambda t: 0 * t), "front")
    assert abs(cues.imu_consistency(foreign, resting, T).correlation) < 0.1
    assert np.isnan(cues.imu_consistency(foreign, cues.gyro_record(None, "front"), T).correlation)
    with pytest.raises(LivenessError, match="facing"):
        cues.gyro_in_camera_axes(np.zeros(3), "left")


def parallax_of(camera_turn, camera_place, head_turn, shown_turn=None, imu_turn=sweep):
    """Coherent parallax when the face shows `shown_turn` of its own (a replay) instead of the truth."""
    true = poses(camera_turn, camera_place, head_turn)
    shown = true.copy()
    if shown_turn is not None:
        rays = landmarks.ray_rotation(true[:, :3, 3])
        shown[:, :3, :3] = rays @ turn_about_y(shown_turn) @ FLIP
    clip = made_clip(made_imu(imu_turn))
    return cues.coherent_parallax(cues.orbit(clip, made_track(shown, film(shown))))


def test_coherent_parallax_of_a_head_that_stays_is_one():
    found = parallax_of(SWEEP, orbit_place(SWEEP), STILL)
    assert found.slope == pytest.approx(1.0, abs=0.05)
    assert found.nose_slope > 0.4
    assert found.information > 5


@pytest.mark.parametrize("gain", [0.5, 1.0])
def test_a_head_that_follows_the_phone_loses_its_gain(gain):
    found = parallax_of(SWEEP, orbit_place(SWEEP), gain * SWEEP)
    assert found.slope == pytest.approx(1 - gain, abs=0.05)


def test_coherent_parallax_of_a_replayed_turning_head_is_nought():
    other = np.radians(20) * np.sin(2 * np.pi * T * 1.3 + 0.4)
    found = parallax_of(SWEEP, orbit_place(SWEEP), STILL, shown_turn=other)
    assert abs(found.slope) < 0.35


def test_turning_in_place_and_resting_are_silent():
    in_place = parallax_of(SWEEP, np.zeros((N, 3)), STILL)
    assert np.isnan(in_place.slope) and in_place.information < 1.5
    rest = parallax_of(STILL, np.zeros((N, 3)), SWEEP, imu_turn=lambda t: 0 * t)
    assert np.isnan(rest.slope) and rest.information < 0.1


def test_gyro_record_answers_from_the_past_only():
    imu = made_imu(sweep)
    whole, early = cues.GyroRecord(), cues.GyroRecord()
    whole.push(imu.t, imu.gyro)
    past = imu.t <= 1.0
    early.push(imu.t[past][:40], imu.gyro[past][:40])
    early.push(imu.t[past][40:], imu.gyro[past][40:])
    ask = np.array([0.2, 0.9, 1.0])
    np.testing.assert_allclose(whole.angle(ask, 1.0), early.angle(ask, 1.0), atol=1e-12)
    assert np.isnan(whole.angle(np.array([-1.0]), 1.0)).all()
    assert np.isnan(whole.angle(np.array([1.5]), 1.0)).all()


def textured_clip(imu):
    rng = np.random.default_rng(0)
    wall = cv2.resize(rng.integers(0, 255, (70, 70, 3)).astype(np.uint8), (420, 420))
    shift = (60 + 50 * np.sin(2 * np.pi * T / 4)).round().astype(int)
    frames = np.stack([wall[60:316, s : s + 256] for s in shift])
    return replace(made_clip(imu), frames=frames)


def test_frame_features_are_causal_finite_and_named():
    clip = textured_clip(made_imu(sweep))
    turned = poses(SWEEP, orbit_place(SWEEP), STILL)
    found = made_track(turned, film(turned))
    features = cues.frame_features(clip, found)
    assert features.values.shape == (N, len(cues.FRAME_FEATURES)) and features.valid.all()
    assert np.isfinite(features.values[20:]).all()
    assert np.abs(features.values[20:]).max() <= cues.FEATURE_LIMIT
    k = 35
    cut = replace(clip, frames=clip.frames[:k], t=T[:k],
                  imu=Imu(*(v[clip.imu.t <= T[k - 1]] for v in (clip.imu.t, clip.imu.accel, clip.imu.gyro))))  # fmt: skip
    half = landmarks.Track(*(getattr(found, n)[:k] for n in found.__dataclass_fields__))
    np.testing.assert_allclose(cues.frame_features(cut, half).values, features.values[:k], atol=1e-5)
    slope = features.values[-1, cues.FRAME_FEATURES.index("parallax_slope")]
    assert slope > 0.6


def test_missing_modalities_stay_missing():
    clip = textured_clip(None)
    turned = poses(SWEEP, orbit_place(SWEEP), STILL)
    found = made_track(turned, film(turned))
    features = cues.frame_features(clip, found)
    needs_imu = np.array(cues.FEATURE_MODALITY) == "imu"
    assert np.isnan(features.values[:, needs_imu]).all()
    assert np.isfinite(features.values[20:, ~needs_imu]).all()
    assert np.isfinite(features.filled()).all()
    row = cues.extract_cues(clip, found)
    assert tuple(row.index) == cues.CUE_NAMES
    assert np.isnan(row["consistency_correlation"]) and np.isfinite(row["trajectory_rank"])
    nobody = landmarks.make_track(T, [None] * N, [0] * N)
    assert not cues.frame_features(clip, nobody).valid.any()
    assert np.isnan(cues.extract_cues(clip, nobody)["blink_count"])


def test_what_was_not_measured_is_nan_and_nothing_is_said_aloud(monkeypatch):
    clip, turned = textured_clip(None), poses(SWEEP, orbit_place(SWEEP), STILL)
    t = T.copy()
    t[7] = t[6]  # no time passes
    clip, found = replace(clip, t=t), replace(made_track(turned, film(turned)), t=t)
    record = cues.gyro_record(made_imu(sweep), "front")
    monkeypatch.setattr(cues, "spectral_peak", lambda grey: np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        rates = cues.frame_rates(record, t)
        assert np.flatnonzero(np.isnan(rates).any(1)).tolist() == [0, 7]
        assert rates[8, 1] == pytest.approx(np.diff(record.angle(t, np.inf)[:, 1])[7] / (t[8] - t[7]))
        assert np.isfinite(cues.expression_liveliness(found.blendshapes, t))
        assert np.isnan(cues.extract_cues(clip, found)["spectral_peak"])
        cues.frame_features(replace(clip, imu=made_imu(sweep)), found)


def test_every_cue_is_documented_once():
    table = cues.cue_table()
    assert table.index.is_unique and (table != "").all().all()
    assert set(table.modality) == {"video", "landmarks", "imu"}


def test_spectral_peak_finds_a_pixel_grid():
    rng = np.random.default_rng(0)
    skin = cv2.GaussianBlur(rng.normal(128, 20, (120, 120)), (0, 0), 1.5)
    x = np.arange(120)
    grid = 4 * np.sin(2 * np.pi * x / 5.3)
    plain, screen = (np.clip(v, 0, 255).astype(np.uint8) for v in (skin, skin + grid))
    assert cues.spectral_peak(screen) > cues.spectral_peak(plain) + 0.3


def test_row_banding_and_border_lines():
    rows = np.arange(128)
    bands = np.stack([128 + 10 * np.sin(rows / 9 + k) for k in range(6)])
    greys = np.repeat(bands[:, :, None], 64, 2).astype(np.uint8)
    assert cues.row_banding(greys) > 3 > cues.row_banding(np.full((6, 128, 64), 90, np.uint8))
    picture = np.full((200, 200), 60, np.uint8)
    picture[20:180, 30:170] = 160
    assert cues.border_lines(picture, np.array([70, 70, 60, 60])) > 2
    assert cues.border_lines(np.full((200, 200), 60, np.uint8), np.array([70, 70, 60, 60])) == 0


@pytest.mark.skipif(real_dir() is None, reason="no real recordings here")
def test_consistency_holds_on_a_real_phone():
    folder = real_dir() / "imu"
    clip = load_recording(folder / "handheld_800x600.mp4", folder / "handheld_gyro.csv")
    nobody = landmarks.make_track(clip.t, [None] * len(clip.t), [0] * len(clip.t))
    video = cues.measure_motion(clip, nobody).camera
    # The phone lay on its side: normalised, its rear camera agrees with the W3C axes.
    record = cues.gyro_record(normalise_imu(clip.imu, screen_angle=90), "rear")
    found = cues.imu_consistency(video, record, clip.t)
    assert found.correlation > 0.9
    R, score = cues.find_axes(video, cues.frame_rates(record, clip.t, found.lag))
    assert score == pytest.approx(cues.imu_consistency(video, record, clip.t).correlation, abs=0.02)
    np.testing.assert_array_equal(R, np.eye(3))


def test_features_with_another_imu_are_those_measured_from_scratch():
    turned = poses(SWEEP, orbit_place(SWEEP), STILL)
    clip = textured_clip(made_imu(sweep))
    found = made_track(turned, film(turned))
    found.found[7] = False
    motion = cues.measure_motion(clip, found)
    known = cues.frame_features(clip, found, motion)
    other = replace(clip, imu=made_imu(lambda t: -0.5 * sweep(t)))
    anew, quick = (cues.frame_features(other, found, motion, k) for k in (None, known))
    np.testing.assert_array_equal(anew.values, quick.values)
    assert not np.array_equal(anew.values, known.values, equal_nan=True)
    none = cues.frame_features(replace(clip, imu=None), found, motion, known)
    np.testing.assert_array_equal(none.values, cues.frame_features(replace(clip, imu=None), found, motion).values)
