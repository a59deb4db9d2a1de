"""How the suite and a program in another environment talk: one line of JSON each way, on standard input and a pipe.

    {"case": {...}, "structures": "FILE.npz"}   ->  {}                           the case is ready
    {"run": n}                                  ->  {"seconds": s}               CPU time of n calls

A peer is a file NAME_peer.py that calls `serve` with a function from case and structures to the call that is timed. It
runs in the environment ENVIRONMENTS/NAME, which the first lines of the file say how to make. Everything here works
without scschnet and without torch.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

GIB = 1 << 30
# glibc returns large freed blocks to the kernel, and every new tensor then costs page faults.
KEEP_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": str(16 * GIB),
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(64 * GIB),
    "MALLOC_TOP_PAD_": str(GIB // 4),
    "MALLOC_ARENA_MAX": "1",
}
# As a user gets it; and with the best settings found: memory is kept, and denormal numbers, to which Gaussians
# decay, count as zero, without which products with them are slow on Intel processors.
SETTINGS = {"installed": {}, "best": KEEP_MEMORY}


def serve(prepare: Callable[[dict[str, Any], list], Callable[[], object]]) -> None:
    """Answer until standard input ends.

    Args:
        prepare: of a case and its structures, as ASE atoms, makes the call that is timed.
    """
    answers = os.fdopen(int(sys.argv[2]), "w")
    run: Callable[[], object] | None = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if "case" in request:
                run, answer = prepare(request["case"], read(request["structures"])), {}
            else:
                assert run is not None
                answer = {"seconds": seconds_of(run, request["run"])}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


def seconds_of(run: Callable[[], object], n: int) -> float:
    start = time.process_time()
    for _ in range(n):
        run()
    return time.process_time() - start


def read(file: str) -> list:
    """Structures as ASE atoms."""
    import numpy as np
    from ase import Atoms

    with np.load(file) as found:
        ptr = found["atom_ptr"]
        return [
            Atoms(found["numbers"][a:b], found["positions"][a:b], cell=cell, pbc=pbc)
            for a, b, cell, pbc in zip(ptr[:-1], ptr[1:], found["cells"], found["pbc"], strict=True)
        ]


def step_of_dynamics(atoms) -> Callable[[], object]:
    """A step of MD with a calculator of ASE, at 300 K; so short that forces that mean nothing do not move atoms."""
    import numpy as np
    from ase import units
    from ase.md.verlet import VelocityVerlet

    spread = np.sqrt(300 * units.kB * atoms.get_masses())[:, None]
    atoms.set_momenta(spread * np.random.default_rng(0).normal(size=(len(atoms), 3)))
    steps = VelocityVerlet(atoms, timestep=0.01 * units.fs)
    return lambda: steps.run(1)


class Peer:
    """A running peer with a case prepared.

    Raises:
        RuntimeError: with what the peer says of its failure.
    """

    def __init__(self, python: Path, name: str, setting: str, case: dict, structures: Any) -> None:
        environment = os.environ | {"OMP_NUM_THREADS": "1"} | SETTINGS[setting]
        program = Path(__file__).with_name(f"{name}_peer.py")
        self.name = name
        answers, theirs = os.pipe()
        self.process = subprocess.Popen(
            [python, program, setting, str(theirs)],
            stdin=subprocess.PIPE,
            stdout=2,  # what a program prints is no answer
            pass_fds=[theirs],
            text=True,
            env={k: v for k, v in environment.items() if k != "PYTHONPATH"},
        )
        os.close(theirs)
        self.answers = os.fdopen(answers)
        with tempfile.NamedTemporaryFile(suffix=".npz") as file:
            write(file.name, structures)
            try:
                self.ask({"case": case, "structures": file.name})
            except RuntimeError:
                self.close()
                raise

    def ask(self, request: dict) -> dict:
        assert self.process.stdin
        print(json.dumps(request), file=self.process.stdin, flush=True)
        line = self.answers.readline()
        answer = json.loads(line) if line else {"error": "it ended"}
        if "error" in answer:
            raise RuntimeError(f"peer {self.name}: {answer['error']}")
        return answer

    def close(self) -> None:
        self.process.communicate()  # ends its input, and waits
        self.answers.close()


def write(file: str, structures: Any) -> None:
    """A StructureSet for `read`."""
    import numpy as np

    np.savez(
        file,
        positions=structures.positions,
        numbers=structures.atomic_numbers,
        atom_ptr=structures.atom_ptr,
        cells=structures.cells,
        pbc=structures.pbc,
    )


class Environments:
    """The peers that can run here, each in an environment of its own.

    Args:
        folder: of environments; None: there are none.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self.running: list[Peer] = []

    def __enter__(self) -> "Environments":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        while self.running:
            self.running.pop().close()

    def start(self, names: str, structures: Any, **case: Any) -> dict[str, Callable[[int], float]]:
        """For each peer that is there, and each setting, a function that runs n calls and returns their CPU seconds.

        Peers of an earlier case end.

        Args:
            names: those that take such a case, separated by blanks: NAME, or NAME:PROGRAM for one of several in it.
            structures: a StructureSet.
            case: what to do with them.
        """
        self.close()
        found = {}
        for whole in names.split():
            name, _, program = whole.partition(":")
            python = self.folder and self.folder / name / "bin" / "python"
            if not python or not python.exists():
                continue
            for setting in SETTINGS if not program else ["installed"]:
                peer = Peer(python, name, setting, case | {"program": program}, structures)
                self.running.append(peer)
                found[f"{name}, {program or setting}"] = lambda n, peer=peer: peer.ask({"run": n})[
                    "seconds"
                ]
        return found
