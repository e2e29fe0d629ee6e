"""What accelerators with a model beside them have in common: one way to compare results, and to say where they differ."""

from collections.abc import Callable
from types import TracebackType
from typing import Any, Generic, NoReturn, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from .accelerator import Accelerator

__all__ = ["Checked", "Mismatch"]

A = TypeVar("A", bound=Accelerator[Any])


class Mismatch(AssertionError):
    """The accelerator's result is not the model's."""


class Checked(Generic[A]):
    """An accelerator whose results are compared with a model's; `Mismatch` is raised at the first difference.

    Parameters
    ----------
    accelerator : Accelerator
        Closed at the end of a ``with``.
    check : bool
        Without it the accelerator works alone.

    Members
    -------
    accelerator, check
    place : str
        Where in the computation the next result belongs, for messages: a step and layer, or a seed.
    comparisons : int
        Numbers or bytes compared so far.
    """

    def __init__(self, accelerator: A, check: bool = True) -> None:
        self.accelerator, self.check = accelerator, check
        self.place = ""
        self.comparisons = 0

    def counters(self) -> dict[str, int]:
        """The accelerator's."""
        return self.accelerator.counters()

    def close(self) -> None:
        self.accelerator.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def number(self, what: str, name: str, got: int, expected: int) -> None:
        """A result that is one number."""
        self.comparisons += 1
        self.fact(what, name, got, expected)

    def fact(self, what: str, name: str, got: object, expected: object) -> None:
        """What is no number: a flag, how a program ended. It does not count."""
        if got != expected:
            self.differ(what, name, got, expected)

    def elements(self, what: str, got: NDArray, expected: NDArray, show: Callable[[Any], str] = str) -> None:
        """Arrays of one shape; `show` puts an element in words."""
        self.comparisons += got.size
        differs = got != expected
        if differs.any():
            at = tuple(int(i) for i in np.argwhere(differs)[0])
            extent = f"{int(differs.sum())} of {differs.size} elements"
            self.differ(what, f"element {list(at)}", show(got[at]), show(expected[at]), extent)

    def differ(self, what: str, where: str, got: object, expected: object, extent: str = "") -> NoReturn:
        """Raises `Mismatch`: of the result `what` the part `where` is wrong, in all `extent`."""
        raise Mismatch(f"{self.where(what)}{where} is {got}, expected {expected}" + (f" ({extent} differ)" if extent else ""))

    def where(self, what: str) -> str:
        """How messages begin: the place, and which result."""
        place = ", ".join(filter(None, (self.place, what)))
        return f"{place}: " if place else ""
