"""The engine beside the memory: updates weights where they lie."""

from typing import Any

from amaranth import Array, Module, Signal, Value, signed
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.wiring import In, Out
from nibblecore.hdl.config import DramConfig

from .dram_port import DramPort
from .ndp_rows import OPERANDS, NdpRows
from .ndpo import Ndpo

__all__ = ["NdpEngine", "NdpError", "NdpJob"]

_CONSTANTS = ("c1", "c2", "c3", "c4", "c5", "epsilon")


class NdpError(enum.Enum, shape=3):  # type: ignore[call-arg]
    """Why a job was refused; of several reasons the first."""

    NONE = 0
    ZERO_COUNT = 1
    MISALIGNED = 2
    OUT_OF_RANGE = 3
    BANK_CONFLICT = 4


class NdpJob(data.Struct):
    """A run of `count` consecutive weights and of as many moments: byte addresses of the first of each."""

    w: 32
    m: 32
    v: 32
    count: 32


class NdpEngine(wiring.Component):
    """Updates w, m and v in the open rows of three banks, a weight for each gradient that comes (paper, Section IV-B3, Figure 10a).

    Addresses are those of `DramConfig`. While one page of w, m and v each is at work, the next ones are being opened, in the banks after;
    so the three operands must start in banks that are two apart at least, counted round, and in the same column, which makes their
    rows end together. As all three advance together, what holds for the first weight holds for the last.

    A job is refused, and nothing is opened, read or written, if its count is 0 (ZERO_COUNT), an address is no multiple of 4 or not in the
    column of the others (MISALIGNED), part of it lies outside memory (OUT_OF_RANGE), or two operands' banks are equal or neighbours or
    their pages overlap (BANK_CONFLICT). ``error`` stays, and no job is taken, until ``clear_error``.

    Column accesses: in one cycle a column of each open row is read and another one written, through separate ports of the row buffer, the
    same column of w, m and v. No column is read again within a job. A command goes to one bank a cycle.

    A reset forgets open rows: whoever resets the engine closes the banks. Memory is not refreshed during a job.

    Latency: a word is written 1 + `Ndpo.LATENCY` = 22 cycles after it is read. Throughput: a weight a cycle, without a gap between pages of
    `overhead` words or more. A job of n weights then takes n + `overhead` cycles, `overhead` being 55 at the default timing.

    Parameters
    ----------
    dram : DramConfig

    Members
    -------
    c1, c2, c3, c4, c5, epsilon : In(32)
        In FP32.
    use_m, use_rsqrt : In(1)
        As in `Ndpo`; these and the constants may change only while not ``busy``.
    job : In(stream of NdpJob)
        Taken while not ``busy`` and without an error.
    i : In(stream of 32 bits)
        Gradients, ``count`` of them for every job that is not refused.
    busy : Out(1)
        A job is being checked or is at work.
    done : Out(1)
        In this cycle a job has ended, its rows closed; not of one that is refused.
    error : Out(NdpError)
        Why the last job was refused.
    clear_error : In(1)
    activate … write_v
        As in `DramPort`.
    """

    # The proof's stand-in takes its place.
    _LANE: type[Any] = Ndpo

    def __init__(self, dram: DramConfig) -> None:
        self.dram = dram
        self._column_bits, self._bank_bits = (dram.columns - 1).bit_length(), (dram.banks - 1).bit_length()
        self._page_bits = (dram.pages - 1).bit_length()
        word = 32
        super().__init__(
            {
                **{name: In(word) for name in _CONSTANTS},
                "use_m": In(1),
                "use_rsqrt": In(1),
                "job": In(stream.Signature(NdpJob)),
                "i": In(stream.Signature(word)),
                "busy": Out(1),
                "done": Out(1),
                "error": Out(NdpError),
                "clear_error": In(1),
                **DramPort(dram).members,
            }
        )

    @property
    def overhead(self) -> int:
        """Cycles that a job of `DramConfig.ras` weights or more takes beyond one for each, if gradients never wait."""
        dram = self.dram
        # Checks; ACTIVATEs; READ to WRITE; PRECHARGEs; the sequencer between them.
        return 4 + (2 + dram.rcd) + (1 + self._LANE.LATENCY) + (dram.wr + 2 + dram.rp) + 3

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.rows = rows = NdpRows(self.dram)
        job = Signal(NdpJob, reset_less=True)
        operand = Signal(range(len(OPERANDS)))
        # Words from the beginning of page 0: the same for the three operands.
        end = Signal(self._page_bits + self._column_bits + 1)
        column = job.w[2:][: self._column_bits]
        last_word = Signal(33)
        m.d.comb += last_word.eq(column + job.count - 1)
        last = last_word[self._column_bits :]
        refusal = self._check(m, job, operand, last)

        start = Signal()
        running = Signal()
        with m.If(self.clear_error):
            m.d.sync += self.error.eq(NdpError.NONE)
        with m.FSM(name="state") as state:
            with m.State("IDLE"):
                m.d.comb += self.job.ready.eq(self.error == NdpError.NONE)
                m.d.sync += [job.eq(self.job.payload), operand.eq(0)]
                with m.If(self.job.valid & self.job.ready):
                    m.next = "CHECK"
            with m.State("CHECK"):
                m.d.sync += operand.eq(operand + 1)
                with m.If(operand == len(OPERANDS) - 1):
                    m.next = "START"
            with m.State("START"):
                m.d.comb += start.eq(refusal == NdpError.NONE)
                m.d.sync += [end.eq(column + job.count), self.error.eq(refusal)]
                m.next = "IDLE"
                with m.If(start):
                    m.next = "RUN"
            with m.State("RUN"):
                m.d.comb += [running.eq(1), self.done.eq(rows.idle)]
                with m.If(rows.idle):
                    m.next = "IDLE"

        m.d.comb += [
            self.busy.eq(~state.ongoing("IDLE")),
            rows.start.eq(start),
            rows.last.eq(last),
            *(getattr(rows, f"page_{name}").eq(job[name] >> (2 + self._column_bits)) for name in OPERANDS),
            self.activate.eq(rows.activate),
            self.precharge.eq(rows.precharge),
            self.bank.eq(rows.bank),
            self.row.eq(rows.row),
        ]
        self._stream(m, rows, start, running, column, end)
        return m

    def _check(self, m: Module, job: Any, operand: Signal, last: Value) -> Signal:
        """Why the job is refused; settled after `operand` has gone round. One operand a cycle, with the next one beside it."""
        refusal = Signal(NdpError)
        addresses = [job[name] for name in OPERANDS]
        address = Signal(32)
        neighbour = Signal(32)
        m.d.comb += [address.eq(Array(addresses)[operand]), neighbour.eq(Array([*addresses[1:], addresses[0]])[operand])]
        page, column_end = address[2 + self._column_bits :], 2 + self._column_bits
        distance = Signal(signed(len(page) + 1))
        near = Signal()
        misaligned = Signal()
        outside = Signal()
        conflict = Signal()
        lower = distance[: self._bank_bits]
        m.d.comb += [
            distance.eq(page - neighbour[column_end:]),
            near.eq((lower == 0) | (lower == 1) | lower.all() | ((distance <= last) & (-distance <= last))),
        ]
        first = operand == 0
        m.d.sync += [
            misaligned.eq((misaligned & ~first) | address[:2].any() | (address[2:column_end] != neighbour[2:column_end])),
            outside.eq((outside & ~first) | ((page + last) >> self._page_bits).any()),
            conflict.eq((conflict & ~first) | near),
        ]
        with m.If(job.count == 0):
            m.d.comb += refusal.eq(NdpError.ZERO_COUNT)
        with m.Elif(misaligned):
            m.d.comb += refusal.eq(NdpError.MISALIGNED)
        with m.Elif(outside):
            m.d.comb += refusal.eq(NdpError.OUT_OF_RANGE)
        with m.Elif(conflict):
            m.d.comb += refusal.eq(NdpError.BANK_CONFLICT)
        return refusal

    def _stream(self, m: Module, rows: NdpRows, start: Signal, running: Signal, column: Any, end: Signal) -> None:
        """A gradient reads a column, which meets it in the lane; results are written in the same order."""
        m.submodules.lane = lane = self._LANE()
        read_at, write_at = Signal.like(end, name="read_at"), Signal.like(end, name="write_at")
        read_page, write_page = read_at[self._column_bits :], write_at[self._column_bits :]
        m.d.comb += [
            self.i.ready.eq(running & (read_at != end) & (read_page < rows.open_pages)),
            self.read.eq(self.i.valid & self.i.ready),
            self.read_column.eq(read_at),
            self.write.eq(lane.o_valid),
            self.write_column.eq(write_at),
            rows.write.eq(self.write),
            rows.write_page.eq(write_page),
            rows.all_written.eq(write_at == end),
        ]
        with m.If(start):
            m.d.sync += [read_at.eq(column), write_at.eq(column)]
        with m.Else():
            m.d.sync += [read_at.eq(read_at + self.read), write_at.eq(write_at + self.write)]

        gradient = Signal(32, reset_less=True)
        valid = Signal()
        m.d.sync += [gradient.eq(self.i.payload), valid.eq(self.read)]
        m.d.comb += [
            *(getattr(lane, name).eq(getattr(self, name)) for name in (*_CONSTANTS, "use_m", "use_rsqrt")),
            lane.i_valid.eq(valid),
            lane.i_g.eq(gradient),
        ]
        for name in OPERANDS:
            first = getattr(rows, f"page_{name}")
            m.d.comb += [
                getattr(self, f"read_bank_{name}").eq(first + read_page),
                getattr(self, f"write_bank_{name}").eq(first + write_page),
                getattr(lane, f"i_{name}").eq(getattr(self, f"read_{name}")),
                getattr(self, f"write_{name}").eq(getattr(lane, f"o_{name}")),
            ]
