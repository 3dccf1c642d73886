"""Looking into the network: shapes of its blocks, where it looks, which pixels its answer hangs on.

A trained network and prepared clips come in; tables and maps go out to notebook 05 and the plots.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from torch import Tensor, nn

from liveness_utils import inputs
from liveness_utils.dataset import Prepared
from liveness_utils.network.encoder import CHANNELS, SIDES
from liveness_utils.network.fusion import count_parameters

# Attribute paths of FusionNet's blocks, in the order in which data passes them.
BLOCKS = (
    "picture.lateral_fine", "picture.lateral_middle", "picture.cbam", "picture.depth", "picture.embed",
    "picture.flat", "picture.mask", "picture.species", "features.mlp", "features.motion", "imu.conv", "imu.embed", "imu.motion", "temporal",
    "input_gates", "state_gates", "judge", "consistency", "liveness", "species",
)  # fmt: skip


def clip_tensors(net: nn.Module, prepared: Prepared, rows: np.ndarray) -> tuple[Tensor, ...]:
    """Frames (n, 25, 112, 112, 3) in 0..1, features, IMU windows and presence of some clips."""
    rows = np.atleast_1d(rows)
    features = inputs.fill_missing(prepared.features[rows], net.features.mean.numpy())
    frames = torch.from_numpy(np.array(prepared.crops[rows])).float() / 255.0
    rest = (features, prepared.imu[rows], prepared.presence[rows])
    return (frames, *(torch.from_numpy(np.array(a, np.float32)) for a in rest))


def block_table(net: nn.Module) -> pd.DataFrame:
    """Shapes and sizes of the network's blocks, measured on one clip of zeros.

    Returns:
        DataFrame indexed by block: input, output (shapes; the first number counts frames, or
        clips), parameters. ``state_gates`` is seen at its last frame.
    """
    shapes: dict[str, tuple[str, str]] = {}
    blocks = dict(net.named_modules())
    names = [name for name in BLOCKS if name in blocks]
    hooks = [blocks[name].register_forward_hook(_note(shapes, name)) for name in names]
    zeros = (
        torch.zeros(1, inputs.FRAMES, inputs.CROP, inputs.CROP, 3),
        torch.zeros(1, inputs.FRAMES, net.config.n_features),
        torch.zeros(1, inputs.FRAMES, inputs.WINDOW, 6),
        torch.ones(1, 3),
    )
    try:
        with torch.inference_mode():
            net(*zeros)
    finally:
        for hook in hooks:
            hook.remove()
    rows = [(name, *shapes[name], count_parameters(blocks[name])) for name in names]
    maps = [f"{inputs.FRAMES} × {c} × {side} × {side}" for c, side in zip(CHANNELS, SIDES, strict=True)]
    frames = " × ".join(str(n) for n in zeros[0].shape[1:])
    rows.insert(0, ("encoder (frozen)", frames, ", ".join(maps), count_parameters(net.encoder)))
    return pd.DataFrame(rows, columns=["block", "input", "output", "parameters"]).set_index("block")


def _note(shapes: dict, name: str):
    def hook(_, given, returned) -> None:
        first = returned[0] if isinstance(returned, tuple) else returned
        shapes[name] = tuple(" × ".join(str(n) for n in x.shape) for x in (given[0], first))

    return hook


def attention_maps(net: nn.Module, prepared: Prepared, row: int, frames: np.ndarray) -> np.ndarray:
    """CBAM's spatial weights over some frames of a clip, (f, 14, 14) in 0..1."""
    with torch.inference_mode():
        crops = torch.from_numpy(np.array(prepared.crops[row][frames])).float() / 255.0
        return net.look(crops)["attention"].numpy()


def saliency(net: nn.Module, prepared: Prepared, row: int, smooth: float = 2.0) -> np.ndarray:
    """How strongly the logit hangs on each pixel: the gradient's length over the colours.

    Args:
        net: in evaluation mode. prepared: arrays. row: which clip. smooth: σ in pixels, since a
            single pixel's gradient is noise.

    Returns:
        (25, 112, 112) float32, each clip scaled to a maximum of 1.

    Source: Simonyan et al., Deep inside convolutional networks, 2014, arXiv 1312.6034.
    """
    import cv2

    frames, *rest = clip_tensors(net, prepared, row)
    frames.requires_grad_(True)
    net(frames, *rest)["logit"].sum().backward()
    maps = frames.grad[0].norm(dim=-1).numpy()
    maps = np.stack([cv2.GaussianBlur(m, (0, 0), smooth) for m in maps])
    return maps / max(float(maps.max()), 1e-12)


def examples(prepared: Prepared, split: str) -> dict[str, int]:
    """The first clip of each species in a split that the quality gates let pass: name to row."""
    from liveness_utils.instruments import SPECIES

    rows = prepared.rows(split)
    good = rows[(prepared.quality["reasons"].to_numpy(str) == "")[rows]]
    names = prepared.species_names
    first = {name: good[names[good] == name] for name in SPECIES}
    return {name: int(found[0]) for name, found in first.items() if len(found)}


def relief(true: np.ndarray, predicted: np.ndarray) -> pd.DataFrame:
    """Root-mean-square relief of each clip where the truth is known, in inter-ocular distances.

    Args:
        true: (n, 25, 14, 14), NaN where unknown. predicted: the same shape.

    Returns:
        DataFrame with columns true and predicted, and error, the rms difference.
    """
    true = np.asarray(true, np.float64)
    predicted = np.where(np.isfinite(true), predicted, np.nan)
    parts = {"true": true, "predicted": predicted, "error": predicted - true}
    known = np.isfinite(true).reshape(len(true), -1)
    squares = {k: np.nansum(v.reshape(len(v), -1) ** 2, axis=1) for k, v in parts.items()}
    return pd.DataFrame({k: np.sqrt(v / np.maximum(known.sum(axis=1), 1)) for k, v in squares.items()})


def share_inside(net: nn.Module, prepared: Prepared, rows: dict[str, int], frame: int = 12) -> pd.DataFrame:
    """How much of the saliency falls on the face, where the renderer's truth says where that is.

    Returns:
        DataFrame indexed as `rows`: saliency (share of its sum), area (share of the crop).
    """
    found = {}
    for name, row in rows.items():
        face = np.isfinite(np.asarray(prepared.depth[row][frame], np.float32))
        maps = saliency(net, prepared, row)[frame].reshape(14, 8, 14, 8).sum(axis=(1, 3))
        found[name] = {"saliency": maps[face].sum() / maps.sum(), "area": face.mean()}
    return pd.DataFrame(found).T


def overlay(ax: Axes, crop: np.ndarray, heat: np.ndarray, cmap: str = "viridis") -> Axes:
    """Lay a heat map over the grey crop on `ax`, scaled to its own range."""
    ax.imshow(crop.mean(axis=2), cmap="gray", vmin=0, vmax=255)
    side = crop.shape[0]
    ax.imshow(heat, cmap=cmap, alpha=0.6, extent=(-0.5, side - 0.5, side - 0.5, -0.5), interpolation="bilinear")
    return ax


def bare(axes: np.ndarray, names: Sequence[str]) -> None:
    """Take ticks and frames off a grid of pictures and write a name before each of its rows."""
    for row, name in zip(axes, names, strict=True):
        for ax in row:
            ax.set(xticks=[], yticks=[])
            ax.grid(visible=False)
            for side in ax.spines.values():
                side.set_visible(False)
        row[0].set_ylabel(name)
    axes[0][-1].annotate(
        "simulated data",
        (1, 1),
        (0, 24),
        "axes fraction",
        textcoords="offset points",
        ha="right",
        fontsize=6,
        color="#7F7F7F",
    )
