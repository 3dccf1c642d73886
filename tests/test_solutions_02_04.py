"""The folded solutions of notebooks 02 to 04 run as they stand on the page."""

import json
import re
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("0[234]_*.ipynb"))


def solutions():
    for path in NOTEBOOKS:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        text = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
        folded = "\n".join(re.findall(r"<details>.*?</details>", text, re.S))
        for number, block in enumerate(re.findall(r"```python\n(.*?)```", folded, re.S), 1):
            yield pytest.param(block, id=f"{path.name[:2]}-{number}")


@pytest.mark.parametrize("block", list(solutions()))
def test_a_solution_does_what_it_says(block):
    exec(compile(block, "solution", "exec"), {})  # noqa: S102
