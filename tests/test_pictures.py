"""Single pictures for the encoder: of nobody who is in a clip, the same on any number of workers, with their relief."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from fake_face import FakeLandmarker
from prepared_clips import make_prepared
from test_faces import _picture

from liveness_utils import config, devices, face_photo, faces, pictures, simulate
from liveness_utils import dataset as ds
from liveness_utils.errors import ConfigError, FaceError, SimulationError
from liveness_utils.instruments import INSTRUMENTS_PER_SPECIES, SPECIES
from liveness_utils.network import training
from liveness_utils.network.fusion import load_checkpoint
from liveness_utils.network.training import TrainConfig, train

pytestmark = pytest.mark.slow

COUNT = 70  # a whole group and a part of another


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return pictures.prepare(tmp_path_factory.mktemp("pictures"), COUNT, workers=2, progress=False)


@pytest.fixture(scope="module")
def made(folder):
    return pictures.open_pictures(folder)


def test_nobody_and_nothing_of_the_clips_is_in_a_picture():
    clips = simulate.plan("full", 0)
    people = {n for spec in clips for n in (spec.subject, spec.other)}
    places = {n for spec in clips for n in (spec.scene, spec.capture_scene)}
    drawn = [spec for group in pictures.plan(320, 0) for spec in group]
    assert not people & {n for spec in drawn for n in (spec.subject, spec.other)}
    assert not places & {n for spec in drawn for n in (spec.scene, spec.capture_scene)}
    assert all(spec.instrument >= INSTRUMENTS_PER_SPECIES for spec in drawn if spec.species != "bona_fide")
    assert len({spec.clip_id for spec in drawn}) == 320
    # a picture cannot tell a replayed video from a still, nor an injection from a face
    assert {spec.species for spec in drawn} == set(SPECIES) - {"video_replay", "injection"}


def test_the_same_pictures_on_any_number_of_workers(folder, made, tmp_path):
    alone = pictures.open_pictures(pictures.prepare(tmp_path, COUNT, workers=1, progress=False))
    assert len(made) == COUNT and made.mark == alone.mark
    for name in ("crops", "depth", "species"):
        assert np.array_equal(getattr(made, name), getattr(alone, name), equal_nan=name == "depth")
    before = (folder / "crops.npy").stat().st_mtime_ns
    pictures.prepare(folder, COUNT, progress=False)
    assert (folder / "crops.npy").stat().st_mtime_ns == before  # made once


def test_faces_have_relief_and_flat_instruments_none(made):
    assert made.crops.shape == (COUNT, 112, 112, 3) and made.crops.dtype == np.uint8
    assert made.crops.std(axis=(1, 2, 3)).min() > 4
    depth = np.asarray(made.depth, np.float32)
    names = np.array(SPECIES)[made.species]
    flat = np.isin(names, ds.FLAT_SPECIES)
    assert np.isfinite(depth).mean(axis=(1, 2)).min() > 0.1
    assert np.nanmax(np.abs(depth[flat])) == 0
    assert np.nanstd(depth[names == "bona_fide"], axis=(1, 2)).min() > 0.05


def test_cameras_vary_and_stay_cameras():
    base = devices.DEVICES["flagship_a"]
    drawn = [pictures.varied(base, np.random.default_rng(k)) for k in range(40)]
    blur = np.array([d.sensor.psf_px for d in drawn])
    assert blur.std() > 0.05 and blur.min() > 0
    assert all(0 <= d.sensor.denoise <= 1 and 0 <= d.sensor.contrast <= 1 and 16 <= d.crf < 36 for d in drawn)


def test_the_encoder_is_dealt_clips_and_pictures_but_no_left_out_species(made, tmp_path):
    prepared = ds.open_prepared(make_prepared(tmp_path, n=18))
    deal = ds.PictureDataset(prepared, np.arange(18), 0, made, exclude=("soft_mask",), each=3)
    soft = SPECIES.index("soft_mask")
    assert len(deal) == 3 * 18 + int((made.species != soft).sum())
    assert soft not in deal.species[3 * 18 :]
    item, same = deal[60], deal[60]
    assert item["frame"].shape == (112, 112, 3) and item["depth"].shape == (14, 14)
    assert np.array_equal(item["frame"], same["frame"])
    deal.epoch = 1
    assert not np.array_equal(item["frame"], deal[60]["frame"])


def test_a_smaller_set_begins_alike_and_is_another_one():
    assert pictures.plan(pictures.GROUP)[0] == pictures.plan(COUNT)[0]
    assert pictures.mark(pictures.GROUP) != pictures.mark(COUNT)


@pytest.fixture(scope="module")
def portraits(tmp_path_factory):
    """Two portraits of rendered people, and a picture of nobody."""
    pytest.importorskip("mediapipe")
    folder = tmp_path_factory.mktemp("portraits")
    for k, monk in enumerate((3, 8)):
        who = faces.sample_identity(np.random.default_rng(k), monk=monk, glasses="none", beard="none", age=30.0)
        cv2.imwrite(str(folder / f"{k}.png"), _picture(faces.build_face(who), size=320)[..., ::-1])
    cv2.imwrite(str(folder / "nobody.png"), np.full((320, 320, 3), 90, np.uint8))
    return folder


def test_people_of_every_second_group_come_from_photos(portraits):
    plain, mixed = pictures.plan(COUNT), pictures.plan(COUNT, 0, str(portraits))
    assert mixed[0] == plain[0] and {s.photos for s in mixed[1]} == {str(portraits)}
    assert [replace(s, photos="") for s in mixed[1]] == plain[1]
    found = face_photo.portraits(str(portraits))
    assert [p.path.name for p in found] == ["0.png", "1.png"]
    spec = replace(mixed[1][0], species="bona_fide", instrument=-1)
    shown, depth, *_ = pictures.picture(spec)
    made_up, *_ = pictures.picture(replace(spec, photos=""))
    assert np.abs(shown.astype(int) - made_up).mean() > 4 and np.nanstd(depth.astype(float)) > 0.05


def test_a_mark_names_the_photos(portraits, tmp_path):
    told = pictures.mark(32, photos=portraits)
    assert told["photos"] == [[p.name, p.stat().st_size] for p in sorted(portraits.iterdir())]
    assert {k: v for k, v in told.items() if k != "photos"} == pictures.mark(32)
    (tmp_path / "photos").mkdir()
    with pytest.raises(FaceError, match="no photos"):
        pictures.prepare(tmp_path / "out", 32, photos=tmp_path / "photos", progress=False)
    cv2.imwrite(str(tmp_path / "photos" / "nobody.png"), np.full((320, 320, 3), 90, np.uint8))
    with pytest.raises(FaceError, match="exactly one face"):
        pictures.prepare(tmp_path / "out", 32, photos=tmp_path / "photos", progress=False)


def test_a_training_learns_from_its_pictures_and_knows_them(folder, tmp_path):
    prepared = make_prepared(tmp_path / "arrays", n=24)
    settings = TrainConfig(str(prepared), str(tmp_path / "out"), str(folder), picture_epochs=1, views=1, epochs=1)
    told = load_checkpoint(train(settings, progress=False))[1]["training"]
    assert told["pictures"]["count"] == COUNT
    assert training.fingerprint(replace(settings, pictures=""))["pictures"] is None


def test_no_two_people_of_clips_share_a_portrait_and_none_with_pictures(monkeypatch):
    monkeypatch.setattr(face_photo, "portraits", lambda folder: tuple(range(12)))
    lifted = sorted({s.subject for s in simulate.plan("quick", 0, "folder") if s.photos})
    taken = [simulate.portrait_of(subject, "folder") for subject in lifted]
    known = [p for p in taken if p is not None]
    assert len(known) == len(set(known)) == 8 and taken.count(None) == len(lifted) - 8  # the rest is painted
    of_pictures = {simulate.portrait_of(simulate.FURTHER + k, "folder") for k in range(20)}
    assert len(of_pictures) == 4 and not of_pictures & set(known)
    assert simulate.portrait_of(0, "") is None


def test_half_of_a_data_sets_people_are_lifted_and_nothing_else_changes(portraits, monkeypatch):
    plain, mixed = simulate.plan("quick", 0, ""), simulate.plan("quick", 0, portraits)
    lifted = {s.subject for s in mixed if s.photos}
    assert lifted and lifted == {s.subject for s in plain if s.subject // simulate.GROUP % 2}
    assert [replace(s, photos="") for s in mixed] == plain
    monkeypatch.setenv("PORTRAITS_DIR", str(portraits))
    assert simulate.plan("quick", 0) == mixed
    monkeypatch.setenv("PORTRAITS_DIR", str(portraits / "none"))
    with pytest.raises(ConfigError, match="PORTRAITS_DIR"):
        simulate.plan("quick", 0)


def test_a_folder_of_clips_is_of_these_very_portraits(portraits, tmp_path):
    specs = simulate.plan("quick", 0, portraits)
    simulate._claim(tmp_path, config.profile("quick"), 0, specs)
    simulate._claim(tmp_path, config.profile("quick"), 0, specs)  # the same, resumed
    with pytest.raises(SimulationError, match="another data set"):
        simulate._claim(tmp_path, config.profile("quick"), 0, simulate.plan("quick", 0, ""))
    cv2.imwrite(str(portraits / "another.png"), np.full((320, 320, 3), 90, np.uint8))
    with pytest.raises(SimulationError, match="another data set"):
        simulate._claim(tmp_path, config.profile("quick"), 0, specs)
    (portraits / "another.png").unlink()


def test_every_profile_has_pictures():
    profiles = [config.profile(name) for name in ("quick", "full", "study")]
    # Portraits are in every second group.
    assert all(p.pictures % pictures.GROUP == 0 and p.pictures >= 2 * pictures.GROUP for p in profiles)


def test_a_portrait_is_clear_unless_grey_lit_from_a_side_dyed_or_under_a_fringe():
    marks = FakeLandmarker().detect(np.ones((2, 2, 3)))[0].points[:, :2].astype(float)
    marks[468:473], marks[473:] = marks[[33, 133]].mean(0), marks[[362, 263]].mean(0)
    hair, top = (62, 44, 32), int(marks[10, 1]) - 3
    image = np.full((256, 256, 3), (205, 160, 135), np.uint8)
    image[:top] = hair
    assert face_photo._clear(image, marks)
    side, fringe, dyed = image.copy(), image.copy(), image.copy()
    side[:, :128] //= 2
    fringe[: int(marks[151, 1]) + 8] = hair
    dyed[:top] = (40, 60, 160)
    grey = np.repeat(image.mean(2, keepdims=True).astype(np.uint8), 3, 2)
    assert not any(face_photo._clear(x, marks) for x in (grey, side, fringe, dyed))
