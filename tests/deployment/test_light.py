"""The light install, `make demo`: what it holds, and that judging and serving ask for nothing else."""

from __future__ import annotations

import importlib.metadata
import json
import re
import subprocess
import sys
import tomllib

import pytest

from liveness_utils import check, cli, clips, config

ROOT = config.repo_root()
HEAVY = ("torch", "torchvision", "lightning", "triton", "tensorflow", "jax", "numba", "sklearn", "joblib", "anny")

# A process in which the heavy packages cannot be imported, as in the light install; what asks for them is written down.
WITHOUT = f"""
import importlib.abc, json, sys
asked = {{}}
class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {HEAVY!r}:
            frame = sys._getframe(1)
            while frame and "importlib" in frame.f_code.co_filename:
                frame = frame.f_back
            asked.setdefault(name.partition(".")[0], frame.f_globals.get("__name__", "") if frame else "")
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
"""
IMPORTS = """
import liveness_utils.cli, liveness_utils.runtime, liveness_utils.web.app, liveness_utils.web.serve
import liveness_utils.deployment.camera, liveness_utils.deployment.teaching
print(json.dumps(asked))
"""
JUDGES = """
from liveness_utils import clips, runtime
from liveness_utils.web import create_app
video, taught, folder = sys.argv[1:]
with runtime.LivenessSession(folder, stream=False, camera=taught) as session:
    found = runtime.predict_clip(clips.load_recording(video), session.bundle, session=session)
app = create_app(folder)
page = app.test_client().get("/").status_code
app.extensions["liveness"].close()
told = {"decision": found.decision, "score": found.score, "camera": found.camera, "page": page}
print(json.dumps({**told, "asked": asked}))
"""


def alone(code: str, *arguments: str) -> dict:
    """What a process of its own prints last, as JSON."""
    command = [sys.executable, "-c", WITHOUT + code, *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=ROOT)
    assert ended.returncode == 0, ended.stderr[-3000:]
    return json.loads(ended.stdout.splitlines()[-1])


# --- what is imported -------------------------------------------------------------------------


def test_nothing_heavy_is_asked_for_by_what_the_light_install_starts():
    assert alone(IMPORTS) == {}


@pytest.fixture(scope="module")
def sample():
    """Videos of the sample clips by class."""
    table = clips.read_manifest(config.samples_dir())
    kinds = table["pai_species"].astype(object).where(~table["is_bonafide"], "bona_fide")
    names = zip(kinds, table["clip_id"], strict=True)
    return {kind: config.samples_dir() / "clips" / name / "video.mp4" for kind, name in names}


def test_a_sample_is_judged_with_a_taught_camera_and_the_page_opens(sample, tmp_path, bundle_folder):
    """Taught here with scikit-learn; judged and served where neither that nor a framework can be imported."""
    living = clips.load_recording(sample["bona_fide"])
    dim = clips.write_video(tmp_path / "dim.mp4", (living.frames * 0.7).astype("uint8"), living.t)
    lived = [f"usual={sample['bona_fide']}", f"dim={dim}"]
    attacks = [f"screen={sample['still_replay']}", f"print={sample['flat_print']}"]
    taught = tmp_path / "camera.json"
    assert cli.main(["teach", "--live", *lived, "--attack", *attacks, "--out", str(taught)]) == 0
    names = [clip["name"] for clip in json.loads(taught.read_text())["clips"]]
    assert len(set(names)) == len(names) == 4, "clips of one name in folders of their own are clips of their own"

    for kind, decision in (("bona_fide", "bona_fide"), ("flat_print", "attack")):
        found = alone(JUDGES, str(sample[kind]), str(taught), str(bundle_folder))
        assert (found["decision"], found["page"]) == (decision, 200)
        assert found["camera"].keys() >= {"pixels", "motion", "distance"}
        assert found["asked"] == {}


# --- what is installed ------------------------------------------------------------------------


def requirements(extra: str) -> dict[str, str]:
    """Name and version of every package that an extra brings, and of what those need in turn, as installed here."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    waiting = [Requirement(line) for line in project["dependencies"] + project["optional-dependencies"][extra]]
    found: dict[str, str] = {}
    while waiting:
        wanted = waiting.pop()
        name = canonicalize_name(wanted.name)
        if name in found or (wanted.marker and not wanted.marker.evaluate({"extra": ""})):
            continue
        found[name] = importlib.metadata.version(name)
        waiting += [Requirement(line) for line in importlib.metadata.requires(name) or []]
    return found


def test_everything_the_light_install_brings_is_pinned_and_nothing_is_heavy():
    if check.installed("scikit-learn") is None or check.installed("mediapipe") is None:
        pytest.skip("needs what the light install holds")
    pins = dict(re.findall(r"^([a-z0-9.-]+)==([^\s;#]+)", (ROOT / "requirements.txt").read_text(), re.M))
    brought = requirements("runtime")
    assert len(brought) > 40 and "scikit-learn" in brought, "teaching needs it"
    assert not brought.keys() - pins.keys(), "not pinned"
    assert [name for name in brought if name.startswith("opencv")] == ["opencv-contrib-python"]
    assert not {"torch", "tensorflow", "lightning", "jax", "jaxlib", "numba", "llvmlite", "anny"} & brought.keys()


def test_make_demo_installs_the_light_extra_by_the_tested_versions():
    text = (ROOT / "Makefile").read_text()
    rule = text.split("$(DEMO)/.installed: ")[1].split("\n\n")[0]
    assert '-c requirements.txt --editable ".[runtime]"' in rule
    assert "==" not in rule, "versions stand in requirements.txt"
    assert "-r requirements.txt" not in rule
    assert "check --runtime" in rule
    assert ".venv-demo/" in (ROOT / ".gitignore").read_text().splitlines()
