"""The wide array with its two feeders: runs tile passes at fixed timing."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out
from nibblecore.hdl.config import LtoaqConfig
from nibblecore.hdl.ltoaq.command.job import OperandFormat, pass_layout
from nibblecore.hdl.ltoaq.operands.transposer import word_bits

from .feeder import Feeder
from .wide_array import WideArray

__all__ = ["WideEngine", "engine_signature"]


def engine_signature(config: LtoaqConfig) -> wiring.Signature:
    """What an engine offers whatever its scheme.

    Members
    -------
    eight_bit : In(1)
    a_format, w_format : In(OperandFormat)
        Constant while a pass is in flight.
    command : In(stream of `pass_layout`)
    a_enable : Out(rows)
    a_address : Out(rows * ⌈log2 bank_words⌉)
    a_data : In(rows * 5 * block)
    w_enable : Out(output_cols)
    w_address : Out(output_cols * ⌈log2 bank_words⌉)
    w_data : In(output_cols * 5 * block)
        The operand buffers' read ports, bank 0 least significant.
    credit : In(1)
        Room in the tile buffer for one more pass.
    take : Out(1)
        Takes it.
    result_valid : Out(output_cols)
        Per output column, as `TileBuffer` takes them; results never wait.
    result : Out(33 * output_cols)
        Value in bits 31:0, overflow in bit 32.
    released_a, released_w : Out(1)
        The half of that buffer is no longer read.
    working : Out(1)
        A word enters the array in this cycle.
    waits_for_room : Out(1)
        A pass waits for the tile buffer.
    busy : Out(1)
        A pass is at work, or results have still to be pushed out of the array.
    """
    address_bits = (config.bank_words - 1).bit_length()
    a, w, width = config.rows, config.output_cols, word_bits(config.block)
    return wiring.Signature(
        {
            "eight_bit": In(1),
            "a_format": In(OperandFormat),
            "w_format": In(OperandFormat),
            "command": In(stream.Signature(pass_layout(address_bits))),
            "a_enable": Out(a),
            "a_address": Out(a * address_bits),
            "a_data": In(a * width),
            "w_enable": Out(w),
            "w_address": Out(w * address_bits),
            "w_data": In(w * width),
            "credit": In(1),
            "take": Out(1),
            "result_valid": Out(w),
            "result": Out(33 * w),
            "released_a": Out(1),
            "released_w": Out(1),
            "working": Out(1),
            "waits_for_room": Out(1),
            "busy": Out(1),
        }
    )


class WideEngine(wiring.Component):
    """Issues the words of tile passes back to back and collects the results.

    The first word of a pass carries the boundary that pushes the results of the pass before out of the array; when no pass
    follows at once, an empty word carries it. Boundaries are at least ``WideArray.drain_cycles`` apart, and one that pushes out
    results waits for a credit.

    Latency: the first word is at the array's edge three cycles after the pass was taken. The result of row 0 in column 0 comes
    max(n, ``drain_cycles``) + 5 cycles after that of a pass of n words, if there is a credit; that of row i in column j
    i + i // 8 + j cycles later.
    Throughput: one word of all rows and columns a cycle, no bubble between passes of at least ``drain_cycles`` words.

    Parameters
    ----------
    config : LtoaqConfig
        Of the wide scheme.

    Members
    -------
    all of `engine_signature`
    """

    def __init__(self, config: LtoaqConfig) -> None:
        self.config = config
        super().__init__(engine_signature(config))

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self.config
        m.submodules.array = array = WideArray(config.rows, config.cols, lanes=config.lanes, paired=config.paired)
        m.submodules.a_feeder = a_feeder = Feeder("a", config)
        m.submodules.w_feeder = w_feeder = Feeder("w", config)
        m.d.comb += [
            array.eight_bit.eq(self.eight_bit),
            array.a.eq(a_feeder.lanes),
            array.w.eq(w_feeder.lanes),
            array.boundary.eq(a_feeder.boundary),
        ]
        for name, feeder in (("a", a_feeder), ("w", w_feeder)):
            m.d.comb += [
                feeder.eight_bit.eq(self.eight_bit),
                feeder.format.eq(getattr(self, f"{name}_format")),
                getattr(self, f"{name}_enable").eq(feeder.read_enable),
                getattr(self, f"{name}_address").eq(feeder.read_address),
                feeder.read_data.eq(getattr(self, f"{name}_data")),
            ]
        boundary, keep = self._issue(m, a_feeder.read, w_feeder.read, array.drain_cycles)
        self._results(m, array, boundary, keep)
        return m

    def _issue(self, m: Module, a_read: data.View, w_read: data.View, drain_cycles: int) -> tuple[Signal, Signal]:
        """Returns (a boundary enters now, it pushes out results that are wanted)."""
        config = self.config
        b = config.block
        layout = pass_layout((config.bank_words - 1).bit_length())
        job = Signal(layout)
        active = Signal()
        count = Signal(16)
        select = Signal(2)
        first = Signal()
        pending = Signal()
        flush = Signal()
        distance = Signal(range(drain_cycles + 1), init=drain_cycles)
        ending, free, due, spaced, go, flush_next = (
            Signal(name=n) for n in ("ending", "free", "due", "spaced", "go", "flush_next")
        )
        boundary = Signal()
        keep = Signal()
        new = self.command.payload
        m.d.comb += [
            ending.eq(active & (count == job.words - 1)),
            free.eq(~active | ending),
            due.eq(pending | (ending & job.last)),
            spaced.eq(distance >= drain_cycles - 1),
            go.eq(self.command.valid & free & ~flush & (new.resume | (spaced & (~due | self.credit)))),
            flush_next.eq(free & due & ~self.command.valid & ~flush & spaced & self.credit),
            self.command.ready.eq(go),
            self.take.eq(due & (flush_next | (go & ~new.resume))),
            self.working.eq(active),
            self.busy.eq(active | due | flush),
            self.waits_for_room.eq(free & due & spaced & ~self.credit),
            boundary.eq(flush | (active & first)),
        ]
        m.d.sync += [flush.eq(flush_next), pending.eq(due & ~self.take)]
        # `keep` is registered with the boundary that it belongs to.
        m.d.sync += keep.eq(self.take)
        with m.If(flush_next | (go & ~new.resume)):
            m.d.sync += distance.eq(0)
        with m.Elif(~spaced):
            m.d.sync += distance.eq(distance + 1)
        with m.If(go):
            m.d.sync += [job.eq(new), active.eq(1), count.eq(0), select.eq(0), first.eq(~new.resume)]
        with m.Elif(ending):
            m.d.sync += active.eq(0)
        with m.If(active & ~ending):
            last_select = Mux(self.eight_bit, b // 2 // config.word_elements(8) - 1, b // config.word_elements(4) - 1)
            wrap = select == last_select
            m.d.sync += [
                count.eq(count + 1),
                first.eq(0),
                select.eq(Mux(wrap, 0, select + 1)),
                job.a_address.eq(job.a_address + wrap),
                job.w_address.eq(job.w_address + wrap),
            ]
        for read, address in ((a_read, job.a_address), (w_read, job.w_address)):
            m.d.comb += [read.valid.eq(active), read.boundary.eq(boundary), read.select.eq(select), read.address.eq(address)]

        # The wave still reads the last bank some cycles after the last word entered the first.
        for name, flag in (("a", job.release_a), ("w", job.release_w)):
            banks = config.rows if name == "a" else config.output_cols
            wave = Signal(banks + 1, name=f"release_{name}_wave")
            m.d.sync += wave.eq(Cat(ending & flag, wave))
            m.d.comb += getattr(self, f"released_{name}").eq(wave[-1])
        return boundary, keep

    def _results(self, m: Module, array: WideArray, boundary: Signal, keep: Signal) -> None:
        """Drops the results that a boundary after idle pushes out, and skews `valid` over the columns."""
        config = self.config
        m.submodules.kept = kept = SyncFIFO(width=1, depth=8)
        row = Signal(range(config.rows))
        valid = Signal()
        m.d.comb += [
            kept.w_en.eq(boundary),
            kept.w_data.eq(keep),
            valid.eq(array.result_valid & kept.r_data[0]),
            kept.r_en.eq(array.result_valid & (row == config.rows - 1)),
        ]
        with m.If(array.result_valid):
            m.d.sync += row.eq(row + 1)
        wave = valid
        if config.output_cols > 1:
            later = Signal(config.output_cols - 1)
            m.d.sync += later.eq(Cat(valid, later))
            wave = Cat(valid, later)
        m.d.comb += self.result_valid.eq(wave)
        for column in range(config.output_cols):
            m.d.comb += self.result.word_select(column, 33).eq(Cat(array.result.word_select(column, 32), array.overflow[column]))
