"""The array's control: which weights and which inputs meet, in which cycle, and what is summed."""

from collections.abc import Iterator
from typing import Any

from amaranth import Cat, Module, Mux, ResetSignal, Signal, Value
from amaranth.hdl import Assert, Assume, Cover
from amaranth.lib import wiring
from amaranth.lib.wiring import In
from nibblecore.formal.arith.fp32 import delayed
from nibblecore.formal.runner import Proof
from nibblecore.hdl.cambriconq.matrix.accumulator import Step
from nibblecore.hdl.cambriconq.matrix.pe import PLANES, Pe
from nibblecore.hdl.cambriconq.matrix.pe_array import PeArray, PeRow, sum_bits

__all__ = ["PROOFS"]

ROWS, COLS = 2, 5


class TagPe(Pe):
    """A PE whose product is no product, but tells what met in it."""

    def _product(self, m: Module, w: Signal) -> Value:
        return Cat(self.a ^ w, self.a_signed, self.w_signed)


class LatePe(TagPe):
    """Takes the input of the cycle before."""

    def _product(self, m: Module, w: Signal) -> Value:
        a = Signal(4, reset_less=True)
        m.d.sync += a.eq(self.a)
        return Cat(a ^ w, self.a_signed, self.w_signed)


class TagRow(PeRow):
    """A row whose PEs exist before it is elaborated, so that the specification can look into them."""

    def __init__(self, cols: int, pe: type[Pe]) -> None:
        super().__init__(cols)
        self.pes = [pe() for _ in range(cols)]
        self._PE = _one_by_one(self.pes)  # type: ignore[assignment]


class TagArray(PeArray):
    def __init__(self, rows: int, cols: int, pe: type[Pe]) -> None:
        super().__init__(rows, cols)
        self.parts = [TagRow(cols, pe) for _ in range(rows)]
        self._ROW = _one_by_one(self.parts)  # type: ignore[assignment]


def _one_by_one(parts: list[Any]) -> Any:
    remaining: Iterator[Any] = iter(parts)
    return lambda *_: next(remaining)


class ArraySpec(wiring.Component):
    """Every input is free, in every cycle; no reset after power-up."""

    def __init__(self, pe: type[Pe] = TagPe) -> None:
        self.pe = pe
        super().__init__(
            {
                "i_valid": In(1),
                "i_line": In(4 * COLS),
                "i_plane": In(2),
                "i_a_signed": In(1),
                "i_w_signed": In(1),
                "i_swap": In(1),
                "i_step": In(Step),
                "load_valid": In(1),
                "load_line": In(4 * COLS),
                "load_row": In(1),
                "load_plane": In(2),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.array = array = TagArray(ROWS, COLS, self.pe)
        m.d.comb += [getattr(array, name).eq(getattr(self, name)) for name in self.signature.members]
        m.d.comb += Assume(~ResetSignal())

        signs = Cat(self.i_a_signed, self.i_w_signed)
        swap = self.i_valid & self.i_swap
        valid = delayed(m, self.i_valid, array.latency, "valid")
        m.d.comb += [
            Assert(array.o_valid == valid),
            Assert(array.o_step.as_value() == delayed(m, self.i_step.as_value(), array.latency, "step")),
        ]
        for row in range(ROWS):
            tags = []
            for col in range(COLS):
                w = Signal(4, name=f"w{row}_{col}")
                for plane in range(PLANES):
                    place = f"{row}_{col}_{plane}"
                    shadow = Signal(4, name=f"shadow{place}", reset_less=True)
                    active = Signal(4, name=f"active{place}", reset_less=True)
                    now = Signal(4, name=f"now{place}")
                    m.d.comb += now.eq(Mux(swap, shadow, active))
                    m.d.sync += active.eq(now)
                    with m.If(self.load_valid & (self.load_row == row) & (self.load_plane == plane)):
                        m.d.sync += shadow.eq(self.load_line.word_select(col, 4))
                    with m.If(self.i_plane == plane):
                        m.d.comb += w.eq(now)
                    # The edge's registers make the array's sets lag by a cycle.
                    pe = array.parts[row].pes[col]
                    m.d.comb += [
                        Assert(pe.shadow[plane] == delayed(m, shadow, 1, f"old_shadow{place}")),
                        Assert(pe.active[plane] == delayed(m, active, 1, f"old_active{place}")),
                    ]
                tags.append(Cat(self.i_line.word_select(col, 4) ^ w, signs))
            total = Signal(sum_bits(COLS), name=f"total{row}")
            offset = Mux(signs.xor(), 120, Mux(signs.all(), 112, 0))
            m.d.comb += total.eq(sum(tags[1:], tags[0]) - COLS * offset)
            due = delayed(m, total, array.latency, f"due{row}")
            m.d.comb += [
                Assert(array.o_sum.word_select(row, len(total)) == due),
                Cover(valid & (due.as_signed() == (63 - 112) * COLS)),
            ]
        return m


PROOFS = [
    Proof(
        name="cambriconq.matrix.pe_array.control",
        spec=ArraySpec,
        fault=lambda: ArraySpec(LatePe),
        engine="induction",
        depth=8,
        cover_depth=12,
        reason="2 × 5 PEs, two stages of tree, tags for products (cambriconq.matrix.pe.contract proves those); pipelines empty within the "
        "depth",
    )
]
