"""Elements as people write them."""

from collections.abc import Iterable

from ase.data import chemical_symbols


def symbol(number: int) -> str:
    """Chemical symbol of an atomic number; the number itself where there is no such element."""
    return chemical_symbols[number] if 0 < number < len(chemical_symbols) else str(number)


def check_elements(found: Iterable[int], known: Iterable[int], name: str, where: str = "") -> None:
    """Stop where a model would be asked about elements it was not trained on.

    Args:
        found: atomic numbers, in any order.
        known: those of the model.
        name: what a message calls the input, such as `atoms` in backticks.
        where: more words for the end of the message.

    Raises:
        ValueError: naming them.
    """
    unknown = sorted(set(found) - set(known))
    if unknown:
        raise ValueError(
            f"{name} must hold only {symbols(known)}, the elements the model was trained on, got "
            f"{symbols(unknown)}{where}"
        )


def symbols(numbers: Iterable[int]) -> str:
    """Chemical symbols of atomic numbers, separated by commas."""
    return ", ".join(symbol(number) for number in numbers)
