"""Shared by all tests: the package first, so that triton is loaded before tensorflow, and no display."""

import os

os.environ.setdefault("MPLBACKEND", "Agg")

import liveness_utils  # noqa: E402, F401
