"""`liveness train` from the command line: on two processes, and with single pictures for the picture head."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from prepared_clips import make_prepared

from liveness_utils import cli, clips, config, metrics, pictures
from liveness_utils import dataset as ds
from liveness_utils.instruments import SPECIES
from liveness_utils.network import study, training
from liveness_utils.network.fusion import load_checkpoint


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder of clips that have been prepared already, in RUN/features."""
    root = tmp_path_factory.mktemp("clips")
    make_prepared(root / "arrays", n=48)
    (root / "clips").mkdir()
    (root / "arrays" / "manifest.parquet").rename(root / "manifest.parquet")
    return root


def run_of(data, folder):
    """A run whose features are those of `data`."""
    features = folder / "features"
    features.mkdir(parents=True)
    for path in (data / "arrays").iterdir():
        (features / path.name).symlink_to(path)
    (features / "manifest.parquet").symlink_to(data / "manifest.parquet")
    index = json.loads((data / "arrays" / "index.json").read_text())
    index["source"] = ds.source_mark(data, clips.read_manifest(data)["clip_id"])
    (features / "index.json").unlink()
    (features / "index.json").write_text(json.dumps(index))
    return folder


@pytest.fixture(scope="module")
def singles(tmp_path_factory):
    """Sixteen pictures as `pictures.prepare` leaves them, of noise: here it only counts that they are dealt."""
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    np.save(folder / "crops.npy", rng.integers(0, 255, (16, 112, 112, 3), np.uint8))
    np.save(folder / "depth.npy", np.zeros((16, 14, 14), np.float16))
    np.save(folder / "species.npy", np.arange(16) % len(SPECIES))
    config.write_json(folder / "index.json", pictures.mark(16))
    return folder


def arguments(data, out, *more):
    return ["train", "--data", str(data), "--out", str(out), "--epochs", "1", "--picture-epochs", "1", "--workers", "0", *more]  # fmt: skip


@pytest.mark.slow
def test_two_processes_by_the_command_line_train_and_one_scores(data, tmp_path):
    ways = {"one": (), "two": ("--devices", "2", "--strategy", "ddp")}
    held = {}
    for name, options in ways.items():
        out = run_of(data, tmp_path / name)
        command = [
            sys.executable,
            "-m",
            "liveness_utils.cli",
            *arguments(data, out, "--accelerator", "cpu", "--epochs", "2", *options),
        ]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=300, cwd=config.repo_root(), env=os.environ | {"OMP_NUM_THREADS": "1"}
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
        # one process scores, and says so after the bars
        assert done.stdout.split()[-3:] == [
            str(out / n) for n in ("checkpoints/checkpoint.pt", "scores_dev.csv", "scores_test.csv")
        ]
        held[name] = load_checkpoint(out / "checkpoints" / "checkpoint.pt")[1]["val_loss"]
        assert len(metrics.load_scores(out / "scores_test.csv")) == 8
    assert held["one"] == pytest.approx(held["two"], rel=0.5)


@pytest.mark.slow
def test_pictures_join_in_and_training_can_start_from_a_checkpoint(data, singles, tmp_path):
    out = run_of(data, tmp_path / "mixed")
    assert cli.main(arguments(data, out, "--pictures", str(singles), "--modalities", "video")) == 0
    checkpoint = out / "checkpoints" / "checkpoint.pt"
    told = load_checkpoint(checkpoint)[1]["training"]
    assert told["pictures"] == pictures.mark(16) and len(training.training_log(checkpoint, "pictures")) == 1
    tuned = run_of(data, tmp_path / "tuned")
    assert cli.main(arguments(data, tuned, "--start", str(checkpoint), "--modalities", "video")) == 0
    assert load_checkpoint(tuned / "checkpoints" / "checkpoint.pt")[1]["training"]["start"]


def test_a_folder_without_pictures_is_refused_in_a_sentence(data, tmp_path, capsys):
    out = run_of(data, tmp_path)
    assert cli.main(arguments(data, out, "--pictures", str(tmp_path / "none"))) == cli.FAILED
    assert "no finished pictures" in capsys.readouterr().err


@pytest.mark.parametrize("own", [False, True])
def test_a_study_takes_the_runs_pictures_but_for_ones_own_clips(own, singles, tmp_path, monkeypatch):
    run, studied = tmp_path / "run", {}
    run.mkdir(), (run / "pictures").symlink_to(singles)
    monkeypatch.setattr(ds, "prepare", lambda *a, **k: None)
    monkeypatch.setattr(study, "run_study", lambda sizes, settings, *a, **k: studied.update(vars(settings)) or [])
    where = ["--data", str(tmp_path)] if own else []
    assert cli.main(["train", "--study", "--profile", "study", "--out", str(run), *where]) == 0
    assert studied["pictures"] == ("" if own else str(run / "pictures"))
    assert studied["epochs"] == config.profile("study").epochs
