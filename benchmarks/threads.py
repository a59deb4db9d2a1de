"""How many threads a training step should take, and how they should wait: on an idle machine and on a busy one.

    python -m benchmarks.threads [--seconds 1.5] [--rounds 3]

Every measurement is a process of its own, because OpenMP reads its environment once. All combinations are taken in
turns, so that ratios within one run hold; busy means one process that counts beside the measurement for every CPU.
Prints a table in Markdown: training steps per second, the best of the rounds.
"""

import argparse
import itertools
import os
import subprocess
import sys

STEPS = """
import sys, time
import scschnet  # before torch, as `python -m scschnet.train` does
import numpy as np, torch
from scschnet.data import collate, embedded
from scschnet.nn import ModelConfig, SchNet
n, threads, seconds = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
torch.set_num_threads(threads)
structures = embedded.load()
model = SchNet(ModelConfig(tuple(int(z) for z in structures.elements), n_features=64))
model.refine_filters()
batch = collate(structures, np.arange(n), 5.0)
def step():
    result = model(**batch.inputs)
    loss = (result["energy"] - batch.energy).square().mean() + (result["forces"] - batch.forces).square().mean()
    loss.backward()
for _ in range(3):
    step()
begin, steps = time.perf_counter(), 0
while time.perf_counter() - begin < seconds:
    step()
    steps += 1
print(steps / (time.perf_counter() - begin))
"""
# What OpenMP's threads do between two pieces of work.
WAITING = {
    "spinning (libgomp's own)": {"GOMP_SPINCOUNT": "", "OMP_WAIT_POLICY": "ACTIVE"},
    "as scschnet sets it": {},
    "sleeping": {"OMP_WAIT_POLICY": "PASSIVE"},
}
STRUCTURES = (1, 10, 100)  # ethanols in a batch, nine atoms each


def steps_per_second(n: int, threads: int, waiting: str, seconds: float) -> float:
    """One measurement."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_"))}
    environment |= {k: v for k, v in WAITING[waiting].items() if v}
    command = [sys.executable, "-c", STEPS, str(n), str(threads), str(seconds)]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return float(done.stdout)


def measure(seconds: float, rounds: int) -> dict[tuple[bool, int, str], list[float]]:
    """Steps per second of every combination of load, threads and waiting, one number per size of a batch."""
    several = os.cpu_count() or 1
    ways = [(1, "sleeping"), *((several, waiting) for waiting in WAITING)]
    best: dict[tuple[bool, int, str], list[float]] = {}
    for busy in (False, True):
        spinners = [
            subprocess.Popen([sys.executable, "-c", "while True: pass"])
            for _ in range(several if busy else 0)
        ]
        try:
            for _, (threads, waiting) in itertools.product(range(rounds), ways):
                row = best.setdefault((busy, threads, waiting), [0.0] * len(STRUCTURES))
                for k, n in enumerate(STRUCTURES):
                    row[k] = max(row[k], steps_per_second(n, threads, waiting, seconds))
        finally:
            for spinner in spinners:
                spinner.kill()
    return best


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=1.5, help="length of one measurement")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each combination")
    chosen = parser.parse_args()
    head = [f"{n} ethanol{'s' * (n > 1)}" for n in STRUCTURES]
    print(f"| machine | threads | they wait | {' | '.join(head)} |\n|{'---|' * (3 + len(head))}")
    for (busy, threads, waiting), row in measure(chosen.seconds, chosen.rounds).items():
        numbers = " | ".join(f"{value:.0f}" for value in row)
        wait = waiting if threads > 1 else "-"
        print(f"| {'busy' if busy else 'idle'} | {threads} | {wait} | {numbers} |")


if __name__ == "__main__":
    main()
