"""`python -m scschnet.report`."""

from scschnet.commands.report import main

if __name__ == "__main__":
    raise SystemExit(main())
