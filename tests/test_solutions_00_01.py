"""The folded solutions of notebooks 00 and 01 run as they stand on the page, on stand-ins for the page's own data."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from liveness_utils.instruments import SPECIES
from studies import leaks

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"


def solutions(name):
    cells = json.loads((NOTEBOOKS / name).read_text(encoding="utf-8"))["cells"]
    text = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    folded = "\n".join(re.findall(r"<details>.*?</details>", text, re.S))
    return re.findall(r"```python\n(.*?)```", folded, re.S)


def run(block, held):
    exec(compile(block, "solution", "exec"), held)  # noqa: S102
    return held


def test_a_stricter_threshold_costs_bona_fide_people():
    rng = np.random.default_rng(0)
    species = [None] * 200 + ["soft_mask"] * 40
    scores = pd.DataFrame({"score": np.r_[rng.beta(6, 2, 200), rng.beta(4, 4, 40)], "pai_species": species})
    held = run(solutions("00_start_here.ipynb")[0], {"np": np, "scores": scores, "attacks": scores.pai_species.notna()})
    accepted = (scores.score[scores.pai_species == "soft_mask"] >= held["strict"]).sum()
    assert accepted == 4 and held["bpcer_strict"] > 0.1


@pytest.fixture
def manifest():
    rows = [(split, s) for split in ("train", "test") for s in SPECIES for _ in range(30)]
    table = pd.DataFrame(rows, columns=["split", "pai_species"]).replace({"pai_species": {"bona_fide": None}})
    return table.assign(is_bonafide=table.pai_species.isna())


@pytest.mark.parametrize("block", solutions("01_data_generation.ipynb"))
def test_solutions_of_data_generation(block, manifest):
    held = run(block, {"np": np, "manifest": manifest})
    if "planted" in held:
        found = leaks.leak_table({"clip_order": held["planted"]["planted"]}, manifest)
        assert (found.excess > 0.49).all() and found.leak.all()
