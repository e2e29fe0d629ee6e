"""Run-length decoder: a segment's codes in, one word of outlier flags a code beat out (docs/formats.md)."""

from functools import reduce
from operator import or_

from amaranth import Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for
from nibblecore.hdl.bus.streams import connect
from nibblecore.hdl.config import LtoaqConfig
from nibblecore.hdl.memory import Memory

__all__ = ["Decoder", "RunQueue"]


class RunQueue(wiring.Component):
    """Keeps the run beats of two segments, and shows the next codes of the older one.

    Beats behind a segment's last code are taken and forgotten. ``codes`` may straddle two beats: the last
    ``runs_per_cycle − 1`` codes of a beat are kept when the next one is fetched.

    Latency: the codes of a beat show two cycles after it was taken. Throughput: ``runs_per_cycle`` codes a cycle as long as
    beats wait.

    Parameters
    ----------
    bus_bits, run_bits, runs_per_cycle : int
        See `Decoder`.
    max_run_beats : int
        Beats of the longest segment. There is room for two of these.

    Members
    -------
    start : In(stream of range(max_run_beats + 1))
        Beats of the next segment. The caller sees to it that no more than two segments are on their way.
    runs : In(stream of bus_bits)
        The segment's beats: the codes from the low bits up, the first two slots of the first beat their number.
    codes : Out(run_bits * runs_per_cycle)
        The next codes of the segment, the first in the low bits.
    valid : Out(runs_per_cycle)
        Which of them are there; bit i implies bit i − 1.
    ending : Out(1)
        A segment is there, and no code of it follows those that are valid.
    consumed : In(range(runs_per_cycle + 1))
        How many of the valid codes are done with.
    finish : In(1)
        So is the segment: the codes of the next one follow.
    short : Out(1)
        The last beat of a segment is being taken, and codes are missing.
    drop : In(1)
        Take all starts and beats, and forget them.
    clear : In(1)
        Back to the state after reset; nothing is taken meanwhile.
    """

    def __init__(self, *, bus_bits: int, run_bits: int, runs_per_cycle: int, max_run_beats: int) -> None:
        self.run_bits = run_bits
        self.runs_per_cycle = runs_per_cycle
        self.slots = bus_bits // run_bits
        self.depth = 2 * max_run_beats
        super().__init__(
            {
                "start": In(stream.Signature(range(max_run_beats + 1))),
                "runs": In(stream.Signature(bus_bits)),
                "codes": Out(run_bits * runs_per_cycle),
                "valid": Out(runs_per_cycle),
                "ending": Out(1),
                "consumed": In(range(runs_per_cycle + 1)),
                "finish": In(1),
                "short": Out(1),
                "drop": In(1),
                "clear": In(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        # A beat's codes, and whether it holds the segment's last one.
        m.submodules.beats = beats = Memory(self.slots * self.run_bits + 1, self.depth)
        fetch = Signal()
        waiting = Signal(range(self.depth + 1))
        count = self._receive(m, beats)
        self._show(m, beats, count, waiting != 0, fetch)
        for address, advance in ((beats.write_address, beats.write_enable), (beats.read_address, fetch)):
            with m.If(advance):
                m.d.sync += address.eq(Mux(address == self.depth - 1, 0, address + 1))
            with m.If(self.clear):
                m.d.sync += address.eq(0)
        m.d.comb += beats.read_enable.eq(fetch)
        m.d.sync += waiting.eq(Mux(self.clear, 0, waiting + beats.write_enable - fetch))
        return m

    def _receive(self, m: Module, beats: Memory) -> Signal:
        """Write the beats that hold codes; returns the number of codes of the youngest segment."""
        slots, count_bits = self.slots, 2 * self.run_bits
        beats_left = Signal(self.start.payload.shape())
        first = Signal()
        count = Signal(count_bits)
        left = Signal(count_bits)
        room = Signal(range(slots + 1))
        codes = Signal(count_bits)
        more = Signal()
        taken = Signal()
        m.d.comb += [
            self.start.ready.eq(((beats_left == 0) | self.drop) & ~self.clear),
            self.runs.ready.eq(((beats_left != 0) | self.drop) & ~self.clear),
            taken.eq(self.runs.valid & self.runs.ready & ~self.drop),
            codes.eq(Mux(first, self.runs.payload[:count_bits], left)),
            room.eq(Mux(first, slots - 2, slots)),
            more.eq(codes > room),
            self.short.eq(taken & (beats_left == 1) & more),
            beats.write_enable.eq(taken & (first | (left != 0))),
            beats.write_data.eq(Cat(self.runs.payload[: slots * self.run_bits], ~more)),
        ]
        with m.If(self.start.valid & self.start.ready):
            m.d.sync += [beats_left.eq(self.start.payload), first.eq(1)]
        with m.If(taken):
            m.d.sync += [beats_left.eq(beats_left - 1), first.eq(0), left.eq(Mux(more, codes - room, 0))]
            with m.If(first):
                m.d.sync += count.eq(codes)
        with m.If(self.clear):
            m.d.sync += beats_left.eq(0)
        return count

    def _show(self, m: Module, beats: Memory, count: Signal, waiting: Value, fetch: Signal) -> None:
        """Codes from `place` of the kept codes and the beat last fetched."""
        slots, bits, tail = self.slots, self.run_bits, self.runs_per_cycle - 1
        loaded = Signal()
        kept = Signal(tail * bits)
        place = Signal(range(slots + tail + 1))
        after = Signal(range(slots + 2 * tail + 2))
        left = Signal(2 * bits)
        window = Cat(kept, beats.read_data[:-1])
        for n in reversed(range(len(place))):
            reach = self.runs_per_cycle + (1 << n) - 1
            shifted = Signal(min(reach * bits, len(window)), name=f"window{n}")
            m.d.comb += shifted.eq(Mux(place[n], window >> (bits << n), window))
            window = shifted
        wanted = Signal(self.runs_per_cycle)
        here = Signal(self.runs_per_cycle)
        m.d.comb += [
            self.codes.eq(window),
            wanted.eq(Cat(left > n for n in range(self.runs_per_cycle))),
            here.eq(Cat(place < slots + tail - n for n in range(self.runs_per_cycle))),
            self.valid.eq(Mux(loaded, wanted & here, 0)),
            self.ending.eq(loaded & (left <= self.runs_per_cycle) & ((wanted & ~here) == 0)),
            after.eq(place + self.consumed),
        ]
        fresh = Signal()
        m.d.comb += [fresh.eq(~loaded | self.finish), fetch.eq(waiting & (fresh | ((after >= slots) & ~beats.read_data[-1])))]
        m.d.sync += [place.eq(after), left.eq(left - self.consumed)]
        with m.If(self.finish):
            m.d.sync += loaded.eq(0)
        with m.If(fetch):
            m.d.sync += [loaded.eq(1), kept.eq(beats.read_data[(slots - tail) * bits : slots * bits]), place.eq(after - slots)]
            with m.If(fresh):
                m.d.sync += [place.eq(tail + 2), left.eq(count)]
        with m.If(self.clear):
            m.d.sync += loaded.eq(0)


class Decoder(wiring.Component):
    """Turns the run-length segments of tiles into outlier flags, one word of ``lanes`` flags for every beat of the tile's codes.

    For each tile: a ``start``, then ``run_beats`` beats of ``runs`` (all are taken, however soon the codes end), while ``words``
    words leave through ``flags``. Two tiles may be on their way: the second one's start and beats are taken whether or not flags
    of the first one are.

    A segment is malformed if its codes run past the tile or its count exceeds the codes of its beats. ``malformed`` then rises
    and stays, no further flags leave (a waiting word is withdrawn), the last word of the tile never leaves, and starts and
    beats are taken and dropped, all until ``clear``. In the cycle of ``clear`` no stream moves.

    Latency: `latency` = 3 cycles from the segment's first beat to its first word, if the codes of that word and the one behind them are
    within the first ``runs_per_cycle + 1``. A word waits for the code behind it, or for the segment's end.
    Throughput: ``⌈max(1, codes)/runs_per_cycle⌉`` cycles for a word in which ``codes`` codes end, without a gap between tiles,
    if the beats are there. One code, of which there are 2^run_bits − 1 elements at most, may end many words later; the words between
    take a cycle each.

    Parameters
    ----------
    lanes : int
        Flags in a word of 4-bit codes, a power of two, at least 2.
    bus_bits : int
        Bits of a run beat.
    elements_bits : int
        A tile has up to 2^elements_bits elements.
    run_bits : int
        Bits of a run-length code.
    runs_per_cycle : int
        Codes decoded in one cycle.

    Members
    -------
    start : In(stream of {run_beats, words})
        ``run_beats``, 1..max_run_beats, and ``words``, 1..max_words.
    eight_bit : In(1)
        The tile's codes have 8 bits: a word is the low half of the flags, the others are 0. Taken with ``start``.
    runs : In(stream of bus_bits)
        Beats of the run region.
    flags : Out(stream of lanes)
        Lane i in bit i.
    malformed : Out(1)
        Sticky.
    clear : In(1)
    """

    latency = 3

    def __init__(self, *, lanes: int, bus_bits: int, elements_bits: int, run_bits: int = 6, runs_per_cycle: int = 1) -> None:
        slots = bus_bits // run_bits
        if lanes < 2 or lanes & (lanes - 1):
            raise ValueError(f"lanes must be a power of two, at least 2, not {lanes}")
        if runs_per_cycle < 1 or slots < runs_per_cycle + 2:
            raise ValueError(f"a beat of {slots} codes cannot hold a count and {runs_per_cycle} codes")
        if 2 ** (2 * run_bits) <= 2**elements_bits or 2**elements_bits < lanes:
            raise ValueError(f"2^{elements_bits} elements: fewer than {lanes} lanes, or more than two {run_bits}-bit codes count")
        self.lanes = lanes
        self.bus_bits = bus_bits
        self.run_bits = run_bits
        self.runs_per_cycle = runs_per_cycle
        self.max_run_beats = -(-(2 + 2**elements_bits) // slots)
        self.max_words = 2 ** (elements_bits + 1) // lanes
        super().__init__(
            {
                "start": In(
                    stream.Signature(
                        data.StructLayout({"run_beats": bits_for(self.max_run_beats), "words": bits_for(self.max_words)})
                    )
                ),
                "eight_bit": In(1),
                "runs": In(stream.Signature(bus_bits)),
                "flags": Out(stream.Signature(lanes)),
                "malformed": Out(1),
                "clear": In(1),
            }
        )

    @classmethod
    def of(cls, config: LtoaqConfig) -> "Decoder":
        """The decoder of an accelerator."""
        return cls(
            lanes=config.bus_bits // 4,
            bus_bits=config.bus_bits,
            elements_bits=(config.tile**2 - 1).bit_length(),
            run_bits=config.run_bits,
            runs_per_cycle=config.runs_per_cycle,
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.queue = queue = RunQueue(
            bus_bits=self.bus_bits, run_bits=self.run_bits, runs_per_cycle=self.runs_per_cycle, max_run_beats=self.max_run_beats
        )
        m.d.comb += [queue.drop.eq(self.malformed), queue.clear.eq(self.clear)]
        connect(m, self.runs, queue.runs)
        half = self.lanes.bit_length() - 2  # log2 of half the lanes
        busy = Signal()
        eight_bit = Signal()
        exhausted = Signal()
        words_left = Signal(range(self.max_words + 1))  # those not begun
        # Place of the last element that is done with, counted from the word's first lane.
        previous = Signal(signed(max(self.run_bits, half + 1) + 1))
        word = Signal(self.lanes)
        held = Signal()
        complete = Signal()

        valid = Signal(self.runs_per_cycle)
        nothing_left = Signal()
        begin = Signal()
        m.d.comb += [valid.eq(Mux(busy & ~exhausted, queue.valid, 0)), nothing_left.eq(exhausted | (queue.ending & ~valid[0]))]
        places, marks = self._places(m, queue.codes, valid, previous)
        # Which codes end in the word, where one only begins it if the first of them does not end in the word at hand.
        words = [Mux(eight_bit, place[half:], place[half + 1 :]) for place in places]
        inside = Signal(self.runs_per_cycle)
        m.d.comb += [
            begin.eq(nothing_left | (valid[0] & (words[0] != 0))),
            inside.eq(Cat(here & (index == begin) for here, index in zip(valid, words, strict=True))),
        ]

        known = Signal()
        past = Signal()
        step = Signal()
        exhausting = Signal()
        m.d.comb += [
            known.eq(busy & (nothing_left | valid[0]) & ~self.malformed),
            past.eq(known & begin & (words_left == 0)),
            self.flags.valid.eq(held & (complete | (known & begin & ~past)) & ~self.malformed & ~self.clear),
            self.flags.payload.eq(word),
            step.eq(known & ~past & (~begin | ~held | self.flags.ready)),
            exhausting.eq(nothing_left | (queue.ending & (inside == valid))),
            queue.consumed.eq(Mux(step, reduce(lambda a, b: a + b, inside), 0)),
            queue.finish.eq(step & exhausting & ~exhausted),
        ]
        with m.If(self.flags.ready & complete):
            m.d.sync += [held.eq(0), complete.eq(0)]
        with m.If(step):
            lanes = [Cat(place[:half], place[half] & ~eight_bit) for place in places]
            flags = [Mux(here & mark, 1 << lane, 0) for here, mark, lane in zip(inside, marks, lanes, strict=True)]
            after = previous - Mux(begin, Mux(eight_bit, self.lanes // 2, self.lanes), 0)
            for here, lane in zip(inside, lanes, strict=True):
                after = Mux(here, lane, after)
            m.d.sync += [
                word.eq(Mux(begin, 0, word) | reduce(or_, flags)),
                previous.eq(after),
                words_left.eq(words_left - begin),
                exhausted.eq(exhausting),
                held.eq(1),
                complete.eq(0),
            ]
        tile_end = Signal()
        m.d.comb += tile_end.eq(step & exhausting & (words_left == begin))
        with m.If(tile_end):
            m.d.sync += complete.eq(1)
        self._tiles(m, queue, busy, tile_end, words_left, eight_bit, previous, exhausted)
        with m.If(past | queue.short):
            m.d.sync += self.malformed.eq(1)
        with m.If(self.clear):
            m.d.sync += [busy.eq(0), held.eq(0), complete.eq(0), self.malformed.eq(0)]
        return m

    def _places(self, m: Module, codes: Signal, valid: Signal, previous: Signal) -> tuple[list[Signal], list[Value]]:
        """For each code the place of the last element it covers, and whether that is an outlier."""
        places: list[Signal] = []
        marks: list[Value] = []
        place: Value = previous
        for n in range(self.runs_per_cycle):
            code, mark = Signal(self.run_bits, name=f"code{n}"), Signal(name=f"mark{n}")
            m.d.comb += [code.eq(codes.word_select(n, self.run_bits)), mark.eq(~code.all())]
            # All ones cover as many elements as the code below it, and mark none.
            place = place + Cat(code[0] & mark, code[1:]) + 1
            places.append(Signal(range(self.lanes + (n + 1) * 2**self.run_bits), name=f"place{n}"))
            m.d.comb += places[n].eq(place)
            place = places[n]
            marks.append(mark)
        return places, marks

    def _tiles(
        self,
        m: Module,
        queue: RunQueue,
        busy: Signal,
        tile_end: Signal,
        words_left: Signal,
        eight_bit: Signal,
        previous: Signal,
        exhausted: Signal,
    ) -> None:
        """One tile in work, one waiting."""
        waiting = Signal()
        next_words = Signal(words_left.shape())
        next_eight_bit = Signal()
        with m.If(~busy | tile_end):
            # The tile begins behind the last lane of a word that is not there.
            m.d.sync += [
                busy.eq(waiting),
                waiting.eq(0),
                words_left.eq(next_words),
                eight_bit.eq(next_eight_bit),
                exhausted.eq(0),
                previous.eq(Mux(next_eight_bit, self.lanes // 2, self.lanes) - 1),
            ]
        m.d.comb += [
            queue.start.payload.eq(self.start.payload.run_beats),
            queue.start.valid.eq(self.start.valid & ~waiting),
            self.start.ready.eq(queue.start.ready & (~waiting | self.malformed)),
        ]
        with m.If(queue.start.valid & queue.start.ready):
            m.d.sync += [waiting.eq(1), next_words.eq(self.start.payload.words), next_eight_bit.eq(self.eight_bit)]
        with m.If(self.clear):
            m.d.sync += waiting.eq(0)
