"""`python -m scschnet.doctor`."""

from scschnet.commands.doctor import main

if __name__ == "__main__":
    raise SystemExit(main())
