"""`python -m scschnet.export`."""

from scschnet.commands.export import main

if __name__ == "__main__":
    raise SystemExit(main())
