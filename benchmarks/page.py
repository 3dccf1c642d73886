"""How long the phone page's verdict takes after the capture, against the landmarker's share of it.

    python benchmarks/page.py [--verdicts N]

A Chromium with a fake camera and emulated sensors (those of tests/test_web_browser.py) films a sample clip and waits for
the verdict, several times. Most of the wait is landmarks on every frame, on any machine; what the ratio tells is
everything else: upload, decoding, cues, network, drawing.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import browser_lab
import test_web_browser as harness

from liveness_utils import config


def main() -> None:
    """Print the median delay by stage, and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--verdicts", type=int, default=5)
    count, stages = parser.parse_args().verdicts, []
    with tempfile.TemporaryDirectory() as folder, browser_lab.Chromium() as chromium:
        show = harness.Presentation(harness.sample(harness.BONA_FIDE), Path(folder))
        with harness.serving(config.released_bundle()) as (base, _), chromium.page(show.path) as page:
            phone = harness.run(page, show, base)
            for k in range(count):
                if k:
                    harness.film(page, phone)
                stages.append(json.loads(page.get_attribute("#verdict", "data-spent") or "{}"))
    spent = {name: statistics.median(s[name] for s in stages if s) for name in next(s for s in stages if s)}
    print(", ".join(f"{name} {ms:.0f} ms" for name, ms in spent.items()))
    whole = sum(spent.values())
    print(f"verdict {whole:.0f} ms after the capture (median of {count}), {whole / spent['landmarks']:.2f} times the landmarker's {spent['landmarks']:.0f} ms")  # fmt: skip


if __name__ == "__main__":
    main()
