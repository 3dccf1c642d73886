"""Prepared clips as sharded Parquet files, for data that no single folder or disk should hold.

`dataset.Prepared` arrays come in; files of some hundred clips go out, and many workers of many
machines read them in turn, each its own share, without an index that all would have to load.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch.utils.data import IterableDataset, get_worker_info

from liveness_utils import dataset as ds
from liveness_utils import inputs
from liveness_utils.errors import DatasetError

VERSION = 1


def write_shards(
    prepared: ds.Prepared,
    out_dir: str | os.PathLike,
    *,
    rows: Sequence[int] | None = None,
    clips: int = 128,
    seed: int = 0,
) -> list[Path]:
    """Write prepared clips as ``shard-00000.parquet`` and so on, in random order.

    One row a clip: its manifest row, and every array as bytes, compressed without loss. The order
    is drawn once here, so that reading in order is already mixed; each file stands alone.

    Args:
        prepared: the arrays. rows: which clips; None takes all. clips: a file. seed: of the order.

    Returns:
        the files, each written whole or not at all.
    """
    out = Path(out_dir)
    out.mkdir(parents=True, exist_ok=True)
    chosen = np.random.default_rng(seed).permutation(np.arange(len(prepared)) if rows is None else np.asarray(rows))
    parts = [chosen[k : k + clips] for k in range(0, len(chosen), clips)]
    return [_write_shard(prepared, part, out / f"shard-{k:05d}.parquet") for k, part in enumerate(parts)]


def _stored(prepared: ds.Prepared, name: str) -> np.ndarray:
    """An array as it lies on disk: of a still the one picture, not its 25 views."""
    array = getattr(prepared, name)
    return array[:, :1] if name == "crops" and prepared.stills else array


def _write_shard(prepared: ds.Prepared, rows: np.ndarray, path: Path) -> Path:
    table = prepared.manifest.iloc[rows].reset_index(drop=True)
    quality = prepared.quality.iloc[rows].drop(columns="clip_id")
    columns, shapes = {f"quality_{name}": quality[name].to_list() for name in quality}, {}
    for name in ds.ARRAYS:
        array = _stored(prepared, name)
        shapes[name] = [str(array.dtype), list(array.shape[1:])]
        columns[f"array_{name}"] = [np.ascontiguousarray(array[r]).tobytes() for r in rows]
    held = pa.Table.from_pandas(table, preserve_index=False)
    for name, values in columns.items():
        held = held.append_column(name, pa.array(values))
    about = {"version": VERSION, "shapes": shapes, "features": prepared.feature_names, "imu": prepared.imu_columns}
    held = held.replace_schema_metadata({**held.schema.metadata, b"liveness": json.dumps(about).encode()})
    part = path.with_suffix(".tmp")
    pq.write_table(held, part, compression="zstd", row_group_size=len(rows))
    os.replace(part, path)
    return path


def shard_files(folder: str | os.PathLike) -> list[Path]:
    """The shards of a folder, in order.

    Raises:
        DatasetError: there is none.
    """
    found = sorted(Path(folder).glob("shard-*.parquet"))
    if not found:
        raise DatasetError(f"{folder}: holds no shards; write them with `shards.write_shards`.")
    return found


def read_shard(path: str | os.PathLike) -> ds.Prepared:
    """One shard as prepared arrays in memory.

    Raises:
        DatasetError: damaged, or of another version.
    """
    try:
        held = pq.read_table(path)
        about = json.loads(held.schema.metadata[b"liveness"])
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        raise DatasetError(f"{path}: not a readable shard; write it again.") from error
    if about["version"] != VERSION:
        raise DatasetError(f"{path}: a shard of version {about['version']}, not {VERSION}; write it again.")
    arrays = {n: _array(held, n, *about["shapes"][n]) for n in ds.ARRAYS}
    if arrays["crops"].shape[1] == 1:
        shape = arrays["crops"].shape
        arrays["crops"] = np.broadcast_to(arrays["crops"], (shape[0], inputs.FRAMES, *shape[2:]))
    table = held.drop_columns([f"array_{n}" for n in ds.ARRAYS]).to_pandas()
    measured = [c for c in table if c.startswith("quality_")]
    quality = table[["clip_id", *measured]].rename(columns=lambda c: c.removeprefix("quality_"))
    manifest = table.drop(columns=measured)
    return ds.Prepared(Path(path), manifest, quality, tuple(about["features"]), tuple(about["imu"]), **arrays)


def _array(table: pa.Table, name: str, kind: str, shape: list[int]) -> np.ndarray:
    column = table.column(f"array_{name}")
    return np.stack([np.frombuffer(v.as_py(), kind).reshape(shape) for v in column])


def share(files: Sequence[Path], *, worker: int, workers: int, rank: int = 0, world: int = 1) -> list[Path]:
    """The files that one worker of one process reads: no two read the same.

    >>> [len(share([Path(str(k)) for k in range(10)], worker=w, workers=2, rank=1, world=2)) for w in (0, 1)]
    [2, 2]
    """
    return list(files[rank * workers + worker :: world * workers])


class ShardedClips(IterableDataset):
    """Clips of shards for torch's DataLoader, dealt among workers and, under DDP, among processes.

    Every epoch each worker takes its files in another order and their clips in another order.
    Items are those of `dataset.LivenessDataset`, by the same code.

    Args:
        files: of `shard_files`. scaling: of the training set (`scaling_of_shards`). split: of the
            manifest, or None for all. options: of `LivenessDataset` (augment, frames, modalities).

    Raises:
        DatasetError: fewer files than readers, so that some would have nothing to do.
    """

    def __init__(
        self, files: Sequence[Path], scaling: ds.Scaling, split: str | None = "train", seed: int = 0, **options
    ):
        super().__init__()
        self.files, self.scaling, self.split = list(files), scaling, split
        self.seed, self.epoch, self.options = seed, 0, options

    def _own(self) -> list[Path]:
        info, spread = get_worker_info(), torch.distributed
        world = spread.is_available() and spread.is_initialized()
        rank, size = (spread.get_rank(), spread.get_world_size()) if world else (0, 1)
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        if len(self.files) < size * workers:
            raise DatasetError(f"{len(self.files)} shards for {size * workers} readers: write smaller shards.")
        return share(self.files, worker=worker, workers=workers, rank=rank, world=size)

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        own = self._own()
        rng = np.random.default_rng((self.seed, self.epoch))
        for k in rng.permutation(len(own)):
            held = read_shard(own[k])
            rows = np.arange(len(held)) if self.split is None else held.rows(self.split)
            clips = ds.LivenessDataset(held, rng.permutation(rows), self.scaling, seed=self.seed, **self.options)
            clips.epoch = self.epoch
            yield from (clips[j] for j in range(len(clips)))


def scaling_of_shards(files: Sequence[Path], split: str = "train", limit: int = 16) -> ds.Scaling:
    """Statistics of the inputs over the first shards; each holds a random sample of the whole.

    The medians of `limit` shards are averaged.
    """
    found = [ds.scaling_of(held, held.rows(split)) for held in map(read_shard, files[:limit]) if len(held.rows(split))]
    if not found:
        raise DatasetError(f"The first {limit} shards hold no clip of split {split!r}.")
    return ds.Scaling(*(np.mean([getattr(s, n) for s in found], axis=0, dtype=np.float64).astype(np.float32)
                        for n in ("feature_mean", "feature_std", "imu_std")))  # fmt: skip


def manifest_of(files: Sequence[Path]) -> pd.DataFrame:
    """The manifest rows of shards, without reading an array."""
    columns = [c for c in pq.read_schema(files[0]).names if not c.startswith("array_")]
    return pd.concat([pq.read_table(f, columns=columns).to_pandas() for f in files], ignore_index=True)
