"""Opens and closes the rows that hold a run of weights and their moments."""

from amaranth import Array, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from nibblecore.hdl.config import DramConfig

__all__ = ["OPERANDS", "NdpRows"]

OPERANDS = ("w", "m", "v")


class NdpRows(wiring.Component):
    """Commands of the three banks that are at work and of the three that come next.

    A run covers pages 0 to ``last`` of each operand, counted from its own first. Three successive ACTIVATEs open a page of each, w, m, v;
    three successive PRECHARGEs close it when all of it is written. The next page is opened while the present one is at work, so at most two
    of an operand's are open, in neighbouring banks; it is closed before the one after the next is opened.

    Keeps rcd, rp, ras and wr, the latter two to a cycle more than asked; assumes that nothing of a page is read once all of it is written.

    Latency: page 0 is open rcd + 4 cycles after ``start``; ``idle`` rises wr + rp + 4 cycles after the run's last write, later if ras is not
    over. Throughput: a command a cycle; a page of each operand is opened in rcd + 3 cycles and closed in rp + 3.

    Parameters
    ----------
    dram : DramConfig

    Members
    -------
    start : In(1)
        Begins a run; only while ``idle``.
    page_w, page_m, page_v : In(range(pages))
        First page of each operand, held during the run.
    last : In(range(pages))
        The run's last page, held.
    write : In(1)
        A word is written in this cycle, to page ``write_page`` of each operand. Pages are written in order.
    write_page : In(log2(pages) + 1)
        Not below the page of any write to come.
    all_written : In(1)
        No write is to come in this run.
    open_pages : Out(log2(pages) + 1)
        Pages 0 to ``open_pages`` − 1 can be read and written if they are not written yet.
    idle : Out(1)
        Every bank is closed and may be opened again.
    activate, precharge : Out(1)
        A command, in this cycle; not both.
    bank : Out(range(banks))
    row : Out(range(rows))
        Of the command.
    """

    def __init__(self, dram: DramConfig) -> None:
        self.dram = dram
        page_bits = (dram.pages - 1).bit_length()
        self._page_bits = page_bits
        super().__init__(
            {
                "start": In(1),
                **{f"page_{name}": In(page_bits) for name in OPERANDS},
                "last": In(page_bits),
                "write": In(1),
                "write_page": In(page_bits + 1),
                "all_written": In(1),
                "open_pages": Out(page_bits + 1),
                "idle": Out(1),
                "activate": Out(1),
                "precharge": Out(1),
                "bank": Out(range(dram.banks)),
                "row": Out(range(dram.rows)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        dram, count_bits = self.dram, self._page_bits + 1
        opened = Signal(count_bits)
        closed = Signal(count_bits)
        operand = Signal(range(len(OPERANDS)))
        wait = Signal(range(max(dram.rcd, dram.rp)))
        ras_left = Signal(range(dram.ras))
        wr_left = Signal(range(dram.wr))

        # The page that a command is about: of the one operand, the oldest open page or the next closed one.
        page = Signal(self._page_bits)
        first = Array(getattr(self, f"page_{name}") for name in OPERANDS)[operand]
        m.d.comb += [
            page.eq(first + Mux(self.activate, opened, closed)),
            self.bank.eq(page),
            self.row.eq(page >> (dram.banks - 1).bit_length()),
        ]

        # A page's last write is followed by writes to the next page, which do not keep it open. They count from when it is closed.
        any_wr_left = Signal.like(wr_left)
        any_wr_next = Signal.like(wr_left)
        m.d.comb += any_wr_next.eq(Mux(self.write, dram.wr - 1, Mux(any_wr_left == 0, 0, any_wr_left - 1)))
        m.d.sync += any_wr_left.eq(any_wr_next)
        with m.If(self.write & (self.write_page == closed)):
            m.d.sync += wr_left.eq(dram.wr - 1)
        with m.Elif(wr_left != 0):
            m.d.sync += wr_left.eq(wr_left - 1)
        with m.If(self.activate):
            m.d.sync += ras_left.eq(dram.ras - 1)
        with m.Elif(ras_left != 0):
            m.d.sync += ras_left.eq(ras_left - 1)

        room = Signal()
        more = Signal()
        written = Signal()
        m.d.comb += [
            room.eq((opened == closed) | (opened == (closed + 1)[:count_bits])),
            more.eq(opened <= self.last),
            written.eq((self.write_page != closed) | self.all_written),
        ]
        with m.FSM(name="state"):
            with m.State("IDLE"):
                m.d.comb += self.idle.eq(1)
                m.d.sync += [opened.eq(0), closed.eq(0), self.open_pages.eq(0), operand.eq(0)]
                with m.If(self.start):
                    m.next = "CHOOSE"
            with m.State("CHOOSE"):
                with m.If(room & more):
                    m.next = "ACTIVATE"
                with m.Elif(opened == closed):
                    m.next = "IDLE"
                with m.Elif(written & (wr_left == 0) & (ras_left == 0)):
                    m.next = "PRECHARGE"
            with m.State("ACTIVATE"):
                m.d.comb += self.activate.eq(1)
                m.d.sync += [operand.eq(operand + 1), wait.eq(dram.rcd - 2)]
                with m.If(operand == len(OPERANDS) - 1):
                    m.d.sync += [operand.eq(0), opened.eq(opened + 1)]
                    m.next = "OPENING"
            with m.State("OPENING"):
                m.d.sync += wait.eq(wait - 1)
                with m.If(wait == 0):
                    m.d.sync += self.open_pages.eq(opened)
                    m.next = "CHOOSE"
            with m.State("PRECHARGE"):
                m.d.comb += self.precharge.eq(1)
                m.d.sync += [operand.eq(operand + 1), wait.eq(dram.rp - 2)]
                with m.If(operand == len(OPERANDS) - 1):
                    m.d.sync += [operand.eq(0), closed.eq(closed + 1), wr_left.eq(any_wr_next)]
                    m.next = "CLOSING"
            with m.State("CLOSING"):
                m.d.sync += wait.eq(wait - 1)
                with m.If(wait == 0):
                    m.next = "CHOOSE"
        return m
