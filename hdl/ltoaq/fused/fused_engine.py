"""The fused array with an elastic lane for every row and column."""

from amaranth import Cat, Module, Signal
from amaranth.lib import wiring
from nibblecore.hdl.config import LtoaqConfig
from nibblecore.hdl.ltoaq.array.wide_engine import engine_signature
from nibblecore.hdl.ltoaq.command.job import pass_layout
from nibblecore.hdl.ltoaq.operands.transposer import word_bits

from .elastic_lane import ElasticLane
from .fused_array import FusedArray
from .fused_row import connect_lane

__all__ = ["FusedEngine"]


class FusedEngine(wiring.Component):
    """Runs tile passes at the pace of the clusters.

    A pass starts when every lane has handed over the pass before; the clusters may still be working on it. Room in the
    tile buffer is taken when the last part of a result starts, so that results never wait at the array's edge.

    Latency: the first beats enter the array 2 cycles after a pass was taken, or 3 (`ElasticLane`); from there `FusedArray`'s.
    Throughput: at best a beat of every row and column a cycle, every other cycle for 4-bit codes with B = 4; three more cycles between the
    last beats of a pass and the first of the next.

    Parameters
    ----------
    config : LtoaqConfig
        Of the fused scheme.

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
        rows, cols = config.rows, config.output_cols
        m.submodules.array = array = FusedArray(rows, config.cols, config.fifo_depth)
        address_bits = (config.bank_words - 1).bit_length()
        job = Signal(pass_layout(address_bits))
        running = Signal()
        waiting = Signal()
        start = Signal()
        finished = Signal()
        new = self.command.payload
        m.d.comb += [
            array.eight_bit.eq(self.eight_bit),
            array.a_signed.eq(self.a_format.signed),
            array.a_threshold.eq(self.a_format.threshold),
            array.a_k.eq(self.a_format.k),
            array.w_signed.eq(self.w_format.signed),
            array.w_threshold.eq(self.w_format.threshold),
            array.w_k.eq(self.w_format.k),
            self.waits_for_room.eq(self.command.valid & ~running & new.last & ~self.credit),
            start.eq(self.command.valid & ~running & (~new.last | self.credit)),
            self.command.ready.eq(start),
            self.take.eq(start & new.last),
            finished.eq(running & ~waiting),
            self.released_a.eq(finished & job.release_a),
            self.released_w.eq(finished & job.release_w),
            self.busy.eq(running),
        ]
        with m.If(start):
            m.d.sync += [job.eq(new), running.eq(1)]
        with m.Elif(finished):
            m.d.sync += running.eq(0)

        busy = []
        for name, banks in (("a", rows), ("w", cols)):
            address = getattr(new, f"{name}_address")
            for i in range(banks):
                lane = ElasticLane(config.block, address_bits)
                m.submodules[f"{name}_lane{i}"] = lane
                busy.append(lane.busy)
                m.d.comb += [
                    lane.eight_bit.eq(self.eight_bit),
                    lane.start.eq(start),
                    lane.address.eq(address),
                    lane.words.eq(new.words),
                    lane.ends.eq(new.last),
                    getattr(self, f"{name}_enable")[i].eq(lane.read_enable),
                    getattr(self, f"{name}_address").word_select(i, address_bits).eq(lane.read_address),
                    lane.read_data.eq(getattr(self, f"{name}_data").word_select(i, word_bits(config.block))),
                ]
                connect_lane(m, getattr(array, name), i, lane, into=False)
        m.d.comb += [
            waiting.eq(Cat(busy).any()),
            self.working.eq(array.a.valid[0] & array.a.ready[0]),
            array.result.ready.eq(-1),
            self.result_valid.eq(array.result.valid),
            self.result.eq(array.result.payload),
        ]
        return m
