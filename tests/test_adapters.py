"""Adapters on tiny generated trees of each published layout, and stills on their way to a verdict."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import h5py
import numpy as np
import pandas as pd
import pytest

from liveness_utils import adapters, cli, clips, dataset, inputs
from liveness_utils.adapters.public import (
    CELEBA_PROTOCOLS,
    OULU_PROTOCOLS,
    oulu_takes_part,
    siw_takes_part,
    wmca_species,
)
from liveness_utils.errors import AdapterError, DatasetError


def drawn(seed: int = 0, side: int = 48) -> np.ndarray:
    """A drawn face of nobody: an ellipse with two eyes on noise."""
    image = np.random.default_rng(seed).integers(60, 120, (side, side, 3), np.uint8)
    cv2.ellipse(image, (side // 2, side // 2), (side // 4, side // 3), 0, 0, 360, (190, 160, 140), -1)
    for x in (-1, 1):
        cv2.circle(image, (side // 2 + x * side // 9, side * 2 // 5), side // 24, (30, 20, 20), -1)
    return image


def picture(path: Path, seed: int = 0, side: int = 48) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), drawn(seed, side)[..., ::-1])
    return path


def video(path: Path, seed: int = 0, n: int = 6, fps: float = 10.0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    frames = np.stack([np.roll(drawn(seed), k, axis=1) for k in range(n)])
    # The codec is of the content, not of the name; .avi of a data set is read the same way.
    clips.write_video(path.with_suffix(".mp4"), frames, np.arange(n) / fps)
    path.with_suffix(".mp4").rename(path)
    return path


def listed(name: str, source: Path, protocol: str = "", **options) -> list[adapters.Presentation]:
    return adapters.layout(name).find(source, protocol, adapters.Options(**options))


def imported(name: str, source: Path, target: Path, **options) -> adapters.Imported:
    known = {k: options.pop(k) for k in ("fps", "subject") if k in options}
    return adapters.import_layout(
        adapters.layout(name), source, target, options=adapters.Options(**known), progress=False, **options
    )


def rows(items: list[adapters.Presentation], root: Path) -> dict[str, tuple]:
    return {
        p.paths[0].relative_to(root).as_posix(): (p.is_bonafide, p.pai_species, p.subject_id, p.split) for p in items
    }


# ------------------------------------------------------------------------------------------ layouts
def test_every_layout_says_where_it_is_from_and_has_a_name_of_its_own():
    names = [held.name for held in adapters.LAYOUTS]
    assert len(set(names)) == len(names) == 14
    for held in adapters.LAYOUTS:
        assert held.licence and held.obtain and held.citation and held.tree
        public = held.name not in ("image-folder", "frame-folder", "video-folder", "recordings")
        assert bool(held.described) == public
        assert held.title in held.about()


@pytest.mark.parametrize("name", [held.name for held in adapters.LAYOUTS])
def test_a_folder_of_another_layout_gets_one_sentence(name, tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("nothing here")
    assert cli.main(["import", name, str(tmp_path), str(tmp_path / "out")]) == 1
    said = capsys.readouterr().err
    assert (
        said.startswith("liveness: ")
        and len(said.strip().splitlines()) == 1
        and str(tmp_path) in said
        or "--fps" in said
    )
    assert not (tmp_path / "out").exists()


def test_images_take_class_and_split_from_folders_and_the_rest_from_a_table(tmp_path):
    for k, name in enumerate(("train/real/a1.jpg", "train/fake/a2.png", "test/Live/b1.jpg", "test/spoof/b2.jpg")):
        picture(tmp_path / name, k)
    found = rows(listed("image-folder", tmp_path, subject=r"([ab])\d"), tmp_path)
    assert found["train/real/a1.jpg"] == (True, None, "a", "train")
    assert found["test/spoof/b2.jpg"] == (False, None, "b", "test")
    table = pd.DataFrame(
        {"file": ["train/fake/a2.png"], "subject": ["7"], "kind": ["warped_photo"], "is_bonafide": [0]}
    )
    table.to_csv(tmp_path / "images.csv", index=False)
    assert rows(listed("image-folder", tmp_path), tmp_path)["train/fake/a2.png"] == (False, "bent_print", "7", "train")


def test_frames_of_a_folder_are_one_video_in_the_order_of_their_numbers(tmp_path):
    for k in range(12):
        picture(tmp_path / "src" / "real" / "v1" / f"frame{k}.png", k)
    (item,) = listed("frame-folder", tmp_path / "src", fps=10.0)
    assert [p.stem for p in item.paths] == [f"frame{k}" for k in range(12)]
    done = imported("frame-folder", tmp_path / "src", tmp_path / "out", fps=10.0)
    clip = clips.load_clip(tmp_path / "out", done.manifest["clip_id"][0])
    assert clip.frames.shape == (12, 48, 48, 3) and np.allclose(clip.t, np.arange(12) / 10)
    assert np.abs(clip.frames[11].astype(int) - drawn(11)).mean() < 12
    with pytest.raises(AdapterError, match="--fps"):
        listed("frame-folder", tmp_path / "src")


def test_pictures_where_videos_were_promised_are_told(tmp_path):
    picture(tmp_path / "real" / "a.jpg")
    with pytest.raises(AdapterError, match="image-folder"):
        listed("frame-folder", tmp_path, fps=10.0)


def test_videos_can_lie_anywhere_with_a_table(tmp_path):
    for name in ("a.mp4", "b.mp4", "nobody.mp4"):
        video(tmp_path / name)
    pd.DataFrame(
        {"file": ["a.mp4", "b.mp4", "nobody.mp4"], "is_bonafide": [1, 0, None], "kind": ["", "replay_video", ""]}
    ).to_csv(tmp_path / "videos.csv", index=False)
    found = rows(listed("video-folder", tmp_path), tmp_path)
    assert found == {"a.mp4": (True, None, None, None), "b.mp4": (False, "video_replay", None, None)}


def test_recordings_keep_imu_and_labels(tmp_path):
    t = np.arange(-0.3, 1.0, 0.01)
    imu = clips.Imu(t, np.tile([0.0, 9.81, 0.0], (len(t), 1)).astype(np.float32), np.zeros((len(t), 3), np.float32))
    clip = clips.Clip("abc", np.stack([drawn(k) for k in range(6)]), np.arange(6) / 10, imu)
    clips.write_clip(tmp_path / "src", clip)
    clips.write_manifest(tmp_path / "src", [{"clip_id": "abc", "is_bonafide": None, "split": None, "subject_id": "me"}])
    done = imported("recordings", tmp_path / "src", tmp_path / "out")
    row = done.manifest.iloc[0]
    held = clips.load_clip(tmp_path / "out", row["clip_id"])
    assert held.imu is not None and len(held.imu) == len(t)
    assert pd.isna(row["is_bonafide"]) and row["split"] == "test" and row["subject_id"] == "recordings-me"
    assert any("not labelled" in note for note in done.notes) and any("cannot be split" in note for note in done.notes)


def test_nuaa_follows_its_lists_and_counts_people_in_both(tmp_path):
    lists = {
        "client_train": ("ClientRaw", "0001\\0001_00_00_01_1.jpg"), "client_test": ("ClientRaw", "0001\\0001_00_00_02_1.jpg"),
        "imposter_train": ("ImposterRaw", "0002\\0002_01_05_01_3.jpg"), "imposter_test": ("ImposterRaw", "0003\\0003_00_08_01_4.jpg"),
    }  # fmt: skip
    for k, (name, (folder, line)) in enumerate(lists.items()):
        picture(tmp_path / "raw" / folder / line.replace("\\", "/"), k)
        (tmp_path / "raw" / f"{name}_raw.txt").write_text(line + "\r\n")
    found = listed("nuaa", tmp_path)
    assert rows(found, tmp_path / "raw")["ImposterRaw/0002/0002_01_05_01_3.jpg"] == (
        False,
        "flat_print",
        "0002",
        "train",
    )
    assert adapters.leaks(found) == {"train and test": 1}
    assert any("1 people are in train and test" in note for note in imported("nuaa", tmp_path, tmp_path / "out").notes)


def test_replay_attack_by_protocol(tmp_path):
    for name in ("train", "devel", "test"):
        video(tmp_path / name / "real" / "client001_session01_webcam_authenticate_adverse_1.mov")
        for stem in ("attack_print_client001_session01_highdef_photo_adverse", "attack_mobile_client001_session01_mobile_video_controlled",
                     "attack_highdef_client001_session01_highdef_photo_controlled"):  # fmt: skip
            video(tmp_path / name / "attack" / "hand" / f"{stem}.mov")
    video(tmp_path / "enroll" / "train" / "client001_session01_webcam_enroll_adverse.mov")
    found = listed("replay-attack", tmp_path)
    assert len(found) == 12 and {p.split for p in found} == {"train", "dev", "test"}
    species = {p.pai_species for p in found}
    assert species == {None, "flat_print", "video_replay", "still_replay"}
    assert {p.known["instrument_id"] for p in listed("replay-attack", tmp_path, "print") if not p.is_bonafide} == {
        "print-hand"
    }
    assert len(listed("replay-attack", tmp_path, "digitalphoto")) == 6
    with pytest.raises(AdapterError, match="grandtest"):
        listed("replay-attack", tmp_path, "gradtest")


def test_replay_mobile_by_protocol(tmp_path):
    for name in ("train", "devel", "test"):
        video(tmp_path / name / "real" / "client005_session01_authenticate_tablet_adverse.mov")
        video(tmp_path / name / "attack" / "attack_client005_session01_mattescreen_fixed_mobile_photo_lightoff.mov")
        video(tmp_path / name / "attack" / "attack_client005_session01_print_hand_tablet_photo_lighton.mov")
    assert [p.pai_species for p in listed("replay-mobile", tmp_path)][:3] == [None, "still_replay", "flat_print"]
    assert {p.pai_species for p in listed("replay-mobile", tmp_path, "print")} == {None, "flat_print"}


def test_casia_counts_people_of_test_on_from_those_of_train(tmp_path):
    for folder in ("train_release/1", "test_release/1"):
        for stem in ("1", "HR_1", "3", "6", "HR_4"):
            video(tmp_path / folder / f"{stem}.avi")
    found = rows(listed("casia-fasd", tmp_path), tmp_path)
    assert found["test_release/1/HR_4.avi"] == (False, "video_replay", "21", "test")
    assert found["train_release/1/6.avi"] == (False, "eye_hole_print", "1", "train")
    assert found["train_release/1/HR_1.avi"][0] is True
    video(tmp_path / "train_release/1/9.avi")
    with pytest.raises(AdapterError, match="9.avi"):
        listed("casia-fasd", tmp_path)


def test_msu_follows_its_lists_of_people(tmp_path):
    scene = tmp_path / "scene01"
    video(scene / "real" / "real_client001_android_SD_scene01.mp4")
    video(scene / "attack" / "attack_client002_laptop_SD_ipad_video_scene01.mov")
    video(scene / "attack" / "attack_client002_laptop_SD_printed_photo_scene01.mov")
    (tmp_path / "train_sub_list.txt").write_text("02\r\n")
    (tmp_path / "test_sub_list.txt").write_text("01\r\n")
    found = rows(listed("msu-mfsd", tmp_path), scene)
    assert found["real/real_client001_android_SD_scene01.mp4"] == (True, None, "001", "test")
    assert found["attack/attack_client002_laptop_SD_printed_photo_scene01.mov"] == (False, "flat_print", "002", "train")


def test_oulu_protocols_have_the_published_sizes():
    """Bona fide and attack videos a split, as in the lists of bob.db.oulunpu."""
    people = {"train": 20, "dev": 15, "test": 20}
    sizes = {
        "1": ((240, 960), (180, 720), (120, 480)), "2": ((360, 720), (270, 540), (360, 720)),
        "3.1": ((300, 1200), (225, 900), (60, 240)), "4.1": ((200, 400), (150, 300), (20, 40)),
    }  # fmt: skip
    every = [(phone, session, what) for phone in range(1, 7) for session in (1, 2, 3) for what in range(1, 6)]
    for protocol, expected in sizes.items():
        for (split, n), size in zip(people.items(), expected, strict=True):
            shown = [
                what == 1 for phone, session, what in every if oulu_takes_part(protocol, split, phone, session, what)
            ]
            assert (n * sum(shown), n * (len(shown) - sum(shown))) == size, (protocol, split)
    assert len(OULU_PROTOCOLS) == 14


def test_oulu_names_phone_session_user_and_file(tmp_path):
    for folder in ("Train_files", "Dev_files", "Test_files"):
        for stem in ("1_1_01_1", "1_3_01_2", "2_3_01_5"):
            video(tmp_path / folder / f"{stem}.avi")
    found = rows(listed("oulu-npu", tmp_path), tmp_path)
    assert found == {"Train_files/1_1_01_1.avi": (True, None, "01", "train"), "Dev_files/1_1_01_1.avi": (True, None, "01", "dev"),
                     "Test_files/1_3_01_2.avi": (False, "flat_print", "01", "test"),
                     "Test_files/2_3_01_5.avi": (False, "video_replay", "01", "test")}  # fmt: skip
    held_out = rows(listed("oulu-npu", tmp_path, "Protocol_4_2"), tmp_path)
    assert "Test_files/2_3_01_5.avi" in held_out and "Test_files/1_3_01_2.avi" not in held_out


def test_siw_protocols(tmp_path):
    for half in ("Train", "Test"):
        for who in ("003", "032"):
            video(tmp_path / half / "live" / who / f"{who}-1-1-1-1.mov")
            for tail in ("1-2-1-1", "1-3-1-1", "1-3-2-1"):
                video(tmp_path / half / "spoof" / who / f"{who}-{tail}.mov")
    assert len(listed("siw", tmp_path)) == 16
    assert {p.split for p in listed("siw", tmp_path) if p.subject_id == "003"} == {"dev", "test"}
    test = [p for p in listed("siw", tmp_path, "2.1") if p.split == "test" and not p.is_bonafide]
    assert {p.known["instrument_id"] for p in test} == {"replay1"}
    video(tmp_path / "Test" / "live" / "153" / "153-2-1-1-1.m.mov")
    assert ("153", "test") in {(p.subject_id, p.split) for p in listed("siw", tmp_path, "3.1") if p.is_bonafide}
    assert siw_takes_part("3.2", True, kind=2, medium=1) and not siw_takes_part("3.2", False, kind=2, medium=1)


def test_celeba_spoof_reads_its_annotations(tmp_path):
    live, fake = [0] * 44, [0] * 44
    fake[40:44] = [4, 3, 1, 1]
    names = {"Data/train/1/live/1.jpg": live, "Data/train/1/spoof/2.jpg": fake}
    for split, labels in (("train", names), ("test", {"Data/test/9/live/3.jpg": live})):
        for name in labels:
            picture(tmp_path / name)
        path = tmp_path / "metas" / "intra_test" / f"{split}_label.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(labels))
    found = rows(listed("celeba-spoof", tmp_path), tmp_path)
    assert found["Data/train/1/spoof/2.jpg"] == (False, "eye_hole_print", "1", "train")
    assert found["Data/test/9/live/3.jpg"] == (True, None, "9", "test")
    (tmp_path / "metas" / "protocol2").mkdir()
    with pytest.raises(AdapterError, match="test_on_low_quality_device"):
        listed("celeba-spoof", tmp_path, "protocol2")
    second = tmp_path / "metas" / CELEBA_PROTOCOLS[-1]
    shutil.copytree(tmp_path / "metas" / "intra_test", second)
    assert len(listed("celeba-spoof", tmp_path, CELEBA_PROTOCOLS[-1])) == 3


def test_3dmad_reads_colour_and_its_sessions(tmp_path):
    for stem in ("01_01_01", "09_02_01", "17_03_05"):
        (tmp_path / "src").mkdir(exist_ok=True)
        with h5py.File(tmp_path / "src" / f"{stem}.hdf5", "w") as held:
            held["Color_Data"] = np.stack([drawn(k).transpose(2, 0, 1) for k in range(5)])
    found = rows(listed("3dmad", tmp_path / "src"), tmp_path / "src")
    assert found == {"01_01_01.hdf5": (True, None, "01", "train"), "09_02_01.hdf5": (True, None, "09", "dev"),
                     "17_03_05.hdf5": (False, "rigid_mask", "17", "test")}  # fmt: skip
    done = imported("3dmad", tmp_path / "src", tmp_path / "out")
    clip = clips.load_clip(tmp_path / "out", done.manifest["clip_id"][0])
    assert clip.frames.shape == (5, 48, 48, 3) and clip.t[1] == pytest.approx(1 / 30, abs=1e-5)
    assert np.abs(clip.frames[0].astype(int) - drawn(0)).mean() < 12


def test_wmca_reads_frames_in_order_and_species_from_names(tmp_path):
    folder = tmp_path / "face-station" / "12.02.18"
    folder.mkdir(parents=True)
    for stem in ("035_01_000_0_01", "018_02_000_3_10", "530_03_001_2_18"):
        with h5py.File(folder / f"{stem}.hdf5", "w") as held:
            for k in (0, 1, 10, 2):
                held[f"Frame_{k}/array"] = drawn(k).transpose(2, 0, 1)
    lines = "face-station/12.02.18/035_01_000_0_01,x,train\nface-station/12.02.18/018_02_000_3_10,x,dev\na/530_03_001_2_18,x,eval\n"
    (tmp_path / "PROTOCOL-grandtest.csv").write_text(lines)
    found = {p.paths[0].stem: (p.is_bonafide, p.pai_species, p.split) for p in listed("wmca", tmp_path)}
    assert found == {"035_01_000_0_01": (True, None, "train"), "018_02_000_3_10": (False, "still_replay", "dev"),
                     "530_03_001_2_18": (False, "soft_mask", "test")}  # fmt: skip
    done = imported("wmca", tmp_path, tmp_path / "out")
    clip = clips.load_clip(tmp_path / "out", done.manifest["clip_id"][0])
    assert np.abs(clip.frames[3].astype(int) - drawn(10)).mean() < 12
    assert [wmca_species(*key) for key in ((1, 1), (2, 3), (2, 9), (4, 1), (4, 2), (3, 4))] == [
        "glasses",
        "fake_head",
        "paper_mask",
        "video_replay",
        "still_replay",
        "flat_print",
    ]


# ----------------------------------------------------------------------------------- splits and store
def _people(n: int, split: str | None = None, per: int = 3) -> list[adapters.Presentation]:
    return [
        adapters.Presentation((Path(f"{k}-{j}.jpg"),), "image", j > 0, None, str(k), split)
        for k in range(n)
        for j in range(per)
    ]


@pytest.mark.parametrize("split", [None, "train"])
def test_splits_are_disjoint_in_people_and_complete(split):
    items = adapters.assign_splits(_people(20, split) + ([] if split is None else _people(24, "test")[60:]))
    by_person = pd.DataFrame([(p.subject_id, p.split) for p in items]).drop_duplicates()
    assert by_person[0].is_unique
    assert set(by_person[1]) == {"train", "validation", "dev", "test"}


def test_published_splits_stay_and_only_missing_ones_are_carved_from_train():
    items = _people(20, "train") + [p for p in _people(30, "dev") if int(p.subject_id) >= 20]
    after = adapters.assign_splits(items)
    assert {p.subject_id for p in after if p.split == "dev"} == {str(k) for k in range(20, 30)}
    assert {p.split for p in after} == {"train", "validation", "dev"}


def test_few_people_are_not_split():
    assert {p.split for p in adapters.assign_splits(_people(3))} == {"test"}


def test_folds_show_every_person_once_in_test():
    table = pd.DataFrame({"clip_id": [f"c{k}" for k in range(30)], "subject_id": [f"s{k % 10}" for k in range(30)],
                          "is_bonafide": pd.array([k % 2 == 0 for k in range(29)] + [None], "boolean")})  # fmt: skip
    cut = adapters.folds(table, 5)
    tested = [c for fold in cut for c, s in fold.items() if s == "test"]
    assert sorted(tested) == sorted(table["clip_id"][:29])
    person = table.set_index("clip_id")["subject_id"]
    for fold in cut:
        assert pd.Series(fold).groupby(person).nunique().max() == 1
        assert set(fold.values()) == {"train", "validation", "dev", "test"}
    # Without names every clip is a person of its own (exercise 2 of notebook 09).
    assert all(
        pd.Series(f).groupby(person).nunique().max() > 1 for f in adapters.folds(table.assign(subject_id=None), 4)
    )
    with pytest.raises(AdapterError, match="10 people"):
        adapters.folds(table, 11)


def _tree(root: Path, people: int = 6) -> Path:
    for k in range(people):
        for n, label in enumerate(("real", "fake")):
            picture(root / label / f"p{k}_{label[0]}.png", 10 * k + n, side=64)
    return root


def test_an_import_resumes_and_refuses_a_folder_in_use(tmp_path):
    source = _tree(tmp_path / "src")
    first = imported("image-folder", source, tmp_path / "out", subject=r"p(\d)")
    stills = sorted((tmp_path / "out").rglob("still.png"))
    before = [p.stat().st_mtime_ns for p in stills]
    stills[0].parent.joinpath("size.json").unlink()
    again = imported("image-folder", source, tmp_path / "out", subject=r"p(\d)")
    assert first.manifest.equals(again.manifest)
    after = [p.stat().st_mtime_ns for p in sorted((tmp_path / "out").rglob("still.png"))]
    assert after[1:] == before[1:] and after[0] != before[0]
    with pytest.raises(AdapterError, match="another folder"):
        imported("video-folder", tmp_path, tmp_path / "out") if video(tmp_path / "real" / "a.mp4") else None


def test_clip_ids_and_bytes_tell_no_label(tmp_path):
    done = imported("image-folder", _tree(tmp_path / "src"), tmp_path / "out", subject=r"p(\d)")
    assert not any("real" in c or "fake" in c for c in done.manifest["clip_id"])
    for row in done.manifest.itertuples():
        stored = clips.media_file(tmp_path / "out", row.clip_id)
        assert stored.read_bytes() == (tmp_path / "src" / row.source_file).read_bytes()


def test_a_broken_file_is_left_out_and_told_many_end_the_import(tmp_path):
    source = _tree(tmp_path / "src", people=12)
    (source / "real" / "p0_r.png").write_bytes(b"no picture")
    done = imported("image-folder", source, tmp_path / "one", subject=r"p(\d+)")
    assert len(done.manifest) == 23 and "p0_r.png" in done.broken[0] and done.broken[0] in done.lines
    for k in range(4):
        (source / "fake" / f"p{k}_f.png").write_bytes(b"")
    with pytest.raises(AdapterError, match="5 of 24"):
        imported("image-folder", source, tmp_path / "many", subject=r"p(\d+)")


# ------------------------------------------------------------------------------------------- stills
def test_a_still_is_kept_as_a_picture_and_reads_back_without_loss(tmp_path):
    clip = clips.Clip("still1", drawn(3)[None], np.zeros(1))
    clips.write_clip(tmp_path, clip)
    assert clips.media_file(tmp_path, "still1").name == "still.png"
    held = clips.load_clip(tmp_path, "still1")
    assert np.array_equal(held.frames, clip.frames) and held.t.tolist() == [0.0]


def test_a_picture_that_is_none_is_told(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"text")
    with pytest.raises(clips.ClipError, match="a.jpg"):
        clips.read_image(tmp_path / "a.jpg")
    assert cli.main(["predict", str(tmp_path / "a.jpg"), "--bundle", str(tmp_path)]) == 2


def test_stills_are_prepared_once_and_shown_25_times(tmp_path):
    done = imported("image-folder", _tree(tmp_path / "src"), tmp_path / "out", subject=r"p(\d)")
    dataset.prepare(tmp_path / "out", tmp_path / "features", workers=1, progress=False)
    held = dataset.open_prepared(tmp_path / "features")
    assert held.stills and held.pictures == 1 and len(held) == len(done.manifest)
    assert held.crops.shape == (12, 25, 112, 112, 3)
    assert np.load(tmp_path / "features" / "crops.npy", mmap_mode="r").shape == (12, 1, 112, 112, 3)
    assert held.presence.tolist() == [[1, 0, 0]] * 12
    assert not held.quality["reasons"].str.contains("too short|frozen").any()


def test_a_fold_is_a_folder_of_links_with_other_splits(tmp_path):
    done = imported("image-folder", _tree(tmp_path / "src"), tmp_path / "out", subject=r"p(\d)")
    dataset.prepare(tmp_path / "out", tmp_path / "features", workers=1, progress=False)
    cut = adapters.folds(done.manifest, 4)[1]
    fold = dataset.open_prepared(dataset.resplit(tmp_path / "features", tmp_path / "fold", cut))
    assert fold.stills and dict(zip(fold.manifest["clip_id"], fold.manifest["split"], strict=True)) == cut
    assert (tmp_path / "fold" / "crops.npy").is_symlink()
    with pytest.raises(DatasetError, match="splits"):
        dataset.resplit(tmp_path / "features", tmp_path / "fold", {"a": "tset"})


def test_video_data_is_prepared_as_before(tmp_path):
    """A mixture of stills and videos stores all pictures of both."""
    video(tmp_path / "src" / "real" / "v.mp4", n=30)
    imported("video-folder", tmp_path / "src", tmp_path / "out")
    clips.write_clip(tmp_path / "out", clips.Clip("still1", drawn(3)[None], np.zeros(1)))
    table = pd.concat(
        [
            clips.read_manifest(tmp_path / "out"),
            clips.manifest_frame([{"clip_id": "still1", "is_bonafide": False, "split": "test"}]),
        ]
    )
    dataset.prepare(tmp_path / "out", tmp_path / "features", workers=1, progress=False, manifest=table)
    held = dataset.open_prepared(tmp_path / "features")
    assert not held.stills and held.pictures == 25
    assert np.array_equal(held.crops[1], inputs.still_views(held.crops[1][0])) and held.crops.strides[1] > 0


@pytest.mark.parametrize("seed", range(5))
def test_every_fold_has_both_classes_where_enough_people_have(seed):
    rows = [{"clip_id": f"{p}{c}", "subject_id": p, "is_bonafide": c == "b"} for p in "ACEG" for c in "ba"]
    rows += [{"clip_id": p, "subject_id": p, "is_bonafide": True} for p in "BDFH"]
    table = pd.DataFrame(rows)
    for cut in adapters.folds(table, 4, seed):
        found = table.assign(split=table["clip_id"].map(cut))
        assert (found.groupby("split")["is_bonafide"].nunique() == 2).all() and found["split"].nunique() == 4
        assert (found.groupby("subject_id")["split"].nunique() == 1).all()


def test_living_and_attack_videos_of_one_number_are_two(tmp_path):
    for label in ("real", "fake"):
        picture(tmp_path / label / "a.png", 0)
    table = pd.DataFrame({"file": ["real/a.png", "fake/a.png"], "subject": "7", "video": "1"})
    table.to_csv(tmp_path / "images.csv", index=False)
    assert len({p.video for p in listed("image-folder", tmp_path)}) == 2
