"""MM and CONV: weights from SB, inputs from NBin, results to NBout."""

from amaranth import Cat, Module, ResetInserter, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from nibblecore.hdl.cambriconq.buffers.nbout import row_bits
from nibblecore.hdl.cambriconq.buffers.qbc import line_read

from .matrix_job import MatrixJob
from .matrix_loader import MatrixError, MatrixLoader
from .matrix_results import MatrixResults
from .matrix_sequencer import MatrixSequencer
from .pe_array import PeArray

__all__ = ["MatrixUnit"]

_LEAVING_CYCLES = 15
"""Longer than the array and the accumulators take."""


class MatrixUnit(wiring.Component):
    """The PE array with all that feeds it and all that takes its results.

    A tile has L = (up to N rows of weights) · (vectors of the group) · w_slot lines, which are loaded one a cycle. A pass, a row of
    inputs through a tile, takes max(4, vectors · a_slot · w_slot) cycles.

    Latency: the first line enters the array L + 7 cycles after ``start``, L of the first tile, and up to 3 later where a pass has less than
    four. The results of a pass are written `PeArray.latency` + `MatrixResults.latency` cycles after its last line entered and in the next
    three, those that exist.

    Throughput: M · N products of nibbles a cycle from the first line to the last, if rows > 1, no pass has less than four lines, and all
    passes of a tile take 5 cycles more than L of the next one or longer; for equal tiles rows · a_slot ≥ N + 5 is enough. With one row at
    least two cycles pass between tiles.

    Parameters
    ----------
    rows, cols : int
        N and M of the PE array: N a power of two, at least 8, M at least 2.
    nbin_lines, sb_lines : int
        Lines of M nibbles in NBin and SB.
    nbout_words : int
        FP32 words in NBout, a power of two, at least four rows of N/4.

    Members
    -------
    job : In(MatrixJob)
        Constant from ``start`` until not ``busy``; its ranges in NBout have been checked, those in NBin and SB are checked here.
    start : In(1)
        One cycle, not while ``busy``.
    busy : Out(1)
        From the cycle after ``start`` until the last result can be read from NBout; after an error for 15 cycles.
    error : Out(MatrixError)
        From the cycle after it was found until ``start``: why the product was abandoned. What NBout then holds of the result is
        undefined. The first line that is wrong counts: one bit, or two if one of each side is wrong in the same cycle; the program ends
        with the first of `MatrixError` then.
    working : Out(1)
        A line enters the array in this cycle.
    nbin, sb : In(line_read(cols, ⌈log2 lines⌉))
        To the tagged buffers, answered in the next cycle; no read may be refused.
    read_enable : Out(1)
    read_row : Out(row of NBout)
    read_data : In(32 * rows / 4)
    write_enable : Out(rows / 4)
    write_row : Out(row of NBout)
    write_data : Out(32 * rows / 4)
        To and from `Nbout`; neither read nor write may be refused.
    """

    def __init__(self, rows: int, cols: int, nbin_lines: int, sb_lines: int, nbout_words: int) -> None:
        self.rows, self.cols = rows, cols
        self.nbin_lines, self.sb_lines, self.nbout_words = nbin_lines, sb_lines, nbout_words
        lanes = rows // 4
        bits = row_bits(nbout_words, lanes)
        super().__init__(
            {
                "job": In(MatrixJob),
                "start": In(1),
                "busy": Out(1),
                "error": Out(MatrixError),
                "working": Out(1),
                "nbin": In(line_read(cols, (nbin_lines - 1).bit_length())),
                "sb": In(line_read(cols, (sb_lines - 1).bit_length())),
                "read_enable": Out(1),
                "read_row": Out(bits),
                "read_data": In(32 * lanes),
                "write_enable": Out(lanes),
                "write_row": Out(bits),
                "write_data": Out(32 * lanes),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.array = array = PeArray(self.rows, self.cols)
        results = MatrixResults(self.rows, self.cols, self.nbout_words, array.latency)
        loader = MatrixLoader(self.rows, self.cols, self.sb_lines)
        sequencer = MatrixSequencer(self.rows, self.cols, self.nbin_lines, results.REVISIT_CYCLES)
        # An error stops all at once; what is still in the array has left it before another product may start.
        stopped = Signal()
        leaving = Signal(range(_LEAVING_CYCLES + 1))
        for name, unit in (("results", results), ("loader", loader), ("sequencer", sequencer)):
            m.submodules[name] = ResetInserter(stopped)(unit)
        m.d.comb += [stopped.eq(leaving != 0), self.busy.eq(sequencer.busy | results.busy | (leaving != 0))]
        found = Cat(loader.error.as_value() | sequencer.error.as_value())
        with m.If(self.start):
            m.d.sync += self.error.eq(0)
        with m.Elif(~stopped & found.any()):
            m.d.sync += [self.error.eq(found), leaving.eq(_LEAVING_CYCLES)]
        with m.If(leaving != 0):
            m.d.sync += leaving.eq(leaving - 1)
        wiring.connect(m, wiring.flipped(self.nbin), sequencer.port)
        wiring.connect(m, wiring.flipped(self.sb), loader.port)
        for unit in (loader, sequencer):
            m.d.comb += [unit.job.eq(self.job), unit.start.eq(self.start)]
        m.d.comb += [
            getattr(array, name).eq(getattr(sequencer, name))
            for name in ("i_valid", "i_line", "i_plane", "i_a_signed", "i_w_signed", "i_swap", "i_step")
        ]
        m.d.comb += [
            getattr(array, name).eq(getattr(loader, name)) for name in ("load_valid", "load_line", "load_row", "load_plane")
        ]
        m.d.comb += [
            sequencer.loaded.eq(loader.ready),
            loader.taken.eq(sequencer.taken),
            results.sums_valid.eq(array.o_valid),
            results.sums.eq(array.o_sum),
            results.step.eq(array.o_step),
            results.info_valid.eq(sequencer.info_valid),
            results.info.eq(sequencer.info),
            results.e_valid.eq(loader.e_valid),
            results.e_row.eq(loader.load_row),
            results.e.eq(loader.e),
            results.swap.eq(sequencer.e_swap),
            results.read_data.eq(self.read_data),
            self.read_enable.eq(results.read_enable),
            self.read_row.eq(results.read_row),
            self.write_enable.eq(results.write_enable),
            self.write_row.eq(results.write_row),
            self.write_data.eq(results.write_data),
            self.working.eq(sequencer.i_valid),
        ]
        return m
