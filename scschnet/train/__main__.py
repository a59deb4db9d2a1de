"""`python -m scschnet.train`."""

from scschnet.commands.line import run
from scschnet.commands.train import main

if __name__ == "__main__":
    raise SystemExit(run(main))
