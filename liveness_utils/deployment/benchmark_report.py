"""How `liveness benchmark`'s measurements are told: lines, JSON, the card's table, a figure and a CSV.

`benchmark.Result`s come in.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from liveness_utils import metrics, real
from liveness_utils.deployment.benchmark import ALL, EACH, NONE, Result


def published() -> pd.DataFrame:
    """Figures of other detectors on such data: detector, data, unit, auc, eer_percent, note, source."""
    with resources.files("liveness_utils").joinpath("data/published_detectors.csv").open(encoding="utf-8") as file:
        return pd.read_csv(file)


def summary(results: Sequence[Result]) -> str:
    """What `liveness benchmark` prints: a paragraph a data set, then the published detectors."""
    lines = []
    for result in results:
        found = result.untouched
        area, rates = real.Auc(**found["auc"]), found["rates"]
        lines += [
            f"{result.name}: {found['videos']} videos of {area.people} people, {area.bona_fide} bona fide; {found['no_decision']} without a decision",
            f"  untouched ({found['pattern']}, threshold {found['threshold']:.3f}): AUC {area}, EER {100 * found['eer']:.1f} %",
            *(f"    {name:24} {real.short(metrics.Rate(rate['k'], rate['n']))}" for name, rate in rates.items()),
        ]
        if result.taught is None:
            lines.append(f"  taught: not measured. {result.note}")
        lines += [] if result.taught is None else [_told(row) for row in result.taught.itertuples()]
        lines += [
            f"  taught by {row.people} in one camera, light or session: announced as not taught are "
            f"{100 * row.announced:.0f} % of the others' {row.videos} videos and {100 * row.announced_there:.0f} % of the "
            f"living there; of the others' attacks {100 * row.accepted_attacks:.1f} % are accepted all the same"
            for row in (() if result.elsewhere is None else result.elsewhere.itertuples())
        ]
    lines.append("Published detectors on such data (another protocol each, see the source):")
    for row in published().itertuples():
        area = "" if np.isnan(row.auc) else f"AUC {row.auc:.3f}, "
        lines.append(f"  {row.detector}, {row.data}, by {row.unit}: {area}EER {row.eer_percent:g} %")
    return "\n".join(lines)


def _told(row: Any) -> str:
    what = {ALL: "every species taught", NONE: "bona fide alone taught"}
    species = what.get(row.left_out, f"{row.left_out} not taught, tested alone")
    where = "" if row.camera == ALL else f" {row.camera},"
    clips = f" with {row.clips} clips" if row.clips else ""
    return (
        f"  taught{where} by {row.people}{clips}, {species}: AUC {row.auc:.3f} [{row.auc_low:.2f}, {row.auc_high:.2f}], "
        f"EER {100 * row.eer:.1f} % [{100 * row.eer_low:.0f}, {100 * row.eer_high:.0f}]; at its threshold "
        f"BPCER {100 * row.bpcer:.1f} %, APCER {100 * row.apcer:.1f} % (worst: {row.worst} {100 * row.apcer_worst:.1f} %)"
    )


def to_dict(results: Sequence[Result]) -> dict[str, Any]:
    """All numbers, for JSON: by data set's name ``untouched``, ``taught`` and ``elsewhere`` (rows) and ``note``."""

    def rows(table: pd.DataFrame | None) -> list[dict] | None:
        return None if table is None else table.to_dict("records")

    return {
        r.name: {"untouched": r.untouched, "taught": rows(r.taught), "elsewhere": rows(r.elsewhere), "note": r.note}
        for r in results
    }


def markdown(measured: Mapping[str, Any]) -> str:
    """Measurements as a Markdown table, for a model card: a row a data set and a column a number of people who taught.

    Args:
        measured: of `to_dict`.
    """
    taught = {name: _shown(held["taught"]) for name, held in measured.items()}
    counts = sorted({row["people"] for rows in taught.values() for row in rows})
    columns = ["data", "videos, people", "AUC by video", "EER", "BPCER", "APCER, worst species"]
    columns += [f"EER, taught by {n} (BPCER, APCER at its threshold)" for n in counts]
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    for name, held in measured.items():
        bare, rates = (
            held["untouched"],
            {k: metrics.Rate(r["k"], r["n"]) for k, r in held["untouched"]["rates"].items()},
        )
        worst = next(k for k in rates if k.startswith("APCER worst"))
        cells = [name, f"{bare['videos']}, {bare['auc']['people']}", str(real.Auc(**bare["auc"])), f"{100 * bare['eer']:.1f} %",
                 real.short(rates["BPCER"]), f"{worst[13:-1]}: {real.short(rates[worst])}"]  # fmt: skip
        for n in counts:
            cells += [
                f"{100 * r['eer']:.1f} % [{100 * r['eer_low']:.0f}, {100 * r['eer_high']:.0f}] "
                f"({100 * r['bpcer']:.1f}, {100 * r['apcer']:.1f})"
                for r in taught[name]
                if r["people"] == n
            ] or ["–"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _shown(rows: Sequence[Mapping[str, Any]] | None) -> list[Mapping[str, Any]]:
    """Of the taught cameras those that know every species and clip: each camera by itself where the data names several."""
    whole = [row for row in rows or () if row["left_out"] == ALL and not row["clips"]]
    by_camera = [row for row in whole if row["camera"] == EACH]
    return by_camera or whole


def write_figures(results: Sequence[Result], folder: str | os.PathLike) -> list[Path]:
    """Write ``benchmark.csv`` and the figure ``benchmark`` (PNG and PDF): EER untouched and by people who taught.

    Args:
        results: of `measure`.
        folder: made if need be.

    Returns:
        The files.
    """
    from liveness_utils import plots

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tables = [r.taught.assign(data=r.name) for r in results if r.taught is not None]
    bare = [{"data": r.name, "people": 0, "left_out": ALL, "eer": r.untouched["eer"], "auc": r.untouched["auc"]["value"],
             "auc_low": r.untouched["auc"]["low"], "auc_high": r.untouched["auc"]["high"]} for r in results]  # fmt: skip
    rows = pd.concat([pd.DataFrame(bare), *tables], ignore_index=True)
    rows.to_csv(folder / "benchmark.csv", index=False)
    plots.use_style()
    fig, axes = plots.figure(2, len(results), height=4.6, sharey="row", squeeze=False)
    for (above, below), result in zip(np.asarray(axes).T, results, strict=True):
        mine = rows[rows["data"] == result.name]
        by_camera = mine[mine["camera"] == EACH]
        taught_rows = by_camera if len(by_camera) else mine[mine["people"] > 0]
        _draw(above, pd.concat([mine[mine["people"] == 0], taught_rows[taught_rows["clips"] == 0]]), result.name)
        _draw_clips(below, taught_rows[(taught_rows["left_out"] == ALL) & (taught_rows["clips"] > 0)])
    for ax in axes[:, 0]:
        ax.set_ylabel("EER (%)")
        ax.set_ylim(bottom=0)
    png = plots.save_figure(fig, "benchmark", folder)
    return [folder / "benchmark.csv", png, png.with_suffix(".pdf")]


def _draw(ax: Any, rows: pd.DataFrame, name: str) -> None:
    from liveness_utils import plots

    counts = sorted(rows["people"].unique())
    place = {count: k for k, count in enumerate(counts)}
    for k, (left, part) in enumerate(rows[rows["people"] > 0].groupby("left_out", sort=False)):
        x = part["people"].map(place) + 0.06 * k
        colour, line, _ = plots.species_style(left, k)
        colour = plots.BLACK if left == ALL else colour
        spread = [100 * (part["eer"] - part["eer_low"]), 100 * (part["eer_high"] - part["eer"])]
        told = {ALL: "every species taught", NONE: "bona fide alone taught"}.get(
            left, f"{plots.label(left)} not taught"
        )
        ax.errorbar(x, 100 * part["eer"], spread, marker="o", ms=3, ls=line, color=colour, capsize=2, label=told)
    bare = rows[rows["people"] == 0].iloc[0]
    ax.plot(place[0], 100 * bare["eer"], "s", color=plots.VERMILION, ms=4, label="the bundle, untouched")
    ax.set_xticks(range(len(counts)), ["untouched" if n == 0 else str(n) for n in counts])
    ax.set(title=name, xlabel="people who taught")
    ax.legend(fontsize=5)


def _draw_clips(ax: Any, rows: pd.DataFrame) -> None:
    from liveness_utils import plots

    place = range(len(rows))
    spread = [100 * (rows["eer"] - rows["eer_low"]), 100 * (rows["eer_high"] - rows["eer"])]
    ax.errorbar(place, 100 * rows["eer"], spread, marker="o", ms=3, color=plots.BLACK, capsize=2)
    ax.set_xticks(place, [f"{n:.0f}" for n in rows["clips"]])
    people = "" if rows.empty else f" (of {rows['people'].iloc[0]} people)"
    ax.set(xlabel=f"clips that taught{people}")
