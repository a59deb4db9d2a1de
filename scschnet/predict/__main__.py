"""`python -m scschnet.predict`."""

from scschnet.commands.line import run
from scschnet.commands.predict import main

if __name__ == "__main__":
    raise SystemExit(run(main))
