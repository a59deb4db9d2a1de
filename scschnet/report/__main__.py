"""`python -m scschnet.report`."""

from scschnet.commands.line import run
from scschnet.commands.report import main

if __name__ == "__main__":
    raise SystemExit(run(main))
