"""Simulator: the plan's promises, determinism, resuming, and physics of a tiny data set made once."""

import hashlib
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from liveness_utils import instruments as pai
from liveness_utils import landmarks, motion, simulate
from liveness_utils.clips import load_clip, load_truth, read_manifest, validate_clip
from liveness_utils.config import SPLITS, profile
from liveness_utils.devices import DEVICES
from liveness_utils.errors import SimulationError
from liveness_utils.head_model import REGIONS
from studies import physics

FULL = simulate.spec_table(simulate.plan("full", 0))
# one clip of every species and four bona fide ones
TINY = replace(
    profile("quick"), name="tiny", subjects=(2, 0, 0, 0), bona_fide_clips=(4, 0, 0, 0),
    attack_clips=(1, 0, 0, 0),
)  # fmt: skip


def tiny_specs() -> list:
    """The plan of the tiny data set."""
    return simulate.plan(TINY, 3)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    root = tmp_path_factory.mktemp("tiny")
    return root, simulate.generate(TINY, root, seed=3, workers=2, progress=False)


@pytest.fixture(scope="session")
def clips(tiny):
    root, table = tiny
    return [load_clip(root, i, truth=True) for i in table.clip_id]


@pytest.fixture(scope="session")
def tracks(clips):
    with landmarks.Landmarker() as landmarker:
        return {c.clip_id: landmarks.track(c, landmarker) for c in clips if physics.species_of(c) == "bona_fide"}


# ------------------------------------------------------------------------------------------ plan


def test_splits_are_disjoint_in_every_person_that_appears():
    people = {s: set(g.subject) | set(g.other) for s, g in FULL.groupby("split")}
    assert set(people) == set(SPLITS)
    for a in SPLITS:
        for b in SPLITS:
            assert a == b or not people[a] & people[b]


def test_dev_and_test_share_no_device_instrument_or_scene_but_in_the_control_part():
    new = FULL[~FULL.control]
    parts = {s: new[new.split == s] for s in SPLITS}
    for name in ("device", "capture_device", "scene", "capture_scene", "instrument"):
        used = {s: set(p[name]) - {-1} for s, p in parts.items()}
        assert not used["dev"] & used["test"], name
        assert not used["train"] & (used["dev"] | used["test"]), name
    control = FULL[FULL.control]
    assert set(control.split) == {"test"} and set(control.device) <= set(new[new.split == "train"].device)


def test_every_species_has_its_clips_and_at_least_twelve_instruments():
    counts = FULL[(FULL.split == "test") & ~FULL.control].species.value_counts()
    assert set(counts.index) == set(pai.SPECIES)
    assert counts["bona_fide"] >= 240 and counts.drop("bona_fide").min() >= 60
    for species in pai.ATTACKS:
        assert FULL[FULL.species == species].instrument.nunique() >= 12
        made = [pai.instrument(species, k) for k in range(pai.INSTRUMENTS_PER_SPECIES)]
        assert len({repr(m) for m in made}) == pai.INSTRUMENTS_PER_SPECIES


def test_motion_light_and_phone_are_no_label():
    for split in ("train", "test"):
        part = FULL[(FULL.split == split) & ~FULL.control]
        for name in ("motion_kind", "light", "device"):
            share = pd.crosstab(part.species, part[name], normalize="index")
            assert set(part[name]) == set(share.columns) and (share > 0).all().all(), (split, name)
            assert (share - share.loc["bona_fide"]).abs().max().max() < 0.06, (split, name)
    assert set(FULL.motion_kind) == set(motion.MOTIONS)


def test_two_cameras_are_never_the_same_phone_and_a_wearer_is_never_the_victim():
    assert (FULL.device != FULL.capture_device).all() and (FULL.subject != FULL.other).all()


def test_clip_ids_and_order_tell_nothing():
    assert FULL.clip_id.is_unique and (FULL.number == np.arange(len(FULL))).all()
    attack = (FULL.species != "bona_fide").to_numpy(float)
    first_digit = FULL.clip_id.str[-4:].map(lambda x: sum(map(ord, x))).to_numpy(float)
    assert abs(np.corrcoef(FULL.number, attack)[0, 1]) < 0.06
    assert abs(np.corrcoef(first_digit, attack)[0, 1]) < 0.06
    for species in pai.SPECIES:
        assert not FULL.clip_id.str.contains(species).any()


def test_a_following_head_occurs_in_half_of_the_clips_with_gains_between_0_and_1():
    gain = FULL[FULL.species == "bona_fide"].follow_gain
    assert gain.between(0, 1).all() and 0.42 < (gain > 0).mean() < 0.58


def test_all_ten_skin_tones_are_in_every_split():
    for split, part in FULL.groupby("split"):
        tones = {simulate._covariates(0, s)["monk"] for s in part.subject}
        assert tones == set(range(1, 11)), split


def test_another_seed_is_another_data_set():
    a, b = (simulate.spec_table(simulate.plan("quick", s)) for s in (0, 1))
    assert not set(a.clip_id) & set(b.clip_id)


# ------------------------------------------------------------------------------- files and resuming


def _bytes(root, clip_id):
    """SHA-256 of each file: two videos that differ would be compared byte by byte for a quarter of an hour."""
    folder = root / "clips" / clip_id
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}


@pytest.mark.slow
def test_an_interrupted_run_is_resumed_by_one_worker_to_the_bytes_and_the_manifest_of_two(tiny, tmp_path):
    """The clips that are made again are one of each kind of scene: a face, a sheet, a screen that plays, a mask."""
    root, table = tiny
    copy = tmp_path / "copy"
    shutil.copytree(root, copy)
    kinds = table.pai_species.fillna("bona_fide")
    a, b, c, d = (
        table.clip_id[kinds == k].iloc[0] for k in ("bona_fide", "eye_hole_print", "video_replay", "soft_mask")
    )
    (copy / "rows" / f"{a}.json").unlink()  # killed after the clip, before its row
    shutil.rmtree(copy / "clips" / b)  # a clip that was lost
    for clip_id in (c, d):
        shutil.rmtree(copy / "clips" / clip_id)
        (copy / "rows" / f"{clip_id}.json").unlink()
    (copy / "manifest.parquet").unlink()
    kept = next(i for i in table.clip_id if i not in (a, b, c, d))
    before = (copy / "clips" / kept / "video.mp4").stat().st_mtime_ns
    again = simulate.generate(TINY, copy, seed=3, workers=1, progress=False)
    pd.testing.assert_frame_equal(table, again)
    pd.testing.assert_frame_equal(read_manifest(root), read_manifest(copy))
    assert sorted(p.name for p in (copy / "clips").iterdir()) == sorted(table.clip_id)
    assert (copy / "clips" / kept / "video.mp4").stat().st_mtime_ns == before
    for clip_id in (a, b, c, d):
        assert _bytes(root, clip_id) == _bytes(copy, clip_id)


@pytest.mark.slow
def test_two_data_sets_do_not_mix_in_one_folder(tiny):
    root, _ = tiny
    with pytest.raises(SimulationError, match="another data set"):
        simulate.generate(TINY, root, seed=4, progress=False)


@pytest.mark.slow
def test_an_unknown_backend_is_refused(tiny):
    root, _ = tiny
    with pytest.raises(SimulationError, match="backend"):
        simulate.generate(TINY, root, seed=3, backend="mpi", progress=False)


# ------------------------------------------------------------------------------------------ clips


@pytest.mark.slow
def test_every_clip_keeps_the_contract(clips):
    assert len(clips) == len(tiny_specs()) == 12
    for clip in clips:
        assert validate_clip(clip) == [], clip.clip_id
        n = len(clip.t)
        assert clip.frames.shape == (n, 256, 256, 3) and clip.frames.dtype == np.uint8
        assert 15 <= clip.meta["fps"] <= 31 and clip.t[-1] > 2.4
        truth = clip.truth
        assert truth.landmarks.shape == (n, 478, 2) and truth.expression.shape == (n, 52)
        assert truth.depth.shape == (n, 64, 64) and truth.face_mask.any(axis=(1, 2)).all()


@pytest.mark.slow
def test_the_imu_keeps_its_contract(clips):
    for clip in clips:
        offset = clip.meta["imu_offset"]
        assert abs(offset) <= 0.06 and np.all(np.diff(clip.imu.t) > 0)
        assert clip.imu.t[0] - offset < -0.2 and clip.imu.t[-1] - offset > clip.t[-1] + 0.15
        assert np.median(np.linalg.norm(clip.imu.accel, axis=1)) == pytest.approx(9.81, abs=0.6)
        kinds = motion.FORGERIES if physics.species_of(clip) == "injection" else ("measured",)
        assert clip.meta["imu_kind"] in kinds


@pytest.mark.slow
def test_the_manifest_says_what_a_reader_needs_and_nulls_what_is_not(tiny):
    _, table = tiny
    bona_fide = table[table.is_bonafide]
    assert bona_fide.pai_species.isna().all() and bona_fide.instrument_id.isna().all()
    assert bona_fide.capture_device_id.isna().all()
    attacks = table[~table.is_bonafide]
    assert set(attacks.pai_species) == set(pai.ATTACKS) and attacks.instrument_id.notna().all()
    masks = attacks.pai_species.isin(pai.MASKS)
    assert attacks[masks].capture_device_id.isna().all() and attacks[~masks].capture_device_id.notna().all()


@pytest.mark.slow
def test_depth_tells_a_sheet_from_a_head(clips):
    for clip in clips:
        truth, species = clip.truth, physics.species_of(clip)
        deep = []
        for depth, mask in zip(truth.depth[::10].astype(float), truth.face_mask[::10], strict=True):
            y, x = np.nonzero(mask)
            basis = np.column_stack([x, y, np.ones(len(x))])
            inverse = 1 / depth[mask]  # a plane is linear in 1/z
            rest = inverse - basis @ np.linalg.lstsq(basis, inverse, rcond=None)[0]
            deep.append(np.median(depth[mask]) ** 2 * rest.std())
        if species in ("flat_print", "still_replay", "video_replay"):
            assert np.median(deep) < 1.5e-3, species
        if species in ("bona_fide", "injection", "rigid_mask", "soft_mask"):
            assert np.median(deep) > 4e-3, species


@pytest.mark.slow
def test_only_what_can_move_moves(clips):
    for clip in clips:
        weights, species = clip.truth.expression, physics.species_of(clip)
        if species in ("flat_print", "bent_print", "eye_hole_print", "still_replay"):
            assert np.ptp(weights, axis=0).max() == 0
        if species == "rigid_mask":
            lids = [k for k, n in enumerate(simulate.EXPRESSION_NAMES) if "eyeBlink" in n or "eyeLook" in n]
            assert np.delete(weights, lids, axis=1).max() == 0


def _masked(species, seed=0):
    spec = next(s for s in simulate.plan("full", seed) if s.species == species)
    rng = np.random.default_rng(seed)
    t = np.linspace(0, 1, 3)
    camera = motion.camera_trajectory("natural", rng, 0.4)
    return simulate._present_mask(spec, t, rng, camera), simulate._tool(spec)


def test_a_rigid_mask_hides_the_face_of_its_wearer():
    worn, _ = _masked("rigid_mask")
    [mask, wearer], _ = worn.show(1)
    assert len(wearer.triangles) < len(worn.wearer.face.triangles)
    face = worn.mask.face
    eyes = face.triangles[face.region == REGIONS.index("eye")]
    assert not np.isin(worn.covers, eyes).any()  # the eyes that are seen are the wearer's
    out = simulate._outwards(worn.wearer.face)[worn.pressed]
    shown = (wearer.vertices - worn.poses[1][:3, 3].astype(np.float32)) @ worn.poses[1][:3, :3].astype(np.float32)
    gap = ((worn.shell[worn.pressed] - shown[worn.pressed]) * out).sum(1)
    assert gap.min() > 0.9 * simulate._GAP


def test_a_soft_mask_is_thick_but_for_its_openings():
    worn, tool = _masked("soft_mask")
    thickness = np.linalg.norm(worn.skin, axis=1)
    face = worn.mask.face
    open_ = simulate._at_vertices(face, simulate._eye_openings(face, tool)) < 0.5
    eyes = np.unique(face.triangles[face.region == REGIONS.index("eye")])
    assert thickness[eyes].max() == 0 and 0.001 < thickness.max() < 0.02
    assert open_.any() and thickness[open_].max() == 0
    front = simulate._is_skin(face) & ~open_ & (face.neutral[:, 2] > 0.02)
    assert np.median(thickness[front]) > 0.002


def test_the_wearers_skin_is_seen_in_the_openings_of_a_soft_mask():
    mask, wearer = np.full((64, 64, 3), 0.2, np.float32), np.full((64, 64, 3), 0.6, np.float32)
    cover = np.ones((64, 64), np.float32)
    cover[20:44, 20:44] = 0.0
    bare = simulate._seen_through(
        mask, wearer, cover, replace(pai.instrument("soft_mask", 1), makeup=0.0, offset=0.005)
    )
    painted = simulate._seen_through(
        mask, wearer, cover, replace(pai.instrument("soft_mask", 1), makeup=1.0, offset=0.005)
    )
    assert bare[32, 32, 0] > 0.5 and bare[2, 2, 0] == pytest.approx(0.2)
    assert bare[21, 32, 0] < bare[32, 32, 0]  # in the shade of the rim
    assert painted[32, 32, 0] < 0.22


def test_a_victims_picture_is_cut_to_the_face():
    spec = next(s for s in simulate.plan("quick", 0) if s.species == "flat_print")
    tool = pai.instrument("flat_print", spec.instrument)
    shown = []
    for seed in range(3):
        picture = simulate.photograph(spec, np.random.default_rng(seed), 300, 400, video=False)
        middle, eyes = picture.eyes()
        assert 0.25 < middle[0] / 300 < 0.75 and 0.15 < middle[1] / 400 < 0.75
        shown.append(eyes * tool.width / 300)
    assert 0.6 < np.mean(shown) / simulate.INTEROCULAR < 1.6


@pytest.mark.slow
def test_a_replayed_video_is_another_cameras_motion(clips):
    clip = next(c for c in clips if physics.species_of(c) == "video_replay")
    assert np.ptp(clip.truth.expression, axis=0).max() > 0
    screen = clip.truth.T_world_head[:, :3, 3]
    assert np.ptp(screen, axis=0).max() < 0.2  # the truth's head is the screen, not the face that it shows


@pytest.mark.parametrize("kind", ["sideways", "vertical", "diagonal"])
def test_a_sweep_of_any_class_changes_the_view_by_15_degrees(kind):
    for seed in range(4):
        rng = np.random.default_rng(seed)
        path = motion.camera_trajectory("sweep", rng, 0.35, sweep_axis=kind)
        t = np.linspace(0, 2.5, 40)
        head = motion.hand_trajectory(rng, follow=path).pose(t)
        assert motion.viewing_direction_change(path.pose(t), head) >= 15.0


@pytest.mark.slow
def test_nothing_of_the_victim_is_seen_where_the_manifest_names_somebody_else(clips):
    for clip in clips:
        others = {k for k in clip.meta if k.startswith("other")}
        assert not others  # who wears a mask or holds a print would identify a clip's class


@pytest.mark.slow
def test_truth_on_disk_is_the_truth_in_memory(tiny, clips):
    root, _ = tiny
    spec = next(s for s in tiny_specs() if s.species == "bona_fide")
    fresh, stored = simulate.simulate(spec).truth, load_truth(root, spec.clip_id)
    for name in ("t", "T_world_camera", "T_world_head", "depth", "face_mask"):
        np.testing.assert_array_equal(getattr(fresh, name), getattr(stored, name))
    np.testing.assert_allclose(fresh.landmarks, stored.landmarks, atol=0.01)  # stored to 1/64 px
    np.testing.assert_allclose(fresh.expression, stored.expression, atol=1e-3)


# ---------------------------------------------------------------------------------------- physics


@pytest.mark.slow
def test_the_imu_integrates_back_to_the_path_within_its_noise_model(clips):
    table = physics.imu_table(clips)
    kept = physics.summary(imu=table)
    assert kept.kept.all(), kept
    own = table[table.imu_kind == "measured"]
    assert 0.2 < own.attitude_ratio.median() < 2.0 and 0.2 < own.position_ratio.median() < 2.0
    assert own.attitude_deg.max() < 4.0


def test_injected_motion_data_does_not_integrate_back():
    camera = motion.camera_trajectory("sweep", np.random.default_rng(1), 0.4)
    spec = replace(tiny_specs()[0], species="injection", instrument=0, motion_kind="sweep")
    assert pai.instrument("injection", 0).imu_kind == "other_motion"
    phone = DEVICES[spec.device]
    imu, kind = simulate._motion_data(spec, camera, phone, np.random.default_rng(2), 0.0)
    t = np.linspace(0, 2.5, 60)
    T = camera.pose(t)
    turns = T[:, :3, :3] @ motion.R_DEVICE_CAMERA[phone.facing].T
    own = physics._on_video_clock(imu, phone.imu, 0.0)
    assert kind == "other_motion" and np.degrees(physics._miss(own, t, turns, T[:, :3, 3])[0]) > 3.0


def test_allan_deviation_returns_the_densities_put_in():
    table = physics.allan_table(("bmi160", "icm42688"), seconds=300)
    assert len(table) == 4
    kept = physics.summary(allan=table)
    assert kept.kept.all(), table


@pytest.mark.slow
def test_flat_things_keep_a_homography_and_turning_faces_do_not(clips):
    table = physics.homography_table(clips).set_index("species")
    flat = table.loc[["flat_print", "still_replay"], "residual"]
    assert (flat < physics.FLAT_RESIDUAL).all(), table
    faces = table.loc["bona_fide"]
    turning = faces[faces.seen_angle_deg > 12]
    assert len(turning) and (turning.residual > physics.CLEAR_RESIDUAL).all(), table


@pytest.mark.slow
def test_mediapipe_measures_what_was_put_in(clips, tracks):
    seen = [c for c in clips if c.clip_id in tracks]
    rows = physics.mediapipe_table(seen, [tracks[c.clip_id] for c in seen])
    assert rows.found.mean() >= 0.98
    assert rows.angle_error_deg.median() < 6.0 and rows.landmark_error.median() < 0.10, rows
    total = rows[["blinks_in", "blinks_measured", "blinks_matched"]].sum()
    assert total.blinks_matched >= 0.7 * total.blinks_in and total.blinks_matched >= 0.7 * total.blinks_measured
    by_light = physics.grouped(rows, "light")
    assert by_light.clips.sum() == len(seen)


def test_a_number_outside_its_tolerance_or_missing_is_not_kept():
    table = physics.checks({"faces_found": 0.5, "blink_recall": float("nan"), "blink_precision": 1.0})
    assert table.kept.tolist() == [False, False, True]
