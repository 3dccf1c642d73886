"""A small synthetic set of prepared arrays, in which it is known what tells what."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd

from liveness_utils import dataset as ds

G = 6


def make_prepared(folder: Path, n: int = 48, seed: int = 0, names: tuple[str, ...] = ()) -> Path:
    """Arrays in which colour tells prints from faces, and only the IMU tells injections."""
    rng = np.random.default_rng(seed)
    names = names or tuple(f"feature_{k}" for k in range(G))
    folder.mkdir(parents=True, exist_ok=True)
    kinds = ["bona_fide", "bona_fide", "flat_print", "injection"]
    species = np.array([kinds[k % 4] for k in range(n)])
    crops = rng.integers(90, 110, (n, 25, 112, 112, 3), np.uint8)
    crops[species == "flat_print", ..., 0] += 60
    turn = np.cumsum(rng.normal(0, 0.3, (n, 25)), axis=1)
    imu = rng.normal(0, 0.05, (n, 25, 32, 6)).astype(np.float32)
    rate = np.gradient(turn, axis=1)
    other = np.roll(rate, 1, axis=0)
    imu[..., 4] += np.where((species == "injection")[:, None], other, rate)[..., None]
    features = rng.normal(size=(n, 25, len(names))).astype(np.float32)
    features[..., 0] = turn
    features[::7, 3:5] = np.nan
    depth = np.where((species == "flat_print")[:, None, None, None], 0.0, 0.5)
    arrays = {
        "crops": crops,
        "features": features,
        "imu": imu,
        "presence": np.ones((n, 3), np.float32),
        "depth": np.broadcast_to(depth, (n, 25, 14, 14)).astype(np.float16),
        "quality_rows": np.ones((n, 25, 5)),
        "decoy_features": np.repeat(features[:, None], 2, axis=1),
        "decoy_imu": np.stack([np.roll(imu, 2, axis=0), np.roll(imu, 3, axis=0)], axis=1),
        "decoy_valid": np.ones((n, 2), np.float32),
    }
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    splits = np.array(["train", "validation", "dev", "test"])[np.minimum(np.arange(n) // (n // 6), 5) % 4]
    ids = [f"clip{k:04d}" for k in range(n)]
    table = pd.DataFrame(
        {
            "clip_id": ids,
            "subject_id": [f"s{k // 4}" for k in range(n)],
            "is_bonafide": (species == "bona_fide").astype(int),
            "pai_species": np.where(species == "bona_fide", None, species),
            "split": splits,
        }
    )
    table.to_parquet(folder / "manifest.parquet")
    reasons = ["no face in 25 of 25 frames" if k == n - 1 else "" for k in range(n)]
    pd.DataFrame({"clip_id": ids, "reasons": reasons}).to_parquet(folder / "quality.parquet")
    pd.DataFrame({"clip_id": ids}).to_parquet(folder / "cues.parquet")
    index = {"version": ds.VERSION, "clip_ids": ids, "feature_names": names, "imu_columns": [len(names) - 1]}
    (folder / "index.json").write_text(json.dumps(index))
    return folder
