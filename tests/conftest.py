"""Shared by all tests: the package first, so that triton is loaded before tensorflow, and no display."""

import os

os.environ.setdefault("MPLBACKEND", "Agg")

import pytest  # noqa: E402

import liveness_utils  # noqa: E402, F401


@pytest.fixture(scope="session")
def bundle_folder():
    """Folder of one small trained and exported bundle."""
    from small_bundle import small_bundle

    return small_bundle()[1]


@pytest.fixture
def session(bundle_folder, monkeypatch):
    """A session of that bundle that finds MediaPipe's canonical face in every frame that is not black."""
    from fake_face import FakeLandmarker

    from liveness_utils import runtime

    monkeypatch.setattr(runtime, "Landmarker", FakeLandmarker)
    return runtime.LivenessSession(bundle_folder)
