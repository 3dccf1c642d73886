"""What the two halves of a training cost: looks against pictures in the fusion, small maps in the encoder's lesson.

    python benchmarks/training.py [--clips N] [--epochs N]

All ways in one run, on random arrays of the shapes that a prepared data set has. The fusion learns with
the encoder at rest and the losses, IMU swaps and changes of `training.train`. Looks are taken once a
training (or once a study, whose rows share them); that time stands on a line of its own and is not in
the ratio. A step of the lesson is timed with `model.SmallDepthwise` and with plain convolutions by turns.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch.utils.data import DataLoader

from liveness_utils import dataset, inputs, model, training
from liveness_utils.cues import FEATURE_MODALITY, FRAME_FEATURES


def random_clips(n: int) -> dataset.Prepared:
    """Arrays like those of `dataset.prepare`, filled with noise."""
    rng, width, frames = np.random.default_rng(0), len(FRAME_FEATURES), inputs.FRAMES
    noise = lambda *shape: rng.normal(size=shape).astype(np.float32)  # noqa: E731
    arrays = {
        "crops": rng.integers(0, 255, (n, frames, inputs.CROP, inputs.CROP, 3), np.uint8),
        "features": noise(n, frames, width),
        "imu": noise(n, frames, inputs.WINDOW, 6),
        "presence": np.ones((n, 3), np.float32),
        "depth": noise(n, frames, 14, 14).astype(np.float16),
        "quality_rows": noise(n, frames, 5),
        "decoy_features": noise(n, 4, frames, width),
        "decoy_imu": noise(n, 4, frames, inputs.WINDOW, 6),
        "decoy_valid": np.ones((n, 4), np.float32),
    }
    alive = np.arange(n) % 2
    table = pd.DataFrame({"clip_id": [f"{k:06d}" for k in range(n)], "is_bonafide": alive, "split": "train"})
    table["pai_species"] = np.where(alive == 1, None, "flat_print")
    quality = table[["clip_id"]].assign(reasons="")
    columns = tuple(k for k, m in enumerate(FEATURE_MODALITY) if m == "imu")
    return dataset.Prepared(Path(), table, quality, tuple(FRAME_FEATURES), columns, **arrays)


def seconds_an_epoch(module: training.LivenessModule, data: dataset.LivenessDataset, epochs: int) -> float:
    """Median over epochs of what `Trainer` does in one, without its book-keeping."""
    for part in module._resting:
        part.eval()
    module.net.frame.to(memory_format=torch.channels_last)  # as a lesson leaves it
    weights = [p for p in module.parameters() if p.requires_grad]
    optimiser, spent = torch.optim.AdamW(weights, 1e-3), []
    for data.epoch in range(epochs):
        begin = time.perf_counter()
        for batch in DataLoader(data, module.cfg.batch_size, shuffle=True, drop_last=True):
            losses, _ = module.losses(training.swap_imu(batch))
            optimiser.zero_grad()
            losses["loss"].backward()
            optimiser.step()
        spent.append(time.perf_counter() - begin)
    return float(np.median(spent))


def lesson_seconds(net: torch.nn.Module, repeats: int) -> dict[str, float]:
    """Median CPU seconds of a step on 64 pictures, by kind of convolution."""
    frame, spent = net.frame.train().to(memory_format=torch.channels_last), {"plain": [], "small": []}
    frame.requires_grad_(True)
    pictures = torch.rand(training.ENCODER_BATCH, inputs.CROP, inputs.CROP, 3)
    for k in range(2 * repeats + 2):
        name = ("plain", "small")[k % 2]
        model.SmallDepthwise.LARGEST = {"plain": 0, "small": 16}[name]
        begin = time.process_time()
        embedding, depth, _ = frame(pictures)
        (embedding.square().mean() + depth.square().mean()).backward()
        if k > 1:  # the first of each warms up
            spent[name].append(time.process_time() - begin)
    return {name: float(np.median(times)) for name, times in spent.items()}


def main() -> None:
    """Measure and print clips a second and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=5)
    options = parser.parse_args()
    prepared, rows = random_clips(options.clips), np.arange(options.clips)
    scaling = dataset.scaling_of(prepared, rows)
    with tempfile.TemporaryDirectory() as folder:
        config = training.TrainConfig("", folder, encoder_epochs=1, views=8, progress=False)
        module = training.LivenessModule(training._network(prepared, config, scaling), config, 1.0, 1)
        module.setup("fit")
        begin = time.perf_counter()
        asked = [(int(r), v) for r in rows for v in range(-1, config.views)]
        seen = training._in_threads(
            module.net, training._looker(module.net, prepared, np.arange(8) % 2 > 0, 0), asked, False
        )
        looking = time.perf_counter() - begin
    embedding = np.stack([e for e, _ in seen]).reshape(len(rows), 1 + config.views, inputs.FRAMES, -1)
    relief = np.stack([r for _, r in seen]).reshape(len(rows), 1 + config.views, inputs.FRAMES)
    looks = dataset.Looks(embedding[:, 0], relief[:, 0], rows, embedding[:, 1:], relief[:, 1:], np.arange(8) % 2 > 0)
    spent = {}
    for name, given in {"pictures, 8 of 25": None, "looks, all 25": looks}.items():
        data = dataset.LivenessDataset(prepared, rows, scaling, frames=config.frames, augment=True, looks=given)
        spent[name] = seconds_an_epoch(module, data, options.epochs)
        print(f"{name:20s}{options.clips / spent[name]:8.1f} clips/s")
    slow, fast = spent.values()
    print(f"looks against pictures: {slow / fast:.2f} x")
    print(f"taking the looks, once: {looking:.1f} s, as long as {looking / slow:.1f} epochs from pictures")
    step = lesson_seconds(module.net, options.epochs)
    print(f"a step of the lesson: {step['plain']:.2f} s plain, {step['small']:.2f} s with small maps as matrices")
    print(f"plain against small: {step['plain'] / step['small']:.2f} x")


if __name__ == "__main__":
    main()
