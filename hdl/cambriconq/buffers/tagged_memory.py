"""Lines that know their format, and that can all be made invalid at once."""

from amaranth import Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from nibblecore.hdl.memory import Memory

from .tag import Tag

__all__ = ["TaggedMemory"]


class TaggedMemory(wiring.Component):
    """A memory of lines and one of their tags, each kept with the number of the generation in which it was written.

    A line is valid if its generation is the current one. ``clear`` begins the next. After a reset, and with each
    2^``generation_bits`` − 1st ``clear``, numbers begin anew: for ``lines`` cycles the tags are swept; then nothing may be written,
    every line reads as invalid, and ``clear`` does nothing.

    Latency: a line is there the cycle after ``read_enable``. One that is read in the cycle in which it is written is undefined.
    Throughput: a line written and a line read a cycle.

    Parameters
    ----------
    lines : int
        A power of two.
    line_bits : int
        Bits of a line.
    generation_bits : int
        Bits of a generation's number, at least 1.

    Members
    -------
    clear : In(1)
        Counts for what is written or read in the same cycle, too.
    sweeping : Out(1)
    write_enable : In(1)
    write_line : In(range(lines))
    write_tag : In(Tag)
    write_valid : In(1)
        Without it the line becomes invalid.
    write_data : In(line_bits)
    read_enable : In(1)
    read_line : In(range(lines))
    read_data : Out(line_bits)
        Of the last line asked for, as is ``read_tag``.
    read_tag : Out(Tag)
    read_valid : Out(1)
        That line is valid. Without it the two mean nothing.
    """

    def __init__(self, lines: int, line_bits: int, generation_bits: int) -> None:
        self.lines, self.line_bits, self.generation_bits = lines, line_bits, generation_bits
        super().__init__(
            {
                "clear": In(1),
                "sweeping": Out(1),
                "write_enable": In(1),
                "write_line": In(range(lines)),
                "write_tag": In(Tag),
                "write_valid": In(1),
                "write_data": In(line_bits),
                "read_enable": In(1),
                "read_line": In(range(lines)),
                "read_data": Out(line_bits),
                "read_tag": Out(Tag),
                "read_valid": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        entry = data.StructLayout({"tag": Tag, "generation": self.generation_bits})
        m.submodules.store = store = Memory(self.line_bits, self.lines)
        m.submodules.tags = tags = Memory(entry.size, self.lines)
        # Generation 0 is that of no line, and current while the tags are swept.
        generation = Signal(self.generation_bits)
        sweep_line = Signal(range(self.lines))
        swept = Signal()
        m.d.comb += self.sweeping.eq(generation == 0)
        with m.If(self.sweeping):
            m.d.sync += [sweep_line.eq(sweep_line + 1), generation.eq(sweep_line.all())]
        with m.Elif(self.clear):
            m.d.sync += generation.eq(generation + 1)

        new, stored = entry(tags.write_data), entry(tags.read_data)
        m.d.comb += [
            store.write_enable.eq(self.write_enable),
            store.write_address.eq(self.write_line),
            store.write_data.eq(self.write_data),
            tags.write_enable.eq(self.write_enable | self.sweeping),
            tags.write_address.eq(Mux(self.sweeping, sweep_line, self.write_line)),
            new.tag.eq(self.write_tag),
            new.generation.eq(Mux(self.write_valid, generation, 0)),
            store.read_enable.eq(self.read_enable),
            store.read_address.eq(self.read_line),
            tags.read_enable.eq(self.read_enable),
            tags.read_address.eq(self.read_line),
            self.read_data.eq(store.read_data),
            self.read_tag.eq(stored.tag),
            self.read_valid.eq((stored.generation == generation) & ~self.sweeping & ~swept),
        ]
        # What is read in the last cycle of the sweep is told in the first of generation 1.
        m.d.sync += swept.eq(self.sweeping)
        return m
