"""The kernel's half of the widget: every message gets an answer, and none that is damaged is judged."""

from __future__ import annotations

import json
import re
import threading
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from fake_face import make_clip

from liveness_utils import challenge, clips, runtime
from liveness_utils.deployment import camera as cameras
from liveness_utils.deployment import settled
from liveness_utils.deployment.teaching import STEPS
from liveness_utils.errors import LivenessError, SessionError
from liveness_utils.inputs import QualityLimits
from liveness_utils.runtime import Verdict
from liveness_utils.widget import LivenessWidget, teaching, wire


class Heard(LivenessWidget):
    """Keeps what it would send to the page."""

    def send(self, content, buffers=None):
        json.dumps(content, allow_nan=False)  # a comm carries plain JSON only
        self.__dict__.setdefault("said", []).append((content, buffers))

    def page_says(self, kind, buffers=(), **content):
        before = len(self.__dict__.get("said", []))
        self._receive(self, {"kind": kind, **content}, list(buffers))
        return [c for c, _ in self.__dict__.get("said", [])[before:]]


@pytest.fixture
def widget(session):
    return Heard(session, keep=5.0)


def jpeg(image: np.ndarray | None = None, value: int = 120) -> bytes:
    made = np.full((120, 160, 3), value, np.uint8) if image is None else image
    return wire.encode_jpeg(made, 90)


def stream(widget, clip, start: float = 100.0, first: int = 1):
    """Send a clip as a page does, motion events before the frame of their time; returns all answers."""
    answers, sent = [], 0
    rows = np.zeros((0, 7))
    if clip.imu is not None:
        rows = np.column_stack([clip.imu.t + start, clip.imu.accel, np.degrees(clip.imu.gyro)])
    for k, (frame, t) in enumerate(zip(clip.frames, clip.t, strict=True)):
        due = int(np.searchsorted(rows[:, 0], t + start, side="right"))
        imu, sent = rows[sent:due].tolist(), due
        answers += widget.page_says("frame", [jpeg(frame)], id=first + k, t=float(t + start), imu=imu)
    return answers


# ------------------------------------------------------------------------------------------- messages
def test_hello_is_answered_and_noticed(widget):
    assert not widget.wait_for_page(0.01)
    (said,) = widget.page_says("hello")
    assert said["kind"] == "welcome" and 0 < said["threshold"] < 1
    assert widget.wait_for_page(0.01)


def test_every_frame_is_answered_by_its_number(widget):
    widget.page_says("start", facing="user")
    answers = stream(widget, make_clip(0.5))
    assert [a["id"] for a in answers] == list(range(1, 16))
    assert {a["kind"] for a in answers} == {"result"}
    assert all(0 <= v <= 1 for v in answers[-1]["box"]) and answers[-1]["faces"] == 1
    assert 0 < answers[-1]["score"] < 1 and answers[-1]["verdict"] is None
    assert [c["name"] for c in answers[-1]["cues"]] == [name for name, *_ in wire.BARS]


@pytest.mark.parametrize("imu", [True, False])
def test_the_first_verdict_is_the_offline_verdict_of_the_frames_received(widget, session, imu):
    widget.page_says("start", facing="user")
    answers = stream(widget, make_clip(2.6, imu=imu))
    (shown, *_) = [a["verdict"] for a in answers if a["verdict"]]
    offline = runtime.predict_clip(widget.recording(1), session.bundle, session=session)
    assert shown["decision"] == offline.decision != "no_decision"
    assert shown["score"] == pytest.approx(offline.score, abs=1e-3)  # motion may arrive a little later
    unscored = [re.sub(r"\d\.\d+", "", said, count=1) for said in (shown["sentence"], offline.sentence)]
    assert unscored[0] == unscored[1] and widget.verdict["sentence"] == shown["sentence"]
    assert (widget.recording(1).imu is not None) == imu


def test_a_played_clip_takes_the_same_way(widget, session):
    clip = make_clip(2.6)
    shown = widget.play(clip)
    offline = runtime.predict_clip(clip, session.bundle, session=session)
    assert shown[-1].verdict.sentence == offline.sentence
    assert shown[-1].verdict.score == pytest.approx(offline.score, abs=1e-6)
    assert len(shown) > 70 and not widget.__dict__.get("said"), "without a page nothing is sent"


def test_a_played_clip_is_shown_to_a_page(widget):
    widget.page_says("hello")
    shown = widget.play(make_clip(0.5))
    pictures = [(c, b) for c, b in widget.said if c["kind"] == "picture"]
    assert len(pictures) == len(shown) + 1 and pictures[0][1][0][:2] == b"\xff\xd8"
    assert shown[-1].verdict.decision == "no_decision"


BAD = {
    "no picture": dict(buffers=[], id=1, t=1.0),
    "two pictures": dict(buffers=[jpeg(), jpeg()], id=1, t=1.0),
    "no JPEG": dict(buffers=[b"GIF89a" + bytes(100)], id=1, t=1.0),
    "half a JPEG": dict(buffers=[b"\xff\xd8\xff" + bytes(50)], id=1, t=1.0),
    "too many bytes": dict(buffers=[b"\xff\xd8" + bytes(wire.MAX_JPEG)], id=1, t=1.0),
    "a wall of pixels": dict(buffers=[jpeg(np.zeros((8, 4000, 3), np.uint8))], id=1, t=1.0),
    "no time": dict(buffers=[jpeg()], id=1),
    "time that is none": dict(buffers=[jpeg()], id=1, t=float("nan")),
    "no number": dict(buffers=[jpeg()], t=1.0),
    "motion of six": dict(buffers=[jpeg()], id=1, t=1.0, imu=[[1, 2, 3, 4, 5, 6]]),
    "motion of words": dict(buffers=[jpeg()], id=1, t=1.0, imu=[list("abcdefg")]),
    "motion without end": dict(buffers=[jpeg()], id=1, t=1.0, imu=[[0.0] * 7] * 5000),
    "an unknown platform": dict(buffers=[jpeg()], id=1, t=1.0, imu=[[0.0] * 7], platform="palm"),
    "a tiny picture": dict(buffers=[jpeg(np.zeros((8, 8, 3), np.uint8))], id=1, t=1.0),
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_damaged_messages_are_told_to_the_page_and_not_judged(widget, bad):
    (said,) = widget.page_says("frame", **bad)
    assert said["kind"] == "error" and said["text"] and said["id"] == bad.get("id")
    assert not widget.history and widget.errors
    assert stream(widget, make_clip(0.2))[-1]["kind"] == "result", "the next sound frame is taken"


def test_messages_of_no_known_kind_are_passed_over(widget):
    for content in ({}, {"kind": "x"}, {"kind": None}, None, 3):
        widget._receive(widget, content, [])
    assert not widget.__dict__.get("said")


def test_time_that_goes_back_is_an_error(widget):
    stream(widget, make_clip(0.2))
    (said,) = widget.page_says("frame", [jpeg()], id=9, t=1.0)
    assert said["kind"] == "error" and "increase" in said["text"]


def test_a_failure_inside_is_told_and_gives_no_verdict(widget, monkeypatch):
    clip = make_clip(2.6)
    monkeypatch.setattr(widget.session._extractor, "push", lambda *a: 1 / 0)
    answers = stream(widget, replace(clip, frames=clip.frames[:3], t=clip.t[:3], imu=None))
    assert {a["kind"] for a in answers} == {"error"} and "division" in answers[0]["text"]
    assert widget.session.verdict().decision == "no_decision"


def test_a_face_after_an_absence_is_judged_anew(widget):
    clip, dark = make_clip(1.0), np.zeros((256, 256, 3), np.uint8)
    stream(widget, clip)
    assert widget._presentation == 1
    for k in range(20):
        widget.page_says("frame", [jpeg(dark)], id=200 + k, t=101.1 + k / 30)
    (said,) = [a for a in stream(widget, replace(clip, frames=clip.frames[:1], t=clip.t[:1]), start=102.0)]
    assert said["presentation"] == 2 and said["progress"] == pytest.approx(1 / 25)


def test_a_new_face_keeps_the_motion_of_the_moment_before(widget):
    answers = stream(widget, make_clip(2.6))
    assert any(a["verdict"] for a in answers)
    assert widget.session._chosen[0].imu_valid and all(c.imu_valid for c in widget.session._chosen)


def test_motion_events_come_to_si_units_and_w3c_axes(widget):
    row = [1.0, 0.0, -9.8, 0.0, 90.0, 0.0, 0.0]
    ios = wire.read_imu({"imu": [row], "platform": "ios_safari", "angle": 0})
    assert np.allclose(ios, [[1.0, 0.0, 9.8, 0.0, np.pi / 2, 0, 0]], atol=1e-6)
    other = wire.read_imu({"imu": [row]})
    assert np.allclose(other[0, 1:4], [0, -9.8, 0], atol=1e-6)
    assert wire.read_imu({"imu": []}) is None and wire.read_imu({"imu": [[None] * 7]}) is None


def test_threads_are_put_in_line(widget):
    def send(offset):
        for k in range(40):
            widget.page_says("frame", [jpeg(value=60 + k)], id=offset + k, t=time.monotonic())

    threads = [threading.Thread(target=send, args=(1000 * n,)) for n in range(3)]
    [t.start() for t in threads], [t.join() for t in threads]
    kinds = [c["kind"] for c, _ in widget.said]
    assert len(kinds) == 120 and set(kinds) <= {"result", "error"}
    assert widget.session.verdict().decision in runtime.DECISIONS


def test_words_for_a_person():
    limits = QualityLimits()
    good = np.array([1, 60.0, 120.0, 8.0, 2.0])
    assert wire.advice(good, limits) == [] == wire.advice(None, limits)
    cases = {"two faces": (0, 2), "come closer": (1, 9.0), "too dark": (2, 5.0), "too bright": (2, 250.0)}
    for words, (column, value) in cases.items():
        row = good.copy()
        row[column] = value
        assert wire.advice(row, limits) == [words]
    nobody = good.copy()
    nobody[:2] = 0, np.nan
    assert wire.advice(nobody, limits) == ["no face: look into the camera"]


# ---------------------------------------------------------------------------------- keeping, asking
def test_nothing_is_kept_unless_asked_for(session):
    widget = Heard(session)
    stream(widget, make_clip(0.5))
    assert not widget._kept and not len(widget._kept_imu)
    with pytest.raises(SessionError, match="keep"):
        widget.recording()


def test_what_is_kept_has_a_bound(session):
    widget = Heard(session, keep=0.3)
    stream(widget, make_clip(1.0))
    held = widget.recording()
    assert 0.2 < held.t[-1] <= 0.31 and held.imu.t[0] >= -1.0


def test_a_labelled_presentation_is_kept_as_a_clip(widget, tmp_path):
    stream(widget, make_clip(1.0))
    name = widget.save(tmp_path, label="flat_print", subject="s01", consent=True)
    kept = clips.load_clip(tmp_path, name)
    row = clips.read_manifest(tmp_path).iloc[0]
    assert row.pai_species == "flat_print" and not row.is_bonafide and row.subject_id == "s01"
    assert len(kept.t) == len(widget.recording().t) and kept.imu is not None
    for wish in ({"label": "flat_print", "consent": False}, {"label": "sculpture", "consent": True}):
        with pytest.raises(LivenessError):
            widget.save(tmp_path, subject="s01", **wish)
    assert len(clips.read_manifest(tmp_path)) == 1


def conduct(widget, steps):
    (said,) = widget.page_says("ask")
    for k, clip in enumerate(steps):
        for n, (frame, t) in enumerate(zip(clip.frames, clip.t, strict=True)):
            at = 10.0 + 5 * k + float(t)
            widget.page_says("frame", [jpeg(frame)], id=100 * k + n, t=at, step=k)
    return said


def test_a_challenge_is_asked_and_judged(widget):
    said = conduct(widget, [make_clip(1.2), make_clip(1.2)])
    assert said["kind"] == "challenge" and len(said["prompts"]) == len(said["instructions"]) == 2
    (result,) = widget.page_says("answer", nonce=said["nonce"])
    assert result["kind"] == "challenge_result" and not result["passed"] and result["reasons"]
    (again,) = widget.page_says("answer", nonce=said["nonce"])
    assert again["kind"] == "error" and "answered before" in again["text"]


def test_frames_of_one_challenge_do_not_answer_another(widget):
    first = conduct(widget, [make_clip(1.2), make_clip(1.2)])
    (second,) = widget.page_says("ask")
    (said,) = widget.page_says("answer", nonce=first["nonce"])
    assert said["kind"] == "error" and "another challenge" in said["text"]
    (said,) = widget.page_says("answer", nonce=second["nonce"])
    assert said["kind"] == "error"


def test_an_answer_without_frames_or_nonce_is_refused(widget):
    (said,) = widget.page_says("ask")
    for nonce in (said["nonce"], None, "x", 5):
        (answer,) = widget.page_says("answer", nonce=nonce)
        assert answer["kind"] == "error"


# ------------------------------------------------------------------------------- not sure, challenge
def result_of(passed: bool) -> challenge.ChallengeResult:
    return challenge.ChallengeResult(passed, () if passed else ("not asked for: sweep",))


def passive(decision: str) -> Verdict:
    return Verdict(decision, {"bona_fide": 0.99, "not_sure": 0.9, "attack": 0.1}.get(decision), 0.96, ("why",))


@pytest.mark.parametrize(
    ("before", "passed", "decision"),
    [
        ("bona_fide", True, "bona_fide"), ("not_sure", True, "bona_fide"), ("attack", True, "attack"),
        ("no_decision", True, "no_decision"), (None, True, "no_decision"),
        ("bona_fide", False, "no_decision"), ("not_sure", False, "no_decision"), ("attack", False, "attack"),
    ],
)  # fmt: skip
def test_a_challenge_decides_what_was_not_sure_and_never_saves_an_attack(before, passed, decision):
    found, _ = settled.settle(before and passive(before), 1, 1, result_of(passed))
    assert found.decision == decision and found.sentence.startswith(decision.replace("_", " "))
    if before == "not_sure" and passed:
        assert settled.DECIDED in found.reasons and "≥" not in found.sentence
    if before in ("bona_fide", "not_sure") and not passed:
        assert found.reasons[-1].startswith("challenge failed")


def test_a_challenge_counts_for_the_face_that_was_asked_alone():
    found, held = settled.settle(passive("not_sure"), 1, 2, result_of(True))
    assert found.decision == "no_decision" and held is None


@pytest.mark.parametrize(("decision", "passed"), [("not_sure", True), ("not_sure", False), ("attack", True)])
def test_what_the_challenge_decided_holds_until_another_face_comes(widget, monkeypatch, decision, passed):
    monkeypatch.setattr(challenge, "verify", lambda *a, **k: result_of(passed))
    monkeypatch.setattr(widget.session, "verdict", lambda: passive(decision))
    widget.page_says("start", facing="user")
    first = stream(widget, make_clip(2.6, imu=False))
    assert [a["verdict"]["decision"] for a in first if a["verdict"]] == [decision]
    (said,) = widget.page_says("ask")
    for k in range(4):
        widget.page_says("frame", [jpeg(value=90 + k)], id=500 + k, t=102.7 + k / 30, step=k // 2)
    (result,) = widget.page_says("answer", nonce=said["nonce"])
    expected = decision if decision == "attack" else "bona_fide" if passed else "no_decision"
    assert result["passed"] == passed and result["verdict"]["decision"] == expected == widget.verdict["decision"]
    later = [
        a["verdict"]["decision"]
        for a in stream(widget, make_clip(0.8, imu=False), start=102.9, first=600)
        if a["verdict"]
    ]
    assert later and set(later) == {expected}
    assert {v.decision for _, _, v in widget.history} == {decision}, "the history tells the passive verdicts"
    widget.page_says("again")
    anew = stream(widget, make_clip(2.6, imu=False), start=104.0, first=900)
    assert [a["verdict"]["decision"] for a in anew if a["verdict"]] == [decision]


@pytest.mark.parametrize(("away", "stays"), [(3.2, True), (6.0, False)])
def test_while_an_answer_is_checked_no_frames_come_and_the_face_stays(session, monkeypatch, away, stays):
    now = [0.0]

    def check(*args, **kept):
        now[0] += 3.0
        return result_of(True)

    widget = Heard(session, clock=lambda: now[0])
    monkeypatch.setattr(challenge, "verify", check)
    monkeypatch.setattr(widget.session, "verdict", lambda: passive("not_sure"))
    stream(widget, make_clip(2.6, imu=False))
    (said,) = widget.page_says("ask")
    for k in range(2):
        widget.page_says("frame", [jpeg(value=90 + k)], id=500 + k, t=102.7 + k / 30, step=k)
    widget.page_says("answer", nonce=said["nonce"])
    late = stream(widget, make_clip(0.1, imu=False), start=102.74 + away, first=600)
    assert late[-1]["presentation"] == (1 if stays else 2) and (widget._settled is not None) == stays


def test_starting_anew_ends_the_challenge_of_the_face_before(widget, monkeypatch):
    monkeypatch.setattr(challenge, "verify", lambda *a, **k: result_of(True))
    said = conduct(widget, [make_clip(0.3), make_clip(0.3)])
    widget.page_says("again")
    (answer,) = widget.page_says("answer", nonce=said["nonce"])
    assert answer["kind"] == "error" and widget._settled is None


# ------------------------------------------------------------------------------------------ teaching
def scene(kind: str, seed: int, seconds: float = 1.4) -> clips.Clip:
    """Noise that the encoder tells apart: coarse for living clips, fine for attacks."""
    clip = make_clip(seconds, imu=False, seed=seed)
    if kind != "bona_fide":
        return clip
    coarse = [
        cv2.resize(np.ascontiguousarray(f[::8, ::8]), (256, 256), interpolation=cv2.INTER_LINEAR) for f in clip.frames
    ]
    return replace(clip, frames=np.stack(coarse))


def film(widget, step: str, clip, start: float):
    """One step as the page sends it; returns the answers to all but the frames, and to the frames."""
    first = widget.page_says("teach_take", step=step, ticket="t")
    frames = []
    for k, (frame, t) in enumerate(zip(clip.frames, clip.t, strict=True)):
        frames += widget.page_says("frame", [jpeg(frame)], id=k, t=float(t + start), teach=step)
    return first + widget.page_says("teach_done", step=step, ticket="d"), frames


def test_a_camera_is_taught_saved_and_judges(session, tmp_path):
    path = tmp_path / "new" / "camera.json"
    widget = Heard(session, path)
    assert not widget.page_says("hello")[0]["taught"]
    (steps,) = widget.page_says("teach_start", ticket="a1")
    assert (steps["kind"], steps["ticket"], steps["seconds"]) == ("teach_steps", "a1", 6.0)
    assert [s["name"] for s in steps["steps"]] == [s.name for s in STEPS]
    assert {s["skip"] for s in steps["steps"] if s["kind"] == "print"} == {"I have no sheet of paper"}
    for k, step in enumerate(STEPS[:3] + STEPS[4:6]):
        told, frames = film(widget, step.name, scene(step.kind, k), 100.0 * (k + 1))
        assert [t["kind"] for t in told] == ["teach_filming", "teach_taken"] and told[1]["windows"] == 1, told
        assert [(f["kind"], f["frames"]) for f in frames] == [("teach_kept", n + 1) for n in range(len(frames))]
        assert not widget._teaching._frames, "pictures go as soon as they were measured"
    assert not widget.history and not path.exists() and session.camera is None
    (fitted,) = widget.page_says("teach_fit", ticket="f")
    assert fitted["kind"] == "teach_fitted" and fitted["clips"] == 5 and fitted["level"] == 0.5, fitted
    assert set(fitted["left_out"]) == {"living", "attacks"} and fitted["errors"]["living"]["n"] == 3
    assert "prints were not taught to this camera" in fitted["notes"] and fitted["saved"] == str(path)
    assert cameras.load(path, session.bundle).describe() == session.camera.describe()
    assert b"\xff\xd8" not in path.read_bytes(), "no picture is in the file"
    answers = stream(widget, replace(scene("bona_fide", 0, 2.6)), start=900.0)
    (found,) = [a["verdict"] for a in answers if a["verdict"]]
    assert set(found["camera"]) == {"pixels", "motion", "mask", "distance"} and found["threshold"] == 0.5
    assert found["notes"] == fitted["notes"]
    scores = [a["score"] for a in answers]
    assert scores[0] is None and scores[-1] == found["score"], "the curve follows the taught camera's verdicts"
    assert widget.page_says("hello")[0]["taught"] and widget.page_says("hello")[0]["threshold"] == 0.5


def test_a_step_that_cannot_be_taught_is_told_and_the_teaching_goes_on(session):
    widget = Heard(session)
    widget.page_says("teach_start")
    black = replace(scene("bona_fide", 0), frames=np.zeros((42, 256, 256, 3), np.uint8))
    cases = {"no face": black, "record at least": scene("bona_fide", 0, 0.5)}
    for words, clip in cases.items():
        told, _ = film(widget, "usual", clip, 10.0)
        assert told[-1]["kind"] == "teach_error" and words in told[-1]["text"], told
        assert (told[-1]["of"], told[-1]["step"], told[-1]["ticket"]) == ("teach_done", "usual", "d")
    widget.page_says("teach_take", step="usual")
    (told,) = widget.page_says("teach_done", step="usual")
    assert "no pictures came" in told["text"]
    told, _ = film(widget, "usual", scene("bona_fide", 1), 300.0)
    assert told[-1]["kind"] == "teach_taken" and told[-1]["done"] == {"usual": 1}
    (told,) = widget.page_says("teach_fit")
    assert told["kind"] == "teach_error" and "too few" in told["text"] and session.camera is None
    (told,) = widget.page_says("teach_drop", step="usual")
    assert told["kind"] == "teach_dropped" and told["done"] == {}


def test_a_camera_that_turns_while_a_step_is_filmed_is_told(session):
    widget = Heard(session)
    widget.page_says("teach_start"), widget.page_says("teach_take", step="usual")
    for k, shape in enumerate([(120, 160, 3), (160, 120, 3)]):
        widget.page_says("frame", [jpeg(np.full(shape, 99, np.uint8))], id=k, t=1.0 + k, teach="usual")
    (told,) = widget.page_says("teach_done", step="usual")
    assert "turned" in told["text"]


@pytest.mark.parametrize("kind", teaching.KINDS[1:])
def test_without_a_teaching_its_messages_are_answered(widget, kind):
    (told,) = widget.page_says(kind, step="usual", ticket="x")
    assert told["ticket"] == "x"
    assert told["kind"] == ("teach_stopped" if kind == "teach_stop" else "teach_error")
    assert kind == "teach_stop" or "begin anew" in told["text"]


@pytest.mark.parametrize("step", [None, "dance", 3, ["usual"], {"a": 1}])
def test_steps_that_are_none_are_refused(session, step):
    widget = Heard(session)
    widget.page_says("teach_start")
    for kind in ("teach_take", "teach_done"):
        (told,) = widget.page_says(kind, step=step)
        assert told["kind"] == "teach_error" and told["text"]


def test_stopping_forgets_and_frames_are_judged_again(session):
    widget = Heard(session)
    widget.page_says("teach_start"), widget.page_says("teach_take", step="usual")
    frame = {"buffers": [jpeg(make_clip(0.1).frames[0])], "teach": "usual"}
    assert widget.page_says("frame", id=1, t=1.0, **frame)[0]["kind"] == "teach_kept"
    widget.page_says("teach_stop")
    assert widget._teaching._teacher is None and not widget._teaching._frames
    assert widget.page_says("frame", id=2, t=1.1, **frame)[0]["kind"] == "result"


def test_frames_of_a_step_have_a_bound(session, monkeypatch):
    monkeypatch.setattr(teaching, "MAX_FRAMES", 3)
    widget = Heard(session)
    widget.page_says("teach_start"), widget.page_says("teach_take", step="usual")
    kept = [
        widget.page_says("frame", [jpeg()], id=k, t=t, teach="usual")[0]["frames"]
        for k, t in enumerate([1, 0.5, 2, 3, 4])
    ]
    assert kept == [1, 1, 2, 3, 3]


def test_what_cannot_be_saved_is_told_and_not_used(session, tmp_path, monkeypatch):
    widget = Heard(session, tmp_path / "camera.json")
    widget.page_says("teach_start")
    monkeypatch.setattr(widget._teaching._teacher, "fit", lambda: "a camera")
    monkeypatch.setattr(cameras, "save", lambda *a: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    (told,) = widget.page_says("teach_fit")
    assert "No space left" in told["text"] and session.camera is None


# -------------------------------------------------------------------------------------------- files
def test_the_front_end_lies_beside_the_module():
    folder = Path(wire.__file__).parent
    script = LivenessWidget._esm
    assert all((folder / name).read_text(encoding="utf-8") in script for name in ("live.js", "teach.js"))
    style = (folder / "live.css").read_text(encoding="utf-8")
    for state in ("no_camera", "denied", "insecure", "kernel_silent"):
        assert f"{state}:" in script and f'data-state="{state}"' in style
    assert "http://" not in script and "https://" not in script, "nothing is loaded from elsewhere"


def test_pictures_survive_the_wire():
    rng = np.random.default_rng(0)
    image = cv2.GaussianBlur(rng.integers(0, 255, (64, 64, 3), np.uint8), (0, 0), 3)
    back = wire.decode_jpeg(wire.encode_jpeg(image, 95))
    assert back.shape == image.shape and np.abs(back.astype(int) - image).mean() < 3
