"""The verdict on real video files: a decision or a reasoned no-decision for each, never a crash."""

from __future__ import annotations

import json

import numpy as np
import pytest

from liveness_utils import cli, clips
from liveness_utils.config import real_dir, released_bundle

pytestmark = pytest.mark.slow

KEYS = {"decision", "score", "threshold", "reasons", "quality", "cues", "timings_ms"}
VIDEOS = sorted((real_dir() / "videos").glob("*.mp4")) if real_dir() else []


def predict(capsys, *arguments: str) -> dict:
    assert cli.main(["predict", *arguments, "--bundle", str(released_bundle()), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.skipif(not VIDEOS, reason="no real recordings here: set REAL_DIR to a folder with videos/*.mp4")
@pytest.mark.parametrize("path", VIDEOS, ids=lambda path: path.stem)
def test_every_real_video_gets_a_verdict(path, capsys):
    verdict = predict(capsys, str(path))
    assert KEYS <= set(verdict)
    if path.stem in ("no_face", "several_faces"):
        assert verdict["decision"] == "no_decision" and verdict["reasons"]
    else:
        assert verdict["decision"] in ("bona_fide", "not_sure", "attack") and 0 <= verdict["score"] <= 1
        assert (verdict["decision"] == "bona_fide") == (verdict["score"] >= verdict["threshold"])


@pytest.fixture
def dark_video(tmp_path):
    frames = np.random.default_rng(0).integers(0, 12, (66, 96, 128, 3), dtype=np.uint8)
    return clips.write_video(tmp_path / "dark.mp4", frames, np.arange(66) / 25)


def test_a_video_without_a_face_is_no_decision_and_exits_with_0(dark_video, capsys):
    verdict = predict(capsys, str(dark_video))
    assert verdict["decision"] == "no_decision" and verdict["score"] is None
    assert any("face" in reason for reason in verdict["reasons"])


@pytest.mark.parametrize("content", [b"", b"not a video at all", None])
def test_what_cannot_be_read_exits_with_2_and_one_sentence(content, dark_video, tmp_path, capsys):
    path = tmp_path / "broken.mp4"
    path.write_bytes(dark_video.read_bytes()[:300] if content is None else content)
    assert cli.main(["predict", str(path), "--bundle", str(released_bundle())]) == 2
    said = capsys.readouterr()
    assert not said.out and "broken.mp4" in said.err and len(said.err.strip().splitlines()) == 1


def test_an_imu_file_with_wrong_columns_exits_with_2(dark_video, tmp_path, capsys):
    imu = tmp_path / "imu.csv"
    imu.write_text("time,x,y\n0,1,2\n")
    assert cli.main(["predict", str(dark_video), "--imu", str(imu), "--bundle", str(released_bundle())]) == 2
    assert "imu.csv" in capsys.readouterr().err
