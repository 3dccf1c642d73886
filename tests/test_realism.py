"""Realism: the distance is zero for equal sets, grows with what is wrong, and keeps no pixel."""

import json

import cv2
import numpy as np
import pytest

from studies import realism

SIDE = realism.CROP_PX


def pictures(n=24, seed=0):
    """Smooth blobs with a little grain: enough like a photograph to have every statistic."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(n):
        soft = cv2.GaussianBlur(rng.normal(0, 1, (SIDE, SIDE, 3)), (0, 0), rng.uniform(3, 9))
        made.append(128 + 45 * soft / soft.std() + rng.normal(0, rng.uniform(1, 8), soft.shape))
    return [np.clip(p, 0, 255).astype(np.uint8) for p in made]


def statistics(frames):
    return np.array([realism.crop_statistics(f) for f in frames])


@pytest.fixture(scope="module")
def frames():
    return pictures()


@pytest.fixture(scope="module")
def known(frames):
    return realism.reference(statistics(frames))


def test_statistics_have_their_names_and_are_finite(frames):
    rows = statistics(frames)
    assert rows.shape == (len(frames), len(realism.STATISTICS)) and np.isfinite(rows).all()


def test_distance_is_zero_for_equal_sets(frames, known):
    total, parts = realism.realism_distance(statistics(frames)[::-1], known)
    assert total == 0 and not parts.any()


def test_another_draw_is_near_and_a_blurred_one_far(frames, known):
    again = realism.realism_distance(statistics(pictures(seed=1)), known)[0]
    blurred = realism.realism_distance(statistics([cv2.GaussianBlur(f, (0, 0), 2) for f in frames]), known)[0]
    assert again < 0.6 < blurred


def test_distance_is_a_shift_in_real_deviations(frames, known):
    rows = statistics(frames)
    total, parts = realism.realism_distance(rows + 2 * known.std, known)
    assert total == pytest.approx(2.0) and parts == pytest.approx(np.full(rows.shape[1], 2.0))


def test_noise_is_read_back():
    rng = np.random.default_rng(2)
    grey = np.clip(128 + rng.normal(0, 6, (SIDE, SIDE, 1)), 0, 255).astype(np.uint8).repeat(3, 2)
    level = realism.crop_statistics(grey)[realism.STATISTICS.index("noise_luma")]
    assert np.exp(level) == pytest.approx(6.0, rel=0.15)


def test_colour_is_read_in_cielab():
    row = dict(zip(realism.STATISTICS, realism.crop_statistics(np.full((SIDE, SIDE, 3), 255, np.uint8)), strict=True))
    assert row["L_mean"] == pytest.approx(100, abs=0.1) and row["a_mean"] == pytest.approx(0, abs=0.1)
    assert row["L_std"] == pytest.approx(0, abs=1e-3)


def test_reference_survives_the_disk(tmp_path, known):
    path = realism.save_reference(known, tmp_path / "reference.json", "made up")
    again = realism.load_reference(path)
    assert again.count == known.count
    assert np.allclose(again.deciles, known.deciles, atol=1e-4) and np.allclose(again.std, known.std, atol=1e-4)


def test_shipped_reference_holds_aggregates_only():
    held = json.loads(realism.REFERENCE.read_text(encoding="utf-8"))
    assert held["statistics"] == list(realism.STATISTICS)
    assert np.shape(held["deciles"]) == (9, len(realism.STATISTICS))
    assert set(held) == {"source", "statistics", "count", "deciles", "std"}
    assert held["count"] > 100
    assert (np.diff(held["deciles"], axis=0) >= 0).all() and (np.array(held["std"]) > 0).all()


def test_frames_without_one_face_are_left_out():
    class Blind:
        def detect(self, frame, t_ms):
            return []

    assert realism.face_statistics(pictures(2), Blind()).shape == (0, len(realism.STATISTICS))
