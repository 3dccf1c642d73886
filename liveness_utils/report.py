"""The HTML report of a run: its executed notebooks as pages, and an index with all figures.

The run folder comes in (notebooks, figures, metrics); ``RUN/report/index.html`` goes out, a
folder that can be copied anywhere and opened without a server.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from liveness_utils import pipeline

_TEMPLATES = Path(__file__).parent / "templates"
_HEADLINE = (
    ("ACER", "acer"), ("APCER, worst species", "apcer_worst"), ("BPCER", "bpcer"),
    ("EER", "eer"), ("HTER", "hter"), ("BPCER20", "bpcer20"),
)  # fmt: skip


@dataclass(frozen=True)
class Page:
    """One notebook in the report."""

    name: str
    title: str
    href: str
    minutes: float
    error: str | None
    numbers: list[tuple[str, str]]


def build(run: Path) -> Path:
    """Write the report of the run in folder `run`.

    Returns:
        ``RUN/report/index.html``, written last.
    """
    import jinja2

    out = run / "report"
    out.mkdir(parents=True, exist_ok=True)
    metrics = _metrics(run)
    pages = [_page(run, out, step, metrics) for step in pipeline.steps(run)]
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(_TEMPLATES), autoescape=True, trim_blocks=True)
    html = environment.get_template("report.html").render(
        run=run.name, pages=pages, figures=_figures(run, out), metrics=metrics,
        minutes=sum(p.minutes for p in pages), headline=headline(metrics), own=headline(metrics, own=True),
    )  # fmt: skip
    part = out / ".index.html"
    part.write_text(html, encoding="utf-8")
    os.replace(part, out / "index.html")
    return out / "index.html"


def _metrics(run: Path) -> dict[str, Any]:
    path = run / "metrics.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"notebooks": {}}


def _page(run: Path, out: Path, step: pipeline.Step, metrics: dict[str, Any]) -> Page:
    suffix = ".failed.ipynb" if step.error else ".ipynb"
    source = run / "notebooks" / f"{step.notebook}{suffix}"
    title, href = step.notebook, ""
    if source.exists():
        title, href = _convert(source, out / f"{step.notebook}.html", step.notebook)
    found = metrics["notebooks"].get(step.notebook, {})
    numbers = [(name, _show(value)) for name, value in scalars(found)][:6]
    return Page(step.notebook, title, href, step.minutes, step.error, numbers)


def _convert(source: Path, target: Path, name: str) -> tuple[str, str]:
    import nbformat
    from nbconvert import HTMLExporter

    book = nbformat.read(source, as_version=4)
    heads = (c.source.splitlines()[0] for c in book.cells if c.source.startswith("# "))
    title = next(heads, name).lstrip("# ").strip()
    exporter = HTMLExporter(template_name="lab", exclude_input_prompt=True)
    exporter.exclude_output_prompt = True
    html, _ = exporter.from_notebook_node(book, {"metadata": {"name": title}})
    target.write_text(html, encoding="utf-8")
    return title, target.name


def _figures(run: Path, out: Path) -> list[dict[str, str | None]]:
    """Copy the figures beside the page; return path, name and PDF of each."""
    target = out / "figures"
    target.mkdir(exist_ok=True)
    found = []
    for png in sorted((run / "figures").glob("*.png")):
        pdf = png.with_suffix(".pdf")
        for path in (p for p in (png, pdf) if p.exists()):
            shutil.copy2(path, target / path.name)
        link = f"figures/{pdf.name}" if pdf.exists() else None
        caption = png.stem.replace("_", " ")
        found.append({"png": f"figures/{png.name}", "pdf": link, "caption": caption})
    return found


def scalars(metrics: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, float | int | str]]:
    """Walk nested metrics; yield the dotted name and value of each single number or word.

    >>> list(scalars({"a": 1, "b": {"c": 0.5, "d": [1, 2]}}))
    [('a', 1), ('b.c', 0.5)]
    """
    for name, value in metrics.items():
        if isinstance(value, dict):
            yield from scalars(value, f"{prefix}{name}.")
        elif isinstance(value, (int, float, str)) and len(str(value)) <= 40:
            yield f"{prefix}{name}", value


def _show(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def headline(metrics: dict[str, Any], own: bool = False) -> list[dict[str, str]]:
    """Find the report that notebook 06 left of the released model, or of ``own``, the run's; return its main rates.

    Looks for the first mapping that holds both ``acer`` and ``apcer_worst``; none gives [].

    Args:
        metrics: of the run.
        own: the model that this run trained, in place of the released one.
    """
    evaluation = [v for k, v in metrics.get("notebooks", {}).items() if k.startswith("06")]
    left_out = "released" if own else ""
    parts = ({k: v for k, v in part.items() if k != left_out} for part in evaluation)
    found = next((r for part in parts for r in _reports(part)), None)
    return [_tile(label, found[key]) for label, key in _HEADLINE if key in found] if found else []


def _reports(value: Any) -> Iterator[dict[str, Any]]:
    if not isinstance(value, dict):
        return
    if {"acer", "apcer_worst"} <= set(value):
        yield value
    first = ["released", "test", "report"]
    for key in sorted(value, key=lambda k: (first.index(k) if k in first else len(first), k)):
        yield from _reports(value[key])


def _tile(label: str, rate: Any) -> dict[str, str]:
    if not isinstance(rate, dict):
        return {"label": label, "value": f"{100 * rate:.1f} %", "detail": ""}
    count = f"{rate['k']}/{rate['n']}, " if rate.get("k") is not None else ""
    low, high = rate.get("low"), rate.get("high")
    interval = f"95 % {100 * low:.1f}–{100 * high:.1f}" if None not in (low, high) else ""
    species = f"{rate['species'].replace('_', ' ')}, " if rate.get("species") else ""
    return {
        "label": label, "value": f"{100 * rate['value']:.1f} %",
        "detail": f"{species}{count}{interval}".rstrip(", "),
    }  # fmt: skip
