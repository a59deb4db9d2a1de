"""`python -m scschnet.data`."""

from scschnet.commands.data import main

if __name__ == "__main__":
    raise SystemExit(main())
