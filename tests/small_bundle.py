"""One small trained and exported bundle, made once a run and shared by the tests of training and conversion.

Whatever only needs a bundle to judge with takes the released one (`conftest.bundle_folder`).
"""

from __future__ import annotations

import functools
import os
from pathlib import Path

from filelock import FileLock
from test_model import make_prepared

from liveness_utils import dataset as ds
from liveness_utils import export, training
from liveness_utils.cues import FRAME_FEATURES


@functools.lru_cache(maxsize=1)
def small_bundle() -> tuple[Path, Path, Path]:
    """Folders of the prepared arrays and the bundle, and the checkpoint's path."""
    root = Path(os.environ["LIVENESS_TEST_SHARED"])
    with FileLock(root / "lock"):
        if not (root / "bundle" / "bundle.json").exists():
            _make(root)
    return root / "arrays", root / "bundle", root / "train" / "checkpoint.pt"


def _make(root: Path) -> None:
    arrays = make_prepared(root / "arrays", n=48, names=FRAME_FEATURES)
    shape = {"fovea": True, "veto": True}  # as what is released
    config = training.TrainConfig(
        str(arrays), str(root / "train"), epochs=1, batch_size=8, frames=2, progress=False, **shape
    )
    checkpoint = training.train(config)
    prepared = ds.open_prepared(arrays)
    export.export_bundle(
        checkpoint,
        root / "bundle",
        prepared,
        variants=("float32", "weight_only", "int8", "mixed"),
        default="weight_only",
        calibration_clips=3,
        thresholds=export.dev_thresholds(checkpoint, prepared),
    )
