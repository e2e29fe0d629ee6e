"""The run-length decoder against counting elements, for every pair of segments taken in turns."""

from functools import partial

from amaranth import Cat, Const, Module, Mux, Signal, Value
from amaranth.asserts import AnyConst
from amaranth.hdl import Assert, Assume, Cover
from amaranth.lib import wiring
from amaranth.lib.wiring import In
from nibblecore.formal.runner import Proof
from nibblecore.hdl.ltoaq.operands.decoder import Decoder

LANES, ELEMENTS_BITS, RUN_BITS = 2, 2, 2
SLOTS = 4
BUS_BITS = SLOTS * RUN_BITS


class _Segment:
    """Any segment, constant over time, and what it says.

    `flags` are those of the tile's elements if it is not `malformed`.
    """

    def __init__(self, m: Module, name: str, max_beats: int, max_words: int) -> None:
        self.beats = [Signal(BUS_BITS, name=f"{name}_beat{n}") for n in range(max_beats)]
        self.run_beats = Signal(range(max_beats + 1), name=f"{name}_run_beats")
        self.words = Signal(range(max_words + 1), name=f"{name}_words")
        self.eight_bit = Signal(name=f"{name}_eight_bit")
        for constant in (*self.beats, self.run_beats, self.words, self.eight_bit):
            m.d.comb += constant.eq(AnyConst(constant.shape()))
        self.malformed = Signal(name=f"{name}_malformed")
        self.size = Signal(range(max_words * LANES * 2), name=f"{name}_size")
        m.d.comb += self.size.eq(Mux(self.eight_bit, self.words * (LANES // 2), self.words * LANES))
        m.d.comb += Assume((self.run_beats != 0) & (self.run_beats <= max_beats))
        m.d.comb += Assume((self.words != 0) & (self.size <= 2**ELEMENTS_BITS))

        slots = [beat.word_select(n, RUN_BITS) for beat in self.beats for n in range(SLOTS)]
        count = Cat(slots[:2])
        self.flags = Signal(2**ELEMENTS_BITS, name=f"{name}_flags")
        element = Signal(range(2**ELEMENTS_BITS + 2), name=f"{name}_element0")
        flags: Value = Const(0, 1)
        past: Value = Const(0, 1)
        for n, code in enumerate(slots[2:]):
            counted = n < count
            escape = code.all()
            behind = Signal(range(2**ELEMENTS_BITS + 2**RUN_BITS + 2), name=f"{name}_element{n + 1}")
            # Stays beyond the tile once it is there.
            reached = element + code + ~escape
            m.d.comb += behind.eq(Mux(counted, Mux(reached > self.size, self.size + 1, reached), element))
            past = past | (behind > self.size)
            flags = flags | Mux(counted & ~escape, 1 << (element + code)[:ELEMENTS_BITS], 0)
            element = behind
        m.d.comb += [self.flags.eq(flags), self.malformed.eq(past | (count + 2 > self.run_beats * SLOTS))]


class DecoderSpec(wiring.Component):
    """Two segments in turns, over and over, with any stalls of beats and flags, and resets.

    Words come in order, each as the counting says, and none beyond those of the segments begun. Only a malformed segment
    raises `malformed`, and its last word does not come. With `fault`, one bit of the codes the decoder counts is wrong.
    """

    def __init__(self, runs_per_cycle: int, fault: bool = False) -> None:
        self.runs_per_cycle = runs_per_cycle
        self.fault = fault
        super().__init__({"runs_valid": In(1), "flags_ready": In(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.decoder = dut = Decoder(
            lanes=LANES, bus_bits=BUS_BITS, elements_bits=ELEMENTS_BITS, run_bits=RUN_BITS, runs_per_cycle=self.runs_per_cycle
        )
        segments = [_Segment(m, name, dut.max_run_beats, dut.max_words) for name in ("first", "second")]
        started, arriving, leaving = Signal(2), Signal(), Signal()  # tiles on their way, and which of the two
        starting, beat, word = Signal(), Signal(range(dut.max_run_beats + 1)), Signal(range(dut.max_words + 1))

        def of(which: Signal, name: str) -> Value:
            return Mux(which, getattr(segments[1], name), getattr(segments[0], name))

        beats = [Mux(arriving, b, a) for a, b in zip(segments[0].beats, segments[1].beats, strict=True)]
        payload: Value = beats[0]
        for n, other in enumerate(beats):
            payload = Mux(beat == n, other, payload)
        m.d.comb += [
            dut.start.valid.eq(1),
            dut.start.payload.run_beats.eq(of(starting, "run_beats")),
            dut.start.payload.words.eq(of(starting, "words")),
            dut.eight_bit.eq(of(starting, "eight_bit")),
            dut.runs.valid.eq(self.runs_valid),
            dut.runs.payload.eq(payload ^ (self.fault & (beat == 0)) << 2 * RUN_BITS),
            dut.flags.ready.eq(self.flags_ready),
        ]
        start, arrive, leave, tile_end = (Signal(name=name) for name in ("start", "arrive", "leave", "tile_end"))
        m.d.comb += [
            start.eq(dut.start.valid & dut.start.ready),
            arrive.eq(dut.runs.valid & dut.runs.ready),
            leave.eq(dut.flags.valid & dut.flags.ready),
            tile_end.eq(leave & (word == of(leaving, "words") - 1)),
        ]
        m.d.sync += [starting.eq(starting ^ start), started.eq(started + start - tile_end)]
        with m.If(arrive):
            m.d.sync += beat.eq(beat + 1)
            with m.If(beat == of(arriving, "run_beats") - 1):
                m.d.sync += [beat.eq(0), arriving.eq(~arriving)]
        with m.If(leave):
            m.d.sync += word.eq(Mux(tile_end, 0, word + 1))
        with m.If(tile_end):
            m.d.sync += leaving.eq(~leaving)
        expected = Mux(
            of(leaving, "eight_bit"),
            (of(leaving, "flags") >> word * (LANES // 2))[: LANES // 2],
            (of(leaving, "flags") >> word * LANES)[:LANES],
        )
        with m.If(~dut.malformed):
            m.d.comb += Assert(started <= 3)
        with m.If(dut.flags.valid):
            m.d.comb += [Assert(started != 0), Assert(~dut.malformed), Assert(~tile_end | ~of(leaving, "malformed"))]
            with m.If(~of(leaving, "malformed")):
                m.d.comb += Assert(dut.flags.payload == expected)
        m.d.comb += Assert(~dut.malformed | segments[0].malformed | segments[1].malformed)
        good = ~segments[0].malformed & ~segments[1].malformed
        first_done, second_done = Signal(), Signal()
        with m.If(tile_end):
            m.d.sync += [first_done.eq(1), second_done.eq(leaving)]
        m.d.comb += [
            Cover(second_done & good & (segments[0].flags == 0b1001) & segments[1].flags[1] & segments[1].eight_bit),
            Cover(dut.malformed & first_done),
        ]
        return m


PROOFS = [
    Proof(
        name=f"ltoaq.operands.decoder.flags_{number}",
        spec=partial(DecoderSpec, number),
        fault=partial(DecoderSpec, number, fault=True),
        engine="bmc",
        depth=10,
        cover_depth=14,
        slow=number > 1,
        reason="words of 2 lanes, tiles of up to 4 elements, 2-bit codes: the smallest with escapes and "
        "segments of two beats; the first ten cycles from reset, in which two tiles pass; `clear` and stalled starts are left to the bench",
    )
    for number in (1, 2)
]
