"""`python -m scschnet.data`."""

from scschnet.commands.data import main
from scschnet.commands.line import run

if __name__ == "__main__":
    raise SystemExit(run(main))
