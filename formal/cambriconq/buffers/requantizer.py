"""A requantizer equals the definition, on all its inputs."""

from amaranth import Module, Mux, Signal, signed
from amaranth.hdl import Assert, Cover
from amaranth.lib import wiring
from amaranth.lib.wiring import In
from nibblecore.formal.runner import Proof
from nibblecore.hdl.cambriconq.buffers.requantizer import SHIFT_BITS, Requantizer


class FormulaSpec(wiring.Component):
    """Absolute value, half a step, division, minimum, sign. With `fault`, 16 bits are clipped like 12."""

    def __init__(self, fault: bool = False) -> None:
        self.fault = fault
        super().__init__({"i": In(signed(16)), "shift": In(SHIFT_BITS), "size": In(2)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.requantizer = requantizer = Requantizer()
        size = Mux(self.size == 3, 2, self.size) if self.fault else self.size
        m.d.comb += [requantizer.i.eq(self.i), requantizer.shift.eq(self.shift), requantizer.size.eq(size)]
        magnitude, step, rounded, limit, clipped = Signal(16), Signal(17), Signal(18), Signal(16), Signal(16)
        m.d.comb += [
            magnitude.eq(Mux(self.i == -(2**15), 2**15 - 1, Mux(self.i < 0, -self.i, self.i))),
            step.eq(Mux(self.shift[-1], 2**16, 1 << self.shift[:-1])),
            rounded.eq((magnitude + (step >> 1)) >> self.shift),
            limit.eq((8 << (self.size << 2)) - 1),
            clipped.eq(Mux(rounded > limit, limit, rounded)),
            Assert(requantizer.o == Mux(self.i < 0, -clipped, clipped).as_signed()),
            Cover((self.i < 0) & (clipped == 100) & (self.shift == 3) & (magnitude == 796)),
            Cover((rounded > limit) & (self.size == 2) & (self.shift == 1)),
            Cover(self.shift[-1] & (magnitude > 32000)),
        ]
        return m


PROOFS = [
    Proof(
        name="cambriconq.buffers.requantizer.formula",
        spec=FormulaSpec,
        fault=lambda: FormulaSpec(fault=True),
        engine="bmc",
        depth=1,
        cover_depth=1,
        reason="combinational; all 16-bit values, all shifts, all widths",
    )
]
