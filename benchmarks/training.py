"""How many pictures a second the encoder learns, against a process that leaves its memory to glibc's defaults.

    python benchmarks/training.py [--batch 64] [--steps 20] [--repeats 3] [--threads N]

Each side runs in fresh processes, in turns; the median of each is printed, and their ratio.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys

STEPS = """
import sys, time
import torch
from liveness_utils.memory import keep_freed_memory
from liveness_utils.model import ModelConfig, build
from liveness_utils.training import EncoderModule, TrainConfig

keep, batch_size, steps, threads = (int(v) for v in sys.argv[1:])
if threads:
    torch.set_num_threads(threads)
if keep and not keep_freed_memory():
    raise SystemExit("this system's allocator takes no such settings: nothing to compare")
torch.manual_seed(0)
batch = {
    "frame": torch.randint(0, 256, (batch_size, 112, 112, 3), dtype=torch.uint8),
    "depth": torch.randn(batch_size, 14, 14),
    "species": torch.randint(0, 9, (batch_size,)),
}
module = EncoderModule(build(ModelConfig(n_features=40)).train(), TrainConfig("", ""), torch.ones(9), steps, 1e-3)
module.log_dict = lambda *_args, **_kwargs: None  # there is no Trainer to log to
optimiser = torch.optim.AdamW(module.parameters(), 1e-3)


def step():
    optimiser.zero_grad(set_to_none=True)
    module.training_step(batch, 0).backward()
    optimiser.step()


for _ in range(3):
    step()
began = time.perf_counter()
for _ in range(steps):
    step()
print(batch_size * steps / (time.perf_counter() - began))
"""


def rate(keep: bool, args: argparse.Namespace) -> float:
    """Pictures a second of one fresh process."""
    numbers = [str(int(v)) for v in (keep, args.batch, args.steps, args.threads)]
    done = subprocess.run([sys.executable, "-c", STEPS, *numbers], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr.strip().splitlines()[-1])
    return float(done.stdout)


def main() -> None:
    """Measure both in turns and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=64, help="pictures a step")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0, help="of torch; 0 leaves its default")
    args = parser.parse_args()
    rates = {True: [], False: []}
    for _ in range(args.repeats):
        for keep, measured in rates.items():
            measured.append(rate(keep, args))
    kept, default = (statistics.median(rates[k]) for k in (True, False))
    print(
        f"freed memory kept {kept:.0f} pictures/s, glibc's defaults {default:.0f} pictures/s, ratio {kept / default:.2f} x"
    )


if __name__ == "__main__":
    main()
