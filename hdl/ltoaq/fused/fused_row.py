"""One row of the fused array."""

from itertools import pairwise
from typing import Any

from amaranth import Cat, Module, Shape
from amaranth.hdl import ShapeLike
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from nibblecore.hdl.bus.streams import connect
from nibblecore.hdl.emit.emit import emit_once

from .cluster import A_BEAT, W_BEAT, Cluster, ClusterFormat
from .lane_form import LaneForm
from .result_drain import Travelling

__all__ = ["FusedRow", "connect_lane", "vector_stream"]


def vector_stream(shape: ShapeLike, count: int) -> wiring.Signature:
    """`count` streams side by side: each member holds all of them, the first least significant."""
    width = Shape.cast(shape).width
    return wiring.Signature({"payload": Out(count * width), "valid": Out(count), "ready": In(count)})


def connect_lane(m: Module, vector: Any, index: int, lane: Any, *, into: bool) -> None:
    """Join stream `lane` with place `index` of `vector`: from the vector if `into`, else to it."""
    valid, ready = vector.valid[index], vector.ready[index]
    width = Shape.cast(lane.payload.shape()).width
    payload = vector.payload.word_select(index, width)
    if into:
        m.d.comb += [Cat(lane.payload, lane.valid).eq(Cat(payload, valid)), ready.eq(lane.ready)]
    else:
        m.d.comb += [Cat(payload, valid).eq(Cat(lane.payload, lane.valid)), lane.ready.eq(ready)]


@emit_once
class FusedRow(wiring.Component):
    """Clusters side by side: A enters at the left in its own form, W from above and results from below in the clusters' form.

    Latency: a beat of A reaches cluster c after c cycles at best; then as of `Cluster`. Throughput: as of `Cluster`, a beat of A a cycle
    at best.

    Parameters
    ----------
    clusters : int
        At least 1.
    depth : int
        Beats in each FIFO of a cluster, at least 2.

    Members
    -------
    format : In(ClusterFormat)
    bottom : In(1)
        This is the last row. Constant.
    a : In(stream of A_BEAT)
        Words as in `LaneForm.i`.
    w : In(vector_stream of W_BEAT, clusters)
    w_next : Out(vector_stream of W_BEAT, clusters)
    below : In(vector_stream of Travelling, clusters)
    above : Out(vector_stream of Travelling, clusters)
        One stream a cluster, see `Cluster`.
    """

    def __init__(self, clusters: int, depth: int) -> None:
        self.clusters = clusters
        self.depth = depth
        w, result = vector_stream(W_BEAT, clusters), vector_stream(Travelling, clusters)
        super().__init__(
            {
                "format": In(ClusterFormat),
                "bottom": In(1),
                "a": In(stream.Signature(A_BEAT)),
                "w": In(w),
                "w_next": Out(w),
                "below": In(result),
                "above": Out(result),
            }
        )

    @property
    def module_name(self) -> str:
        return f"fused_row_{self.clusters}_d{self.depth}"

    def elaborate(self, platform: object) -> Module:
        m = Module()
        clusters = [Cluster(self.depth) for _ in range(self.clusters)]
        for index, cluster in enumerate(clusters):
            m.submodules[f"cluster{index}"] = cluster
            m.d.comb += [cluster.format.eq(self.format), cluster.bottom.eq(self.bottom)]
            connect_lane(m, self.w, index, cluster.w, into=True)
            connect_lane(m, self.w_next, index, cluster.w_next, into=False)
            connect_lane(m, self.below, index, cluster.below, into=True)
            connect_lane(m, self.above, index, cluster.above, into=False)
        for left, right in pairwise(clusters):
            connect(m, left.a_next, right.a)
        # Nobody to the right: whatever arrives there is done with.
        m.d.comb += clusters[-1].a_next.ready.eq(1)
        first = clusters[0].a
        m.d.comb += [first.valid.eq(self.a.valid), self.a.ready.eq(first.ready), first.payload.last.eq(self.a.payload.last)]
        for word in range(2):
            m.submodules[f"lane_form{word}"] = form = LaneForm("a")
            m.d.comb += [
                form.eight_bit.eq(self.format.eight_bit),
                form.is_signed.eq(self.format.a.signed),
                form.i.eq(self.a.payload.words[word]),
                first.payload.words[word].eq(form.o),
            ]
        return m
