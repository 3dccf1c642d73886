"""The session decides only on sound input, agrees with the clip model, and fails closed."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from fake_face import FakeLandmarker, make_clip
from small_bundle import small_bundle

from liveness_utils import bundle as bundles
from liveness_utils import cues, inputs, landmarks, runtime
from liveness_utils.errors import BundleError, SessionError
from liveness_utils.network.fusion import load_checkpoint


def test_a_clip_gets_a_score_and_a_sentence(session):
    found = runtime.predict_clip(make_clip(), session.bundle, session=session)
    assert found.decision in ("bona_fide", "not_sure", "attack")
    assert (found.score >= found.threshold) == (found.decision == "bona_fide")
    assert "(dev: APCER" in found.sentence
    held = json.loads(found.to_json())
    assert set(held) >= {"decision", "score", "threshold", "reasons", "quality", "cues", "timings_ms"}
    assert held["timings_ms"]["landmarks"] >= 0 and held["quality"]["frames"] == 25


@pytest.mark.parametrize("imu", [True, False])
def test_session_sees_what_the_prepared_clip_holds(session, imu):
    clip = make_clip(imu=imu)
    runtime.predict_clip(clip, session.bundle, session=session)
    track = landmarks.track(clip, FakeLandmarker())
    held = inputs.clip_inputs(clip, track, cues.frame_features(clip, track).values)
    fed, presence = session._model_input()
    assert presence.tolist() == held.presence.tolist() == [1, 1, float(imu)]
    np.testing.assert_array_equal((255 * fed["frames"][0] + 0.5).astype(np.uint8), held.crops)
    np.testing.assert_allclose(fed["imu"][0], held.imu, atol=1e-6)
    fill = np.asarray(session.bundle.feature_fill, np.float32)
    np.testing.assert_allclose(fed["features"][0], inputs.fill_missing(held.features, fill), atol=1e-5)
    np.testing.assert_allclose(np.array([c.quality for c in session._chosen]), held.quality_rows)


@pytest.mark.slow
def test_streaming_score_ends_where_the_clip_model_does(session):
    folder = small_bundle()[1]
    float32 = bundles.open_model(folder / "variants" / "clip_float32.tflite")
    session = runtime.LivenessSession(folder)
    runtime.predict_clip(make_clip(), session.bundle, session=session)
    logit = float(float32(**session._model_input()[0])["logit"][0])
    assert session.score == pytest.approx(1 / (1 + np.exp(-logit)), abs=1e-3)  # half floats


@pytest.mark.slow
def test_a_short_clip_is_judged_by_the_frames_it_has_at_a_threshold_of_its_own(session):
    folder = small_bundle()[1]
    short = runtime.LivenessSession(folder, stream=False)
    clip = make_clip()
    part = replace(clip, frames=clip.frames[:50], t=clip.t[:50])
    found = runtime.predict_clip(part, short.bundle, session=short)
    held = short.bundle.thresholds[short.bundle.target]
    assert found.quality["frames"] == 17 and found.threshold == held["video+landmarks+imu, 1.2 s"]["value"]
    fed, presence = short._model_input()
    net, _ = load_checkpoint(folder / "checkpoint.pt")
    with torch.inference_mode():
        wanted = float(torch.sigmoid(net(**{k: torch.from_numpy(v) for k, v in fed.items()})["logit"])[0])
    assert found.score == pytest.approx(wanted, abs=1e-3) and presence.tolist() == [1, 1, 1]
    assert set(held) == {f"{p}{n}" for p in bundles.PATTERNS.values() for n in ("", ", 1.2 s", ", 1.8 s")}


def test_missing_imu_uses_its_own_threshold(session):
    found = runtime.predict_clip(make_clip(imu=False), session.bundle, session=session)
    assert found.threshold == session.bundle.thresholds["apcer5"]["video+landmarks"]["value"]
    assert "consistency" not in found.cues


def test_gates(session):
    clip = make_clip()
    cases = {
        "no face in 25 of 25 frames": replace(clip, frames=np.zeros_like(clip.frames)),
        "lasts": replace(clip, frames=clip.frames[:30], t=clip.t[:30]),
        "pauses": replace(clip, t=clip.t + 0.5 * (np.arange(len(clip.t)) > 40)),
        "frozen": replace(clip, frames=np.repeat(clip.frames[:1], len(clip.t), axis=0)),
        "too dark": replace(clip, frames=clip.frames // 20),
    }
    for words, bad in cases.items():
        found = runtime.predict_clip(bad, session.bundle, session=session)
        assert found.decision == "no_decision" and found.score is None, words
        assert words in found.sentence


def test_two_faces(session):
    session._landmarker.faces = 2
    found = runtime.predict_clip(make_clip(), session.bundle, session=session)
    assert found.reasons == ("several faces in 25 of 25 frames",)


def test_bad_frames_raise_and_never_accept(session):
    frame = make_clip().frames[0]
    bad = (frame[..., 0], frame.astype(np.float32), frame[:4, :4], np.zeros((2, 2), np.uint8), None)
    for what in bad:
        with pytest.raises(SessionError):
            session.push(what, 0.0)
    with pytest.raises(SessionError):
        session.push(frame, float("nan"))
    session.push(frame, 1.0)
    with pytest.raises(SessionError):
        session.push(frame, 1.0)
    assert session.verdict().decision == "no_decision"


def test_a_failure_half_way_leaves_no_verdict(session, monkeypatch):
    clip = make_clip()
    runtime.predict_clip(clip, session.bundle, session=session)
    monkeypatch.setattr(session._landmarker, "detect", lambda *a: 1 / 0)
    with pytest.raises(SessionError):
        session.push(clip.frames[0], 99.0)
    assert session.verdict().decision == "no_decision"


@pytest.mark.parametrize("logit", [np.nan, np.inf, None])
def test_a_model_without_a_number_never_accepts(session, logit):
    quality = {"frames": 25, "no_face": 0, "several_faces": 0, "seconds": 2.4, "eyes_px": 40.0,
               "luma": 100.0, "sharpness": 9.0, "frozen_share": 0.0}  # fmt: skip
    out = {} if logit is None else {"logit": np.array([logit])}
    assert runtime.decide(session.bundle, out, np.ones(3), quality).decision == "no_decision"
    sure = {"logit": np.array([50.0])}
    assert runtime.decide(session.bundle, sure, np.ones(3), quality).decision == "bona_fide"
    untold = replace(session.bundle, thresholds={})
    assert runtime.decide(untold, sure, np.ones(3), quality).decision == "no_decision"


def test_imu_in_pieces_out_of_order_and_broken(session):
    clip = make_clip()
    rows = np.column_stack([clip.imu.t, clip.imu.accel, clip.imu.gyro])
    whole = runtime.predict_clip(clip, session.bundle, session=session).score
    session.reset()
    for piece in np.array_split(rows, 40):
        session.push_imu(piece)
        session.push_imu(piece[:2])  # repeated samples change nothing
    session.push_imu(np.full((3, 7), np.nan))
    for frame, t in zip(clip.frames, clip.t, strict=True):
        if session.progress < 1:
            session.push(frame, t)
    assert session.verdict().score == pytest.approx(whole, abs=1e-6)
    with pytest.raises(SessionError):
        session.push_imu(np.zeros((3, 6)))


def test_a_long_stream_is_judged_by_its_last_frames(session):
    clip = make_clip(4.0)
    session.push_imu(clip.imu)
    for frame, t in zip(clip.frames, clip.t, strict=True):
        session.push(frame, t)
    assert session.verdict().quality["seconds"] == pytest.approx(2.4, abs=0.05)
    assert session._chosen[-1].t > 3.8


def test_wherever_a_judged_stretch_begins_its_pictures_are_the_clips(session, monkeypatch):
    """Verdicts slide along a stream and the streaming score starts anew: each is of a clip that begins there."""
    clip, shown, stepped = make_clip(4.0), [], session._step_model
    monkeypatch.setattr(session, "_step_model", lambda **fed: shown.append(fed["frame"][0]) or stepped(**fed))
    session._step_model.input_shapes = stepped.input_shapes
    before, begins = len(session._chosen), set()
    for frame, t in zip(clip.frames, clip.t, strict=True):
        session.push(frame, t)
        if len(shown) == before or session.progress < 1.0:
            continue
        before = len(shown)
        crops = session._model_input()[0]["frames"][0]
        index = [int(np.flatnonzero(clip.t == c.t)[0]) for c in session._chosen]
        track = landmarks.track(clip, FakeLandmarker())
        wanted = inputs.face_crops(clip, track, np.array(index))
        np.testing.assert_array_equal((255 * crops + 0.5).astype(np.uint8), wanted)
        begins.add((before - inputs.FRAMES) % 2)
    assert begins == {0, 1}
    first = inputs.FRAMES - (len(shown) - inputs.FRAMES)  # place of the newest run's first picture in the stretch
    wanted = inputs.face_crops(clip, track, np.array(index[first:]))
    np.testing.assert_array_equal((255 * np.stack(shown[inputs.FRAMES :]) + 0.5).astype(np.uint8), wanted)


def test_threads_are_put_in_line(session):
    clip, errors = make_clip(), []

    def ask() -> None:
        for _ in range(20):
            if session.verdict().decision not in runtime.DECISIONS:
                errors.append("decision")

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    found = runtime.predict_clip(clip, session.bundle, session=session)
    for thread in threads:
        thread.join()
    assert not errors and found.decision != "no_decision"


def test_a_bundle_of_other_features_is_refused(bundle_folder, monkeypatch):
    monkeypatch.setattr(runtime, "Landmarker", FakeLandmarker)
    other = replace(bundles.load(bundle_folder), feature_names=("a", "b"))
    with pytest.raises(BundleError, match="features"):
        runtime.LivenessSession(other)


def test_runs_where_torch_and_tensorflow_cannot_be_imported(bundle_folder):
    code = f"""
import sys
for name in ("torch", "tensorflow", "torchvision", "lightning"):
    sys.modules[name] = None
import numpy as np
from liveness_utils import runtime
with runtime.LivenessSession({str(bundle_folder)!r}) as session:
    for k in range(76):
        session.push(np.full((64, 64, 3), k, np.uint8), k / 30)
    print(session.verdict().sentence)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "no decision: no face in 25 of 25 frames"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_session_is_small(bundle_folder):
    code = f"""
import sys
import numpy as np
from liveness_utils import runtime
with runtime.LivenessSession({str(bundle_folder)!r}) as session:
    for k in range(76):
        session.push(np.full((480, 640, 3), k, np.uint8), k / 30)
    session.verdict()
# Not ru_maxrss: it outlives fork and exec, and would be that of the test's own process.
print(next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM:")) / 1024)
print([m for m in ("torch", "tensorflow", "triton", "pandas", "matplotlib") if m in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    peak, loaded = done.stdout.splitlines()
    assert float(peak) < 400 and loaded == "[]"


def pushed(session, clip, rows, frames_first: bool = False):
    """The verdict on a clip's frames with some motion samples (m, 7), sent before or after the frames."""
    if not frames_first:
        session.push_imu(rows)
    for frame, t in zip(clip.frames, clip.t, strict=True):
        if session.progress < 1:
            session.push(frame, t)
    if frames_first:
        session.push_imu(rows)
    return session.verdict()


def test_promised_motion_that_is_missing_or_broken_is_no_decision(session):
    clip = make_clip()
    rows = np.column_stack([clip.imu.t, clip.imu.accel, clip.imu.gyro])
    cases = {
        "holds no samples": (rows[:0], False), "ends at 0.9": (rows[rows[:, 0] < 1.0], False),
        "pauses for": (np.delete(rows, slice(100, 130), 0), False), "came after": (rows, True),
    }  # fmt: skip
    for words, (sent, frames_first) in cases.items():
        session.reset()
        session.expect_imu()
        found = pushed(session, clip, sent, frames_first)
        assert found.decision == "no_decision" and words in found.sentence, (words, found.sentence)
    session.reset()
    with pytest.raises(SessionError, match="both sensors"):
        session.push_imu(replace(clip.imu, gyro=None))
    assert "holds no samples" in pushed(session, clip, rows[:0]).sentence
    session.reset()
    assert pushed(session, clip, rows[:0]).decision != "no_decision", "nothing was promised"


def test_a_session_that_requires_motion_judges_no_video_alone(bundle_folder, monkeypatch):
    monkeypatch.setattr(runtime, "Landmarker", FakeLandmarker)
    with runtime.LivenessSession(bundle_folder, stream=False, require_imu=True) as session:
        for imu, decision in ((False, "no_decision"), (True, "bona_fide not_sure attack"), (False, "no_decision")):
            assert runtime.predict_clip(make_clip(imu=imu), session.bundle, session=session).decision in decision


@pytest.mark.parametrize(
    ("n", "frames", "length"),
    [(37, 13, ", 1.2 s"), (52, 18, ", 1.2 s"), (55, 19, ", 1.8 s"), (70, 24, ", 1.8 s"), (76, 25, "")],
)
def test_a_clip_is_held_against_the_threshold_of_its_length(session, n, frames, length):
    clip = make_clip()
    part = replace(clip, frames=clip.frames[:n], t=clip.t[:n])
    found = runtime.predict_clip(part, session.bundle, session=session)
    assert found.quality["frames"] == frames
    assert found.threshold == session.bundle.thresholds["apcer5"]["video+landmarks+imu" + length]["value"]


def test_under_thirteen_frames_there_is_no_threshold():
    with pytest.raises(BundleError, match="too short"):
        bundles.pattern_name(np.ones(3), 12)
