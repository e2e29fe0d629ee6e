"""What the run-length encoder writes, read by counting elements, is what came in, for every pair of tiles taken in turns."""

from functools import partial

from amaranth import Const, Module, Mux, Signal, Value
from amaranth.asserts import AnyConst
from amaranth.hdl import Assert, Assume, Cover
from amaranth.lib import wiring
from amaranth.lib.wiring import In
from nibblecore.formal.runner import Proof
from nibblecore.hdl.ltoaq.output.encoder import Encoder

LANES, ELEMENTS_BITS, RUN_BITS = 2, 3, 2
SLOTS = 5
BUS_BITS = SLOTS * RUN_BITS
ELEMENTS = 2**ELEMENTS_BITS


class EncoderSpec(wiring.Component):
    """Two tiles of constant flags in turns, over and over, with any stalls of words and beats, and resets.

    The codes of every segment mark the tile's outliers and nothing else; its count, its length and its last beat agree, it is
    no longer than it need be, and unused slots are 0. With `fault`, the encoder does not see the second lane.
    """

    def __init__(self, runs_per_cycle: int, fault: bool = False) -> None:
        self.runs_per_cycle = runs_per_cycle
        self.fault = fault
        super().__init__({"flags_valid": In(1), "runs_ready": In(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.encoder = dut = Encoder(
            lanes=LANES, bus_bits=BUS_BITS, elements_bits=ELEMENTS_BITS, run_bits=RUN_BITS, runs_per_cycle=self.runs_per_cycle
        )
        tiles, sizes = [], []
        for name in ("first", "second"):
            flags, words = Signal(ELEMENTS, name=f"{name}_flags"), Signal(range(ELEMENTS // LANES + 1), name=f"{name}_words")
            m.d.comb += [flags.eq(AnyConst(ELEMENTS)), words.eq(AnyConst(words.shape()))]
            m.d.comb += Assume((words != 0) & (words <= ELEMENTS // LANES) & ((flags >> words * LANES) == 0))
            tiles.append(flags)
            sizes.append(words)

        entering, word = Signal(), Signal(range(ELEMENTS // LANES))
        lanes = Signal(LANES)
        m.d.comb += [
            lanes.eq(Mux(entering, tiles[1], tiles[0]) >> word * LANES),
            dut.flags.valid.eq(self.flags_valid),
            dut.flags.payload.flags.eq(lanes & (~(int(self.fault) << 1))),
            dut.flags.payload.last.eq(word == Mux(entering, sizes[1], sizes[0]) - 1),
            dut.runs.ready.eq(self.runs_ready),
            dut.limit.eq(dut.max_run_beats),
        ]
        with m.If(dut.flags.valid & dut.flags.ready):
            m.d.sync += [word.eq(word + 1)]
            with m.If(dut.flags.payload.last):
                m.d.sync += [word.eq(0), entering.eq(~entering)]

        # The elements read so far, their outliers, the codes still to come.
        leaving, first, element = Signal(), Signal(init=1), Signal(range(2 * ELEMENTS))
        seen, left, expected = Signal(ELEMENTS), Signal(2 * RUN_BITS), Signal(ELEMENTS)
        m.d.comb += expected.eq(Mux(leaving, tiles[1], tiles[0]))
        beat, codes = dut.runs.payload.data, Signal(2 * RUN_BITS)
        m.d.comb += codes.eq(Mux(first, beat[: 2 * RUN_BITS], left))
        place: Value = element
        marks: Value = seen
        after: Value = codes
        for n in range(SLOTS):
            code = beat.word_select(n, RUN_BITS)
            is_count = first & (n < 2)
            used = ~is_count & (after != 0)
            reached = Signal(range(2 * ELEMENTS), name=f"element_slot{n}")
            marked, remaining = Signal(ELEMENTS, name=f"marks_slot{n}"), Signal(2 * RUN_BITS, name=f"left_slot{n}")
            m.d.comb += [
                reached.eq(Mux(used, place + code + ~code.all(), place)),
                marked.eq(marks | Mux(used & ~code.all(), Const(1) << (place + code)[:ELEMENTS_BITS], 0)),
                remaining.eq(Mux(used, after - 1, after)),
            ]
            with m.If(dut.runs.valid):
                m.d.comb += Assert(reached <= ELEMENTS)
                with m.If(~is_count & ~used):
                    m.d.comb += Assert(code == 0)
            place, marks, after = reached, marked, remaining
        number = Signal(range(dut.max_run_beats + 1), init=1)
        with m.If(dut.runs.valid):
            m.d.comb += [
                Assert(~dut.overflow),
                Assert(dut.runs.payload.last == (after == 0)),
                Assert(dut.runs.payload.last == (number == dut.segment_beats)),
            ]
            with m.If(dut.runs.payload.last):
                m.d.comb += Assert(marks == expected)
            with m.If(dut.runs.ready):
                m.d.sync += [first.eq(0), element.eq(place), seen.eq(marks), left.eq(after), number.eq(number + 1)]
                with m.If(dut.runs.payload.last):
                    m.d.sync += [first.eq(1), element.eq(0), seen.eq(0), number.eq(1), leaving.eq(~leaving)]
        ends = dut.runs.valid & dut.runs.payload.last & leaving
        m.d.comb += [Cover(ends & (number == 2) & (sizes[0] == 1)), Cover(ends & (tiles[1] == 1 << (ELEMENTS - 1)))]
        return m


PROOFS = [
    Proof(
        name=f"ltoaq.output.encoder.segments_{number}",
        spec=partial(EncoderSpec, number),
        fault=partial(EncoderSpec, number, fault=True),
        engine="bmc",
        depth=13 - number,
        cover_depth=20,
        slow=number == 1,
        reason="words of 2 lanes, tiles of up to 8 elements, 2-bit codes; the first cycles from reset, in which two tiles pass",
    )
    for number in (1, 2)
]
