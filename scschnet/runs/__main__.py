"""`python -m scschnet.runs`."""

from scschnet.commands.line import run
from scschnet.commands.runs import main

if __name__ == "__main__":
    raise SystemExit(run(main))
