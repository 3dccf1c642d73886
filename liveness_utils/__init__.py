"""The front door of the course's helper package: nothing heavy lives here.

Rooms pass data one way: faces, motion → simulate → clips → landmarks → cues →
dataset → model → training → metrics, plots → export → runtime → widget, web, cli.
"""

import contextlib as _contextlib
import os as _os
import signal as _signal
import sys as _sys

# TensorFlow and MediaPipe write to stderr from C++ while they load; set before they do.
_os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
_os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
_os.environ.setdefault("GLOG_minloglevel", "2")

# Threads that wait for each other must sleep, not spin: spinning, two threads on two cores that
# anything else uses too train three times slower than one.
_os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# MediaPipe and TensorFlow each carry a CPU profiler's timer. With both in a process, a SIGPROF can
# arrive while no handler stands, and its default is to end the process ("Profiling timer
# expired", seen in training after landmarks). Blocked here, before any thread starts that would
# inherit the mask, it can no longer do so; a profiler that wants it unblocks it.
if hasattr(_signal, "pthread_sigmask"):
    _signal.pthread_sigmask(_signal.SIG_BLOCK, {_signal.SIGPROF})


class _TritonFirst:
    """An import hook that loads triton just before TensorFlow, whoever asks for that.

    TensorFlow (which MediaPipe imports where it is installed) before triton ends in a segmentation
    fault as soon as torch loads its compiler. Loaded only then, because triton alone takes 85 MB,
    which the runtime has no use for.
    """

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:
        """Find nothing, so that the ordinary finders answer."""
        if name == "tensorflow":
            with _contextlib.suppress(ImportError):
                import triton  # noqa: F401


_sys.meta_path.insert(0, _TritonFirst)

__version__ = "0.1.0"

__all__ = ["__version__"]
