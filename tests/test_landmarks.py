"""Poses, crops and blinks on known numbers; the landmarker on real faces where they are there."""

import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from liveness_utils import dataset
from liveness_utils import landmarks as lm
from liveness_utils.clips import EXPRESSION_NAMES, Intrinsics, load_recording
from liveness_utils.config import real_dir
from liveness_utils.errors import LandmarkError

CAMERA = Intrinsics(256, 256, 250.0, 250.0, 127.5, 127.5)
FRONTAL = np.diag([1.0, -1.0, -1.0])


def head_pose(yaw=0.0, pitch=0.0, roll=0.0, at=(0.0, 0.0, 0.4)):
    """T_camera_head of a head turned (degrees) to the image right, up, clockwise."""
    turn = Rotation.from_euler("YXZ", [-yaw, -pitch, roll], degrees=True).as_matrix()
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = turn @ FRONTAL, at
    return pose


def project(pose, camera=CAMERA):
    points = np.zeros((478, 3))
    points[: lm.N_MESH] = lm.canonical_face()[0]
    p = points @ pose[:3, :3].T + pose[:3, 3]
    pixels = p[:, :2] / p[:, 2:] * [camera.fx, camera.fy] + [camera.cx, camera.cy]
    return np.concatenate([pixels, p[:, 2:]], 1).astype(np.float32)


@pytest.mark.parametrize("angles", [(20, 0, 0), (0, 15, 0), (0, 0, -10), (-25, 10, 5)])
def test_head_pose_angles_have_the_documented_signs(angles):
    found = np.degrees(lm.head_pose_angles(head_pose(*angles)[:3, :3]))
    np.testing.assert_allclose(found, angles, atol=1e-9)


def test_face_that_turns_to_the_image_right_moves_its_nose_there():
    nose, eyes = 1, [33, 263]
    points = project(head_pose(yaw=20))
    assert points[nose, 0] > points[eyes, 0].mean() + 5
    up = project(head_pose(pitch=20))
    assert up[nose, 1] < project(head_pose())[nose, 1] - 5


def test_pnp_recovers_a_known_pose():
    pose = head_pose(12, -8, 5, at=(0.03, -0.02, 0.45))
    np.testing.assert_allclose(lm.pnp_pose(project(pose), CAMERA), pose, atol=1e-3)
    assert np.isnan(lm.pnp_pose(np.full((478, 2), np.nan), CAMERA)).all()


def test_transformation_matrix_is_corrected_for_the_true_focal_length():
    assumed = lm.assumed_intrinsics(256, 256)
    pose = head_pose(10, at=(0.05, 0.0, 0.4))
    gl = np.eye(4)
    canonical = pose[:3, :3] @ lm._head_to_canonical().T
    gl[:3, :3] = FRONTAL @ canonical
    gl[:3, 3] = FRONTAL @ (pose[:3, 3] - canonical @ np.array(lm.EYE_ORIGIN)) * 100
    np.testing.assert_allclose(lm.camera_head_pose(gl, assumed), pose, atol=1e-9)
    twice = Intrinsics(256, 256, 2 * assumed.fx, 2 * assumed.fy, 127.5, 127.5)
    seen = lm.camera_head_pose(gl, twice)
    assert seen[2, 3] == pytest.approx(0.8)
    assert seen[0, 3] == pytest.approx(0.05)


def test_ray_rotation_points_the_axis_along_the_ray():
    rays = np.random.default_rng(0).normal(size=(9, 3)) + [0, 0, 4]
    R = lm.ray_rotation(rays)
    np.testing.assert_allclose(R @ [0, 0, 1], rays / np.linalg.norm(rays, axis=1)[:, None], atol=1e-12)
    np.testing.assert_allclose(R @ np.swapaxes(R, 1, 2), np.broadcast_to(np.eye(3), (9, 3, 3)), atol=1e-12)


def test_eye_aspect_ratio_of_a_drawn_eye():
    points = np.zeros((478, 2))
    for indices in (lm.EAR_LEFT, lm.EAR_RIGHT):
        points[list(indices)] = [(0, 0), (1, 1), (2, 1), (3, 0), (2, -1), (1, -1)]
    np.testing.assert_allclose(lm.eye_aspect_ratio(points), [2 / 3, 2 / 3])


@pytest.mark.parametrize("kind,rest,shut", [("ear", 0.3, 0.05), ("blendshape", 0.1, 0.6)])
def test_blinks_are_found_where_they_were_put(kind, rest, shut):
    t = np.arange(75) / 30
    closure = sum(np.exp(-(((t - at) / 0.06) ** 2)) for at in (0.7, 1.8))
    signal = rest + (shut - rest) * closure + np.random.default_rng(1).normal(0, 0.005, 75)
    peaks = [blink.peak for blink in lm.detect_blinks(signal, t, kind=kind)]
    np.testing.assert_allclose(peaks, [0.7, 1.8], atol=0.04)
    assert lm.detect_blinks(np.full(75, np.nan), t, kind=kind) == []
    with pytest.raises(LandmarkError, match="signal"):
        lm.detect_blinks(signal, t, kind="other")


def test_crop_is_square_mirrored_at_the_border_and_never_constant():
    frame = np.random.default_rng(0).integers(0, 255, (120, 90, 3)).astype(np.uint8)
    crop = lm.face_crop(frame, np.array([-10.0, -10, 60, 70], np.float32))
    assert crop.shape == (112, 112, 3) and crop.dtype == np.uint8
    assert crop.std(axis=(0, 1)).min() > 10
    assert lm.face_crop(frame, None).shape == (112, 112, 3)
    assert lm._mirror(np.arange(-2, 6), 4).tolist() == [2, 1, 0, 1, 2, 3, 2, 1]


def test_crop_keeps_the_face_in_the_middle():
    frame = np.zeros((200, 200, 3), np.uint8)
    frame[60:140, 50:130] = 255
    crop = lm.face_crop(frame, np.array([50.0, 60, 80, 80]) - [0.5, 0.5, 0, 0]).mean(2) > 127
    rows, columns = np.flatnonzero(crop.any(1)), np.flatnonzero(crop.any(0))
    assert abs(rows.mean() - 55.5) <= 1 and abs(columns.mean() - 55.5) <= 1
    assert len(rows) == pytest.approx(112 / 1.7, abs=2)


def test_canonical_face_is_a_face_in_metres():
    points, triangles = lm.canonical_face()
    assert points.shape == (468, 3) and triangles.shape == (898, 3)
    assert 0.05 < points[263, 0] - points[33, 0] < 0.1
    assert points[1, 2] > points[234, 2] and points[152, 1] < points[10, 1]
    assert not points.flags.writeable


def test_wrong_frames_are_refused_with_a_sentence():
    with lm.Landmarker(running_mode="image") as marker, pytest.raises(LandmarkError, match="uint8"):
        marker.detect(np.zeros((8, 8, 3), np.float32))
    with pytest.raises(LandmarkError, match="running mode"):
        lm.Landmarker(running_mode="film")


def test_mediapipe_is_imported_late_and_without_tensorflow():
    code = (
        "import sys, numpy as np; from liveness_utils import landmarks as lm;"
        "assert 'mediapipe' not in sys.modules;"
        "m = lm.Landmarker(); assert m.detect(np.zeros((64, 64, 3), np.uint8), 0.0) == [];"
        "assert 'tensorflow' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def test_blendshape_order_is_mediapipes():
    assert len(EXPRESSION_NAMES) == 52
    assert EXPRESSION_NAMES[0] == "_neutral" and EXPRESSION_NAMES[9] == "eyeBlinkLeft"
    assert lm.blink_signal(np.eye(52)[9]) == 0.5


@pytest.mark.skipif(real_dir() is None, reason="no real recordings here")
def test_track_of_a_real_face_repeats():
    clip = load_recording(real_dir() / "videos" / "talk_c.mp4", max_seconds=0.6)
    with lm.Landmarker() as marker:
        first, second = lm.track(clip, marker), lm.track(clip, marker)
    assert first.found.all() and (first.n_faces == 1).all()
    np.testing.assert_array_equal(first.points, second.points)
    np.testing.assert_array_equal(first.blendshapes, second.blendshapes)
    assert 0.1 < first.T_camera_head[0, 2, 3] < 1.0
    camera = lm.assumed_intrinsics(clip.frames.shape[2], clip.frames.shape[1])
    pnp = np.array([lm.pnp_pose(p, camera) for p in first.points])
    gap = lm.head_pose_angles(pnp[:, :3, :3]) - lm.head_pose_angles(first.T_camera_head[:, :3, :3])
    assert np.degrees(np.median(np.abs(gap))) < 4


@pytest.mark.skipif(real_dir() is None, reason="no real recordings here")
def test_no_face_gives_nan_rows():
    clip = load_recording(real_dir() / "videos" / "no_face.mp4", max_seconds=0.3)
    found = lm.track(clip)
    assert not found.found.any() and (found.n_faces == 0).all() and np.isnan(found.box).all()


def test_the_depth_target_shows_relief_where_the_crop_shows_the_face():
    """A face of relief 1 in a flat surrounding."""
    frame = np.zeros((200, 200, 3), np.uint8)
    frame[60:140, 60:140] = 255
    truth = SimpleNamespace(depth=np.full((1, 200, 200), 0.5, np.float32), face_mask=frame[None, ..., 0] > 0)
    clip = SimpleNamespace(frames=frame[None], truth=truth)
    box = np.array([60.0, 60, 80, 80]) - [0.5, 0.5, 0, 0]
    shown = lm.face_crop(frame, box).mean(2)[4::8, 4::8] > 127
    known = np.isfinite(dataset._crop_relief(clip, 0, box, 0.06, False))
    assert known.any() and (shown != known).sum() <= 1  # a corner, half covered
