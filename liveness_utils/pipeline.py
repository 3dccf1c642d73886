"""The course unattended: every notebook through papermill, in order, into one run folder.

Notebooks and parameters come in; executed copies, one `metrics.json` and the HTML report go
out to ``runs/NAME``. A notebook that fails stops the run, and `from_` picks up there.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from liveness_utils import __version__, config
from liveness_utils.errors import LivenessError

Say = Callable[[str], None]


class PipelineError(LivenessError):
    """A notebook that failed, or a parameter that no notebook knows."""


@dataclass(frozen=True)
class Step:
    """One notebook of a run: its name, minutes, end (ISO time) and what went wrong, if anything."""

    notebook: str
    minutes: float
    finished: str
    error: str | None = None


@dataclass(frozen=True)
class Run:
    """A finished run: its folder, its steps and the page to open."""

    folder: Path
    steps: tuple[Step, ...] = field(default=())

    @property
    def report(self) -> Path:
        """The HTML report."""
        return self.folder / "report" / "index.html"


def course_notebooks(folder: Path | None = None) -> list[Path]:
    """Return the numbered notebooks in reading order.

    Raises:
        PipelineError: there is none, as in an installation without the repository.
    """
    folder = folder or config.repo_root() / "notebooks"
    found = sorted(folder.glob("[0-9][0-9]_*.ipynb"))
    if not found:
        raise PipelineError(f"{folder} holds no notebooks: run this in a clone of the repository.")
    return found


def select(notebooks: list[Path], from_: str | None = None, to: str | None = None) -> list[Path]:
    """Return the notebooks from number `from_` to number `to`, both included.

    Raises:
        PipelineError: a number that no notebook has, or none in between.
    """
    numbers = [path.name[:2] for path in notebooks]
    for number in (from_, to):
        if number is not None and number.zfill(2)[:2] not in numbers:
            raise PipelineError(f"No notebook {number}: choose one of {', '.join(numbers)}.")
    first, last = (from_ or numbers[0]).zfill(2)[:2], (to or numbers[-1]).zfill(2)[:2]
    chosen = [path for path in notebooks if first <= path.name[:2] <= last]
    if not chosen:
        raise PipelineError(f"Nothing lies between notebook {first} and notebook {last}.")
    return chosen


def known_parameters(notebook: Path) -> set[str]:
    """Return the names in a notebook's cell tagged ``parameters``."""
    import papermill

    return set(papermill.inspect_notebook(str(notebook)))


def refuse_unknown(parameters: Mapping[str, Any], known: Mapping[Path, set[str]]) -> None:
    """Raise if a parameter is in no chosen notebook: papermill itself would only warn.

    Raises:
        PipelineError: naming the parameter, and the one that may have been meant.
    """
    from difflib import get_close_matches

    names = sorted(set().union(*known.values()))
    for name in parameters:
        if name not in names:
            near = get_close_matches(name, names, 1)
            hint = f"did you mean {near[0]}?" if near else f"they know {', '.join(names)}."
            raise PipelineError(f"No chosen notebook has a parameter {name}: {hint}")


def run(
    profile: str = "quick",
    parameters: Mapping[str, Any] | None = None,
    from_: str | None = None,
    to: str | None = None,
    out: str | os.PathLike = "",
    *,
    notebooks: Path | None = None,
    say: Say = lambda line: None,
    progress: bool = False,
) -> Run:
    """Execute the course's notebooks in order and build the report.

    Args:
        profile: ``quick``, ``full`` or ``study``.
        parameters: further papermill parameters; each goes to the notebooks that know it.
        from_: number of the first notebook ("03"); earlier results of the run are used.
        to: number of the last notebook.
        out: the run's folder; default ``runs/PROFILE``.
        notebooks: folder of the notebooks; default the repository's.
        say: called with one line a notebook, as it ends.
        progress: show papermill's bar over the cells.

    Returns:
        Run with a Step for each notebook that this folder holds.

    Raises:
        PipelineError: an unknown parameter (before anything runs), or a notebook that failed,
            with its name, cell and error.
        ConfigError: an unknown profile.
    """
    config.profile(profile)
    folder = config.run_dir(profile, out)
    chosen = select(course_notebooks(notebooks), from_, to)
    known = {path: known_parameters(path) for path in chosen}
    given = dict(parameters or {}) | {"profile": profile, "run_dir": str(folder)}
    refuse_unknown(parameters or {}, known)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        for path in chosen:
            values = {name: value for name, value in given.items() if name in known[path]}
            _step(path, values, folder, say, progress)
    finally:
        collect(folder, profile, given)
        _report(folder, say)
    say(f"{'all':28} {sum(s.minutes for s in steps(folder)):6.1f} min  report: {Run(folder).report}")
    return Run(folder, tuple(steps(folder)))


def _report(folder: Path, say: Say) -> None:
    from liveness_utils import report

    try:
        report.build(folder)
    except Exception as error:  # a broken report must not hide the notebook's own error
        say(f"The report could not be built: {error}")


def _step(path: Path, values: dict[str, Any], folder: Path, say: Say, progress: bool) -> None:
    (folder / "metrics" / f"{path.name[:2]}.json").unlink(missing_ok=True)
    begun = time.monotonic()
    error = _execute(path, values, folder, progress)
    minutes = (time.monotonic() - begun) / 60
    ended = datetime.now(UTC).isoformat(timespec="seconds")
    _remember(folder, Step(path.stem, round(minutes, 3), ended, error))
    say(f"{path.stem:28} {minutes:6.1f} min  {'failed' if error else 'ok'}")
    if error:
        raise PipelineError(f"{path.name} stopped: {error} Mend it and go on with --from {path.name[:2]}.")


def _execute(path: Path, values: dict[str, Any], folder: Path, progress: bool) -> str | None:
    """Run one notebook; return what went wrong in one sentence, or None."""
    import papermill

    done = folder / "notebooks" / path.name
    part, failed = done.with_suffix(".part.ipynb"), done.with_suffix(".failed.ipynb")
    done.parent.mkdir(parents=True, exist_ok=True)
    failed.unlink(missing_ok=True)
    os.environ["JUPYTER_PATH"] = str(_own_kernel(folder))
    try:
        papermill.execute_notebook(
            str(path), str(part), values, cwd=str(path.parent), kernel_name="python3",
            progress_bar=progress, start_timeout=180, request_save_on_cell_execute=False,
        )  # fmt: skip
    except papermill.PapermillExecutionError as error:
        part.replace(failed)
        return _cell_error(error, failed)
    except Exception as error:
        part.exists() and part.replace(failed)
        return f"{type(error).__name__}: {_first_line(error)} (executed copy: {failed})."
    without_widget_state(part)
    part.replace(done)
    return None


def _cell_error(error: Any, copy: Path) -> str:
    """Name the cell by its number in the reader's notebook, counted from one.

    papermill counts from zero in its own copy, where the injected parameters are one cell more.
    """
    first = next((x for x in str(error.source).splitlines() if x.strip()), "")
    place = f"cell {error.cell_index} (`{first.strip()[:60]}`)"
    return f"{place}: {error.ename}: {_first_line(error.evalue)} (executed copy: {copy})."


def _first_line(value: object) -> str:
    lines = str(value).strip().splitlines()
    return lines[0][:300].rstrip(".") if lines else "no message"


def _own_kernel(folder: Path) -> Path:
    """A kernel called python3 that is this very interpreter, whatever else is installed."""
    spec = {
        "argv": [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        "display_name": "Python 3", "language": "python",
    }  # fmt: skip
    config.write_json(folder / ".jupyter" / "kernels" / "python3" / "kernel.json", spec)
    return folder / ".jupyter"


def without_widget_state(path: Path) -> None:
    """Remove saved widget state and widget views, which open dead, from a notebook file."""
    import nbformat

    book = nbformat.read(path, as_version=4)
    book.metadata.pop("widgets", None)
    for cell in book.cells:
        for output in cell.get("outputs", []):
            output.get("data", {}).pop("application/vnd.jupyter.widget-view+json", None)
    nbformat.write(book, path)


def steps(folder: Path) -> list[Step]:
    """Return the steps that a run's folder remembers, in order."""
    path = folder / "steps.json"
    held = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return [Step(**held[name]) for name in sorted(held)]


def _remember(folder: Path, step: Step) -> None:
    held = {s.notebook: asdict(s) for s in steps(folder)} | {step.notebook: asdict(step)}
    config.write_json(folder / "steps.json", held)


def collect(folder: Path, profile: str, parameters: Mapping[str, Any]) -> Path:
    """Gather the metrics of all notebooks of a run in ``metrics.json``.

    Returns:
        The file: ``profile, parameters, version, packages, minutes`` and ``notebooks``, which
        maps each notebook's name to what it wrote.
    """
    found = {s.notebook: folder / "metrics" / f"{s.notebook[:2]}.json" for s in steps(folder)}
    content = {
        "profile": profile,
        "parameters": {k: v for k, v in parameters.items() if not k.endswith("_dir")},
        "version": __version__,
        "packages": {name: _version(name) for name in ("numpy", "torch", "mediapipe", "anny")},
        "minutes": {s.notebook: s.minutes for s in steps(folder)},
        "notebooks": {
            name: json.loads(path.read_text(encoding="utf-8")) for name, path in found.items() if path.exists()
        },
    }
    return config.write_json(folder / "metrics.json", content)


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
