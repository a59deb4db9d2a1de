"""`python -m scschnet.analysis`."""

from scschnet.commands.analysis import main

if __name__ == "__main__":
    raise SystemExit(main())
