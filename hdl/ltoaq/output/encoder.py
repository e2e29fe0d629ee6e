"""Run-length encoder: words of outlier flags in, a segment of run-length codes a tile out (docs/formats.md)."""

from functools import reduce
from operator import or_

from amaranth import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from nibblecore.hdl.bus.streams import connect
from nibblecore.hdl.config import LtoaqConfig
from nibblecore.hdl.memory import Memory

__all__ = ["Encoder", "RunPacker"]


def _lane(mask: Value) -> list[Value]:
    """Bits of the place of the one set bit of `mask`."""
    width = len(mask)
    odd = [sum(1 << i for i in range(width) if i >> n & 1) for n in range((width - 1).bit_length())]
    return [(mask & lanes).any() for lanes in odd]


class RunPacker(wiring.Component):
    """Packs codes into beats, keeps the beats until the segment is complete, and hands it on with its count.

    One segment is collected while the one before it leaves.

    Latency: three cycles from the segment's last codes to its first beat.
    Throughput: all codes of a cycle; a beat a cycle on the way out.

    Parameters
    ----------
    bus_bits, run_bits, runs_per_cycle : int
        See `Encoder`.
    max_run_beats : int
        Beats of the longest segment. There is room for two of these.

    Members
    -------
    codes : In(run_bits * runs_per_cycle)
        Codes of the segment, the first in the low bits.
    valid : In(runs_per_cycle)
        Which of them are there; bit i implies bit i − 1.
    last : In(1)
        The segment ends with these (or with none, if none is valid).
    enable : In(1)
        Take codes and ``last``; only with ``ready``.
    ready : Out(1)
        ``enable`` is allowed.
    runs : Out(stream of {data: bus_bits, last})
    segment_beats : Out(16)
    limit : In(16)
    overflow : Out(1)
    clear : In(1)
        These five as of `Encoder`.
    """

    def __init__(self, *, bus_bits: int, run_bits: int, runs_per_cycle: int, max_run_beats: int) -> None:
        self.run_bits = run_bits
        self.runs_per_cycle = runs_per_cycle
        self.slots = bus_bits // run_bits
        self.depth = 2 * max_run_beats
        super().__init__(
            {
                "codes": In(run_bits * runs_per_cycle),
                "valid": In(runs_per_cycle),
                "last": In(1),
                "enable": In(1),
                "ready": Out(1),
                "runs": Out(stream.Signature(data.StructLayout({"data": bus_bits, "last": 1}))),
                "segment_beats": Out(16),
                "limit": In(16),
                "overflow": Out(1),
                "clear": In(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.beats = beats = Memory(self.slots * self.run_bits, self.depth)
        complete = Signal()
        leaving = Signal()
        hand_over = Signal()
        m.d.comb += [hand_over.eq(complete & ~leaving & ~self.overflow), self.ready.eq((~complete | hand_over) & ~self.overflow)]
        count, written = self._collect(m, beats, complete, hand_over)
        self._leave(m, beats, count, written, hand_over, leaving)
        for address, advance in ((beats.write_address, beats.write_enable), (beats.read_address, beats.read_enable)):
            with m.If(advance):
                m.d.sync += address.eq(Mux(address == self.depth - 1, 0, address + 1))
            with m.If(self.clear):
                m.d.sync += address.eq(0)
        return m

    def _collect(self, m: Module, beats: Memory, complete: Signal, hand_over: Signal) -> tuple[Signal, Signal]:
        """Fill beats and write the full ones, and the last one as it is; returns the segment's codes and beats.

        A complete segment is closed in the cycle in which the first codes of the next one may come: these go into an empty
        beat, which they cannot fill.
        """
        slots, bits = self.slots, self.run_bits
        beat = Signal(slots * bits)
        place = Signal(range(slots), init=2)
        count = Signal(2 * bits)
        written = Signal(range(self.depth + 1))
        total = Signal(range(self.depth + 1))
        base = Signal.like(place)
        after = Signal(range(slots + self.runs_per_cycle))
        number = Signal(range(self.runs_per_cycle + 1))
        m.d.comb += [
            base.eq(Mux(hand_over, 2, place)),
            number.eq(Mux(self.enable, sum(self.valid, start=Const(0, 1)), 0)),
            after.eq(base + number),
            total.eq(written + beats.write_enable),
        ]
        present = Cat((self.valid[n] & self.enable).replicate(bits) for n in range(self.runs_per_cycle))
        shifted: Value = self.codes & present
        for n in range(len(base)):
            moved = Signal(min((self.runs_per_cycle + (2 << n) - 1), slots + self.runs_per_cycle - 1) * bits, name=f"shifted{n}")
            m.d.comb += moved.eq(Mux(base[n], shifted << (bits << n), shifted))
            shifted = moved
        full = Signal()
        joined = Signal(slots * bits)
        m.d.comb += [
            full.eq(after >= slots),
            joined.eq(beat | shifted),
            beats.write_enable.eq(Mux(hand_over, place != 0, full)),
            beats.write_data.eq(Mux(hand_over, beat, joined)),
        ]
        m.d.sync += [
            beat.eq(Mux(full, shifted[slots * bits :], Mux(hand_over, shifted, joined))),
            place.eq(Mux(full, after - slots, after)),
            count.eq(Mux(hand_over, 0, count) + number),
            written.eq(Mux(hand_over, 0, total)),
        ]
        with m.If(self.enable & self.last):
            m.d.sync += complete.eq(1)
        with m.Elif(hand_over):
            m.d.sync += complete.eq(0)
        with m.If(beats.write_enable & (written >= self.limit)):
            m.d.sync += self.overflow.eq(1)
        with m.If(self.clear):
            m.d.sync += [beat.eq(0), place.eq(2), count.eq(0), written.eq(0), complete.eq(0), self.overflow.eq(0)]
        return count, total

    def _leave(self, m: Module, beats: Memory, count: Signal, written: Signal, hand_over: Signal, leaving: Signal) -> None:
        """Read the segment; its count goes into the first beat on the way out."""
        unread = Signal.like(written)
        first = Signal()
        leaving_count = Signal.like(count)
        there = Signal()
        taken = Signal()
        m.d.comb += [
            beats.read_enable.eq((unread != 0) & (~there | taken)),
            leaving.eq(there | (unread != 0)),
            self.runs.valid.eq(there & ~self.overflow & ~self.clear),
            taken.eq(self.runs.valid & self.runs.ready),
            self.runs.payload.last.eq(unread == 0),
            self.runs.payload.data.eq(beats.read_data | Mux(first, leaving_count, 0)),
        ]
        with m.If(beats.read_enable):
            m.d.sync += [there.eq(1), unread.eq(unread - 1)]
        with m.Elif(taken):
            m.d.sync += there.eq(0)
        with m.If(taken):
            m.d.sync += first.eq(0)
        with m.If(hand_over):
            m.d.sync += [unread.eq(written), self.segment_beats.eq(written), leaving_count.eq(count), first.eq(1)]
        with m.If(self.clear):
            m.d.sync += [unread.eq(0), there.eq(0)]


class Encoder(wiring.Component):
    """Turns the outlier flags of tiles into run-length segments, the shortest that say the same.

    The words of a tile come in through ``flags``, the last one marked; its segment leaves through ``runs`` when it is complete.
    One tile is collected while the segment of the one before it leaves, then ``flags`` waits.

    A segment of more than ``limit`` beats raises ``overflow``, which stays: no further beats leave (a waiting one is withdrawn)
    and words are taken and dropped until ``clear``. In the cycle of ``clear`` no stream moves.

    Latency: `latency` = 4 cycles from the last word to the first beat, if that word takes one cycle.
    Throughput: ``⌈max(1, codes)/runs_per_cycle⌉`` cycles for a word, of which ``codes`` are those of its outliers with the
    escapes before them; a beat a cycle on the way out.

    Parameters
    ----------
    lanes : int
        Flags in a word of 4-bit codes, a power of two, 2..2^run_bits.
    bus_bits : int
        Bits of a run beat.
    elements_bits : int
        A tile has up to 2^elements_bits elements.
    run_bits : int
        Bits of a run-length code.
    runs_per_cycle : int
        Codes made in one cycle.

    Members
    -------
    flags : In(stream of {flags: lanes, last})
        ``flags``, lane i in bit i; ``last`` word of the tile.
    eight_bit : In(1)
        The tile's codes have 8 bits: the high half of the flags is ignored. Taken with the word.
    runs : Out(stream of {data: bus_bits, last})
        ``data``, a beat of the run region; ``last`` beat of the segment.
    segment_beats : Out(16)
        Beats of the segment that is leaving; holds from its first beat to its last.
    limit : In(16)
        Beats a segment may have, at least 1.
    overflow : Out(1)
        Sticky.
    clear : In(1)
    """

    latency = 4

    def __init__(self, *, lanes: int, bus_bits: int, elements_bits: int, run_bits: int = 6, runs_per_cycle: int = 1) -> None:
        slots = bus_bits // run_bits
        # Within a word, no escape comes between two outliers.
        if lanes < 2 or lanes & (lanes - 1) or lanes > 2**run_bits:
            raise ValueError(f"lanes must be a power of two in 2..{2**run_bits}, not {lanes}")
        if runs_per_cycle < 1 or slots < runs_per_cycle + 3:
            raise ValueError(f"{runs_per_cycle} codes must not fill an empty beat of {slots} codes and the count")
        if 2 ** (2 * run_bits) <= 2**elements_bits or 2**elements_bits < lanes:
            raise ValueError(f"2^{elements_bits} elements: fewer than {lanes} lanes, or more than two {run_bits}-bit codes count")
        self.lanes = lanes
        self.bus_bits = bus_bits
        self.elements_bits = elements_bits
        self.run_bits = run_bits
        self.runs_per_cycle = runs_per_cycle
        self.max_run_beats = -(-(2 + 2**elements_bits) // slots)
        super().__init__(
            {
                "flags": In(stream.Signature(data.StructLayout({"flags": lanes, "last": 1}))),
                "eight_bit": In(1),
                "runs": Out(stream.Signature(data.StructLayout({"data": bus_bits, "last": 1}))),
                "segment_beats": Out(16),
                "limit": In(16),
                "overflow": Out(1),
                "clear": In(1),
            }
        )

    @classmethod
    def of(cls, config: LtoaqConfig) -> "Encoder":
        """The encoder of an accelerator."""
        return cls(
            lanes=config.bus_bits // 4,
            bus_bits=config.bus_bits,
            elements_bits=(config.tile**2 - 1).bit_length(),
            run_bits=config.run_bits,
            runs_per_cycle=config.runs_per_cycle,
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.packer = packer = RunPacker(
            bus_bits=self.bus_bits, run_bits=self.run_bits, runs_per_cycle=self.runs_per_cycle, max_run_beats=self.max_run_beats
        )
        m.d.comb += [
            self.segment_beats.eq(packer.segment_beats),
            packer.limit.eq(self.limit),
            self.overflow.eq(packer.overflow),
            packer.clear.eq(self.clear),
        ]
        connect(m, packer.runs, self.runs)
        number = self.runs_per_cycle
        held = Signal()
        last = Signal()
        eight_bit = Signal()
        # The outliers of the word not coded yet, and the place of the element behind which the next run begins, counted from
        # the word's first lane.
        waiting = Signal(self.lanes)
        previous = Signal(signed(self.elements_bits + 1), init=-1)
        there, lanes, rest = self._find(m, waiting)

        gap = Signal(self.elements_bits)
        escapes = Signal(number)
        m.d.comb += [
            gap.eq(lanes[0] - previous - 1),
            escapes.eq(Mux(there[0], Cat(gap >= n * (2**self.run_bits - 1) for n in range(1, number + 1)), 0)),
        ]
        packer_valid, left, after = self._choose(m, packer, gap, escapes, there, lanes, rest, previous)
        done = Signal()
        step = Signal()
        take = Signal()
        m.d.comb += [
            step.eq(held & packer.ready & ~self.clear),
            done.eq(step & (left == 0)),
            packer.enable.eq(step),
            packer.valid.eq(packer_valid),
            packer.last.eq(done & last),
            self.flags.ready.eq((~held | done | self.overflow) & ~self.clear),
            take.eq(self.flags.valid & self.flags.ready),
        ]
        with m.If(step):
            m.d.sync += [waiting.eq(left), previous.eq(after)]
        with m.If(done):
            m.d.sync += [held.eq(0), previous.eq(Mux(last, -1, after - Mux(eight_bit, self.lanes // 2, self.lanes)))]
        with m.If(take):
            flags = self.flags.payload.flags
            m.d.sync += [
                held.eq(1),
                last.eq(self.flags.payload.last),
                eight_bit.eq(self.eight_bit),
                waiting.eq(Cat(flags[: self.lanes // 2], Mux(self.eight_bit, 0, flags[self.lanes // 2 :]))),
            ]
        with m.If(self.clear):
            m.d.sync += [held.eq(0), previous.eq(-1)]
        return m

    def _find(self, m: Module, waiting: Signal) -> tuple[list[Value], list[Signal], list[Signal]]:
        """Whether there is an n-th outlier, its lane, and the outliers after it, for n = 1..runs_per_cycle."""
        there: list[Value] = []
        lanes: list[Signal] = []
        rest = [waiting]
        for n in range(self.runs_per_cycle):
            lane = Signal(range(self.lanes), name=f"lane{n}")
            others = Signal(self.lanes, name=f"rest{n}")
            m.d.comb += [others.eq(rest[n] & (rest[n] - 1)), lane.eq(Cat(_lane(rest[n] & ~others)))]
            there.append(rest[n].any())
            lanes.append(lane)
            rest.append(others)
        return there, lanes, rest

    def _choose(
        self,
        m: Module,
        packer: RunPacker,
        gap: Signal,
        escapes: Signal,
        there: list[Value],
        lanes: list[Signal],
        rest: list[Signal],
        previous: Signal,
    ) -> tuple[Signal, Signal, Signal]:
        """Escapes first, then outliers: the codes, which are valid, the outliers left, and `previous` behind them."""
        number, escape = self.runs_per_cycle, 2**self.run_bits - 1
        runs = [Signal(self.run_bits, name=f"run{n}") for n in range(number)]
        # Taking 2^run_bits − 1 away is adding 1, modulo 2^run_bits.
        m.d.comb += runs[0].eq(gap + sum(escapes, start=Const(0, 1)))
        m.d.comb += [runs[n].eq(lanes[n] - lanes[n - 1] - 1) for n in range(1, number)]
        valid = Signal(number)
        left = Signal.like(rest[0])
        after = Signal.like(previous)
        exactly = Signal(number + 1)  # one-hot number of escapes
        m.d.comb += exactly.eq(Cat(~escapes[0], (escapes[n - 1] & ~escapes[n] for n in range(1, number)), escapes[-1]))

        def chosen(values: list[tuple[int, Value]]) -> Value:
            return reduce(or_, (Mux(exactly[n], value, 0) for n, value in values))

        for slot in range(number):
            run = chosen([(n, runs[slot - n]) for n in range(slot + 1)])
            code = Mux(escapes[slot], escape, run)
            m.d.comb += [
                packer.codes.word_select(slot, self.run_bits).eq(code),
                valid[slot].eq(escapes[slot] | chosen([(n, there[slot - n]) for n in range(slot + 1)])),
            ]
        m.d.comb += [left.eq(chosen([(n, rest[number - n]) for n in range(number + 1)])), after.eq(previous)]
        with m.If(exactly[number]):
            m.d.comb += after.eq(previous + number * escape)
        for n in range(number):
            # The (n + 1)-th outlier is coded unless too many escapes come before it.
            with m.If(there[n] & ~escapes[number - 1 - n]):
                m.d.comb += after.eq(lanes[n])
        return valid, left, after
