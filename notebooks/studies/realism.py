"""Realism: how far the statistics of simulated bona fide frames are from real ones.

In: face crops (RGB, uint8). Out: a vector of image statistics a crop, and one distance between two sets of crops.
Only aggregates leave this room, so that figures on real material can be kept without its pixels.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np

CROP_PX = 112
BANDS = 8
_ORIENTATIONS = 8
STATISTICS = (
    *(f"spectrum_{k}" for k in range(BANDS)),
    *(f"gradient_{k}" for k in range(6)),
    "sharpness", "noise_luma", "noise_chroma", "noise_correlation",
    *(f"{name}_{kind}" for name in ("L", "a", "b") for kind in ("mean", "std")),
)  # fmt: skip


def crop_statistics(crop: np.ndarray) -> np.ndarray:
    """Image statistics of a face crop.

    Args:
        crop: (112, 112, 3) uint8 RGB.

    Returns:
        (24,) float64 in the order of `STATISTICS`: log radial power spectrum of luma in 8 bands (relative to
        its total), log quantiles of the gradient magnitude, log variance of the Laplacian, log noise level of
        luma and chroma (median absolute deviation of the diagonal Haar band; Donoho 1994,
        doi 10.1093/biomet/81.3.425), correlation of neighbouring noise, mean and deviation of CIELAB.
    """
    luma = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY).astype(np.float32)
    lab = cv2.cvtColor(crop.astype(np.float32) / 255.0, cv2.COLOR_RGB2LAB)
    colour = np.stack([lab.mean((0, 1)), lab.std((0, 1))], 1).ravel()
    return np.concatenate([_spectrum(luma), _gradients(luma), _fine(luma, lab), colour])


def _spectrum(luma: np.ndarray) -> np.ndarray:
    window = np.outer(np.hanning(luma.shape[0]), np.hanning(luma.shape[1]))
    power = np.abs(np.fft.fftshift(np.fft.fft2((luma - luma.mean()) * window))) ** 2
    fy, fx = (np.fft.fftshift(np.fft.fftfreq(n)) for n in luma.shape)
    radius = np.hypot(*np.meshgrid(fy, fx, indexing="ij"))
    edges = np.geomspace(0.01, 0.5, BANDS + 1)
    bands = [power[(radius >= a) & (radius < b)].mean() for a, b in pairwise(edges)]
    return np.log(np.array(bands) / max(float(power.sum()), 1e-9) + 1e-12)


def _gradients(luma: np.ndarray) -> np.ndarray:
    magnitude = np.hypot(cv2.Sobel(luma, cv2.CV_32F, 1, 0), cv2.Sobel(luma, cv2.CV_32F, 0, 1))
    return np.log(np.percentile(magnitude, [10, 25, 50, 75, 90, 99]) + 1.0)


def _fine(luma: np.ndarray, lab: np.ndarray) -> np.ndarray:
    diagonal = _haar(luma)
    chroma = np.concatenate([_haar(lab[..., k]).ravel() for k in (1, 2)])
    flat = diagonal - diagonal.mean()
    correlation = (flat[:, 1:] * flat[:, :-1]).mean() / max((flat**2).mean(), 1e-9)
    levels = [np.log(np.median(np.abs(d)) / 0.6745 + 1e-2) for d in (diagonal, chroma)]
    return np.array([np.log(cv2.Laplacian(luma, cv2.CV_32F).var() + 1.0), *levels, correlation])


def _haar(plane: np.ndarray) -> np.ndarray:
    p = plane[: plane.shape[0] // 2 * 2, : plane.shape[1] // 2 * 2]
    return (p[::2, ::2] - p[1::2, ::2] - p[::2, 1::2] + p[1::2, 1::2]) / 2


@dataclass(frozen=True)
class Reference:
    """Aggregates of a real set: mean and deviation a statistic, and deciles; no pixels.

    Attributes:
        deciles: (9, 24) of every statistic.
        std: (24,) deviation, the unit of the distance.
        count: crops.
    """

    deciles: np.ndarray
    std: np.ndarray
    count: int


REFERENCE = Path(__file__).parent / "realism_reference.json"


def load_reference(path: str | Path = REFERENCE) -> Reference:
    """Aggregates of real bona fide frames that are kept beside this file (`scripts/realism_reference.py` makes them)."""
    held = json.loads(Path(path).read_text(encoding="utf-8"))
    return Reference(np.array(held["deciles"]), np.array(held["std"]), int(held["count"]))


def save_reference(held: Reference, path: str | Path, source: str) -> Path:
    """Write aggregates as JSON with the sentence that says where they come from."""
    content = {
        "source": source,
        "statistics": list(STATISTICS),
        "count": held.count,
        "deciles": held.deciles.round(5).tolist(),
        "std": held.std.round(5).tolist(),
    }
    Path(path).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return Path(path)


def face_statistics(frames: np.ndarray, landmarker) -> np.ndarray:
    """Statistics of the face crops of frames (RGB uint8), one row a frame with one face; see `crop_statistics`."""
    from liveness_utils.landmarks import face_box, face_crop

    rows = []
    for frame in frames:
        seen = landmarker.detect(frame, 0.0)
        if len(seen) == 1:
            rows.append(crop_statistics(face_crop(frame, face_box(seen[0].points[:, :2]), CROP_PX)))
    return np.array(rows).reshape(-1, len(STATISTICS))


def reference(statistics: np.ndarray) -> Reference:
    """Aggregate (n, 24) statistics."""
    return Reference(_deciles(statistics), statistics.std(0), len(statistics))


def _deciles(statistics: np.ndarray) -> np.ndarray:
    return np.percentile(statistics, np.arange(10, 100, 10), axis=0)


def realism_distance(simulated: np.ndarray, real: Reference) -> tuple[float, np.ndarray]:
    """Distance between simulated and real image statistics.

    The mean over all statistics of the 1-Wasserstein distance between their distributions, each taken at the
    nine deciles and in units of the real set's standard deviation. Zero for equal distributions; 1 means that
    the sets differ by a real standard deviation on average.

    Args:
        simulated: (n, 24).
        real: aggregates of the real set.

    Returns:
        The distance and its (24,) parts.
    """
    parts = np.abs(_deciles(simulated) - real.deciles).mean(0) / np.maximum(real.std, 1e-9)
    return float(parts.mean()), parts
