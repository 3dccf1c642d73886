"""Shared by all tests: the package first, so that triton is loaded before tensorflow, and no display."""

import os
import shutil
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("MPLBACKEND", "Agg")
sys.path.insert(0, str(Path(__file__).parent.parent / "notebooks"))  # studies lie beside the notebooks
# Where several processes test side by side, threads that wait for each other cost more than they bring.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import hypothesis  # noqa: E402
import pytest  # noqa: E402

import liveness_utils  # noqa: E402, F401
from liveness_utils import config  # noqa: E402

# What is drawn is drawn alike in every run: a failure is there for everybody, not for one in ten.
hypothesis.settings.register_profile("course", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("course")

# The longest files, longest first: whoever takes the last file should not be the only one left working.
FIRST = ("test_pipeline", "test_widget_browser", "test_export", "test_web_browser")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first; within a file the order stays."""
    place = {name: k for k, name in enumerate(FIRST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(FIRST)))


def pytest_configure(config: pytest.Config) -> None:
    """A folder for what all processes of a run share; theirs is named by the one that starts them."""
    if not hasattr(config, "workerinput"):
        os.environ["LIVENESS_TEST_SHARED"] = tempfile.mkdtemp(prefix="liveness-test-")


def pytest_unconfigure(config: pytest.Config) -> None:
    """The shared folder goes with the run."""
    if not hasattr(config, "workerinput"):
        shutil.rmtree(os.environ.pop("LIVENESS_TEST_SHARED"), ignore_errors=True)


@pytest.fixture(scope="session")
def bundle_folder() -> Path:
    """Folder of the released bundle."""
    return config.released_bundle()


@pytest.fixture
def session(bundle_folder, monkeypatch):
    """A session of that bundle that finds MediaPipe's canonical face in every frame that is not black."""
    from fake_face import FakeLandmarker

    from liveness_utils import runtime

    monkeypatch.setattr(runtime, "Landmarker", FakeLandmarker)
    return runtime.LivenessSession(bundle_folder)
