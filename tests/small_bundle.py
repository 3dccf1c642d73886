"""One small trained and exported bundle, made once a run and shared by the tests of training and conversion.

Whatever only needs a bundle to judge with takes the released one (`conftest.bundle_folder`).
"""

from __future__ import annotations

import functools
import os
from pathlib import Path

from filelock import FileLock
from prepared_clips import make_prepared

from liveness_utils import dataset as ds
from liveness_utils import export
from liveness_utils.cues import FRAME_FEATURES
from liveness_utils.network.training import TrainConfig, train


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
    config = TrainConfig(str(arrays), str(root / "train"), picture_epochs=1, views=1, epochs=2)
    checkpoint = train(config, progress=False)
    prepared = ds.open_prepared(arrays)
    export.export_bundle(
        checkpoint,
        root / "bundle",
        prepared,
        variants=("float32", "float16", "weight_only", "int8", "mixed"),
        default="weight_only",
        calibration_clips=3,
        thresholds=export.dev_thresholds(checkpoint, prepared),
    )
