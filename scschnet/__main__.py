"""`python -m scschnet`."""

from scschnet.commands.overview import main

if __name__ == "__main__":
    raise SystemExit(main())
