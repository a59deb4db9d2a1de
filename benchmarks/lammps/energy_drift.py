"""Energy conservation of water in LAMMPS (NVE), 192 and 1,536 atoms, float32 and float64 networks.

    python benchmarks/lammps/energy_drift.py RUN_FOLDER --out benchmarks/results/lammps_nve.json

RUN_FOLDER: a training on the periodic water set. Each case starts from examples/lammps/water/prepare.py's structure, is brought
to `--kelvin` with a thermostat, forgets it, and is run at 0.5 fs. Reported: the slope of a line through the total energy per atom, its
standard error from blocks (`drift_error`, what a trajectory of this length can tell), and the rms distance from the line.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

import numpy as np
import torch

from scschnet import export

PREPARE = Path(__file__).parents[2] / "examples" / "lammps" / "water" / "prepare.py"
N_BLOCKS = 20
SCRIPT = """
units metal
read_data water.data
replicate {repeats} {repeats} {repeats}
pair_style scschnet
pair_coeff * * {model} H O
neighbor 1.0 bin
timestep {timestep}
velocity all create {kelvin} 4928 loop geom
fix heat all nvt temp {kelvin} {kelvin} 0.05
run {warm_up}
unfix heat
fix move all nve
variable time equal step*dt
variable energy equal etotal
variable kelvin equal temp
thermo 1000
fix out all print 10 "${{time}} $(v_energy:%.9f) ${{kelvin}}" file energy.txt screen no title ""
run {steps}
"""


def simulate(model: Path, repeats: int, steps: int, options: argparse.Namespace) -> np.ndarray:
    """Time (ps), total energy (eV) and temperature (K) every ten steps."""
    place = Path(tempfile.mkdtemp(dir=model.parent))
    subprocess.run([sys.executable, PREPARE], cwd=place, check=True, capture_output=True)
    values = {
        "timestep": options.timestep * 1e-3,
        "kelvin": options.kelvin,
        "warm_up": options.warm_up,
    }
    (place / "in.lmp").write_text(
        SCRIPT.format(repeats=repeats, model=model, steps=steps, **values)
    )
    command = ["mpirun", "-n", str(options.ranks), "lmp", "-in", "in.lmp", "-log", "none"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run(command, cwd=place, env=environment, check=True, capture_output=True)
    return np.loadtxt(place / "energy.txt")


def drift(times: np.ndarray, energies: np.ndarray) -> tuple[float, float, float]:
    """Slope of a line, its standard error from the means of blocks, and the rms distance from it."""
    n = len(times) // N_BLOCKS * N_BLOCKS
    t, e = (values[:n].reshape(N_BLOCKS, -1).mean(1) for values in (times, energies))
    slope, intercept = np.polyfit(t, e, 1)
    rest = e - slope * t - intercept
    error = np.sqrt(rest @ rest / (N_BLOCKS - 2) / np.sum((t - t.mean()) ** 2))
    return slope, error, float(np.std(energies - slope * times))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="run folder of a training on water")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--timestep", type=float, default=0.5, help="fs")
    parser.add_argument("--kelvin", type=float, default=300.0)
    parser.add_argument("--warm-up", type=int, default=4000, help="steps with the thermostat")
    parser.add_argument(
        "--ps", type=float, nargs=2, default=[20.0, 5.0], help="small and large box"
    )
    parser.add_argument("--ranks", type=int, default=1)
    options = parser.parse_args()
    report = {
        "torch": torch.__version__,
        "lammps": metadata.version("lammps"),
        "timestep_fs": options.timestep,
        "test": json.loads((options.run / "test.json").read_text()),
        "trajectories": [],
    }
    with tempfile.TemporaryDirectory() as scratch:
        for repeats, length in zip((1, 2), options.ps, strict=True):
            for dtype in ("float64", "float32"):
                file = Path(scratch) / f"{dtype}.pt"
                export(options.run, file, dtype=dtype)
                steps = round(1e3 * length / options.timestep)
                times, energies, kelvin = simulate(file, repeats, steps, options).T
                n_atoms = 192 * repeats**3
                slope, error, fluctuation = drift(times, energies / n_atoms)
                report["trajectories"].append(
                    {
                        "n_atoms": n_atoms,
                        "dtype": dtype,
                        "ps": length,
                        "drift_ev_per_atom_ps": slope,
                        "drift_error": error,
                        "fluctuation_ev_per_atom": fluctuation,
                        "mean_kelvin": float(kelvin.mean()),
                        "largest_kelvin": float(kelvin.max()),
                    }
                )
                print(report["trajectories"][-1], file=sys.stderr)
                options.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
