"""What `scripts/publish.py` puts into the repository."""

from __future__ import annotations

import importlib.util
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from liveness_utils import bundle as bundles
from liveness_utils import config
from liveness_utils.deployment import benchmark_report


@pytest.fixture
def publish(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("publish", config.repo_root() / "scripts" / "publish.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "ROOT", tmp_path / "repo")
    return module


def test_a_bundle_is_published_with_what_was_measured_on_real_faces(publish, tmp_path):
    run, target = tmp_path / "run", tmp_path / "repo" / "data" / "bundle"
    shutil.copytree(config.released_bundle(), run / "bundle")
    (run / "bundle" / "variants").mkdir()
    config.write_json(run / "metrics" / "06.json", {"test": {"acer": 0.5}})
    held = bundles.load(config.released_bundle()).metrics["real_world"]
    measured = {"mine": held[next(iter(held))]}
    (tmp_path / "all.json").write_text(json.dumps(measured))
    publish.publish_bundle(run, tmp_path / "all.json")
    assert bundles.load(target).metrics["real_world"] == measured and not (target / "variants").exists()
    assert json.loads((target / "metrics.json").read_text()) == {"test": {"acer": 0.5}}
    assert benchmark_report.markdown(measured) in (target / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert bundles.load(run / "bundle").metrics["real_world"] != measured  # the run's own stays as it was


def test_photographs_are_published_smaller_and_without_a_pdf(publish, tmp_path):
    figures, target = tmp_path / "run" / "figures", tmp_path / "repo" / "figures"
    figures.mkdir(parents=True), target.mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 255, (330, 330, 3), np.uint8)
    for name, picture in (("lines", noise[:30]), ("photos", noise)):
        Image.fromarray(picture).save(figures / f"{name}.png")
        (figures / f"{name}.pdf").write_bytes(b"%PDF"), (target / f"{name}.pdf").write_bytes(b"old")
    publish.publish_figures(tmp_path / "run")
    assert sorted(p.name for p in target.iterdir()) == ["lines.pdf", "lines.png", "photos.png"]
    assert Image.open(target / "photos.png").size == (220, 220)
