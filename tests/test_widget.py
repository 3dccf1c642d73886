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

from liveness_utils import clips, runtime
from liveness_utils.errors import LivenessError, SessionError
from liveness_utils.inputs import QualityLimits
from liveness_utils.widget import LivenessWidget, wire


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


# -------------------------------------------------------------------------------------------- files
def test_the_front_end_lies_beside_the_module():
    folder = Path(wire.__file__).parent
    script = (folder / "live.js").read_text(encoding="utf-8")
    style = (folder / "live.css").read_text(encoding="utf-8")
    for state in ("no_camera", "denied", "insecure", "kernel_silent"):
        assert f"{state}:" in script and f'data-state="{state}"' in style
    assert "http://" not in script and "https://" not in script, "nothing is loaded from elsewhere"


def test_pictures_survive_the_wire():
    rng = np.random.default_rng(0)
    image = cv2.GaussianBlur(rng.integers(0, 255, (64, 64, 3), np.uint8), (0, 0), 3)
    back = wire.decode_jpeg(wire.encode_jpeg(image, 95))
    assert back.shape == image.shape and np.abs(back.astype(int) - image).mean() < 3
