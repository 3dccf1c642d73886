"""The solutions that stand folded at the end of notebook 07 do what they say."""

from __future__ import annotations

import re
import shutil

import nbformat
import numpy as np
import pytest
from small_bundle import small_bundle

from liveness_utils import bundle as bundles
from liveness_utils import config, dataset, export
from liveness_utils.errors import BundleError

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def solutions():
    book = nbformat.read(config.repo_root() / "notebooks" / "07_tflite_conversion.ipynb", as_version=4)
    text = "\n".join(cell.source for cell in book.cells if cell.cell_type == "markdown" and "<details>" in cell.source)
    names = {"np": np, "export": export, "shutil": shutil}
    for block in re.findall(r"```python\n(.*?)```", text, re.S):
        # The functions; the lines below them use the notebook's own variables.
        exec(re.split(r"\n\n(?=\S)", block)[0], names)
    return names


def test_a_spoiled_bundle_is_refused(solutions, tmp_path):
    with pytest.raises(BundleError, match="damaged or was changed"):
        bundles.load(solutions["spoiled"](small_bundle()[1], tmp_path / "copy"))


def test_noise_calibrates_to_a_well_formed_file(solutions, tmp_path):
    prepared, folder, _ = small_bundle()
    fill = np.asarray(bundles.load(folder).feature_fill, np.float32)
    sample = next(export.clip_samples(dataset.open_prepared(prepared), np.array([0]), fill))
    noisy = solutions["calibrated_on_noise"](folder / "variants" / "clip_float32.tflite", sample, tmp_path / "n.tflite")
    assert not export.operators(noisy)[1]
