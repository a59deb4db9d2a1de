"""`python -m scschnet.select`."""

from scschnet.commands.line import run
from scschnet.commands.select import main

if __name__ == "__main__":
    raise SystemExit(run(main))
