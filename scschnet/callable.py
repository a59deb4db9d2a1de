"""Modules that are called like the function they are about."""

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any


class CallableModule(ModuleType):
    """A module that passes calls on to one function, so that command, module and function share a name.

    `scschnet.train(config)` trains, `scschnet.train.schedule` is a module of the package `scschnet.train`, and
    `python -m scschnet.train` runs it. A function put over the module of its name would hide the module or not, by
    the order of imports; a function of another name would be a second word for the same thing. `help` and
    `inspect.signature` show the function.
    """

    __wrapped__: Callable[..., Any]

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Call the function."""
        return self.__wrapped__(*args, **options)


def let_call(module: str, function: Callable[..., Any]) -> None:
    """Let a module be called.

    Args:
        module: its name, `__name__` within it.
        function: what a call does.
    """
    found: Any = sys.modules[module]
    found.__class__ = CallableModule
    found.__wrapped__ = function
