"""The command lines: one module per `python -m scschnet.NAME`; no other part of the package knows tyro."""
