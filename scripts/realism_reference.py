"""Make notebooks/studies/realism_reference.json: aggregates of real bona fide face crops, no pixels.

Usage: python scripts/realism_reference.py REAL_DIR
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2

from liveness_utils import config, landmarks

sys.path.insert(0, str(config.repo_root() / "notebooks"))
from studies import realism  # noqa: E402


def main(real: Path) -> None:
    files = sorted((real / "images" / "real").glob("*.jpg"))
    frames = (cv2.cvtColor(cv2.imread(str(f)), cv2.COLOR_BGR2RGB) for f in files)
    with landmarks.Landmarker(running_mode="image") as landmarker:
        statistics = realism.face_statistics(frames, landmarker)
    source = f"{len(statistics)} bona fide face crops of the CASIA-FASD test frames, three cameras; aggregates only"
    realism.save_reference(realism.reference(statistics), realism.REFERENCE, source)
    print(source)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
