"""The folded solutions of notebooks 05 and 06 run as they stand on the page, on small arrays."""

import re
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from prepared_clips import G, make_prepared

from liveness_utils import dataset, metrics
from liveness_utils.network import fusion, scoring, training

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("0[56]_*.ipynb"))


def solutions():
    for path in NOTEBOOKS:
        cells = nbformat.read(path, as_version=4).cells
        text = "\n".join(c.source for c in cells if c.cell_type == "markdown")
        folded = "\n".join(re.findall(r"<details>.*?</details>", text, re.S))
        for number, block in enumerate(re.findall(r"```python\n(.*?)```", folded, re.S), 1):
            yield pytest.param(block, id=f"{path.name[:2]}-{number}")


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> dict:
    """What the reader's kernel holds at the end of the page."""
    torch.manual_seed(0)
    prepared = dataset.open_prepared(make_prepared(tmp_path_factory.mktemp("page") / "arrays", n=24))
    net = fusion.build(fusion.ModelConfig(n_features=G, imu_columns=(G - 1,))).eval()
    return {"prepared": prepared, "net": net, "np": np, "training": training, "scoring": scoring, "metrics": metrics}


@pytest.mark.parametrize("block", list(solutions()))
def test_a_solution_does_what_it_says(block, page):
    first = "from dataclasses import replace\n"
    exec(compile(first + block, "solution", "exec"), dict(page))  # noqa: S102
