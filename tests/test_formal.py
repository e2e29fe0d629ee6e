from concurrent.futures import ThreadPoolExecutor

import pytest
from nibblecore.formal.runner import Proof, ProofError, all_proofs, prove

PROOFS = list(all_proofs())


@pytest.mark.parametrize("proof", [proof for proof in PROOFS if not proof.slow], ids=lambda proof: proof.name)
def test_proof(proof):
    prove(proof)


class TestRunner:
    """The runner must be able to say no: each of its three tasks turns down a proof made wrong on purpose."""

    @staticmethod
    def counter(limit):
        from amaranth.hdl import Assert, Cover, Module, Signal
        from amaranth.lib import wiring
        from amaranth.lib.wiring import In

        class Counter(wiring.Component):
            step: In(1)

            def elaborate(self, platform):
                m = Module()
                count = Signal(4)
                with m.If(self.step & (count != limit)):
                    m.d.sync += count.eq(count + 1)
                m.d.comb += [Assert(count <= 5), Cover(count == 5)]
                return m

        return Counter()

    @pytest.mark.parametrize("engine", ["pdr", "induction", "bmc"])
    def test_accepts(self, engine):
        prove(
            Proof(name=f"test.runner.{engine}", spec=lambda: self.counter(5), fault=lambda: self.counter(6), engine=engine, depth=8)
        )

    def test_the_same_proof_twice_at_once(self):
        proof = Proof(name="test.runner.twice", spec=lambda: self.counter(5), fault=lambda: self.counter(6))
        with ThreadPoolExecutor() as pool:
            assert [result.name for result in pool.map(prove, [proof] * 3)] == [proof.name] * 3

    @pytest.mark.parametrize(
        "spec, fault, cover_depth, message",
        [(6, 6, 8, "proof run ended FAIL"), (5, 6, 3, "cover run ended FAIL"), (5, 4, 8, "fault run ended PASS")],
    )
    def test_rejects(self, spec, fault, cover_depth, message):
        with pytest.raises(ProofError, match=message):
            prove(
                Proof(
                    name=f"test.runner.{spec}_{fault}_{cover_depth}",
                    spec=lambda: self.counter(spec),
                    fault=lambda: self.counter(fault),
                    cover_depth=cover_depth,
                )
            )
