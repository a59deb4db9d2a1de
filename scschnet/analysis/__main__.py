"""`python -m scschnet.analysis`."""

from scschnet.commands.analysis import main
from scschnet.commands.line import run

if __name__ == "__main__":
    raise SystemExit(run(main))
