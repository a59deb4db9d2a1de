"""Elements as people write them."""

from collections.abc import Iterable

from ase.data import chemical_symbols


def symbol(number: int) -> str:
    """Chemical symbol of an atomic number."""
    return chemical_symbols[number]


def symbols(numbers: Iterable[int]) -> str:
    """Chemical symbols of atomic numbers, separated by commas."""
    return ", ".join(symbol(number) for number in numbers)
