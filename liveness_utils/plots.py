"""Every figure's look in one place: style, palette, sizes, and the plots that recur.

Arrays, tables and curves come in from any notebook; a function draws on the `ax` it is given
and gives it back. `save_figure` writes PDF and PNG that can go into a paper as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from os import PathLike
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm

from liveness_utils import metrics
from liveness_utils.errors import MetricError
from liveness_utils.metrics import DetCurve

COLUMN, PAGE = 3.5, 7.0  # widths of a figure in inches: one column, both columns

# Okabe and Ito, "Color Universal Design" (2008): told apart with any kind of colour vision.
BLUE, VERMILION, GREEN, ORANGE, SKY, PURPLE, YELLOW, BLACK, GREY = (
    "#0072B2", "#D55E00", "#009E73", "#E69F00", "#56B4E9", "#CC79A7", "#F0E442", "#000000", "#7F7F7F",
)  # fmt: skip

# A species keeps its colour and its line in every figure of the course.
SPECIES_STYLE: dict[str, tuple[str, Any, str]] = {
    "bona_fide": (BLUE, "-", ""),
    "flat_print": (VERMILION, "-", "//"),
    "bent_print": (VERMILION, "--", "\\\\"),
    "eye_hole_print": (VERMILION, ":", "xx"),
    "still_replay": (GREEN, "-", "||"),
    "video_replay": (GREEN, "--", "--"),
    "rigid_mask": (PURPLE, "-", "oo"),
    "soft_mask": (PURPLE, "--", ".."),
    "injection": (ORANGE, "-.", "++"),
    "worst": (BLACK, "-", ""),
    "pooled": (GREY, "--", ""),
    "attack": (VERMILION, "-", "//"),
}
_CYCLE = ((SKY, "-"), (BLACK, ":"), (GREY, "-."), (YELLOW, "--"), (BLUE, ":"), (ORANGE, "--"))
_SIMULATED = "simulated data"


# --- style, files ---------------------------------------------------------------------------


def use_style() -> None:
    """Set the course's matplotlib style for all figures that follow.

    Fonts are embedded as TrueType (fonttype 42), as publishers ask.
    """
    # Without "interactive" as it was, a notebook would show no figure after the first.
    kept = {name: mpl.rcParams[name] for name in ("backend", "interactive")}
    mpl.rcParams.update(mpl.rcParamsDefault | kept)
    mpl.rcParams.update({
        "figure.figsize": (PAGE, 2.8), "figure.dpi": 110, "savefig.dpi": 300,
        "figure.constrained_layout.use": True, "figure.facecolor": "white",
        "font.family": "sans-serif", "font.sans-serif": ["DejaVu Sans"], "font.size": 8,
        "axes.titlesize": 9, "axes.titleweight": "bold", "axes.titlelocation": "left",
        "axes.labelsize": 8, "axes.spines.top": False, "axes.spines.right": False,
        "axes.linewidth": 0.7, "axes.axisbelow": True, "axes.grid": True,
        "grid.color": "#D9D9D9", "grid.linewidth": 0.5,
        "axes.prop_cycle": mpl.cycler(color=[BLUE, VERMILION, GREEN, ORANGE, SKY, PURPLE])
        + mpl.cycler(linestyle=["-", "--", "-.", ":", "-", "--"]),
        "lines.linewidth": 1.4, "lines.markersize": 4, "hatch.linewidth": 0.5,
        "legend.fontsize": 7, "legend.frameon": False, "legend.handlelength": 2.6,
        "xtick.labelsize": 7, "ytick.labelsize": 7,
        "image.cmap": "viridis", "image.interpolation": "nearest",
        "pdf.fonttype": 42, "ps.fonttype": 42, "svg.fonttype": "none",
    })  # fmt: skip


def figure(
    rows: int = 1, columns: int = 1, *, width: float = PAGE, height: float = 2.8, **kwargs: Any
) -> tuple[Figure, Any]:
    """Open a figure `width` inches wide (`COLUMN` or `PAGE`) in the course's style."""
    use_style()
    return plt.subplots(rows, columns, figsize=(width, height), **kwargs)


def save_figure(fig: Figure, name: str, directory: str | PathLike, *, dpi: int = 300) -> Path:
    """Write ``name.pdf`` and ``name.png``, exactly as wide as the figure is.

    Args:
        fig: the figure.
        name: file name without an ending.
        directory: folder, made if it is not there (`config.Paths.figures`).
        dpi: pixels an inch of what is not drawn in lines; less than 300 only for sheets of photographs.

    Returns:
        The PNG.
    """
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    # The date in a PDF would make every run's file another one.
    fig.savefig(folder / f"{name}.pdf", dpi=dpi, metadata={"CreationDate": None})
    fig.savefig(folder / f"{name}.png", dpi=dpi)
    return folder / f"{name}.png"


def species_style(name: str, order: int = 0) -> tuple[str, Any, str]:
    """Return (colour, line style, hatch) of a species; an unknown one takes the next free style."""
    if name in SPECIES_STYLE:
        return SPECIES_STYLE[name]
    colour, line = _CYCLE[order % len(_CYCLE)]
    return colour, line, ""


def label(name: str) -> str:
    """Return a name as a reader writes it.

    >>> label("eye_hole_print")
    'eye hole print'
    """
    return name.replace("_", " ")


def mark_simulated(ax: Axes, text: str = _SIMULATED) -> Axes:
    """Write into the corner that the figure rests on simulated data."""
    ax.text(1.0, 1.01, text, transform=ax.transAxes, ha="right", va="bottom", fontsize=6, color=GREY)
    return ax


# --- errors -------------------------------------------------------------------------------


def stamp_simulated(fig: Figure, text: str = _SIMULATED) -> Figure:
    """Write the same onto the lower right corner of a figure made of pictures, where no margin is left."""
    ground = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1}
    fig.text(0.998, 0.002, text, ha="right", va="bottom", fontsize=6, color=BLACK, bbox=ground)
    return fig


def _ordered(curves: Mapping[str, DetCurve]) -> list[str]:
    """Species alphabetically, the pooled curve and the worst one on top."""
    last = [n for n in ("pooled", "worst") if n in curves]
    return sorted(n for n in curves if n not in last) + last


def _visible(curves: Mapping[str, DetCurve]) -> dict[str, DetCurve]:
    single = len([n for n in curves if n not in ("worst", "pooled")]) == 1
    drop = ("worst", "pooled") if single else ("pooled",)
    return {n: c for n, c in curves.items() if n not in drop}


def _draw_curves(ax: Axes, curves: Mapping[str, DetCurve], transform: Any, flip: bool) -> None:
    shown = _visible(curves)
    for k, name in enumerate(_ordered(shown)):
        colour, line, _ = species_style(name, k)
        curve, width = shown[name], 2.0 if name == "worst" else 1.2
        x, y = transform(curve.apcer), transform(curve.bpcer)
        ax.plot(x, 1 - y if flip else y, color=colour, ls=line, lw=width, label=label(name),
                drawstyle="steps-post")  # fmt: skip


def _operating_point(ax: Axes, curves: Mapping[str, DetCurve], threshold: float, transform: Any, flip: bool) -> None:
    curve = curves["worst"]
    k = min(int(np.searchsorted(curve.threshold, threshold, side="left")), curve.apcer.size - 1)
    x, y = transform(curve.apcer[k]), transform(curve.bpcer[k])
    ax.plot(x, 1 - y if flip else y, "o", ms=7, mfc="white", mec=BLACK, mew=1.5, ls="none", zorder=5,
            label=f"operating point {threshold:.3f}", clip_on=False)  # fmt: skip


def det_plot(ax: Axes, curves: Mapping[str, DetCurve], threshold: float | None = None, floor: float = 2e-3) -> Axes:
    """Draw the detection error trade-off: APCER against BPCER, one curve a species, and the worst.

    Args:
        ax: axes.
        curves: from `metrics.det_curve`.
        threshold: marks the operating point on the worst curve.
        floor: rates below it, and rates above 80 %, are drawn on the axes' edge.

    Source: Martin et al., The DET curve in assessment of detection task performance, 1997:
    both axes are scaled by the normal distribution's quantiles.
    """

    def scaled(rate: ArrayLike) -> NDArray:
        return norm.ppf(np.clip(rate, floor, 0.8))

    _draw_curves(ax, curves, scaled, flip=False)
    if threshold is not None:
        _operating_point(ax, curves, threshold, scaled, flip=False)
    ticks = np.array([0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8])
    ticks = ticks[ticks >= floor]
    for axis, limits in ((ax.xaxis, ax.set_xlim), (ax.yaxis, ax.set_ylim)):
        axis.set_ticks(norm.ppf(ticks), [f"{100 * t:g}" for t in ticks])
        limits(norm.ppf(floor), norm.ppf(0.8))
    ax.set(xlabel="APCER (%)", ylabel="BPCER (%)")
    return ax


def roc_plot(ax: Axes, curves: Mapping[str, DetCurve], threshold: float | None = None) -> Axes:
    """Draw the ROC: 1 − BPCER over APCER on a logarithmic axis, one curve a species."""

    def floored(rate: ArrayLike) -> Any:
        return np.maximum(rate, 0.0)

    _draw_curves(ax, curves, floored, flip=True)
    if threshold is not None:
        _operating_point(ax, curves, threshold, floored, flip=True)
    ax.set_xscale("symlog", linthresh=0.01, linscale=0.5)
    ax.set_xticks([0, 0.01, 0.1, 1], ["0", "1", "10", "100"])
    ax.set(xlim=(0, 1), ylim=(0, 1.01), xlabel="APCER (%)", ylabel="1 − BPCER")
    return ax


def score_histogram(
    ax: Axes, scores: ArrayLike, is_bonafide: ArrayLike, threshold: float | None = None,
    bins: int = 40,
) -> Axes:  # fmt: skip
    """Draw the scores of bona fide presentations and attacks; no decisions are counted in words."""
    s, y = np.asarray(scores, dtype=float), np.asarray(is_bonafide).astype(bool)
    known = s[~np.isnan(s)]
    edges = np.linspace(min(0.0, known.min(initial=0.0)), max(1.0, known.max(initial=1.0)), bins + 1)
    for chosen, name, hatch in ((y, "bona fide", ""), (~y, "attack", "////")):
        colour = BLUE if name == "bona fide" else VERMILION
        part, silent = s[chosen & ~np.isnan(s)], int(np.isnan(s[chosen]).sum())
        text = f"{name} ({chosen.sum()}{f', {silent} without decision' if silent else ''})"
        ax.hist(part, edges, weights=np.full(part.size, 1 / max(chosen.sum(), 1)), histtype="stepfilled",
                facecolor=(*mpl.colors.to_rgb(colour), 0.25), edgecolor=colour, hatch=hatch, label=text)  # fmt: skip
    if threshold is not None:
        ax.axvline(threshold, color=BLACK, ls="--", lw=1.2, label=f"threshold {threshold:.3f}")
    ax.set(xlabel="score, P(bona fide)", ylabel="share of class")
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1.0), borderaxespad=0.2)
    return ax


def calibration_plot(ax: Axes, table: pd.DataFrame) -> Axes:
    """Draw the reliability diagram of `metrics.reliability`, with 95 % intervals of each bin."""
    counts = (table["share_bona_fide"] * table["n"]).round().astype(int)
    ends = np.array([metrics.clopper_pearson(k, n) for k, n in zip(counts, table["n"], strict=True)])
    error = np.abs(ends.T - table["share_bona_fide"].to_numpy())
    ax.plot([0, 1], [0, 1], color=GREY, ls="--", lw=1, label="calibrated")
    ax.errorbar(table["mean_score"], table["share_bona_fide"], error, fmt="o-", color=BLUE,
                capsize=2, lw=1, label="bins, 95 % interval")  # fmt: skip
    ax.set(xlim=(0, 1), ylim=(0, 1), xlabel="mean score", ylabel="share of bona fide")
    ax.legend(loc="upper left")
    return ax


def rate_plot(ax: Axes, rates: Mapping[str, metrics.Rate], *, unit: str = "APCER (%)") -> Axes:
    """Draw one rate a row with its Clopper–Pearson interval and its k/n."""
    names = list(rates)[::-1]
    for row, name in enumerate(names):
        rate, colour = rates[name], species_style(name)[0]
        low, high = rate.interval
        ax.plot([100 * low, 100 * high], [row, row], color=colour, lw=2, ls="-", alpha=0.5)
        ax.plot(100 * rate.value, row, "o", color=colour)
        ax.annotate(f"{rate.k}/{rate.n}", (1.01, row), xycoords=("axes fraction", "data"),
                    fontsize=6, va="center", color=GREY, annotation_clip=False)  # fmt: skip
    ax.set_yticks(range(len(names)), [label(n) for n in names])
    ax.set(xlabel=unit, xlim=(0, None), ylim=(-0.6, len(names) - 0.4))
    ax.grid(axis="y", visible=False)
    return ax


def group_plot(ax: Axes, table: pd.DataFrame, kind: str = "bpcer") -> Axes:
    """Draw a rate in each group of `metrics.differential` with its interval; small groups stay empty."""
    rows = table.reset_index(drop=True)
    for row, group in rows.iterrows():
        if pd.notna(group[kind]):
            ax.plot([100 * group[f"{kind}_low"], 100 * group[f"{kind}_high"]], [row, row], color=BLUE, lw=2,
                    ls="-", alpha=0.5)  # fmt: skip
            ax.plot(100 * group[kind], row, "o", color=BLUE)
    names = [f"{g} (n = {n})" for g, n in zip(rows["group"], rows[f"{kind}_n"], strict=True)]
    ax.set_yticks(range(len(rows)), names)
    ax.set(xlabel=f"{kind.upper()} (%)", xlim=(0, None), ylim=(len(rows) - 0.4, -0.6))
    ax.grid(axis="y", visible=False)
    return ax


def evaluation_figures(test: pd.DataFrame, result: metrics.Report, directory: str | PathLike) -> list[Path]:
    """Write the figures of ``liveness evaluate --figures``: DET with histogram, ROC, calibration, rates.

    Args:
        test: table of scores, as `metrics.report` takes it.
        result: that report.
        directory: folder for the files.

    Returns:
        The PNG files.
    """
    columns = test["score"], test["is_bonafide"]
    curves = metrics.det_curve(*columns, test.get("pai_species"))
    t = result["threshold"]
    fig, axes = figure(1, 2, height=3.2)
    det_plot(axes[0], curves, t).legend(loc="upper right", fontsize=6)
    score_histogram(axes[1], *columns, t)
    files = [save_figure(fig, "det", directory)]
    fig, axes = figure(1, 2, height=3.2)
    roc_plot(axes[0], curves, t).legend(loc="lower right", fontsize=6)
    rate_plot(axes[1], metrics.apcer(*columns, t, test.get("pai_species")))
    files.append(save_figure(fig, "roc", directory))
    try:
        fig, ax = figure(width=COLUMN, height=3)
        calibration_plot(ax, metrics.reliability(*columns))
        files.append(save_figure(fig, "calibration", directory))
    except MetricError:
        pass  # scores that are no probabilities; the report's notes say so
    plt.close("all")
    return files


# --- pictures -------------------------------------------------------------------------------


def contact_sheet(
    rows: Sequence[Sequence[NDArray]], labels: Sequence[str] | None = None, *, width: float = PAGE
) -> Figure:
    """Lay strips of frames under each other.

    Args:
        rows: one sequence of RGB images (H, W, 3) uint8 a row, equally many in each.
        labels: name of each row.
        width: of the figure in inches.

    Returns:
        The figure.
    """
    use_style()
    gutter = 0.16 if labels else 0.0
    strips = [np.concatenate([_bordered(image) for image in row], axis=1) for row in rows]
    height = sum(s.shape[0] / s.shape[1] for s in strips) * width * (1 - gutter) + 0.1
    fig, axes = plt.subplots(len(strips), 1, figsize=(width, height), squeeze=False, layout="none")
    fig.subplots_adjust(left=gutter, right=1, top=1, bottom=0, hspace=0.03)
    for k, (ax, strip) in enumerate(zip(axes[:, 0], strips, strict=True)):
        ax.imshow(strip, interpolation="antialiased")
        ax.set_axis_off()
        if labels:
            ax.text(-0.01, 0.5, label(labels[k]), transform=ax.transAxes, ha="right", va="center")
    return fig


def picture(fig: Figure, *, dpi: int = 130, quality: int = 85) -> Any:
    """Return a figure made of photographs as a JPEG for the page, several times smaller than PNG; closes the figure.

    Args:
        fig: the figure.
        dpi: pixels an inch.
        quality: of the JPEG, 1 to 95.

    Returns:
        IPython.display.Image.
    """
    from IPython.display import Image as DisplayImage

    held = BytesIO()
    fig.savefig(held, format="jpeg", dpi=dpi, pil_kwargs={"quality": quality})
    plt.close(fig)
    return DisplayImage(held.getvalue(), format="jpeg", width=round(110 * fig.get_figwidth()))


def _bordered(image: NDArray) -> NDArray:
    return np.pad(image, ((0, 0), (0, max(2, image.shape[1] // 64)), (0, 0)), constant_values=255)


# --- signals --------------------------------------------------------------------------------


def imu_plot(axes: Sequence[Axes], t: ArrayLike, accel: ArrayLike, gyro: ArrayLike) -> Sequence[Axes]:
    """Draw specific force (M, 3) in m/s² and angular rate (M, 3) in rad/s over time in seconds."""
    for ax, values, unit in zip(axes, (accel, gyro), ("specific force (m/s²)", "angular rate (rad/s)"), strict=True):
        for k, (name, colour, line) in enumerate(zip("xyz", (VERMILION, GREEN, BLUE), ("-", "--", "-."), strict=True)):
            ax.plot(t, np.asarray(values)[:, k], color=colour, ls=line, lw=1, label=name)
        ax.set(ylabel=unit)
    axes[0].legend(ncols=3, loc="best")
    axes[-1].set(xlabel="time (s)")
    return axes


def trajectory_plot(ax: Axes, position: ArrayLike, *, name: str = "", colour: str = BLUE) -> Axes:
    """Draw a path (N, 3) in metres from above: x to the right, z up the page; the start is marked."""
    p = 100 * np.asarray(position, dtype=float)
    ax.plot(p[:, 0], p[:, 2], color=colour, ls="-", label=label(name) or None)
    ax.plot(p[0, 0], p[0, 2], "o", color=colour, ms=4)
    ax.set(xlabel="x (cm)", ylabel="z (cm)", aspect="equal")
    return ax


def separability_heatmap(ax: Axes, table: pd.DataFrame, *, unit: str = "AUC") -> Axes:
    """Draw cue × species separability as numbers on colour; cells that are missing stay white.

    Args:
        ax: axes.
        table: AUC 0..1; rows are cues, columns species.
        unit: name of the number.
    """
    values = table.to_numpy(dtype=float)
    shown = ax.imshow(np.ma.masked_invalid(values), cmap="cividis", vmin=0.5, vmax=1, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        text = "–" if np.isnan(value) else f"{value:.2f}"
        dark = np.isnan(value) or value > 0.8
        ax.text(
            column,
            row,
            text,
            ha="center",
            va="center",
            fontsize=6,
            color=BLACK if dark else "white",
        )
    ax.set_xticks(range(table.shape[1]), [label(str(c)) for c in table.columns], rotation=40, ha="right")
    ax.set_yticks(range(table.shape[0]), [label(str(c)) for c in table.index])
    ax.grid(visible=False)
    ax.figure.colorbar(shown, ax=ax, label=unit, pad=0.02, extend="min")
    return ax


def learning_curves(ax: Axes, table: pd.DataFrame, columns: Sequence[str]) -> Axes:
    """Draw columns of a training log with a column ``epoch``; rows without a value are skipped."""
    for name in columns:
        known = table[["epoch", name]].dropna()
        ax.plot(known["epoch"], known[name], label=label(name))
    ax.set(xlabel="epoch", ylabel="loss")
    ax.legend()
    return ax
