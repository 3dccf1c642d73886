"""The taught camera: what it learns from a few clips, what it refuses, and what it says of what it was not taught."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from liveness_utils import bundle as bundles
from liveness_utils import cli, clips, config, runtime
from liveness_utils.bundle import BundleError
from liveness_utils.deployment import camera as cameras
from liveness_utils.deployment import teaching
from liveness_utils.deployment.camera import Evidence
from liveness_utils.errors import CameraError
from liveness_utils.network.fusion import load_checkpoint

SIZE = (640, 480)


@pytest.fixture(scope="module")
def bundle():
    return bundles.load(config.released_bundle())


def seen(bundle, alive: bool, seed: int, *, motion: float = 2.0, size=SIZE, light: float = 0.0) -> Evidence:
    """A clip made by hand: attacks differ in forty numbers that the general head does not weigh, lights in others."""
    rng, general = np.random.default_rng(seed), bundle.picture_head
    z = 0.1 * rng.normal(size=432)
    unknown = np.argsort(np.abs(general["weight"]))[:80]
    z[unknown[:40]] += 1.5 if alive else -1.5
    z[unknown[40:]] += light
    embedding = np.asarray(general["level"]) + z * np.asarray(general["spread"])
    look = 0.1 * rng.normal(size=13) + light
    return Evidence(embedding, look, motion, math.log(0.96 / 0.04), size)


def rows(bundle, count: int = 3, kinds=("print", "screen"), **options):
    """So many living clips and as many attacks of each kind."""
    taught = []
    for n, kind in enumerate((cameras.LIVING, *kinds)):
        found = [seen(bundle, n == 0, 100 * n + k, **options) for k in range(count)]
        taught += teaching.label(found, kind, names=[f"{kind}-{k}.mp4" for k in range(count)])
    return taught


@pytest.fixture(scope="module")
def camera(bundle):
    return teaching.teach(rows(bundle), bundle, name="desk")


def test_new_clips_are_told_apart_and_errors_are_of_clips_left_out(bundle, camera):
    living = [camera.judge(seen(bundle, True, k)) for k in range(1000, 1010)]
    attacks = [camera.judge(seen(bundle, False, k)) for k in range(1010, 1020)]
    assert {r.decision for r in living} == {"bona_fide"} and min(r.score for r in living) >= 0.5
    assert max(r.score for r in attacks) < 0.5 and [r.decision for r in attacks].count("attack") >= 3
    assert (camera.head.errors["living"]["k"], camera.head.errors["living"]["n"]) == (0, 3)
    assert camera.head.errors["attacks"]["n"] == 6 and camera.head.errors["attacks"]["high"] > 0.3, "six promise little"
    assert len(camera.head.left_out["living"]) == 3 and min(camera.head.left_out["living"]) > camera.head.threshold


def test_what_was_not_taught_is_said_with_every_verdict(bundle, camera):
    assert camera.missing == () and camera.notes == ("masks were not taught to this camera",)
    phone = teaching.teach(rows(bundle, kinds=("still_replay",)), bundle)
    assert phone.missing == ("print",)
    assert "prints were not taught to this camera" in phone.judge(seen(bundle, True, 7)).notes
    assert "prints were not taught" in phone.describe()


@pytest.mark.parametrize("alive", [True, False])
def test_a_light_that_was_not_taught_is_said_and_never_accepted(bundle, camera, alive):
    found = camera.judge(seen(bundle, alive, 2000, light=3.0))
    assert found.distance > cameras.TOO_STRANGE and found.decision == "not_sure" and found.score < 0.5
    assert any("was not taught: teach it or move" in reason for reason in found.reasons)
    again = [c for c in rows(bundle, light=3.0, kinds=())]
    wider = teaching.teach([replace(c, sitting=2) for c in again], bundle, extend=camera)
    assert wider.judge(seen(bundle, True, 2001, light=3.0)).decision == "bona_fide"


def test_pixels_cannot_outvote_motion(bundle, camera):
    still = seen(bundle, True, 3000, motion=-4.0)
    found = camera.judge(still)
    assert found.pixels > 0 > found.motion and found.decision == "attack" and "what moves" in found.reasons[0]
    assert camera.judge(replace(still, motion=math.inf)).decision == "bona_fide"
    # Below what the general network would accept with the best of pixels it is an attack, with usual ones it passes.
    edge, usual = (still.limit - bound for bound in (bundle.picture_head["bound"], cameras.CONVINCING))
    least = {edge - 1e-6: "attack", edge + 1e-6: "not_sure", usual - 1e-6: "not_sure", usual + 1e-6: "bona_fide"}
    assert {m: camera.judge(replace(still, motion=m)).decision for m in least} == least


def test_a_doubt_of_a_mask_is_asked_about_until_masks_are_taught(bundle, camera):
    usual, general = seen(bundle, True, 3500), bundle.picture_head
    direction = np.asarray(general["mask_weight"]) * np.asarray(general["spread"])
    masked = replace(
        usual, embedding=usual.embedding - 2 * direction / np.abs(direction).max() * np.abs(general["spread"])
    )
    doubt = cameras.mask_logit(general, np.array([usual.embedding, masked.embedding]))
    assert doubt[1] < doubt[0] - 2
    found = camera.judge(masked)
    assert found.mask < 0 and found.decision != "bona_fide" and "may be a mask, which was not taught" in found.reasons
    knows = teaching.teach(rows(bundle, kinds=("print", "mask")), bundle)
    assert knows.judge(usual).mask == math.inf and not any("masks were" in note for note in knows.notes)


def test_another_camera_is_not_taken_for_the_taught_one(bundle, camera):
    other = camera.judge(seen(bundle, True, 4000, size=(1280, 720)))
    assert other.decision != "bona_fide" and any("another camera" in reason for reason in other.reasons)
    assert camera.judge(seen(bundle, True, 4000, size=(636, 480))).decision == "bona_fide", "a cut copy"


def test_living_clips_alone_start_from_the_general_head(bundle):
    camera = teaching.teach(rows(bundle, kinds=()), bundle)
    assert camera.missing == ("print", "screen") and not camera.head.errors and "too few clips" in camera.describe()
    usual = seen(bundle, True, 5000)
    assert camera.judge(usual).decision == "bona_fide"
    direction = np.asarray(bundle.picture_head["weight"]) * np.asarray(bundle.picture_head["spread"])
    screen = replace(usual, embedding=usual.embedding - 30 * direction)
    assert cameras.general_logit(bundle.picture_head, screen.embedding[None])[0] < camera.head.floor
    assert camera.judge(screen).decision != "bona_fide"


def test_what_cannot_be_taught_is_one_sentence(bundle, camera):
    usual = rows(bundle)
    swapped = [replace(c, kind="print" if c.kind == cameras.LIVING else cameras.LIVING) for c in rows(bundle, kinds=("print",))]  # fmt: skip
    half = [replace(c, kind="screen" if k % 2 else cameras.LIVING) for k, c in enumerate(swapped)]
    cases = [
        (usual[:1] + usual[3:], "1 living clips are too few"),
        (
            [*usual, *rows(bundle, count=1, kinds=(), size=(480, 640), light=0.1)],
            "another camera, or of one that was turned",
        ),
        ([*usual, replace(usual[0], name="copy.mp4")], "copy.mp4 shows the very same as bona_fide-0.mp4"),
        ([replace(usual[0], kind="cartoon"), *usual[1:]], "'cartoon' cannot be taught: say bona_fide, print"),
        (half, "mixed up"),
    ]
    for given, said in cases:
        with pytest.raises(CameraError, match=said) as caught:
            teaching.teach(given, bundle)
        assert "\n" not in str(caught.value)
    with pytest.raises(CameraError, match="cannot be taught: its manifest has no flat head"):
        teaching.teach(usual, replace(bundle, picture_head={}))
    with pytest.raises(CameraError, match="taught with another bundle"):
        teaching.teach(usual, bundle, extend=replace(camera, model="0"))


def test_a_sitting_is_added_and_undone(bundle, camera):
    more = [replace(c, sitting=2, person="2") for c in rows(bundle, count=2, light=0.2)]
    wider = teaching.teach(more, bundle, extend=camera)
    assert len(wider.clips) == len(camera.clips) + len(more) and wider.name == "desk"
    assert wider.head.errors["living"]["n"] == 5, "people are left out in turn"
    assert teaching.undo(wider, bundle) == camera
    with pytest.raises(CameraError, match="remove the file"):
        teaching.undo(camera, bundle)


def test_a_file_holds_numbers_alone_and_is_read_whole_or_refused(bundle, camera, tmp_path):
    path = cameras.save(camera, tmp_path / "camera.json")
    assert path.stat().st_size < 200_000 and [p.name for p in tmp_path.iterdir()] == ["camera.json"]
    assert cameras.load(path, bundle) == camera
    one = replace(camera, head=replace(camera.head, unit=math.inf))
    assert cameras.load(cameras.save(one, path), bundle) == one
    held = json.loads(path.read_text())
    other = replace(bundle, files={**bundle.files, "model.tflite": {"sha256": "0"}})
    with pytest.raises(CameraError, match="another bundle"):
        cameras.load(path, other)
    spoilt = [
        ("", "no camera's file"), (json.dumps({**held, "format": 99}), "another version"), ("[]", "no camera's file"),
        (json.dumps({**held, "head": {**held["head"], "threshold": None}}), "no camera's file|damaged"),
        (json.dumps({**held, "head": {**held["head"], "weight": [1.0]}}), "damaged"),
        (json.dumps({k: v for k, v in held.items() if k != "clips"}), "no camera's file"),
    ]  # fmt: skip
    for text, said in spoilt:
        path.write_text(text)
        with pytest.raises(CameraError, match=said) as caught:
            cameras.load(path, bundle)
        assert str(path) in str(caught.value)
    with pytest.raises(CameraError, match="teach the camera first"):
        cameras.load(tmp_path / "none.json", bundle)


def test_the_bundle_carries_the_picture_head_of_its_checkpoint(bundle):
    net, _ = load_checkpoint(bundle.path("checkpoint.pt"))
    rng = np.random.default_rng(0)
    embedding = net.picture.level.numpy() + 2 * rng.normal(size=(5, 432)) * net.picture.spread.numpy()
    z = np.clip((embedding - net.picture.level.numpy()) / net.picture.spread.numpy(), -4, 4)
    wanted = z @ net.picture.flat.weight.detach().numpy()[0] + net.picture.flat.bias.item()
    assert np.allclose(cameras.general_logit(bundle.picture_head, embedding), wanted, atol=1e-3)
    masked = z @ net.picture.mask.weight.detach().numpy()[0] + net.picture.mask.bias.item()
    assert np.allclose(cameras.mask_logit(bundle.picture_head, embedding), masked, atol=1e-3)
    assert bundle.picture_head["bound"] == net.CERTAIN


def test_the_look_of_a_picture_follows_its_light_and_sharpness():
    rng = np.random.default_rng(0)
    crops = rng.integers(60, 180, (25, 112, 112, 3), np.uint8)
    usual, dark = cameras.image_statistics(crops), cameras.image_statistics(crops // 2)
    warm = cameras.image_statistics((crops * np.array([1.0, 0.9, 0.6])).astype(np.uint8))
    soft = cameras.image_statistics(np.stack([np.full_like(c, int(c.mean())) for c in crops]))
    assert usual.shape == (13,) and np.array_equal(usual, cameras.image_statistics(crops[:25]))
    assert dark[0] < usual[0] - 1 and warm[5] > usual[5] + 1 and soft[12] < usual[12] - 1


# ------------------------------------------------------------------------------- from files, end to end
@pytest.fixture(scope="module")
def sample():
    table = clips.read_manifest(config.samples_dir())
    kinds = table["pai_species"].fillna(cameras.LIVING)

    def of(kind):
        return clips.load_clip(config.samples_dir(), table[kinds == kind].iloc[0]["clip_id"])

    return of


def test_a_session_measures_what_the_camera_is_taught(bundle, sample):
    with runtime.LivenessSession(bundle, stream=False) as session:
        assert session.evidence is None
        (living,) = teaching.measure(sample(cameras.LIVING), session)
        clip = sample(cameras.LIVING)
        found = runtime.predict_clip(replace(clip, imu=None), bundle, session=session)
        assert np.array_equal(session.evidence.embedding, living.embedding) and living.size == (256, 256)
        assert living.limit == pytest.approx(math.log(found.threshold / (1 - found.threshold)))
        short = replace(clip, frames=clip.frames[clip.t < 1.5], t=clip.t[clip.t < 1.5], imu=None)
        (half,) = teaching.measure(short, session)
        far = np.abs(half.embedding - living.embedding) / np.asarray(bundle.picture_head["spread"])
        assert far.mean() < 0.5, "a short clip's embedding is the mean over its frames, too"
        blank = replace(clip, frames=np.zeros_like(clip.frames), imu=None)
        with pytest.raises(CameraError, match="no face"):
            teaching.measure(blank, session)
        assert session.evidence is None


def test_a_taught_camera_judges_in_the_session(bundle, sample):
    with runtime.LivenessSession(bundle, stream=False) as session:
        (living,) = teaching.measure(sample(cameras.LIVING), session)
        (screen,) = teaching.measure(sample("still_replay"), session)
        nudged = replace(living, embedding=living.embedding * 1.01)
        rows = teaching.label([living, nudged], cameras.LIVING, names=["a", "b"])
        session.camera = teaching.teach([*rows, *teaching.label([screen], "screen", names=["c"])], bundle)
        for kind, decision in ((cameras.LIVING, "bona_fide"), ("still_replay", "attack")):
            found = runtime.predict_clip(replace(sample(kind), imu=None), bundle, session=session)
            assert found.decision == decision and found.threshold == 0.5 and set(found.camera) == {"pixels", "motion", "mask", "distance"}  # fmt: skip
            assert "prints were not taught to this camera" in found.notes and "taught camera" in found.sentence
            json.loads(found.to_json())
        forged = runtime.predict_clip(sample("injection"), bundle, session=session)
        assert forged.decision != "bona_fide"


def test_guided_steps_replace_one_another_and_nothing_else(bundle, sample):
    teacher = teaching.Teacher(bundle)
    with runtime.LivenessSession(bundle, stream=False) as session:
        assert teacher.take("usual", sample(cameras.LIVING), session) == 1
        with pytest.raises(CameraError, match="no step of the teaching"):
            teacher.take("upside_down", sample(cameras.LIVING), session)
        clip = sample(cameras.LIVING)
        with pytest.raises(CameraError):
            teacher.take("usual", replace(clip, frames=np.zeros_like(clip.frames)), session)
        assert teacher.done == {"usual": 1}, "what failed takes nothing away"
        with pytest.raises(CameraError, match="living clips are too few"):
            teacher.fit()
        half = (clip.t >= 1.0) & (clip.t < 2.4)
        teacher.take("window", replace(clip, frames=clip.frames[half], t=clip.t[half]), session)
        teacher.take("screen", sample("still_replay"), session)
    told = teaching.told(teacher.fit())
    assert told["clips"] == 3 and told["notes"][0].startswith("prints") and json.dumps(told)
    teacher.drop("screen")
    assert teacher.fit().missing == ("print", "screen")
    teacher.drop()
    assert teacher.done == {}


def test_between_two_thresholds_a_verdict_is_not_sure(bundle):
    presence = np.array([1.0, 1.0, 0.0])
    quality = {"frames": 25.0, "no_face": 0.0, "several_faces": 0.0, "eyes_px": 90.0, "luma": 120.0, "sharpness": 50.0,
               "frozen_share": 0.0, "seconds": 2.4}  # fmt: skip
    floor, accept = bundle.floor(presence), bundle.threshold(presence)["value"]
    assert 0 < floor < accept

    def decided(score, held=bundle):
        return runtime.decide(held, {"logit": np.array([math.log(score / (1 - score))])}, presence, quality)

    assert [decided(s).decision for s in (floor - 0.01, floor + 0.01, accept + 0.01)] == ["attack", "not_sure", "bona_fide"]  # fmt: skip
    assert decided(floor + 0.01).sentence.startswith("not sure ") and decided(floor + 0.01).reasons
    without = replace(bundle, thresholds={k: v for k, v in bundle.thresholds.items() if k != bundles.FLOOR})
    assert decided(floor + 0.01, without).decision == "attack"
    with pytest.raises(BundleError):
        bundle.floor(presence, 5)


@pytest.mark.slow
def test_the_commands_teach_show_undo_and_judge(tmp_path, capsys):
    table = clips.read_manifest(config.samples_dir())
    video = {
        row["pai_species"] if isinstance(row["pai_species"], str) else cameras.LIVING: str(
            clips.media_file(config.samples_dir(), row["clip_id"])
        )
        for row in table.to_dict("records")
    }
    out, living = tmp_path / "desk.json", video[cameras.LIVING]
    # Another person's clip with the pixels of a face stands in for a second take.
    command = ["teach", "--live", f"usual={living}", video["injection"], "--attack", f"screen={video['still_replay']}",
               f"print={video['flat_print']}", "--out", str(out)]  # fmt: skip
    assert cli.main(command) == 0
    said = capsys.readouterr().out
    assert said.startswith("camera desk: ") and "bona_fide of 1, usual" in said and "masks were not taught" in said
    assert cli.main(command) == cli.UNREADABLE and "--extend" in capsys.readouterr().err
    assert cli.main(["teach", "--live", living, "--out", str(tmp_path / "x")]) == cli.UNREADABLE
    assert "--live-only" in capsys.readouterr().err
    assert cli.main(["teach", "--live", living, "--live-only", "--extend", "--out", str(out)]) == cli.UNREADABLE
    assert "the very same" in capsys.readouterr().err
    assert cli.main(["camera", "show", str(out)]) == 0 and "masks were not taught" in capsys.readouterr().out
    assert cli.main(["camera", "undo", str(out)]) == cli.UNREADABLE and "remove the file" in capsys.readouterr().err
    for kind, word in ((cameras.LIVING, "bona fide"), ("still_replay", "attack"), ("flat_print", "attack")):
        assert cli.main(["predict", video[kind], "--camera", str(out)]) == 0
        assert capsys.readouterr().out.startswith(word), kind
    assert cli.main(["predict", living, "--camera", str(tmp_path / "none")]) == cli.UNREADABLE
    assert "teach the camera first" in capsys.readouterr().err
