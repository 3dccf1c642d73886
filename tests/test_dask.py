"""A Dask cluster of two workers, one of which is killed midway: nothing is lost and nothing is doubled."""

import filecmp
import os
import signal
import subprocess
import sys
from dataclasses import replace

import pandas as pd
import pytest

from liveness_utils import simulate
from liveness_utils.clips import read_manifest
from liveness_utils.config import profile

pytestmark = pytest.mark.slow

distributed = pytest.importorskip("distributed")

FEW = replace(
    profile("quick"), name="few", subjects=(2, 2, 0, 0), bona_fide_clips=(4, 3, 0, 0),
    attack_clips=(0, 0, 0, 0),
)  # fmt: skip


# Loaded by one worker: it is killed as it ends its first task, before the scheduler hears of it.
PRELOAD = """
import os, signal
from distributed import WorkerPlugin

class Killed(WorkerPlugin):
    ended = 0
    def transition(self, key, start, finish, **kwargs):
        self.ended += start == "executing" and finish == "memory"
        if self.ended == 1:
            os.kill(os.getpid(), signal.SIGKILL)

async def dask_setup(worker):
    await worker.plugin_add(Killed(), name="killed")
"""


@pytest.fixture
def cluster(tmp_path):
    """Scheduler and two worker processes without nannies, so that a killed worker stays dead."""
    preload = tmp_path / "preload.py"
    preload.write_text(PRELOAD)
    with distributed.LocalCluster(n_workers=0, processes=True, dashboard_address=":0") as scheduler:
        command = [
            sys.executable, "-m", "distributed.cli.dask_worker", scheduler.scheduler_address, "--no-nanny",
            "--nthreads", "1", "--no-dashboard", "--local-directory", str(tmp_path),
        ]  # fmt: skip
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        env = os.environ | {"OMP_NUM_THREADS": "1"}
        workers = [subprocess.Popen([*command, *more], env=env, **quiet) for more in (("--preload", str(preload)), ())]
        try:
            with distributed.Client(scheduler) as client:
                client.wait_for_workers(2, timeout=300)
            yield scheduler.scheduler_address, workers
        finally:
            for worker in workers:
                worker.kill()
                worker.wait()


def test_a_killed_worker_loses_and_doubles_nothing(cluster, tmp_path):
    address, workers = cluster
    out, plain = tmp_path / "dask", tmp_path / "plain"
    table = simulate.generate(FEW, out, seed=5, backend="dask", scheduler=address, progress=False)
    assert workers[0].wait(300) == -signal.SIGKILL and len(table) > 2
    specs = simulate.plan(FEW, 5)
    assert table.clip_id.tolist() == [s.clip_id for s in specs] and table.clip_id.is_unique
    assert sorted(p.name for p in (out / "clips").iterdir() if not p.name.startswith(".")) == sorted(table.clip_id)
    pd.testing.assert_frame_equal(read_manifest(out), read_manifest(out).drop_duplicates("clip_id"))
    again = simulate.generate(FEW, plain, seed=5, workers=1, progress=False)
    pd.testing.assert_frame_equal(table, again)
    for clip_id in table.clip_id:
        for name in ("video.mp4", "imu.parquet", "truth.npz"):
            path = f"clips/{clip_id}/{name}"
            assert filecmp.cmp(out / path, plain / path, shallow=False), path
