"""`python -m scschnet.runs`."""

from scschnet.commands.runs import main

if __name__ == "__main__":
    raise SystemExit(main())
