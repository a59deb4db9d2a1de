"""`python -m scschnet.lammps`."""

from scschnet.commands.lammps import main

if __name__ == "__main__":
    raise SystemExit(main())
