"""What the vector unit is told."""

from amaranth.lib import data
from nibblecore.hdl.cambriconq.program.isa import Unary
from nibblecore.hdl.cambriconq.program.job import Place, Shape

from .sfu import Operation

__all__ = ["VectorJob"]


class VectorJob(data.Struct):
    """A vector instruction, see docs/cambriconq-isa.md; ranges in NBout have been checked.

    With ``horizontal`` a row of `a` becomes one word, ``dest.col`` counts for nothing. With ``immediate`` every b is ``value``.
    """

    operation: Operation
    function: Unary
    horizontal: 1
    immediate: 1
    value: 32
    size: Shape
    dest: Place
    a: Place
    b: Place
