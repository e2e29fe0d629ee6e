"""What is said of faults and their ends, and the status it gives."""

from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
from nibblecore.sim import mutants
from nibblecore.sim.faults.seeding import Text


@pytest.mark.parametrize(
    ("ends", "said", "status"),
    [
        (["bench"] * 19 + [""], "95.0% of 20 faults found, 95% wanted", 0),
        (["bench"] * 17 + ["proof", ""], "94.7% of 19 faults found, 95% wanted", 1),
        (["bench", "machine", "equivalent", "argued"], "100.0% of 2 faults found, 95% wanted", 0),
        (["equivalent", "argued"], "none of the faults counts: nothing was shown", 1),
        ([], "none of the faults counts: nothing was shown", 1),
    ],
)
def test_share_and_status(monkeypatch, capsys, ends, said, status):
    block: Any = SimpleNamespace(block="arith.some", faults=lambda: ends)
    monkeypatch.setattr(mutants, "_found", lambda bench: {number: end for number, end in enumerate(ends) if end})
    monkeypatch.setattr(mutants, "_found_none", lambda bench: [])
    monkeypatch.setattr(mutants, "_stale", lambda: [])
    assert mutants._report([block], "ltoaq", len(ends), 1) == status
    _, row, *_, last = capsys.readouterr().out.splitlines()
    assert last == said
    assert row.split()[:2] == ["arith.some", str(len(ends))]
    assert (row.split()[-1] == "–") == said.startswith("none")
    assert row.split()[-2] == str(Counter(ends)[""])


def module_of(name, own, inside):
    """A line of a part without a bench, two of `own`, and instances of the modules `inside`."""
    instances = "".join(f"  {inner} inner (\n    .a(a)\n  );\n" for inner in inside)
    return f"""module {name}(a, b, o);
  input a;
  wire a;
  input b;
  wire b;
  output o;
  wire o;
  wire _0_;
  wire _1_;
  (* src = "/x/hdl/arith/part.py:3" *)
  assign _0_ = a & (* src = "/x/hdl/arith/part.py:3" *) b;
  assign o = _0_ ^ (* src = "/x/hdl/{own}.py:7" *) _1_;
  assign _1_ = a | (* src = "/x/hdl/{own}.py:8" *) b;
{instances}endmodule"""


def test_a_block_without_a_bench_belongs_to_the_nearest_with_one():
    """`top` has a bench, and holds `near`, which has one as well; each holds a part of its own, and both one more."""
    modules = [
        module_of("top", "vector/top", ["near", "of_top", "of_both"]),
        module_of("near", "arith/near", ["of_near", "of_both"]),
        *(module_of(name, "arith/part", []) for name in ("of_top", "of_near", "of_both")),
    ]
    faults = [*mutants._of_block(Text("\n".join(modules)), "vector/top", {"vector/top", "arith/near"})]
    assert {(fault.module, fault.block) for fault in faults} == {
        ("top", "vector/top"),
        ("top", "arith/part"),
        ("of_top", "arith/part"),
        ("of_both", "arith/part"),
    }
