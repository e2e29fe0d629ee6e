"""What the quantizers measure on their way: the largest magnitude, and how many outliers and saturations there were."""

from collections.abc import Iterator

from amaranth import Cat, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

__all__ = ["TensorStatistics"]

_LEVELS_PER_STAGE = 2


class TensorStatistics(wiring.Component):
    """Maximum and counts over all lanes of `Quantizer`, as the tensor's header wants them.

    The magnitudes are a quantizer's input and the flags its output, so the two come with their own valid bits. Counts wrap at 32
    bits. ``clear`` zeroes the results and drops what is on its way to them; what enters in the same cycle as ``clear`` counts.

    Latency: ``x_max`` holds a magnitude `magnitude_latency` cycles after it entered (a tree, two levels a stage, then the
    running maximum), the counts hold a flag `COUNT_LATENCY` = 2 cycles after. Throughput: one value a lane a cycle.

    Parameters
    ----------
    lanes : int
        A power of two.

    Members
    -------
    clear : In(1)
    i_valid : In(1)
        Magnitudes enter.
    magnitude : In(lanes * 32)
        Unsigned, lane 0 least significant.
    o_valid : In(1)
        Flags enter.
    outlier, saturated : In(lanes)
        A flag a lane.
    x_max, outliers, saturations : Out(32)
        Unsigned; since the last ``clear``.
    """

    COUNT_LATENCY = 2

    def __init__(self, lanes: int) -> None:
        if lanes < 1 or lanes & (lanes - 1):
            raise ValueError(f"lanes must be a power of two, not {lanes}")
        self.lanes = lanes
        super().__init__(
            {
                "clear": In(1),
                "i_valid": In(1),
                "magnitude": In(32 * lanes),
                "o_valid": In(1),
                "outlier": In(lanes),
                "saturated": In(lanes),
                "x_max": Out(32),
                "outliers": Out(32),
                "saturations": Out(32),
            }
        )

    @staticmethod
    def magnitude_latency(lanes: int) -> int:
        levels = lanes.bit_length() - 1
        return max(1, -(-levels // _LEVELS_PER_STAGE)) + 1

    def elaborate(self, platform: object) -> Module:
        m = Module()
        valid = self.i_valid
        values: list[Value] = [self.magnitude.word_select(i, 32) for i in range(self.lanes)]
        for stage in range(self.magnitude_latency(self.lanes) - 1):
            for level in range(_LEVELS_PER_STAGE):
                values = list(self._pairs(m, values, f"stage{stage}_level{level}"))
            registers = [Signal(32, name=f"stage{stage}_{i}") for i in range(len(values))]
            later = Signal(name=f"stage{stage}_valid")
            m.d.sync += [register.eq(value) for register, value in zip(registers, values, strict=True)]
            m.d.sync += later.eq(valid & ~self.clear if stage else valid)
            values, valid = list(registers), later
        (largest,) = values
        with m.If(self.clear):
            m.d.sync += self.x_max.eq(0)
        with m.Elif(valid & (largest > self.x_max)):
            m.d.sync += self.x_max.eq(largest)

        for name, flags, total in (("outlier", self.outlier, self.outliers), ("saturation", self.saturated, self.saturations)):
            count = Signal(range(self.lanes + 1), name=f"{name}_count")
            m.d.sync += count.eq(Mux(self.o_valid, sum(flags[1:], start=Cat(flags[0])), 0))
            m.d.sync += total.eq(Mux(self.clear, 0, total + count))
        return m

    @staticmethod
    def _pairs(m: Module, values: list[Value], name: str) -> Iterator[Value]:
        """The larger of each pair; a lone value is itself."""
        if len(values) == 1:
            yield values[0]
            return
        for i, (a, b) in enumerate(zip(values[::2], values[1::2], strict=True)):
            larger = Signal(32, name=f"{name}_{i}")
            m.d.comb += larger.eq(Mux(a > b, a, b))
            yield larger
