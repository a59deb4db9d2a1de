"""`python -m scschnet.info`."""

from scschnet.commands.info import main
from scschnet.commands.line import run

if __name__ == "__main__":
    raise SystemExit(run(main))
