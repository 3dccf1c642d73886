"""A landmarker that needs no picture of a face, and noise for it to look at: what tests of sessions share."""

from __future__ import annotations

import numpy as np

from liveness_utils import landmarks
from liveness_utils.clips import Clip, Imu


class FakeLandmarker:
    """Finds MediaPipe's canonical face, moving a little, in every frame that is not black."""

    def __init__(self, faces: int = 1) -> None:
        self.faces, self.calls = faces, 0

    def reset(self) -> None:
        self.calls = 0

    def close(self) -> None:
        pass

    def count_faces(self, rgb: np.ndarray) -> int:
        return self.faces if rgb.any() else 0

    def detect(self, rgb, t=0.0, intrinsics=None):
        self.calls += 1
        if not rgb.any():
            return []
        points = np.zeros((478, 3), np.float32)
        points[:468] = landmarks.canonical_face()[0] * (900, -900, 900) + (128, 128, 0)
        points[468:] = points[[33] * 10]
        points[:, 0] += 5 * np.sin(t)
        pose = np.diag([1.0, -1.0, -1.0, 1.0])
        pose[:3, 3] = (0.01 * np.sin(t), 0, 0.4)
        return [landmarks.FaceObservation(points, np.full(52, 0.1, np.float32), pose)]


def make_clip(seconds: float = 2.6, imu: bool = True, seed: int = 0) -> Clip:
    rng = np.random.default_rng(seed)
    t = np.arange(0, seconds, 1 / 30)
    frames = rng.integers(60, 200, (len(t), 256, 256, 3), np.uint8)
    ti = np.arange(-0.5, seconds + 0.3, 0.01)
    accel = rng.normal((0, 9.8, 0), 0.1, (len(ti), 3)).astype(np.float32)
    gyro = 0.05 * np.sin(2 * np.pi * np.outer(ti, (0.7, 1.0, 1.3)))  # smooth, as in a hand: noise is no evidence
    record = Imu(ti, accel, gyro.astype(np.float32))
    return Clip("x", frames, t, record if imu else None, source="x")
