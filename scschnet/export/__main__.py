"""`python -m scschnet.export`."""

from scschnet.commands.export import main
from scschnet.commands.line import run

if __name__ == "__main__":
    raise SystemExit(run(main))
