"""What a detector is worth on somebody's data: a bundle as it ships, and heads taught on the spot.

Imported data sets come in (`liveness import`), stills or clips; a table of rates by video goes out. People are
disjoint: nobody who teaches a head is tested.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from liveness_utils import bundle as bundles
from liveness_utils import dataset as ds
from liveness_utils import metrics, real
from liveness_utils.errors import DatasetError, MetricError
from liveness_utils.evaluation.taught import Frames, taught

ALL = "all"  # species are taught, none is left out


@dataclass(frozen=True)
class Settings:
    """How heads are taught and where measurements are kept.

    Attributes:
        people: how many teach.
        draws: of people, for each number.
        seed: of the draws and the bootstrap.
        workers: processes that track and crop.
        work: folder of prepared arrays, one a data set; they are made once.
        progress: show bars.
    """

    people: tuple[int, ...] = (1, 2, 4)
    draws: int = 10
    seed: int = 0
    workers: int = 2
    work: Path = Path("runs/benchmark")
    progress: bool = False


@dataclass(frozen=True)
class Result:
    """One data set's measurements.

    Attributes:
        name: of the data set's folder.
        untouched: of the bundle at its own threshold: pattern, threshold, auc, eer, BPCER, APCER by species, no
            decisions; rates with k, n and interval.
        taught: one row a number of people and species left out (`ALL` for none): AUC and EER, means over draws
            and the range of 95 % of them; None where the data names too few people.
        note: why `taught` is None.
    """

    name: str
    untouched: dict[str, Any]
    taught: pd.DataFrame | None
    note: str = ""


def measure(folder: str | os.PathLike, bundle: bundles.Bundle, encoder: Any, settings: Settings) -> Result:
    """Measure one imported data set.

    Args:
        folder: of clips, with manifest.parquet (`liveness import`).
        bundle: judged with as it ships.
        encoder: `network.encoder.Encoder`, frozen; heads are taught on its embedding.
        settings: see `Settings`.

    Returns:
        Result; videos, not frames, are counted.

    Raises:
        DatasetError: the folder holds no clips. MetricError: it holds one class only.
    """
    folder = Path(folder)
    if not (folder / "manifest.parquet").is_file():
        raise DatasetError(f"{folder} holds no manifest.parquet: turn the data into clips first (`liveness import`).")
    name = folder.resolve().name
    where = ds.prepare(folder, settings.work / name, workers=settings.workers, progress=settings.progress)
    prepared = ds.open_prepared(where)
    table, note = None, ""
    try:
        table = taught_table(frames_of(prepared, encoder), settings)
    except MetricError as error:
        note = str(error)
    return Result(name, untouched(prepared, bundle, settings), table, note)


def untouched(prepared: ds.Prepared, bundle: bundles.Bundle, settings: Settings) -> dict[str, Any]:
    """Rates of a bundle at the threshold that it ships, for what the data set's clips hold.

    Stills count as they are. Clips are judged whole: under 2.4 s they are no decision here, where `liveness predict`
    has thresholds of their length.

    Args:
        prepared: of one data set.
        bundle: whose model judges.
        settings: see `Settings`.

    Returns:
        see `Result`.

    Raises:
        MetricError: one class only.
    """
    from liveness_utils import export

    fill = np.asarray(bundle.feature_fill, np.float32)
    rows, presence = np.arange(len(prepared)), np.median(prepared.presence, axis=0)
    scores = export.score_file(
        bundle.path("model.tflite"), prepared, fill, rows=rows, threads=settings.workers, progress=settings.progress
    )
    scores = real.by_video(scores.assign(video_id=videos(prepared)))
    held = bundle.threshold(presence)
    judged = real.judged(scores, held["value"])
    return {
        "pattern": bundles.pattern_name(presence),
        "threshold": held["value"],
        "auc": vars(real.auc(judged, seed=settings.seed)),
        "eer": metrics.eer(judged["raw_score"], judged["is_bonafide"].astype(int)),
        "rates": {name: rate.as_dict() for name, rate in real.errors(judged).items()},
        "no_decision": int(judged["score"].isna().sum()),
        "videos": len(judged),
    }


def videos(prepared: ds.Prepared) -> np.ndarray:
    """Name of the video of each clip or still, (n,) str: its own where the data names none."""
    manifest = prepared.manifest
    named = manifest["video_id"] if "video_id" in manifest else pd.Series(pd.NA, manifest.index)
    return named.astype("string").fillna(manifest["clip_id"].astype("string")).to_numpy(str)


def frames_of(prepared: ds.Prepared, encoder: Any) -> Frames:
    """Embeddings of all plain crops of a data set: a still's one, of a clip every second picture.

    Args:
        prepared: of one data set.
        encoder: see `measure`.

    Raises:
        MetricError: the data names no people.
    """
    from liveness_utils.network.encoder import embed

    people = prepared.manifest["subject_id"]
    if people.isna().any():
        raise MetricError("Some clips name no person: heads cannot be taught by some people and tested on others.")
    known = np.flatnonzero(np.isfinite(prepared.labels))
    shown = [0] if prepared.stills else list(range(0, prepared.crops.shape[1], 2))
    embedding = np.stack([embed(encoder, np.ascontiguousarray(prepared.crops[k][shown])) for k in known])
    of_clip = [prepared.labels, people.to_numpy(str), videos(prepared), prepared.species_names]
    return Frames(embedding.reshape(-1, embedding.shape[-1]), *(np.repeat(v[known], len(shown)) for v in of_clip))


def taught_table(frames: Frames, settings: Settings) -> pd.DataFrame:
    """AUC and EER of heads taught by so many people, with every species and with all but one of them.

    Where a species is left out, only it is tested, beside the living faces: what was not taught is not known.

    Args:
        frames: of one data set.
        settings: see `Settings`.

    Returns:
        Columns people, left_out (`ALL` for none), auc, auc_low, auc_high, eer, eer_low, eer_high, draws.

    Raises:
        MetricError: too few people.
    """
    species = sorted(set(frames.kind[frames.alive == 0]))
    options = {"people": settings.people, "draws": settings.draws, "seed": settings.seed}
    parts = {ALL: taught(frames, **options)}
    for left in species if len(species) > 1 else ():
        others = [name for name in species if name != left]
        parts[left] = taught(frames, kinds=others, tested=[left], **options)
    rows = []
    for left, table in parts.items():
        for count, part in table.groupby("people", sort=False):
            row = {"people": count, "left_out": left, "draws": len(part)}
            for name in ("auc", "eer"):
                low, high = np.percentile(part[name], [2.5, 97.5])
                row |= {name: part[name].mean(), f"{name}_low": low, f"{name}_high": high}
            rows.append(row)
    return pd.DataFrame(rows)


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
        for row in () if result.taught is None else result.taught.itertuples():
            species = "every species taught" if row.left_out == ALL else f"{row.left_out} not taught, tested alone"
            lines.append(
                f"  taught by {row.people}, {species}: AUC {row.auc:.3f} [{row.auc_low:.2f}, {row.auc_high:.2f}], "
                f"EER {100 * row.eer:.1f} % [{100 * row.eer_low:.0f}, {100 * row.eer_high:.0f}]"
            )
    lines.append("Published detectors on such data (another protocol each, see the source):")
    for row in published().itertuples():
        area = "" if np.isnan(row.auc) else f"AUC {row.auc:.3f}, "
        lines.append(f"  {row.detector}, {row.data}, by {row.unit}: {area}EER {row.eer_percent:g} %")
    return "\n".join(lines)


def to_dict(results: Sequence[Result]) -> dict[str, Any]:
    """All numbers, for JSON: by data set's name ``untouched``, ``taught`` (rows) and ``note``."""
    return {
        r.name: {"untouched": r.untouched, "taught": None if r.taught is None else r.taught.to_dict("records"), "note": r.note}
        for r in results
    }  # fmt: skip


def markdown(measured: Mapping[str, Any]) -> str:
    """Measurements as a Markdown table, for a model card: a row a data set and a column a number of people who taught.

    Args:
        measured: of `to_dict`.
    """
    counts = sorted({row["people"] for held in measured.values() for row in held["taught"] or ()})
    columns = ["data", "videos, people", "AUC by video", "EER", "BPCER", "APCER, worst species"]
    columns += [f"EER, taught by {n}" for n in counts]
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
            taught = [r for r in held["taught"] or () if r["people"] == n and r["left_out"] == ALL]
            cells += [
                f"{100 * r['eer']:.1f} % [{100 * r['eer_low']:.0f}, {100 * r['eer_high']:.0f}]" for r in taught
            ] or ["–"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


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
    fig, axes = plots.figure(1, len(results), height=2.6, sharey=True)
    for ax, result in zip(np.atleast_1d(axes), results, strict=True):
        _draw(ax, rows[rows["data"] == result.name], result.name)
    np.atleast_1d(axes)[0].set_ylabel("EER (%)")
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
        told = "every species taught" if left == ALL else f"{plots.label(left)} not taught"
        ax.errorbar(x, 100 * part["eer"], spread, marker="o", ms=3, ls=line, color=colour, capsize=2, label=told)
    bare = rows[rows["people"] == 0].iloc[0]
    ax.plot(place[0], 100 * bare["eer"], "s", color=plots.VERMILION, ms=4, label="the bundle, untouched")
    ax.set_xticks(range(len(counts)), ["untouched" if n == 0 else str(n) for n in counts])
    ax.set(title=name, xlabel="people who taught", ylim=(0, None))
    ax.legend(fontsize=5)
