"""Prepared arrays and what training deals of them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from prepared_clips import make_prepared

from liveness_utils import dataset as ds
from liveness_utils import motion
from liveness_utils.cues import FRAME_FEATURES
from liveness_utils.devices import DEVICES
from liveness_utils.errors import DatasetError


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    return make_prepared(tmp_path_factory.mktemp("prepared") / "arrays")


def test_split_is_disjoint_and_excludes(prepared):
    data = ds.open_prepared(prepared)
    train, test = data.rows("train"), data.rows("test")
    assert not set(train) & set(test)
    kept = data.species[data.rows("train", ("injection",))]
    assert {ds.SPECIES[k] for k in kept} == {"bona_fide", "flat_print"}


def test_augmentation_repeats_for_a_seed_and_changes_with_the_epoch(prepared):
    data = ds.open_prepared(prepared)
    rows = data.rows("train")
    one = ds.LivenessDataset(data, rows, ds.scaling_of(data, rows), frames=8, augment=True, seed=3)
    first, again = one[0], one[0]
    np.testing.assert_array_equal(first["frames"], again["frames"])
    one.epoch = 1
    assert not np.array_equal(first["frames"], one[0]["frames"])
    assert first["frames"].shape == (8, 112, 112, 3)
    assert all(np.isfinite(first[k]).all() for k in ("features", "imu", "presence"))


def test_mirroring_twice_changes_nothing_and_names_exist():
    mirror = ds.mirror_of(FRAME_FEATURES)
    values = np.random.default_rng(0).normal(size=(4, 25, len(FRAME_FEATURES)))
    np.testing.assert_allclose(mirror.features(mirror.features(values)), values)
    assert not np.allclose(mirror.features(values), values)
    assert set(ds._ODD) | set(ds._SIDES) | set(ds._SIDES.values()) <= set(FRAME_FEATURES)
    assert ds.mirror_of(["feature_0"]) is None


def test_a_mirrored_clip_is_mirrored_in_every_modality(tmp_path):
    data = ds.open_prepared(make_prepared(tmp_path, n=12, names=FRAME_FEATURES))
    dealt = ds.LivenessDataset(data, np.arange(2), ds.scaling_of(data, np.arange(12)), frames=4, augment=True)
    item = dealt[0]
    turned = dealt._mirrored(item)
    np.testing.assert_array_equal(turned["frames"], item["frames"][:, :, ::-1])
    k = FRAME_FEATURES.index("gyro_rate_y")
    np.testing.assert_array_equal(turned["features"][:, k], -item["features"][:, k])
    np.testing.assert_array_equal(turned["imu"][..., 4], -item["imu"][..., 4])
    np.testing.assert_array_equal(turned["decoy_imu"][..., 1], item["decoy_imu"][..., 1])


def test_modality_dropout_leaves_one(prepared):
    data = ds.open_prepared(prepared)
    rows = data.rows("train")
    video = ds.LivenessDataset(data, rows, ds.scaling_of(data, rows), frames=1, augment=True, modalities=("video",))
    seen = {tuple(video[k]["presence"]) for k in range(len(rows))}
    assert seen == {(1.0, 0.0, 0.0)}


def _held_clip(split: str) -> SimpleNamespace:
    rng, phone = np.random.default_rng(5), DEVICES["rear_a"]
    path = motion.camera_trajectory("natural", rng, 0.4)
    imu = motion.imu_from_trajectory(path, motion.imu_times(phone.imu, rng), phone.imu, rng, phone.facing)
    meta = {"device_id": "rear_a", "split": split}
    return SimpleNamespace(imu=imu, t=np.arange(26) / 10, camera_facing=phone.facing, clip_id="a", meta=meta)


def test_made_up_records_follow_the_video_or_rest():
    clip = _held_clip("train")
    forged, rest = ds._made_up_imus(clip)
    t = np.arange(0.1, 2.4, 0.01)
    own, told, still = (
        np.stack([np.interp(t, imu.t, column) for column in imu.gyro.T]) for imu in (clip.imu, forged, rest)
    )
    slow = np.ones(15) / 15
    likeness = [
        np.corrcoef(np.convolve(a, slow, "valid"), np.convolve(b, slow, "valid"))[0, 1]
        for a, b in zip(own, told, strict=True)
    ]
    assert max(likeness) > 0.5 and not np.allclose(own, told, atol=1e-3)
    assert still.std() < 0.3 * own.std()
    assert np.linalg.norm(forged.accel, axis=1).mean() == pytest.approx(9.81, abs=0.5)


@pytest.mark.parametrize("change", [{"split": "test"}, {"device_id": "my phone"}])
def test_no_record_is_made_up_for_a_test_clip_or_a_real_phone(change):
    clip = _held_clip("train")
    clip.meta |= change
    assert ds._made_up_imus(clip) == []


def test_the_path_of_a_record_turns_as_its_gyroscope_says():
    clip = _held_clip("train")
    path = ds.path_of_record(clip.imu, clip.camera_facing, 2.5)
    t = np.linspace(0.2, 2.3, 50)
    _, rate = motion.specific_force_and_rate(path, t, clip.camera_facing)
    own = np.stack([np.interp(t, clip.imu.t, column) for column in clip.imu.gyro.T], axis=1)
    assert np.corrcoef(rate.ravel(), own.ravel())[0, 1] > 0.9


def test_wide_changes_relight_and_sharpen_and_keep_pictures_and_maps_in_shape():
    crops = np.full((2, 112, 112, 3), 120, np.uint8)
    crops[:, :, 56:] = 90
    depth = np.ones((2, 14, 14), np.float32)
    for k in range(40):
        changed, moved = ds.augment_crops(crops, depth, np.random.default_rng(k), wide=True)
        assert changed.shape == crops.shape and changed.dtype == np.uint8 and moved.shape == depth.shape
        assert set(np.unique(moved[np.isfinite(moved)])) <= {1.0}
    lit = ds._relight(crops, np.random.default_rng(0))
    assert np.abs(np.diff(lit[0, 5:50, 20].astype(int), axis=0)).sum() > 0  # light that was even falls from a side
    edge = ds._sharpen(crops, np.random.default_rng(0))[0, 50, 40:72, 0].astype(int)
    assert edge.max() > 120 and edge.min() < 90  # halos


def test_small_features_keep_their_digits_when_they_are_spoiled(prepared):
    data = ds.open_prepared(prepared)
    rows = data.rows("train")
    deal = ds.LivenessDataset(data, rows, ds.scaling_of(data, rows), augment=True)
    spread, rng = deal.scaling.feature_std, np.random.default_rng(0)
    for level, most in ((0.01, 0.02), (1.0, 1.0), (5.0, 1.0)):
        value = np.tile(level * spread, (4000, 1)).astype(np.float32)
        noise = (deal._jitter(np.zeros((1, 6)), value, rng)[1] - value).std(axis=0)
        np.testing.assert_allclose(noise, 0.1 * most * spread, rtol=0.1)


def test_pictures_for_the_encoder_call_an_injection_bona_fide(prepared):
    data = ds.open_prepared(prepared)
    deal = ds.PictureDataset(data, np.arange(len(data)))
    injections = np.flatnonzero(data.species == ds.SPECIES.index("injection"))
    assert len(injections) and all(deal[k]["species"] == 0 for k in injections[:2])
    first = deal[0]
    assert first["frame"].shape == (112, 112, 3) and first["depth"].shape == (14, 14)
    np.testing.assert_array_equal(first["frame"], deal[0]["frame"])
    deal.epoch = 1
    assert (first["frame"] != deal[0]["frame"]).any()


def test_unfinished_folder_is_refused(tmp_path):
    with pytest.raises(DatasetError, match="prepare"):
        ds.open_prepared(tmp_path)
