"""`python -m scschnet.info`."""

from scschnet.commands.info import main

if __name__ == "__main__":
    raise SystemExit(main())
