"""The elastic array of fused clusters: the paper's way to pay for outliers (Section IV-A)."""

from itertools import pairwise

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from nibblecore.hdl.bus.streams import connect

from .cluster import A_BEAT, W_BEAT, ClusterFormat
from .fused_row import FusedRow, connect_lane, vector_stream
from .lane_form import LaneForm
from .result_drain import Result, Travelling

__all__ = ["FusedArray"]


class FusedArray(wiring.Component):
    """rows × cols PEs, two neighbours of a row to a cluster: C[i, j] = Σ_k A[i, k]·W[j, k], rows × cols/2 outputs a pass.

    A beat brings two words of one row of A (or of W), k = 2t and 2t + 1. A word is 20 bits: four 4-bit codes and, above them,
    four outlier flags; with ``eight_bit`` one 8-bit code in bits 7:0 and its flag in bit 16. Bit 40 of a beat marks the last
    of a pass. A pass has at least one beat and as many in A as in W; words past the end of an odd K are 0 (normal). ``last``
    counts on A's streams and is ignored on W's.

    Codes are as in docs/formats.md, with T at most 15 (signed: 7) in 4-bit and 255 (127) in 8-bit mode. Nothing saturates on
    the way in, unlike in the wide array's decoder: an outlier is ±(T + q·2^k) whatever q, and the two agree on every code a
    quantizer writes. Results are modulo 2^32, with ``overflow`` if the running sum left the 32-bit range; the order of its
    terms is the cluster's.

    Every stream keeps its own pace: valid and ready everywhere, no skew needed at the inputs. Beats of the next pass may follow
    at once, while results drain; but the format inputs may change only when every result of the passes before has left.

    Latency: with beats fed skewed, row i and column i starting i cycles late, and no outliers, the result of row r in column c is
    on the column's output `latency` (r, c) = 4 + c + 2r cycles after the pass's last beat entered row 0.
    Throughput: at best one beat a cycle on each stream, 4·rows·cols products of 4-bit codes; with outliers as of `Cluster`. Results leave
    column by column in row order, one a cycle and column; passes of less than ``rows`` cycles wait for that.

    Parameters
    ----------
    rows, cols : int
        PEs: at least one row, and an even number of columns; ValueError otherwise.
    fifo_depth : int
        Beats in each operand FIFO of a cluster, at least 2.

    Members
    -------
    eight_bit, a_signed, w_signed : In(1)
    a_threshold, w_threshold : In(8)
    a_k, w_k : In(2)
        T and k of the tensors.
    a : In(vector_stream of 41 bits, rows)
    w : In(vector_stream of 41 bits, cols/2)
    result : Out(vector_stream of Result, cols/2)
        Value in bits 31:0, overflow in bit 32.
    """

    def __init__(self, rows: int, cols: int, fifo_depth: int) -> None:
        if rows < 1 or cols < 2 or cols % 2:
            raise ValueError(f"a fused array needs at least one row and an even number of columns, not {rows} × {cols}")
        self.rows = rows
        self.clusters = cols // 2
        self.fifo_depth = fifo_depth
        super().__init__(
            {
                "eight_bit": In(1),
                "a_signed": In(1),
                "w_signed": In(1),
                "a_threshold": In(8),
                "w_threshold": In(8),
                "a_k": In(2),
                "w_k": In(2),
                "a": In(vector_stream(A_BEAT, rows)),
                "w": In(vector_stream(A_BEAT, self.clusters)),
                "result": Out(vector_stream(Result, self.clusters)),
            }
        )

    @staticmethod
    def latency(row: int, column: int) -> int:
        """Cycles from the last beat of a pass entering row 0 to the result of `row` on the output of `column`, unhindered."""
        return 4 + column + 2 * row

    def elaborate(self, platform: object) -> Module:
        m = Module()
        row_format = self._format(m)
        w_width, travelling = W_BEAT.size, Travelling.as_shape().size
        rows = []
        for index in range(self.rows):
            rows.append(row := FusedRow(self.clusters, self.fifo_depth))
            m.submodules[f"row{index}"] = row
            m.d.comb += [row.format.eq(row_format), row.bottom.eq(index == self.rows - 1)]
            connect_lane(m, self.a, index, row.a, into=True)
        for upper, lower in pairwise(rows):
            connect(m, upper.w_next, lower.w)
            connect(m, lower.above, upper.below)
        m.d.comb += [
            rows[0].w.valid.eq(self.w.valid),
            self.w.ready.eq(rows[0].w.ready),
            rows[-1].w_next.ready.eq(~0),
            rows[-1].below.valid.eq(0),
            self.result.valid.eq(rows[0].above.valid),
            rows[0].above.ready.eq(self.result.ready),
        ]
        for column in range(self.clusters):
            beat = data.View(A_BEAT, self.w.payload.word_select(column, A_BEAT.size))
            for word in range(2):
                m.submodules[f"w_form{column}_{word}"] = form = LaneForm("w")
                m.d.comb += [
                    form.eight_bit.eq(self.eight_bit),
                    form.is_signed.eq(self.w_signed),
                    form.i.eq(beat.words[word]),
                    rows[0].w.payload.word_select(column, w_width).word_select(word, w_width // 2).eq(form.o),
                ]
            result = rows[0].above.payload.word_select(column, travelling)
            m.d.comb += self.result.payload.word_select(column, Result.as_shape().size).eq(result)
        return m

    def _format(self, m: Module) -> Signal:
        """The clusters' view of the format inputs: ±T as nibbles of low and high lanes."""
        row_format = Signal(ClusterFormat)
        m.d.comb += row_format.eight_bit.eq(self.eight_bit)
        for split, is_signed, threshold, k in (
            (row_format.a, self.a_signed, self.a_threshold, self.a_k),
            (row_format.w, self.w_signed, self.w_threshold, self.w_k),
        ):
            m.d.comb += [split.signed.eq(is_signed), split.k.eq(k)]
            for nibbles, value in ((split.plus, threshold), (split.minus, (-threshold)[:8])):
                m.d.comb += Cat(nibbles).eq(Mux(self.eight_bit, value, value[:4].replicate(2)))
        return row_format
