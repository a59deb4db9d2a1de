"""`python -m scschnet.evaluate`."""

from scschnet.commands.evaluate import main
from scschnet.commands.line import run

if __name__ == "__main__":
    raise SystemExit(run(main))
