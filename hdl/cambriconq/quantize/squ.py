"""The statistic-quantization unit: blocks of binary32 numbers to integers with a tag."""

from amaranth import Array, Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out
from nibblecore.hdl.cambriconq.buffers.tag import Tag
from nibblecore.hdl.memory import Memory

from .squ_arbiter import SquArbiter, SquPass, judged_layout
from .squ_lane import SquLane
from .squ_reader import SquReader
from .squ_setup import SquSettings, SquSetup
from .squ_statistic import SquStatistic

__all__ = ["Squ", "quantized_layout", "values_layout"]

_QUEUE = 4


def values_layout(lanes: int) -> data.StructLayout:
    """A beat of binary32 numbers, the first least significant, and whether it is the block's last."""
    return data.StructLayout({"x": 32 * lanes, "last": 1})


def quantized_layout(lanes: int) -> data.StructLayout:
    """A beat of 16-bit two's complement integers, the tag of their block, and whether it is the block's last."""
    return data.StructLayout({"q": 16 * lanes, "tag": Tag, "last": 1})


class Squ(wiring.Component):
    """Finds the largest magnitude of a block as it streams in, quantizes it in up to four ways, sends on the best (Section IV-B1).

    The numbers are those of docs/cambriconq.md, every bit. A block is 1 to ``block`` / ``lanes`` beats; values missing in its last
    one are sent as zeros, which change neither the other results nor the tag. A block is quantized with the settings of the cycle in
    which its last beat was taken.

    What is out of order never stops the unit. It sets a flag that ``clear`` resets (what is found in the cycle of
    ``clear`` counts):

    - a block that goes on after ``block`` values ends there, and the rest is a block of its own: ``overlong_block``;
    - a clip above Qmax counts as Qmax, metric 3 as metric 0: ``settings_illegal``, when the block is quantized;
    - an exponent that an offset takes out of −128..127 stays at the bound: ``exponent_clamped``;
    - a NaN counts as 0, an infinity as ± clip: ``nan_seen``, ``infinity_seen``.

    Values wait in a ring of two blocks, so that one block is read while the next comes in, and each beat's place is free again
    as soon as its last candidate has been read. Results go to two buffers; while the best of a block leaves one of them, the
    first candidate of the next block fills the other.

    Latency: `latency` (of the block) cycles from the last beat in to the first beat out, c·n + 11 for c candidates and n beats with 8 lanes.
    Throughput: with c candidates a beat every c cycles, without a bubble from block to block if blocks have at least `bubble_free_beats`
    beats; of shorter ones of n beats, a block every max(n, (n + `bubble_free_beats`)/2) cycles with one candidate,
    c·n + `bubble_free_beats` − n with more.

    Parameters
    ----------
    lanes : int
        Values in a beat, a power of two.
    block : int
        Largest number of values in a block, a power of two, at least 2 · ``lanes``.

    Members
    -------
    settings : In(SquSettings)
        Those with a block's last beat count for it.
    i : In(stream of `values_layout`)
    o : Out(stream of `quantized_layout`)
        The tag is the same in all beats of a block.
    clear : In(1)
    nan_seen, infinity_seen, overlong_block, settings_illegal, exponent_clamped : Out(1)
        Sticky, see above.
    """

    def __init__(self, lanes: int, block: int = 1024) -> None:
        for name, value, least in (("lanes", lanes, 1), ("block", block, 2 * lanes)):
            if value < least or value & (value - 1):
                raise ValueError(f"{name} must be a power of two of at least {least}, not {value}")
        self.lanes, self.block, self.beats = lanes, block, block // lanes
        self._statistic, self._arbiter = SquStatistic(lanes), SquArbiter(lanes, block)
        super().__init__(
            {
                "settings": In(SquSettings),
                "i": In(stream.Signature(values_layout(lanes))),
                "o": Out(stream.Signature(quantized_layout(lanes))),
                "clear": In(1),
                **{name: Out(1) for name in self._FLAGS},
            }
        )

    _FLAGS = ("nan_seen", "infinity_seen", "overlong_block", "settings_illegal", "exponent_clamped")

    @property
    def bubble_free_beats(self) -> int:
        """Beats of the shortest block that the next ones follow without a bubble: from a result's reading to its leaving."""
        return SquLane.LATENCY + self._arbiter.latency + 2

    def latency(self, beats: int, candidates: int) -> int:
        """Cycles from the last beat of a block taken to its first result valid, if the unit is empty."""
        return self._statistic.latency + 1 + beats * candidates + SquLane.LATENCY + self._arbiter.latency + 2

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.values = values = Memory(32 * self.lanes, 2 * self.beats)
        m.submodules.results = results = Memory(16 * self.lanes, 2 * self.beats)
        m.submodules.reader = reader = SquReader(self.beats)
        m.submodules.setup = setup = SquSetup()
        m.submodules.arbiter = self._arbiter
        found = {name: Signal(name=f"{name}_now") for name in self._FLAGS}
        for name, now in found.items():
            flag = getattr(self, name)
            m.d.sync += flag.eq(flag & ~self.clear | now)
        self._fill(m, values, reader, setup, found)
        self._quantize(m, values, reader, setup, found)
        self._drain(m, results, reader)
        return m

    def _fill(self, m: Module, values: Memory, reader: SquReader, setup: SquSetup, found: dict[str, Signal]) -> None:
        """Stream to ring and statistic unit; each block that is complete to the reader."""
        m.submodules.statistic = statistic = self._statistic
        block = data.StructLayout({"settings": SquSettings, "last_beat": range(self.beats)})
        m.submodules.blocks = blocks = SyncFIFO(width=block.size, depth=_QUEUE)
        m.submodules.thetas = thetas = SyncFIFO(width=31, depth=_QUEUE)
        place = Signal(range(2 * self.beats))
        beat = Signal(range(self.beats))
        used = Signal(range(2 * self.beats + 1))
        take = Signal()
        ends = Signal()
        full = Signal()
        entering = Signal(block)
        head = Signal(block)
        m.d.comb += [
            self.i.ready.eq((used != 2 * self.beats) & blocks.w_rdy),
            take.eq(self.i.valid & self.i.ready),
            full.eq(beat == self.beats - 1),
            ends.eq(self.i.payload.last | full),
            values.write_enable.eq(take),
            values.write_address.eq(place),
            values.write_data.eq(self.i.payload.x),
            statistic.i_valid.eq(take),
            statistic.i_last.eq(ends),
            statistic.i.eq(self.i.payload.x),
            entering.settings.eq(self.settings),
            entering.last_beat.eq(beat),
            blocks.w_en.eq(take & ends),
            blocks.w_data.eq(entering),
            thetas.w_en.eq(statistic.o_valid),
            thetas.w_data.eq(statistic.theta),
            found["nan_seen"].eq(statistic.nan),
            found["infinity_seen"].eq(statistic.infinity),
            found["overlong_block"].eq(take & full & ~self.i.payload.last),
        ]
        m.d.sync += used.eq(used + take - reader.frees)
        with m.If(take):
            m.d.sync += [place.eq(place + 1), beat.eq(Mux(ends, 0, beat + 1))]

        # θ comes last, so a block is complete when its θ is there.
        candidates = Array(head.settings.candidates[i] for i in range(4))
        m.d.comb += [
            head.eq(blocks.r_data),
            reader.block_valid.eq(thetas.r_rdy),
            reader.last_beat.eq(head.last_beat),
            reader.last_candidate.eq(head.settings.count),
            blocks.r_en.eq(reader.block_done),
            thetas.r_en.eq(reader.block_done),
            setup.theta.eq(thetas.r_data),
            setup.candidate.eq(candidates[reader.candidate]),
            setup.metric.eq(head.settings.metric),
            setup.bypass.eq(head.settings.bypass),
            setup.exponent.eq(head.settings.exponent),
        ]

    def _quantize(self, m: Module, values: Memory, reader: SquReader, setup: SquSetup, found: dict[str, Signal]) -> None:
        """Ring to lanes to arbiter. Stage 0 is the cycle in which a beat is read."""
        arbiter = self._arbiter
        m.d.comb += [values.read_enable.eq(reader.read_enable), values.read_address.eq(reader.read_address)]
        q, errors = [], []
        for i in range(self.lanes):
            m.submodules[f"lane{i}"] = lane = SquLane()
            m.d.comb += [
                lane.i.eq(values.read_data.word_select(i, 32)),
                lane.window.eq(setup.window),
                lane.scale.eq(setup.scale),
                lane.rounding.eq(setup.rounding),
            ]
            q.append(lane.q)
            errors.append(lane.error)

        valid = reader.read_enable
        position = Signal(SquPass)
        m.d.comb += [
            position.first.eq(reader.first),
            position.last.eq(reader.last),
            position.first_candidate.eq(reader.candidate == 0),
            position.last_candidate.eq(reader.candidate == reader.last_candidate),
            position.metric.eq(setup.metric),
        ]
        for stage in range(1, SquLane.LATENCY + 2):
            next_valid, next_position = Signal(name=f"stage{stage}_valid"), Signal(SquPass, name=f"stage{stage}", reset_less=True)
            m.d.sync += [next_valid.eq(valid), next_position.eq(position)]
            valid, position = next_valid, next_position
            if stage == 2:
                for name in ("settings_illegal", "exponent_clamped"):
                    m.d.comb += found[name].eq(valid & getattr(setup, name))
        tag = Signal(Tag, reset_less=True)
        m.d.sync += tag.eq(setup.tag)
        m.d.comb += [
            arbiter.i_valid.eq(valid),
            arbiter.i.eq(position),
            arbiter.tag.eq(tag),
            arbiter.q.eq(Cat(q)),
            arbiter.error.eq(Cat(errors)),
        ]

    def _drain(self, m: Module, results: Memory, reader: SquReader) -> None:
        """Arbiter to the buffers, and the best of each block from there to the output."""
        arbiter, payload = self._arbiter, self.o.payload
        m.submodules.judged = judged = SyncFIFO(width=judged_layout(self.beats).size, depth=_QUEUE)
        block = Signal(judged_layout(self.beats))
        beat = Signal(range(self.beats))
        read = Signal()
        last = Signal()
        tag_out = Signal(Tag, reset_less=True)
        last_out = Signal(reset_less=True)
        valid_out = Signal()
        m.d.comb += [
            results.write_enable.eq(arbiter.write_enable),
            results.write_data.eq(arbiter.write_data),
            results.write_address.eq(Cat(arbiter.write_beat, arbiter.write_buffer)),
            # At most three blocks are read but not drained, so there is always room.
            judged.w_en.eq(arbiter.judged_valid),
            judged.w_data.eq(arbiter.judged),
            block.eq(judged.r_data),
            read.eq(judged.r_rdy & (~valid_out | self.o.ready)),
            last.eq(beat == block.last_beat),
            judged.r_en.eq(read & last),
            results.read_enable.eq(read),
            results.read_address.eq(Cat(beat, block.buffer)),
            reader.drain_beat.eq(read),
            reader.drain_last.eq(read & last),
            self.o.valid.eq(valid_out),
            payload.q.eq(results.read_data),
            payload.tag.eq(tag_out),
            payload.last.eq(last_out),
        ]
        with m.If(read):
            m.d.sync += [beat.eq(Mux(last, 0, beat + 1)), tag_out.eq(block.tag), last_out.eq(last), valid_out.eq(1)]
        with m.Elif(self.o.ready):
            m.d.sync += valid_out.eq(0)
