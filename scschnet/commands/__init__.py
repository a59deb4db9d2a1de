"""The command lines: one module per `scschnet NAME`; no other part of the package knows tyro."""
