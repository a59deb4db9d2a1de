"""`python -m scschnet.doctor`."""

from scschnet.commands.doctor import main
from scschnet.commands.line import run

if __name__ == "__main__":
    raise SystemExit(run(main))
