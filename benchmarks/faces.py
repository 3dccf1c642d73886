"""What the cached head model and its sparse expression bases are worth.

    python benchmarks/faces.py [--repeats N]

Loading the model from its cache is held against building it from the wheel's files, and the vertices of a face with an
expression against the same sum over full bases, in the same run.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable

import numpy as np

from liveness_utils import faces
from liveness_utils.head_model import head_model


def least(function: Callable[[], object], repeats: int) -> float:
    """Least wall time of a call, in seconds."""
    spent = []
    for _ in range(repeats):
        begin = time.perf_counter()
        function()
        spent.append(time.perf_counter() - begin)
    return min(spent)


def main() -> None:
    """Print both comparisons."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=60)
    repeats = parser.parse_args().repeats
    with tempfile.TemporaryDirectory() as folder:
        build = least(lambda: head_model(folder), 1)
        load = least(lambda: (head_model.cache_clear(), head_model(folder)), 3)
    print(f"head model: built in {build:.1f} s, loaded in {load:.2f} s, {build / load:.0f} times sooner")

    model, rng = head_model(), np.random.default_rng(0)
    face = faces.build_face(faces.sample_identity(rng))
    weights = (rng.random(52) * (rng.random(52) < 0.3)).astype(np.float32)
    full = np.zeros((52, *model.template.shape), np.float32)
    full[:, model.expression_points] = model.expression
    ours = least(lambda: face.vertices(weights, np.array([0.1, 0.05])), repeats)
    dense = least(lambda: (model.template + np.einsum("k,kpc->pc", weights, full))[model.split], repeats)
    print(f"vertices of an expression: {1e3 * ours:.2f} ms, over full bases {1e3 * dense:.2f} ms, {dense / ours:.1f} times faster")  # fmt: skip


if __name__ == "__main__":
    main()
