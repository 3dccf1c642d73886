"""Room to grow: shards read by several workers, and the arithmetic of a million clips."""

from __future__ import annotations

import doctest
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from test_model import make_prepared
from torch.utils.data import DataLoader

from liveness_utils import dataset as ds
from liveness_utils import growth, shards
from liveness_utils.errors import DatasetError


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return ds.open_prepared(make_prepared(tmp_path_factory.mktemp("arrays"), n=30))


@pytest.fixture(scope="module")
def files(prepared, tmp_path_factory):
    return shards.write_shards(prepared, tmp_path_factory.mktemp("shards"), clips=6)


def test_shards_hold_the_same_bytes(prepared, files):
    assert len(files) == 5 and shards.shard_files(files[0].parent) == files
    order = {c: k for k, c in enumerate(prepared.manifest["clip_id"])}
    for path in files:
        held = shards.read_shard(path)
        assert held.feature_names == prepared.feature_names and held.imu_columns == prepared.imu_columns
        for k, clip_id in enumerate(held.manifest["clip_id"]):
            for name in ds.ARRAYS:
                assert np.array_equal(getattr(held, name)[k], getattr(prepared, name)[order[clip_id]], equal_nan=True)
    assert sorted(shards.manifest_of(files)["clip_id"]) == sorted(order)


@pytest.mark.slow
def test_several_workers_read_every_clip_once_and_mix_every_epoch(prepared, files):
    scaling = shards.scaling_of_shards(files)
    data = shards.ShardedClips(files, scaling, split=None, frames=2)
    loader = DataLoader(data, batch_size=4, num_workers=2)
    seen = []
    for epoch in range(2):
        data.epoch = epoch
        logs = torch.cat([batch["features"][:, 0, 0] for batch in loader])
        seen.append(logs)
    expected = np.sort(np.asarray(prepared.features[:, 0, 0], np.float32))
    for logs in seen:
        assert np.allclose(np.sort(logs.numpy()), expected)
    assert not torch.equal(*seen)


def test_ranks_and_workers_share_without_overlap(files):
    parts = [shards.share(files * 4, worker=w, workers=2, rank=r, world=2) for r in (0, 1) for w in (0, 1)]
    assert sum(map(len, parts)) == 20
    positions = [p for k in range(4) for p in range(20)[k::4]]
    assert sorted(positions) == list(range(20))


def test_more_readers_than_shards_is_told(files):
    data = shards.ShardedClips(files[:1], shards.scaling_of_shards(files), frames=2)
    with pytest.raises(DatasetError, match="smaller shards"):
        next(iter(DataLoader(data, num_workers=2)))


def test_a_damaged_shard_is_told(tmp_path):
    (tmp_path / "shard-00000.parquet").write_bytes(b"no")
    with pytest.raises(DatasetError, match="shard-00000"):
        shards.read_shard(tmp_path / "shard-00000.parquet")
    with pytest.raises(DatasetError, match="holds no shards"):
        shards.shard_files(tmp_path / "empty")


@pytest.mark.slow
def test_a_sweep_runs_every_set_of_parameters_on_two_processes(tmp_path):
    import nbformat

    cells = [nbformat.v4.new_code_cell("seed = 0\nrun_dir = ''"), nbformat.v4.new_code_cell(
        "import os, pathlib\nassert seed != 2, 'bad seed'\npathlib.Path(run_dir, 'result.txt').write_text(f'{seed} {os.getpid()}')")]  # fmt: skip
    cells[0].metadata["tags"] = ["parameters"]
    book = nbformat.v4.new_notebook(
        cells=cells, metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    )
    nbformat.write(book, tmp_path / "page.ipynb")
    run = (  # in a process of its own, as a user runs it: this one has the threads of every test before it
        "import sys; from liveness_utils import growth; page, out = sys.argv[1:]\n"
        "if __name__ == '__main__': growth.sweep(page, growth.grid(seed=[0, 1, 2]), out).to_json(out + '/table.json')"
    )
    script = tmp_path / "sweep.py"
    script.write_text(run, encoding="utf-8")
    subprocess.run([sys.executable, script, tmp_path / "page.ipynb", tmp_path / "out"], check=True, timeout=300)
    table = pd.read_json(tmp_path / "out" / "table.json").sort_index()
    assert table["error"].astype(bool).tolist() == [False, False, True] and "bad seed" in table["error"][2]
    told = [(tmp_path / "out" / f"{k:03d}" / "result.txt").read_text().split() for k in (0, 1)]
    assert [t[0] for t in told] == ["0", "1"] and told[0][1] != told[1][1]


def test_arithmetic():
    assert doctest.testmod(growth).failed == 0 and doctest.testmod(shards).failed == 0
    table = growth.plan(growth.Rates(3.6, 1.8, 0.36, 0.5, 0.8), 1_000_000, cores=100, epochs=10)
    assert table.loc["generate", "core_hours"] == pytest.approx(1000)
    assert table.loc["all", "hours"] == pytest.approx(25)
    assert table.loc["all", "terabytes"] == pytest.approx(1.3)
    assert table.loc["all", "money"] == pytest.approx(2500 * 0.04 + 1.3 * 20)
