"""The multiplicands that the packer makes have the values of its contract, for all lanes that operands have."""

from functools import partial

from amaranth import Cat, Module, Signal, signed
from amaranth.hdl import Assert, Assume, Cover
from amaranth.lib import wiring
from amaranth.lib.wiring import In
from nibblecore.formal.runner import Proof
from nibblecore.hdl.ltoaq.array.pair_packer import PairPacker

__all__ = ["PROOFS"]


class PackerSpec(wiring.Component):
    """With `fault` the packer's mode is stuck."""

    def __init__(self, role: str, fault: bool = False) -> None:
        self.role, self.fault = role, fault
        super().__init__({"lanes": In(24), "eight_bit": In(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.packer = packer = PairPacker(self.role)
        m.d.comb += [packer.lanes.eq(self.lanes), packer.eight_bit.eq(self.eight_bit & (not self.fault))]
        lanes = [self.lanes.word_select(lane, 6).as_signed() for lane in range(4)]
        outer, inner = (Signal(signed(18), name=name) for name in ("outer", "inner"))
        m.d.comb += [one.eq(value) for one, value in zip((outer, inner), PairPacker.multiplicands(packer.word), strict=True)]
        low, inner_low, inner_high, high = lanes if self.role == "a" else reversed(lanes)
        with m.If(self.eight_bit):
            m.d.comb += [
                Assume(lanes[0] >= 0),
                Assert(outer == 64 * Cat(lanes[0][:5], lanes[3]).as_signed()),
                Cover(outer == -1023 * 64),
            ]
            if self.role == "a":
                m.d.comb += Assert(inner == 0)
        with m.Else():
            m.d.comb += [
                *(Assume(lane != -32) for lane in lanes),
                Assert(outer == low + 4096 * high),
                Assert(inner == inner_low + 4096 * inner_high),
                Cover((outer == -31 * 4097) & (inner == 31 * 4096 - 31)),
            ]
        m.d.comb += Assert(self.lanes.any() | (packer.word == 0))
        return m


PROOFS = [
    Proof(
        name=f"ltoaq.array.pair_packer.value_{role}",
        spec=partial(PackerSpec, role),
        fault=partial(PackerSpec, role, fault=True),
        engine="bmc",
        depth=1,
        cover_depth=1,
        reason="combinational, so one cycle is everything; no operand decodes to −32 (ltoaq.operands.operand_decoder)",
    )
    for role in ("a", "w")
]
