"""Orders the tile passes of a matrix product as their operands arrive."""

from amaranth import Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from nibblecore.hdl.config import LtoaqConfig
from nibblecore.hdl.ltoaq.command.job import GemmJob, TileIndex, pass_layout
from nibblecore.hdl.ltoaq.operands.step_walker import StepWalker

__all__ = ["Sequencer"]


def _words(elements: Value, word: int) -> Value:
    """Words of `word` elements, a power of two, that hold so many."""
    return (elements + word - 1) >> (word - 1).bit_length()


class Sequencer(wiring.Component):
    """Issues the passes of the array, each as soon as its operands are there.

    Inside a step the pairs of panels come in the order in which the loader completes them: A panel n with the W panels before it,
    then W panel n with the A panels up to n. The parts of a tile come innermost, its columns fastest. A part whose panels are
    still being loaded is issued tile by tile along K, and what is left of it in one pass once both panels are complete. The
    index of a tile goes to the output unit after the pass that completes it.

    Latency: a pass is on offer two cycles after the tile that it waited for was loaded, three after ``start`` at the earliest. The index of a
    tile is on offer in the same cycle as the pass that completes it.
    Throughput: a pass a cycle; two passes in a row that both complete a tile are at least two cycles apart.

    Parameters
    ----------
    config : LtoaqConfig

    Members
    -------
    job : In(GemmJob)
        Constant from ``start`` until not ``busy``.
    start : In(1)
        One product after each reset: the first group lies in the lower half of each buffer.
    a_loaded, w_loaded : In(1)
        A tile has arrived in the buffer.
    command : Out(stream of `pass_layout`)
    tile : Out(stream of TileIndex)
    waits : Out(1)
        A pass waits for its operands.
    busy : Out(1)
        A pass or an index is still to come.
    """

    def __init__(self, config: LtoaqConfig) -> None:
        self.config = config
        self.address_bits = (config.bank_words - 1).bit_length()
        super().__init__(
            {
                "job": In(GemmJob),
                "start": In(1),
                "a_loaded": In(1),
                "w_loaded": In(1),
                "command": Out(stream.Signature(pass_layout(self.address_bits))),
                "tile": Out(stream.Signature(TileIndex)),
                "waits": Out(1),
                "busy": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config, job = self.config, self.job
        m.submodules.walker = walker = StepWalker(config)
        step = walker.o.payload
        row_parts, col_parts = config.tile // config.rows, config.tile // config.output_cols
        half = config.bank_words // 2

        a_half = Signal()
        w_half = Signal()
        row_part = Signal(range(max(2, row_parts)))
        col_part = Signal(range(max(2, col_parts)))
        sub_words, a_words, w_words, words = (
            Signal(self.address_bits, name=f"{n}_words") for n in ("sub", "a_panel", "w_panel", "k")
        )
        part_row = Signal.like(row_part)
        part_col = Signal.like(col_part)
        last_sub = Signal()
        m.d.comb += [
            walker.job.eq(job),
            walker.start.eq(self.start),
            self.busy.eq(walker.busy | self.command.valid | self.tile.valid),
            sub_words.eq((job.chunk_tiles * (config.tile // config.block)) << job.eight_bit),
            a_words.eq(row_parts * sub_words),
            w_words.eq(col_parts * sub_words),
            part_row.eq(Mux(job.chunked, step.sub // col_parts, row_part)),
            part_col.eq(Mux(job.chunked, step.sub % col_parts, col_part)),
            last_sub.eq(job.chunked | ((row_part == row_parts - 1) & (col_part == col_parts - 1))),
        ]

        go = Signal()
        whole = Signal()
        a, w, last_pair = self._pairs(m, step, a_words, w_words, go & whole & last_sub)

        # Tiles of each buffer that are loaded and still wanted, and how many of them the pass needs.
        done = Signal(range(half + 1))  # tiles of the part that earlier passes took
        a_available, w_available = (Signal(range(2 * half + 1), name=f"{n}_available") for n in "aw")

        def loaded(tiles: Value) -> Value:
            return (a_available >= a.tiles_before + tiles) & (w_available >= w.tiles_before + tiles)

        completes = Signal()
        ready = Signal()
        words_done = Signal(16)
        tile_words = Signal(16)
        k_words = Signal(16)
        m.d.comb += [
            whole.eq(loaded(step.tiles)),
            ready.eq(walker.o.valid & loaded(done + 1)),
            self.waits.eq(walker.busy & ~ready & ~self.command.valid),
            tile_words.eq(Mux(job.eight_bit, config.tile // config.word_elements(8), config.tile // config.word_elements(4))),
            words_done.eq(done * tile_words),
            k_words.eq(Mux(job.eight_bit, *(_words(step.k, config.word_elements(bits)) for bits in (8, 4)))),
            words.eq((done * (config.tile // config.block)) << job.eight_bit),
            completes.eq(whole & step.last_part & (part_row == row_parts - 1) & (part_col == col_parts - 1)),
        ]
        # Registered, so that what is on offer does not change with the tiles that arrive meanwhile.
        command = Signal.like(self.command.payload)
        m.d.comb += [
            command.a_address.eq(a.panel + part_row * sub_words + words + Mux(a_half, half, 0)),
            command.w_address.eq(w.panel + part_col * sub_words + words + Mux(w_half, half, 0)),
            command.words.eq(Mux(whole, k_words - words_done, tile_words)),
            command.resume.eq(~step.first_part | (done != 0)),
            command.last.eq(whole & step.last_part),
            command.release_a.eq(whole & last_sub & last_pair),
            command.release_w.eq(command.release_a & step.release_w),
            go.eq(ready & (~self.command.valid | self.command.ready) & (~completes | ~self.tile.valid)),
            walker.o.ready.eq(go & command.release_a),
        ]
        with m.If(go):
            m.d.sync += [self.command.payload.eq(command), self.command.valid.eq(1), done.eq(Mux(whole, 0, done + 1))]
        with m.Elif(self.command.ready):
            m.d.sync += self.command.valid.eq(0)
        with m.If(go & completes):
            m.d.sync += [
                self.tile.valid.eq(1),
                self.tile.payload.row.eq(step.a_first + a.index),
                self.tile.payload.col.eq(step.w_first + w.index),
            ]
        with m.Elif(self.tile.ready):
            m.d.sync += self.tile.valid.eq(0)
        with m.If(go & whole):
            m.d.sync += col_part.eq(col_part + 1)
            with m.If(col_part == col_parts - 1):
                m.d.sync += [col_part.eq(0), row_part.eq(row_part + 1)]
            with m.If(last_sub):
                m.d.sync += [col_part.eq(0), row_part.eq(0)]
        with m.If(walker.o.ready):
            m.d.sync += [a_half.eq(~a_half), w_half.eq(w_half ^ step.release_w)]
        # The last pair of a step is its last panel of A and its last one of W.
        m.d.sync += [
            a_available.eq(a_available + self.a_loaded - Mux(walker.o.ready, a.tiles_before + step.tiles, 0)),
            w_available.eq(w_available + self.w_loaded - Mux(walker.o.ready & step.release_w, w.tiles_before + step.tiles, 0)),
        ]
        return m

    def _pairs(
        self, m: Module, step: data.View, a_words: Value, w_words: Value, advance: Value
    ) -> tuple[data.View, data.View, Signal]:
        """The panels of A and of W to multiply now, and whether they are the step's last."""
        place = data.StructLayout({"index": 8, "panel": self.address_bits, "tiles_before": range(self.config.bank_words + 1)})
        # The newest panel of one side meets those of the other side that came before it.
        newest = Signal(place)
        other = Signal(place)
        newest_w_panel = Signal(self.address_bits)
        of_w = Signal()
        newest_is_w = Signal()
        a = Signal(place)
        w = Signal(place)
        met = Signal(8)
        limit = Signal(8)
        last_other, same_ring, more_a, more_w, last = (
            Signal(name=n) for n in ("last_other", "same_ring", "more_a", "more_w", "last_pair")
        )
        m.d.comb += [
            # The first two panels of a step make one pair, which counts as the W panel's.
            newest_is_w.eq(of_w | (step.new_w & (newest.index == 0))),
            a.eq(Mux(newest_is_w, other, newest)),
            w.index.eq(Mux(newest_is_w, newest.index, other.index)),
            w.panel.eq(Mux(newest_is_w, newest_w_panel, other.panel)),
            w.tiles_before.eq(Mux(newest_is_w, newest.tiles_before, other.tiles_before)),
            met.eq(newest.index + newest_is_w),
            limit.eq(Mux(newest_is_w, step.a_count, step.w_count)),
            last_other.eq((other.index == limit - 1) | ((newest_is_w | step.new_w) & (other.index == met - 1))),
            same_ring.eq(~newest_is_w & step.new_w & (newest.index < step.w_count)),
            more_a.eq(newest.index + 1 < step.a_count),
            more_w.eq(step.new_w & (newest.index + 1 < step.w_count)),
            last.eq(last_other & ~same_ring & ~more_a & ~more_w),
        ]
        with m.If(advance):
            m.d.sync += [
                other.index.eq(other.index + 1),
                other.panel.eq(other.panel + Mux(newest_is_w, a_words, w_words)),
                other.tiles_before.eq(other.tiles_before + step.tiles),
            ]
            with m.If(last_other):
                m.d.sync += [other.eq(0), of_w.eq(same_ring | ~more_a)]
                with m.If(~same_ring):
                    m.d.sync += [
                        newest.index.eq(newest.index + 1),
                        newest.panel.eq(newest.panel + a_words),
                        newest.tiles_before.eq(newest.tiles_before + step.tiles),
                        newest_w_panel.eq(newest_w_panel + w_words),
                    ]
            with m.If(last):
                m.d.sync += [newest.eq(0), newest_w_panel.eq(0), of_w.eq(0)]
        return a, w, last
