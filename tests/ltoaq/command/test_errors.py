"""Hardware and golden model agree on the codes, and each says what it means."""

from nibblecore.hdl.ltoaq.command import errors
from nibblecore.sim.golden.ltoaq.command import errors as golden


def test_golden_model_has_the_same_codes():
    assert {code.name: int(code) for code in errors.ErrorCode} == {code.name: int(code) for code in golden.ErrorCode}


def test_every_error_says_its_cause_and_what_to_do():
    for code in errors.ErrorCode:
        assert code.cause and "\n" not in code.cause + code.remedy and "|" not in code.cause + code.remedy, code
        assert bool(code.remedy) == bool(code), code
