"""The arbiter: adds up the errors of each candidate and keeps the results of the best."""

from amaranth import Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from nibblecore.hdl.cambriconq.buffers.tag import Tag

from .squ_tree import register_tree, tree_latency

__all__ = ["SquArbiter", "SquPass", "judged_layout"]

_ERROR_BITS = 25


class SquPass(data.Struct):
    """Where a beat stands: a block is read once for each candidate."""

    first: 1  # beat of the pass
    last: 1
    first_candidate: 1
    last_candidate: 1
    metric: 2


def judged_layout(beats: int) -> data.StructLayout:
    """A block whose best candidate is known: which buffer holds it, its last beat, its tag."""
    return data.StructLayout({"buffer": 1, "last_beat": range(beats), "tag": Tag})


class SquArbiter(wiring.Component):
    """Writes the results of each candidate to the buffer that does not hold the best so far (Section IV-B1, Arbiter).

    The error of a candidate is Σ error, |Σ error| or max error over its pass, for metrics 0, 1, 2 (3 counts as 0). It is exact: 25
    bits and log2 of the block's values. The least error wins, the first of equals.

    Which buffer a pass may overwrite is known once the pass before it has been judged, `latency` cycles after its last beat
    arrived; so results are delayed by as much, and passes follow each other without a gap.

    Latency: `latency` = 1 + ⌈log2(``lanes``) / 3⌉ cycles to ``write_enable``, and to ``judged_valid`` from the last beat of a block.
    Throughput: one beat a cycle.

    Parameters
    ----------
    lanes : int
        Values in a beat, a power of two.
    block : int
        Largest number of values in a block.
    error_bits : int
        Bits of an error without its sign, 24; less only to make proofs small.

    Members
    -------
    i_valid : In(1)
        There is a beat.
    i : In(SquPass)
    tag : In(Tag)
        Of the candidate.
    q : In(16 * lanes)
        Signed, lane 0 least significant; likewise ``error``.
    error : In((error_bits + 1) * lanes)
        Signed; not negative unless the metric is 1.
    write_enable : Out(1)
    write_buffer : Out(1)
    write_beat : Out(range(block / lanes))
    write_data : Out(16 * lanes)
        A beat of q to the result buffers, which take all.
    judged_valid : Out(1)
        One cycle for each block, with the write of its last beat.
    judged : Out(judged_layout(block / lanes))
    """

    def __init__(self, lanes: int, block: int, error_bits: int = _ERROR_BITS - 1) -> None:
        self.lanes, self.block, self.error_bits = lanes, block, error_bits
        beats = block // lanes
        super().__init__(
            {
                "i_valid": In(1),
                "i": In(SquPass),
                "tag": In(Tag),
                "q": In(16 * lanes),
                "error": In((error_bits + 1) * lanes),
                "write_enable": Out(1),
                "write_buffer": Out(1),
                "write_beat": Out(range(beats)),
                "write_data": Out(16 * lanes),
                "judged_valid": Out(1),
                "judged": Out(judged_layout(beats)),
            }
        )

    @property
    def latency(self) -> int:
        return tree_latency(self.lanes) + 1

    def elaborate(self, platform: object) -> Module:
        m = Module()
        width = self.error_bits + 1
        errors = [self.error.word_select(lane, width) for lane in range(self.lanes)]
        total = register_tree(m, [error.as_signed() for error in errors], lambda a, b: a + b, "total")
        peak = register_tree(m, [error[:-1] for error in errors], _maximum, "peak")

        # The beat's place, tag and results keep step: stages[-2] is beside `total` and `peak`, stages[-1] beside `sum` and `largest`.
        stages = [(self.i_valid, self.i, self.tag, self.q)]
        for number in range(1, self.latency + 1):
            valid = Signal(name=f"stage{number}_valid")
            position, tag = (
                Signal(shape, name=f"stage{number}_{name}", reset_less=True) for name, shape in (("pass", SquPass), ("tag", Tag))
            )
            q = Signal(len(self.q), name=f"stage{number}_q", reset_less=True)
            for register, value in zip((valid, position, tag, q), stages[-1], strict=True):
                m.d.sync += register.eq(value)
            stages.append((valid, position, tag, q))

        add_valid, add, _, _ = stages[-2]
        error_sum = Signal(signed(width + (self.block - 1).bit_length()), reset_less=True)
        largest = Signal(self.error_bits, reset_less=True)
        with m.If(add_valid):
            m.d.sync += [error_sum.eq(Mux(add.first, 0, error_sum) + total), largest.eq(_maximum(peak, Mux(add.first, 0, largest)))]

        valid, position, tag, q = stages[-1]
        error = Signal(len(error_sum))
        least = Signal(len(error_sum), reset_less=True)
        ends = Signal()
        better = Signal()
        best_buffer = Signal()
        best_tag = Signal(Tag, reset_less=True)
        beat = Signal.like(self.write_beat)
        m.d.comb += [
            error.eq(Mux(position.metric == 2, largest, Mux(error_sum[-1], -error_sum, error_sum))),
            ends.eq(valid & position.last),
            better.eq(position.first_candidate | (error < least)),
            self.write_enable.eq(valid),
            self.write_buffer.eq(~best_buffer),
            self.write_beat.eq(beat),
            self.write_data.eq(q),
            self.judged_valid.eq(ends & position.last_candidate),
            self.judged.buffer.eq(best_buffer ^ better),
            self.judged.last_beat.eq(beat),
            self.judged.tag.eq(Mux(better, tag, best_tag)),
        ]
        with m.If(valid):
            m.d.sync += beat.eq(Mux(position.last, 0, beat + 1))
        with m.If(ends & better):
            m.d.sync += [best_buffer.eq(~best_buffer), best_tag.eq(tag), least.eq(error)]
        return m


def _maximum(a: Value, b: Value) -> Value:
    return Mux(a < b, b, a)
