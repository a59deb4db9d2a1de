"""`python -m scschnet.lammps`."""

from scschnet.commands.lammps import main
from scschnet.commands.line import run

if __name__ == "__main__":
    raise SystemExit(run(main))
