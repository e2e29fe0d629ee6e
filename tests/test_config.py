"""What a configuration refuses, and how it says so."""

from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
from nibblecore.hdl.config import CAMBRICONQ, PRESETS, TINY, DramConfig, whole

BOTH = pytest.mark.parametrize("config", [TINY, CAMBRICONQ["tiny"]], ids=["ltoaq", "cambriconq"])


@BOTH
@pytest.mark.parametrize("name", ["my chip", "a/b", "a" * 300, "a" * 65, "", "8by8", "a-b", "größe", "a\n", None, 7])
def test_a_name_is_an_identifier(config, name):
    with pytest.raises(
        ValueError, match=r"^config .{1,70}: the name must be a letter or _, then letters, digits and _, 64 of them at most"
    ):
        replace(config, name=name)


@BOTH
@pytest.mark.parametrize("name", ["a", "_", "A" * 64, "my_chip_2"])
def test_legal_names(config, name):
    assert replace(config, name=name).name == name


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        *(
            (field, value, "must be a whole number, at least 1, not")
            for field in ("rows", "queue_depth", "lanes")
            for value in (0, -4, 4.0, "4", None, True)
        ),
        ("bus_bytes", "8", "must be a whole number"),
        ("fifo_depth", 2.5, "must be a whole number"),
        ("queue_depth", 256, "must be at most 128, not 256"),
        ("queue_depth", 3, "must be a power of two, not 3"),
        ("run_bits", 16, "must be at most 15, not 16"),
        ("tile", 256, "must be at most 128, not 256"),
        ("outliers", "narrow", "must be 'wide' or 'fused', not 'narrow'"),
        ("outliers", 1, "must be 'wide' or 'fused', not 1"),
        ("paired", 1, "must be True or False, not 1"),
    ],
)
def test_fields_of_ltoaq(field, value, message):
    with pytest.raises(ValueError, match=f"^config 'tiny': {field} {message}"):
        replace(TINY, **{field: value})


@pytest.mark.parametrize("config", [PRESETS["paper_eight"], PRESETS["tiny_fused"]], ids=lambda config: config.name)
def test_products_are_paired_on_four_wide_lanes(config):
    with pytest.raises(ValueError, match="paired products need four lanes and outliers='wide'"):
        replace(config, paired=True)
    assert PRESETS["fpga"].paired and not PRESETS["fpga_fused"].paired


@pytest.mark.parametrize("depth", [1, 2, 64, 128])
def test_depth_and_level_of_the_queue_can_be_read(depth):
    from nibblecore.hdl.ltoaq.registers import REGISTERS, config_words

    config = replace(TINY, queue_depth=depth)
    assert 1 << REGISTERS["CONFIG1"].unpack(config_words(config)[1])["queue_depth"] == depth
    assert REGISTERS["STATUS"].field("queue_level").insert(config.queue_depth)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        *(("rows", value, "must be a whole number, at least 0, not") for value in (8.0, "8", None, True)),
        ("rows", 6, "must be a power of two, at least 4, not 6"),
        ("vector_lanes", 0, "must be a power of two up to 2, not 0"),
        ("vector_lanes", 4, "must be a power of two up to 2, not 4"),
        ("sb_bytes", 0, "must be a power of two, at least 64, not 0"),
        ("dram", "ddr", "must be a DramConfig or None, not 'ddr'"),
    ],
)
def test_fields_of_cambriconq(field, value, message):
    with pytest.raises(ValueError, match=f"^config 'tiny': {field} {message}"):
        replace(CAMBRICONQ["tiny"], **{field: value})


def test_fields_of_memory():
    wrong: dict[str, Any] = {"banks": 8.5}
    with pytest.raises(ValueError, match=r"^dram: banks must be a whole number, at least 0, not 8\.5$"):
        DramConfig(**wrong)


def test_numbers_of_numpy_are_whole():
    """And do not stay: what reads a configuration, JSON say, knows nothing of them."""
    presets: list[Any] = [*PRESETS.values(), *CAMBRICONQ.values()]
    for config in presets:
        sizes = {name: value for name, value in asdict(config).items() if type(value) is int}
        again = replace(config, **{name: np.int64(value) for name, value in sizes.items()})
        assert again == config and {type(getattr(again, name)) for name in sizes} == {int}


@pytest.mark.parametrize("value", [0, 6, 1.0, np.float64(2), "3", None, False, np.bool_(True), [1]])
def test_what_is_no_whole_number_in_the_range(value):
    class Own(ValueError):
        pass

    with pytest.raises(Own, match=r"^steps must be a whole number, 1\.\.5, not "):
        whole("steps", value, 1, 5, Own)
    assert whole("steps", np.uint8(5), 1, 5) == 5 and whole("steps", 1 << 70, 1) == 1 << 70
