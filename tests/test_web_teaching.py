"""Teaching the camera from the page, by HTTP: what is taught, what is refused, and what judges afterwards."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from test_web import OPEN, encoded, meta_of, nonce, post, refused, sample, video_bytes

from liveness_utils import cli, clips, runtime
from liveness_utils.challenge import ChallengeResult
from liveness_utils.deployment import teaching
from liveness_utils.deployment.settled import DECIDED
from liveness_utils.errors import CameraError, ConfigError
from liveness_utils.web import Limits, create_app
from liveness_utils.web import serve as web_serve
from liveness_utils.web.report import outcome
from liveness_utils.web.upload import Alignment

STEPS_AT, CAMERA = "/api/v1/steps", "/api/v1/camera"
KINDS = {
    "usual": "bona_fide",
    "window": "bona_fide",
    "away": "bona_fide",
    "screen": "video_replay",
    "print": "flat_print",
}
LIGHT = {"window": 1.15, "away": 0.85}


@pytest.fixture(scope="module")
def bundle(bundle_folder):
    return bundle_folder


@pytest.fixture(scope="module")
def films() -> dict[str, tuple[clips.Clip, bytes]]:
    """A clip and its video for each step: one person in three lights, a screen and a sheet."""
    return {step: film(KINDS[step], LIGHT.get(step, 1.0)) for step in KINDS}


def film(species: str, gain: float = 1.0) -> tuple[clips.Clip, bytes]:
    clip = sample(species)
    if gain == 1.0:
        return clip, video_bytes(clip)
    lit = replace(clip, frames=np.clip(clip.frames * gain, 0, 255).astype(np.uint8), t=np.arange(len(clip.t)) / 24)
    return lit, encoded(lit.frames, lit.t, rate=24)


@pytest.fixture
def served(bundle, tmp_path):
    """Starts pages that may be taught into one file; ends them."""
    apps = []

    def start(**more):
        apps.append(create_app(bundle, **{"limits": OPEN, "teach": tmp_path / "door.json"} | more))
        return apps[-1].test_client()

    yield start
    for app in apps:
        app.extensions["liveness"].close()


def teach(client, name: str, shown: tuple[clips.Clip, bytes], **change):
    clip, video = shown
    held = replace(clip, imu=sample().imu)  # what `meta_of` wants; a step is sent without
    meta = meta_of(held, nonce(client)) | {"step": name, "imu": None} | change
    return post(client, video, meta, path=STEPS_AT)


def judge(client, species: str) -> dict:
    clip = sample(species)
    return post(client, video_bytes(clip), meta_of(clip, nonce(client), imu=None)).json


# ---------------------------------------------------------------------------------------- the whole
def test_a_page_is_taught_and_judges_with_it_until_it_forgets(served, films, tmp_path):
    client, file = served(), tmp_path / "door.json"
    plain = judge(client, "bona_fide")
    assert plain["camera"] == {} and client.get(CAMERA).json["taught"] is None
    for count, step in enumerate(KINDS, 1):
        found = teach(client, step, films[step])
        assert found.status_code == 200, found.text
        assert found.json["step"] == step and found.json["windows"] == 1 and len(found.json["done"]) == count
    assert client.get(CAMERA).json["done"] == dict.fromkeys(KINDS, 1) and not file.exists()
    told = client.post(CAMERA)
    assert told.status_code == 200, told.text
    assert told.json["name"] == "door" and told.json["clips"] == 5 and file.exists()
    assert told.json["notes"] == ["masks were not taught to this camera"]
    assert told.json["errors"]["living"]["n"] == 3 and len(told.json["left_out"]["attacks"]) == 2
    living, attack = judge(client, "bona_fide"), judge(client, "video_replay")
    assert living["decision"] == "bona_fide" and set(living["camera"]) == {"pixels", "motion", "mask", "distance"}
    assert living["notes"] == told.json["notes"] and living["camera"]["distance"] < 1 and living["threshold"] == 0.5
    assert attack["decision"] == "attack" and attack["camera"]["pixels"] < 0
    again = served()  # a server started anew
    assert judge(again, "bona_fide")["camera"] == living["camera"]
    assert again.get(CAMERA).json["taught"] == told.json and again.get(CAMERA).json["done"] == {}
    assert client.delete(CAMERA).json == {"taught": None} and not file.exists()
    assert judge(client, "bona_fide")["camera"] == {} and client.get(CAMERA).json["taught"] is None


def test_the_steps_are_those_of_the_teaching(served):
    steps = served().get(CAMERA).json["steps"]
    assert [s["name"] for s in steps] == [s.name for s in teaching.STEPS]
    assert {s["seconds"] for s in steps} == {teaching.SECONDS}
    assert teaching.SECONDS < Limits().max_seconds and 60 * teaching.SECONDS < Limits().max_frames
    assert teaching.SECONDS * 60 * 640 * 480 * 3 < Limits().decoded_bytes


def test_a_step_is_filmed_again_and_forgotten(served, films):
    client = served()
    assert teach(client, "usual", films["usual"]).json["done"] == {"usual": 1}
    assert teach(client, "usual", films["window"]).json["done"] == {"usual": 1}
    assert teach(client, "away", films["away"]).json["done"] == {"usual": 1, "away": 1}
    assert client.delete(STEPS_AT, json={"step": "usual"}).json == {"done": {"away": 1}}
    assert client.delete(STEPS_AT).json == {"done": {}} == client.delete(STEPS_AT, json={}).json
    refused(client.post(CAMERA), 422, "too few")


def test_another_teaching_replaces_the_first_one(served, films, tmp_path):
    first = served()
    for step in KINDS:
        teach(first, step, films[step])
    first.post(CAMERA)
    second = served()
    for step in ("usual", "away", "screen"):
        teach(second, step, films[step])
    told = second.post(CAMERA).json
    assert told["clips"] == 3 and told["errors"] == {} and "prints were not taught to this camera" in told["notes"]
    assert json.loads((tmp_path / "door.json").read_text())["name"] == "door"


def test_a_camera_that_was_taught_elsewhere_judges_and_is_not_taught(served, films, bundle, tmp_path):
    client = served()
    for step in KINDS:
        teach(client, step, films[step])
    client.post(CAMERA)
    judging = served(teach=None, camera=tmp_path / "door.json")
    assert judge(judging, "bona_fide")["camera"]
    refused(judging.post(CAMERA), 403)


# ------------------------------------------------------------------------------------------ refusals
def test_only_a_page_that_may_be_taught_is(served, films):
    client = served(teach=None)
    refused(teach(client, "usual", films["usual"]), 403, "--teach")
    answers = [client.delete(STEPS_AT), client.get(CAMERA), client.post(CAMERA), client.delete(CAMERA)]
    for answer in answers:
        refused(answer, 403, "--teach")
    assert '"teach": false' in client.get("/").text and 'id="teach"' not in client.get("/").text
    open_page = served().get("/").text
    assert '"teach": true' in open_page and "Teach this camera" in open_page


def test_other_sites_may_not_teach(served, films):
    client, evil = served(), {"Origin": "https://evil.example"}
    for answer in (client.post(STEPS_AT, headers=evil), client.delete(STEPS_AT, headers=evil),
                   client.post(CAMERA, headers=evil), client.delete(CAMERA, headers=evil)):  # fmt: skip
        refused(answer, 403, "other sites")


def test_what_cannot_be_taught_is_one_sentence_and_changes_nothing(served, films):
    client = served()
    teach(client, "usual", films["usual"])
    t = np.arange(0, 2.6, 1 / 30)
    grey = np.full((len(t), 128, 128, 3), 90, np.uint8)
    found = teach(client, "usual", (clips.Clip("x", grey, t), encoded(grey, t)))
    refused(found, 422, "no face")
    assert found.json["detail"].startswith("This cannot be taught: ") and client.get(CAMERA).json["done"] == {
        "usual": 1
    }
    refused(client.post(CAMERA), 422, "1 living clips are too few")
    assert client.get(CAMERA).json["taught"] is None


@pytest.mark.parametrize("change", [{"step": "cellar"}, {"step": None}, {"step": 3}, {"step": ["usual"]}, {"more": 1}])
def test_a_step_names_its_step(served, films, change):
    refused(teach(served(), "usual", films["usual"], **change), 400)


def test_a_step_is_no_recording_no_challenge_and_no_clip(served, films, tmp_path):
    client = served(record=tmp_path / "kept")
    wish = {"label": "bona_fide", "subject": "s-01", "consent": True}
    refused(teach(client, "usual", films["usual"], record=wish), 400, "record")
    refused(teach(client, "usual", films["usual"], nonce=nonce(client, challenge=True)), 400, "challenge")
    name = nonce(client)
    assert teach(client, "usual", films["usual"], nonce=name).status_code == 200
    refused(teach(client, "usual", films["usual"], nonce=name), 409)
    clip, video = films["usual"]
    refused(post(client, video, meta_of(clip, nonce(client)) | {"step": "usual"}), 400)
    assert not list((tmp_path / "kept").rglob("*.mp4"))


@pytest.mark.parametrize(
    "body", ["[]", "{", '{"step": "cellar"}', '{"step": null}', '{"more": 1}', '{"step": ["usual"]}']
)
def test_forgetting_wants_a_sound_body(served, body):
    refused(served().delete(STEPS_AT, data=body, content_type="application/json"), 400)


def test_each_address_has_its_rate_of_steps(served):
    client = served(limits=replace(OPEN, clips_per_minute=6.0, sessions_per_minute=60.0, burst=1))
    assert [client.post(STEPS_AT).status_code for _ in range(2)] == [415, 429]
    assert [client.delete(STEPS_AT).status_code for _ in range(3)] == [200, 200, 429]


def test_a_disk_that_is_full_leaves_everything_as_it_was(served, films, tmp_path, monkeypatch):
    client = served()
    for step in KINDS:
        teach(client, step, films[step])
    with monkeypatch.context() as patch:
        patch.setattr(teaching.cameras, "save", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
        refused(client.post(CAMERA), 503, "disk")
    assert client.get(CAMERA).json["taught"] is None and client.post(CAMERA).status_code == 200


def test_a_file_that_does_not_fit_ends_in_one_sentence(bundle, tmp_path, capsys):
    bad = tmp_path / "bad.json"
    bad.write_text("{}")
    for wrong in (
        {"camera": bad},
        {"teach": bad},
        {"camera": tmp_path / "none.json"},
        {"teach": tmp_path / "no" / "x"},
    ):
        with pytest.raises(CameraError):
            create_app(bundle, **wrong)
    with pytest.raises(ConfigError, match="--camera or --teach"):
        create_app(bundle, camera=bad, teach=bad)
    assert cli.main(["serve", "--camera", str(bad), "--port", "0"]) == cli.FAILED
    assert "Traceback" not in (said := capsys.readouterr().err) and str(bad) in said


def test_the_answers_are_as_described(served, films):
    import jsonschema

    client = served()
    told = client.get("/api/v1/openapi.json").json
    for step in KINDS:
        taken = teach(client, step, films[step]).json
    held = {
        "Taken": taken, "Camera": client.post(CAMERA).json, "Teaching": client.get(CAMERA).json,
        "Verdict": judge(client, "bona_fide"), "Done": client.delete(STEPS_AT).json,
        "StepMeta": meta_of(films["usual"][0], "abcdefgh") | {"step": "usual"},
    }  # fmt: skip
    for name, value in held.items():
        schema = {"$ref": f"#/components/schemas/{name}", "components": told["components"]}
        jsonschema.validate(value, schema)


def test_the_command_line_hands_on_what_it_was_told_and_warns(monkeypatch, tmp_path):
    told, said, file = {}, [], tmp_path / "door.json"
    monkeypatch.setattr(web_serve, "serve", lambda bundle, **more: told.update(more))
    assert cli.main(["serve", "--teach", str(file)]) == 0 and (told["teach"], told["camera"]) == (file, None)
    assert cli.main(["serve", "--camera", str(file)]) == 0 and (told["teach"], told["camera"]) == (None, file)
    web_serve._announce(["http://127.0.0.1:8000/"], "127.0.0.1", "", None, said.append, file)
    assert "Every visitor may teach" in said[-1] and str(file) in said[-1]


# --------------------------------------------------------------------- not sure: the challenge decides
@pytest.mark.parametrize(
    ("decision", "passed", "then"),
    [("bona_fide", True, "bona_fide"), ("not_sure", True, "bona_fide"), ("attack", True, "attack"),
     ("no_decision", True, "no_decision"), ("bona_fide", False, "no_decision"), ("not_sure", False, "no_decision"),
     ("attack", False, "attack"), ("no_decision", False, "no_decision"), ("not_sure", None, "not_sure")],
)  # fmt: skip
def test_a_challenge_decides_what_is_not_sure_and_nothing_else(decision, passed, then):
    score = None if decision == "no_decision" else 0.9 if decision == "bona_fide" else 0.4
    verdict = runtime.Verdict(decision, score, None if score is None else 0.5, reasons=("as measured",))
    asked = None if passed is None else ChallengeResult(passed, () if passed else ("step 1 was not done",))
    found = outcome(verdict, sample(), Alignment(0.0, 1.0, 0.0, 0.0, 1.0), challenge=asked)
    assert found["decision"] == then and found["sentence"].startswith(then.replace("_", " "))
    assert "as measured" in found["reasons"]
    assert (DECIDED in found["reasons"]) is (passed is True and decision == "not_sure")
    assert any("not done" in reason for reason in found["reasons"]) is (passed is False)


def test_steps_leave_no_picture(served, films, tmp_path):
    client = served()
    for step in KINDS:
        teach(client, step, films[step])
    assert not list(tmp_path.rglob("*"))
    client.post(CAMERA)
    assert [p.name for p in tmp_path.rglob("*")] == ["door.json"]
    held = json.loads((tmp_path / "door.json").read_text())["clips"]
    assert max(len(clip["embedding"]) + len(clip["statistics"]) for clip in held) < 500, "numbers, no picture"
