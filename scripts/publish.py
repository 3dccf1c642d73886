#!/usr/bin/env python3
"""Put a finished run into the repository: notebooks with outputs, figures, bundle, README's minutes.

    python scripts/publish.py runs/full [--minutes runs/quick] [--real-world benchmark.json]

Executed copies come in; the committed notebooks, `figures/`, `data/bundle/` and the table in
README.md go out. Figures and the bundle are published from the full profile only. The parameters that papermill injected are taken out again.
"""

import argparse
import json
import re
import shutil
from pathlib import Path

import nbformat
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
PHOTOGRAPHS = 250_000  # bytes; a figure that is larger holds photographs
WIDGET = "application/vnd.jupyter.widget-view+json"  # opens dead on the web
START, END = "<!-- minutes:start -->", "<!-- minutes:end -->"


def clean(book: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Return a notebook as it is committed: no injected cell, widget state, timings or stderr."""
    book.cells = [c for c in book.cells if "injected-parameters" not in c.metadata.get("tags", [])]
    keep = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    language = book.metadata.get("language_info", {})
    book.metadata = nbformat.from_dict(keep | {"language_info": language})
    for cell in book.cells:
        for timing in ("papermill", "execution"):
            cell.metadata.pop(timing, None)
    for number, cell in enumerate(c for c in book.cells if c.cell_type == "code"):
        cell.execution_count = number + 1
        cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr" and WIDGET not in o.get("data", {})]
        for output in cell.outputs:
            if "execution_count" in output:
                output["execution_count"] = number + 1
    return book


def publish_notebooks(run: Path) -> None:
    for source in sorted((run / "notebooks").glob("[0-9][0-9]_*.ipynb")):
        if ".failed." in source.name or ".part." in source.name:
            continue
        nbformat.write(clean(nbformat.read(source, as_version=4)), ROOT / "notebooks" / source.name)


def publish_figures(run: Path) -> None:
    """Copy the figures; of sheets of photographs, which lines cannot be drawn of, a PNG of two thirds the size alone."""
    for source in sorted((run / "figures").glob("*.png")):
        target, pdf = ROOT / "figures" / source.name, source.with_suffix(".pdf")
        photographs = max(source.stat().st_size, pdf.stat().st_size) > PHOTOGRAPHS
        if photographs:
            picture = Image.open(source).convert("RGB")
            picture.resize([2 * side // 3 for side in picture.size], Image.Resampling.LANCZOS).save(
                target, optimize=True
            )
            target.with_suffix(".pdf").unlink(missing_ok=True)
        else:
            shutil.copy2(source, target)
            shutil.copy2(pdf, target.with_suffix(".pdf"))


def publish_bundle(run: Path, real_world: Path | None) -> None:
    target = ROOT / "data" / "bundle"
    if not (run / "bundle" / "bundle.json").exists():
        return
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(run / "bundle", target, ignore=shutil.ignore_patterns("variants"))
    told = run / "metrics" / "06.json"
    if told.exists():  # notebook 06 in full: rates, thresholds, ablation, leave-one-out
        shutil.copy2(told, target / "metrics.json")
    if real_world:  # what `liveness benchmark --json` wrote: the card leads with it
        from liveness_utils import bundle, export

        held = bundle.load(target)
        measured = json.loads(real_world.read_text(encoding="utf-8"))
        export.rewrite(held, metrics={**held.metrics, "real_world": measured})


def minutes(run: Path | None) -> dict[str, float]:
    path = run / "steps.json" if run else None
    if not path or not path.exists():
        return {}
    steps = json.loads(path.read_text(encoding="utf-8"))
    return {name[:2]: step["minutes"] for name, step in steps.items() if not step["error"]}


def fill_table(text: str, quick: dict[str, float], full: dict[str, float]) -> str:
    """Write the minutes into the last two columns of README's table of notebooks."""

    def row(match: re.Match) -> str:
        cells = match.group(0).strip().strip("|").split("|")
        number = cells[0].strip()
        for column, held in ((3, quick), (4, full)):
            if number in held:
                cells[column] = f" {held[number]:.1f} "
        return "|" + "|".join(cells) + "|"

    head, rest = text.split(START)
    table, tail = rest.split(END)
    return head + START + re.sub(r"^\| \d\d .*\|$", row, table, flags=re.M) + END + tail


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="run whose executed notebooks are published")
    parser.add_argument("--minutes", type=Path, help="run of the quick profile, for README's table")
    parser.add_argument("--real-world", type=Path, help="measurements on real faces, of `liveness benchmark --json`")
    parser.add_argument("--table-only", action="store_true", help="only README's table")
    args = parser.parse_args()
    full = json.loads((args.run / "metrics.json").read_text(encoding="utf-8"))["profile"] == "full"
    if not args.table_only:
        publish_notebooks(args.run)
        if full:
            publish_figures(args.run)
            publish_bundle(args.run, args.real_world)
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    readme.write_text(fill_table(text, minutes(args.minutes), minutes(args.run if full else None)), encoding="utf-8")


if __name__ == "__main__":
    main()
