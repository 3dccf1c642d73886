"""Scoring prepared clips with a trained network: tables that `metrics` and `export` read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from liveness_utils import dataset as ds
from liveness_utils import inputs
from liveness_utils.network.fusion import load_checkpoint
from liveness_utils.network.training import scaling_in


@torch.inference_mode()
def predict_rows(
    net: nn.Module,
    prepared: ds.Prepared,
    rows: np.ndarray,
    *,
    modalities: Sequence[str] = inputs.MODALITIES,
    frames: int = inputs.FRAMES,
    opinions: np.ndarray | None = None,
    batch_size: int = 8,
    progress: bool = False,
) -> dict[str, np.ndarray]:
    """Run the network on all 25 frames of some rows, or on the first of them.

    Args:
        net: in evaluation mode.
        prepared: arrays.
        rows: which.
        modalities: what it may use.
        frames: how many of the 25 frames of each clip are seen.
        opinions: (N, 25, 2 + S) of this network on every clip (`picture_training.Opinions.plain`), to spare it the
            pictures.
        batch_size: clips at a time.
        progress: show a bar.

    Returns:
        logit (n,), its part pixels (n,), species (n, S), consistency (n,); without opinions also depth
        (n, frames, 14, 14) and embedding (n, 432).
    """
    from tqdm.auto import tqdm

    data = ds.LivenessDataset(prepared, rows, scaling_in(net, prepared), modalities=modalities)
    out: dict[str, list] = {}
    count = -(-len(data) // batch_size)
    for batch in tqdm(_batches(data, batch_size, opinions), total=count, desc="score", disable=not progress):
        given = [torch.from_numpy(batch[k][:, :frames]) for k in ("features", "imu")]
        given.append(torch.from_numpy(batch["presence"]))
        if opinions is None:
            result = net(torch.from_numpy(batch["frames"][:, :frames]).float() / 255.0, *given)
        else:
            result = net.judge_clips(torch.from_numpy(batch["opinion"][:, :frames]), *given)
        for name, value in result.items():
            out.setdefault(name, []).append(value.numpy())
    return {name: np.concatenate(values) for name, values in out.items()}


def _batches(data: ds.LivenessDataset, size: int, opinions: np.ndarray | None):
    if opinions is None:
        yield from ds.batches(data, size)
        return
    from liveness_utils.network.picture_training import Opinions

    data.opinions = Opinions(opinions, np.zeros(0, int), np.zeros(0), np.zeros(0, bool))
    yield from ds.batches(data, size)


def score(
    model: str | Path | nn.Module,
    prepared: ds.Prepared | str | Path,
    *,
    split: str | Sequence[str] = "test",
    rows: np.ndarray | None = None,
    modalities: Sequence[str] | None = None,
    frames: int = inputs.FRAMES,
    opinions: np.ndarray | None = None,
    progress: bool = False,
):
    """Score the clips of one or more splits.

    Args:
        model: checkpoint path, or a network in evaluation mode.
        prepared: folder of prepared clips, or the opened arrays.
        split: which clips; `rows` wins.
        rows: which clips.
        modalities: what the network may use; None takes those it was trained with.
        frames, opinions: see `predict_rows`.
        progress: show a bar.

    Returns:
        DataFrame: clip_id, score (P(bona fide); NaN where the quality gates refuse), raw_score
        (never NaN), logit, its part pixels, consistency, reasons, then the manifest's columns.
    """
    net, extra = (model, {}) if isinstance(model, nn.Module) else load_checkpoint(model)
    prepared = prepared if isinstance(prepared, ds.Prepared) else ds.open_prepared(prepared)
    rows = prepared.rows(split) if rows is None else np.asarray(rows)
    trained = extra.get("training", {}).get("modalities", inputs.MODALITIES)
    options = {"frames": frames, "opinions": opinions, "progress": progress}
    out = predict_rows(net, prepared, rows, modalities=modalities or trained, **options)
    return score_table(prepared, rows, out)


def score_table(prepared: ds.Prepared, rows: np.ndarray, out: dict[str, np.ndarray]):
    """Join the outputs of some rows with the quality gates and the manifest (see `score`)."""
    import pandas as pd

    table = prepared.manifest.iloc[rows].reset_index(drop=True)
    table["pai_species"] = ds.species_names(table)
    reasons = prepared.quality["reasons"].to_numpy(str)[rows]
    logit, consistency = (np.asarray(out[k], np.float64) for k in ("logit", "consistency"))
    raw = 1.0 / (1.0 + np.exp(-logit))
    head = pd.DataFrame(
        {
            "clip_id": table["clip_id"],
            "score": np.where(reasons == "", raw, np.nan),
            "raw_score": raw,
            "logit": logit,
            **{name: np.asarray(out[name], np.float64) for name in ("pixels",) if name in out},
            "consistency": 1.0 / (1.0 + np.exp(-consistency)),
            "reasons": reasons,
        }
    )
    return pd.concat([head, table.drop(columns="clip_id")], axis=1)


def write_scores(
    checkpoint: str | Path,
    prepared: ds.Prepared | str | Path,
    folder: str | Path,
    splits: Sequence[str] = ("dev", "test"),
) -> list[Path]:
    """Score splits and leave ``scores_SPLIT.csv``, as ``liveness evaluate`` reads them.

    Clips without a label are left out, and so is a split without clips.

    Returns:
        the files written.
    """
    prepared = prepared if isinstance(prepared, ds.Prepared) else ds.open_prepared(prepared)
    net, written = load_checkpoint(checkpoint)[0], []
    for split in splits:
        rows = prepared.rows(split)
        rows = rows[np.isfinite(prepared.labels[rows])]
        if len(rows):
            table = score(net, prepared, rows=rows)
            table["is_bonafide"] = table["is_bonafide"].astype(int)
            written.append(Path(folder) / f"scores_{split}.csv")
            table.to_csv(written[-1], index=False)
    return written
