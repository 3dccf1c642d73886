"""Growing: what a million clips cost in disk, hours and money, and sweeps of notebooks over Dask.

Rates measured on a machine come in, a table for any number of clips and cores goes out; a notebook
and a grid of parameters come in, executed copies go out.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd


@dataclass(frozen=True)
class Rates:
    """What one clip takes on one core, measured.

    Attributes:
        generate, prepare: CPU seconds to make a clip, and to track, measure and crop it.
        train: CPU seconds a clip and epoch. clip_mb, shard_mb: megabytes on disk, as a clip and in
            a shard.
    """

    generate: float
    prepare: float
    train: float
    clip_mb: float
    shard_mb: float


@dataclass(frozen=True)
class Prices:
    """Money an hour of one core, and a month of one terabyte; any currency."""

    core_hour: float = 0.04
    terabyte_month: float = 20.0


def plan(rates: Rates, clips: int, cores: int, *, epochs: int = 10, prices: Prices = Prices()) -> pd.DataFrame:  # noqa: B008
    """Core hours, wall hours, terabytes and money of each step.

    Args:
        rates: measured. clips: how many. cores: at work at a time. epochs: of the training.
        prices: of the machine.

    Returns:
        one row a step and one for all: core_hours, hours (on `cores`, no loss counted),
        terabytes, money (with one month of storage).

    Example:
        >>> float(plan(Rates(2, 1, 0.5, 0.5, 0.4), 3600, 2, epochs=2).loc["all", "core_hours"])
        4.0
    """
    seconds = {"generate": rates.generate, "prepare": rates.prepare, "train": rates.train * epochs}
    size = {"generate": rates.clip_mb, "prepare": rates.shard_mb, "train": 0.0}
    rows = {
        step: {"core_hours": s * clips / 3600, "hours": s * clips / 3600 / cores, "terabytes": size[step] * clips / 1e6}
        for step, s in seconds.items()
    }
    table = pd.DataFrame(rows).T
    table["money"] = table["core_hours"] * prices.core_hour + table["terabytes"] * prices.terabyte_month
    table.loc["all"] = table.sum()
    return table


def shards_needed(clips: int, readers: int, clips_a_shard: int = 128, least: int = 4) -> int:
    """How many shards: by size, but at least `least` for each reader, so that none waits for another.

    >>> shards_needed(1_000_000, readers=64), shards_needed(1000, readers=8)
    (7813, 32)
    """
    return max(math.ceil(clips / clips_a_shard), least * readers)


# ------------------------------------------------------------------------------- sweeps over Dask
def grid(**values: Sequence[Any]) -> list[dict[str, Any]]:
    """Every combination of parameters, the last one changing fastest.

    >>> grid(seed=[0, 1], epochs=[5])
    [{'seed': 0, 'epochs': 5}, {'seed': 1, 'epochs': 5}]
    """
    return [dict(zip(values, row, strict=True)) for row in itertools.product(*values.values())]


def sweep(
    notebook: str | os.PathLike,
    parameters: Sequence[Mapping[str, Any]],
    out_dir: str | os.PathLike,
    *,
    workers: int = 2,
    scheduler: str | None = None,
) -> pd.DataFrame:
    """Run a notebook once for each set of papermill parameters, on Dask.

    Each run gets a folder of its own, ``out_dir/NNN``, as its `run_dir` if the notebook knows that
    parameter, with the executed copy inside. A run whose copy is there is not repeated.

    Args:
        notebook: with a cell tagged ``parameters``. parameters: one dict a run, see `grid`.
        workers: processes on this machine. scheduler: address of a Dask scheduler instead.

    Returns:
        one row a run: its parameters, `folder`, and `error` (empty if it went well).
    """
    from dask.distributed import Client

    runs = [(Path(notebook).resolve(), dict(p), Path(out_dir).resolve() / f"{k:03d}") for k, p in enumerate(parameters)]
    with contextlib.ExitStack() as stack:
        cluster = scheduler or stack.enter_context(_local_cluster(workers))
        client = stack.enter_context(Client(cluster))
        errors = client.gather(client.map(_one_run, *zip(*runs, strict=True), pure=False))
    return pd.DataFrame([{**p, "folder": str(f), "error": e} for (_, p, f), e in zip(runs, errors, strict=True)])


def _local_cluster(workers: int, attempts: int = 3):
    """Dask on this machine. Its own thread must be up within ten seconds, which a busy machine may miss: once more, then."""
    from dask.distributed import LocalCluster

    settings = {"threads_per_worker": 1, "processes": True, "dashboard_address": None}
    for _ in range(attempts - 1):
        with contextlib.suppress(AssertionError):  # how Dask says that its thread was late
            return LocalCluster(workers, **settings)
    return LocalCluster(workers, **settings)


def _one_run(notebook: Path, parameters: dict[str, Any], folder: Path) -> str:
    import papermill

    done = folder / notebook.name
    if done.is_file():
        return ""
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f".{notebook.name}"
    try:
        known = papermill.inspect_notebook(str(notebook))
        given = parameters | ({"run_dir": str(folder)} if "run_dir" in known else {})
        papermill.execute_notebook(str(notebook), str(part), given, cwd=str(notebook.parent), progress_bar=False)
    except Exception as error:  # one bad set of parameters must not end the sweep
        return (str(error).strip().splitlines() or [type(error).__name__])[-1]
    part.replace(done)
    return ""
