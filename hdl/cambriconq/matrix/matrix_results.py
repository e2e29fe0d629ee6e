"""From the PE array's sums to FP32 in NBout: accumulators, dequantizers, adders."""

from amaranth import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out
from nibblecore.hdl.arith.fp32_add import Fp32Add
from nibblecore.hdl.cambriconq.buffers.nbout import row_bits

from .accumulator import RESULT_BITS, Accumulator, Step
from .dequantizer import Dequantizer
from .matrix_sequencer import PASS_CYCLES, PassInfo
from .pe_array import sum_bits

__all__ = ["MatrixResults"]

_MINUS_ZERO = 0x8000_0000


class MatrixResults(wiring.Component):
    """N accumulators; N/4 dequantizers and adders, each for four accumulators N/4 apart, so that a cycle completes a row of NBout.

    A sum that has nothing to be added to is added to −0, which changes no number.

    Latency: `latency` = 8 cycles from the sum that ends a pass to the write of its first row, the other three in the cycles after.
    Throughput: a pass every four cycles, a sum a cycle. A row that has been read may be read again `REVISIT_CYCLES` later.

    Parameters
    ----------
    rows, cols : int
        N, M: N a multiple of 4, and N/4 a power of two, at least 2.
    words : int
        Of NBout.
    array_latency : int
        Cycles from a line of inputs to its sums.

    Members
    -------
    sums_valid : In(1)
    sums : In(rows * sum_bits(cols))
        Signed, row 0 least significant.
    step : In(Step)
        From `PeArray`, the three of them.
    info_valid : In(1)
    info : In(PassInfo)
        Of a pass, beside the first line that goes to the array. Up to eight passes may be under way.
    e_valid : In(1)
    e_row : In(⌈log2 rows⌉)
    e : In(signed(8))
        Exponents of the weights being loaded, row by row; they count from ``swap`` on.
    swap : In(1)
        First cycle of a tile's first pass.
    read_enable : Out(1)
    read_row : Out(row of NBout)
    read_data : In(32 * rows / 4)
    write_enable : Out(rows / 4)
    write_row : Out(row of NBout)
    write_data : Out(32 * rows / 4)
        To and from `Nbout`; neither read nor write may be refused.
    busy : Out(1)
        A result is still to be written.
    """

    def __init__(self, rows: int, cols: int, words: int, array_latency: int) -> None:
        self.rows, self.cols, self.array_latency = rows, cols, array_latency
        self.lanes = rows // 4
        bits = row_bits(words, self.lanes)
        self.sum_bits = sum_bits(cols)
        super().__init__(
            {
                "sums_valid": In(1),
                "sums": In(rows * self.sum_bits),
                "step": In(Step),
                "info_valid": In(1),
                "info": In(PassInfo),
                "e_valid": In(1),
                "e_row": In((rows - 1).bit_length()),
                "e": In(signed(8)),
                "swap": In(1),
                "read_enable": Out(1),
                "read_row": Out(bits),
                "read_data": In(32 * self.lanes),
                "write_enable": Out(self.lanes),
                "write_row": Out(bits),
                "write_data": Out(32 * self.lanes),
                "busy": Out(1),
            }
        )

    @property
    def latency(self) -> int:
        return Accumulator.LATENCY + Dequantizer.LATENCY + Fp32Add.LATENCY

    REVISIT_CYCLES = Fp32Add.LATENCY + 2
    """From the read of a row to the first cycle in which it may be read again; at most two passes."""

    def elaborate(self, platform: object) -> Module:
        m = Module()
        exponents = self._exponents(m)
        m.submodules.passes = passes = SyncFIFO(width=len(self.info.as_value()), depth=8)
        info = Signal(PassInfo)
        m.d.comb += [passes.w_en.eq(self.info_valid), passes.w_data.eq(self.info), info.eq(passes.r_data)]

        results = Signal(self.rows * RESULT_BITS)
        done = Signal()
        for number in range(self.rows):
            m.submodules[f"accumulator{number}"] = accumulator = Accumulator(self.sum_bits)
            m.d.comb += [
                accumulator.i_valid.eq(self.sums_valid),
                accumulator.i_step.eq(self.step),
                accumulator.i_sum.eq(self.sums.word_select(number, self.sum_bits)),
                results.word_select(number, RESULT_BITS).eq(accumulator.o),
            ]
            if number == 0:
                m.d.comb += done.eq(accumulator.o_valid)

        # A round of four rows of NBout.
        part = Signal(range(PASS_CYCLES))
        active = Signal()
        m.d.comb += [active.eq(done | (part != 0)), passes.r_en.eq(part == PASS_CYCLES - 1)]
        m.d.sync += part.eq(part + active)
        numbers = Signal(32 * self.lanes)
        for lane in range(self.lanes):
            m.submodules[f"dequantizer{lane}"] = dequantizer = Dequantizer()
            mine = [lane + number * self.lanes for number in range(PASS_CYCLES)]
            m.d.comb += [
                dequantizer.i_valid.eq(done),
                dequantizer.e_a.eq(info.e),
                dequantizer.i.eq(Cat(results.word_select(number, RESULT_BITS) for number in mine)),
                dequantizer.e_w.eq(Cat(exponents[number] for number in mine)),
                numbers.word_select(lane, 32).eq(dequantizer.o),
            ]
        place = self._place(m, info, part, active)
        waiting = Cat(passes.r_rdy, active, *(stage.lanes for stage in place))
        m.d.comb += self.busy.eq(waiting.any())
        self._add(m, numbers, place)
        return m

    def _exponents(self, m: Module) -> list[Signal]:
        """Exponents of the weights, so late that they change when the dequantizers have done with the pass before."""
        late = self.array_latency + Accumulator.LATENCY + PASS_CYCLES - 2
        events = [Cat(self.e_valid, self.swap, self.e_row, self.e)]
        for stage in range(late):
            following = Signal.like(events[-1], name=f"event{stage}")
            m.d.sync += following.eq(events[-1])
            events.append(following)
        e_valid, swap = events[-1][0], events[-1][1]
        e_row, e = events[-1][2 : 2 + len(self.e_row)], events[-1][2 + len(self.e_row) :]
        exponents = []
        for number in range(self.rows):
            shadow, active = Signal(8, name=f"shadow_e{number}", reset_less=True), Signal(8, name=f"e{number}", reset_less=True)
            with m.If(e_valid & (e_row == number)):
                m.d.sync += shadow.eq(e)
            with m.If(swap):
                m.d.sync += active.eq(shadow)
            exponents.append(active)
        return exponents

    def _place(self, m: Module, info: data.View, part: Signal, active: Signal) -> list[data.View]:
        """Row, lanes that count and whether to add, for every stage from the round's on."""
        layout = data.StructLayout({"row": len(self.write_row), "lanes": self.lanes, "add": 1})
        first_column = Signal(range(self.rows))
        m.d.comb += first_column.eq(part * self.lanes)
        stages = [Signal(layout, name="place0")]
        m.d.comb += [
            stages[0].row.eq(info.row + part),
            stages[0].lanes.eq(Mux(active, Cat(first_column + lane < info.columns for lane in range(self.lanes)), 0)),
            stages[0].add.eq(info.add),
        ]
        for stage in range(1, Dequantizer.LATENCY + Fp32Add.LATENCY + 1):
            stages.append(Signal(layout, name=f"place{stage}"))
            m.d.sync += stages[stage].eq(stages[stage - 1])
        return stages

    def _add(self, m: Module, numbers: Signal, place: list[data.View]) -> None:
        before, now, written = place[Dequantizer.LATENCY - 1], place[Dequantizer.LATENCY], place[-1]
        m.d.comb += [
            self.read_enable.eq(before.add & before.lanes.any()),
            self.read_row.eq(before.row),
            self.write_row.eq(written.row),
            self.write_enable.eq(written.lanes),
        ]
        for lane in range(self.lanes):
            m.submodules[f"add{lane}"] = add = Fp32Add()
            m.d.comb += [
                add.i_valid.eq(now.lanes.any()),
                add.a.eq(numbers.word_select(lane, 32)),
                add.b.eq(Mux(now.add, self.read_data.word_select(lane, 32), Const(_MINUS_ZERO, 32))),
                self.write_data.word_select(lane, 32).eq(add.o),
            ]
