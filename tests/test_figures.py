"""Measured parts of the manual: each has a command that there is, and holds what its command prints."""

import re

import pytest
from nibblecore.sim import figures
from nibblecore.sim.verbs import VERBS

PARTS = list(figures.commands())


@pytest.mark.parametrize(("page", "words", "text"), PARTS, ids=lambda value: " ".join(value) if isinstance(value, list) else "")
def test_part(page, words, text):
    """Options of its verb, with values that the verb takes; something stands there; no two commands are alike on a page."""
    verb = VERBS[words[0]]
    switches = {option.switch: option for option in verb.known.values()}
    machine = words[words.index("--machine") + 1] if "--machine" in words else (*verb.machines, "")[0]
    for place, word in enumerate(words[1:], 1):
        if word.startswith("--"):
            option = switches[word]
            assert option.on(machine)
            if not option.flag and words[place + 1] != "LIBERTY":
                option.value(words[place + 1], machine)
    assert text.strip().startswith(("|", "```", "Configuration")) or "| ---" in text, f"{page.name}: nothing was measured"
    assert sum(other == words for there, other, _ in PARTS if there == page) == 1


def test_measurements_are_measured():
    """No table of the page is anyone's but a command's."""
    page = next(page for page, _, _ in PARTS if page.name == "measurements.md")
    rest = re.sub(r"<!-- measured: .*?<!-- end -->", "", page.read_text(), flags=re.S)
    assert not re.findall(r"^\|.*", rest, re.M)


TYPED = re.compile(r"\d ?(?:µm²|mm²|[pn]s\b|NAND2|LUT4)|^\|.*(?:µm²|mm²|\b[pn]s\b|NAND2|LUT4).*", re.M)
"""An area, of a chip or of an FPGA, or a path: a number with its unit, or a table's row with one in it."""


def typed(text):
    """Areas and paths of a page that no command wrote, but for those of paragraphs, with their tables, that begin with "Considered"."""
    text = re.sub(r"<!-- measured: .*?<!-- end -->", "", text, flags=re.S)
    text = re.sub(r"^```.*?^```", "", text, flags=re.S | re.M)
    text = re.sub(r"^\*\*Considered\.\*\*(?:.+\n?)+(?:\n+(?:\|.*\n?)+)?", "", text, flags=re.M)
    return TYPED.findall(text)


@pytest.mark.parametrize("page", figures._pages(), ids=lambda page: page.name)
def test_no_area_and_no_path_is_typed(page):
    """They are what `nibblecore area` prints, on this page or in docs/measurements.md; CONTRIBUTING.md says where else some may stand."""
    assert not typed(page.read_text()), f"{page.relative_to(figures.ROOT)} has areas or paths that no command writes there"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("It takes 340 µm².\n", 1),
        ("0.071 mm² and 463 ps; 1.8 ns; 12 NAND2\n", 4),
        ("It takes 411 LUT4, of the 85F's.\n", 1),
        ("| block | LUT4 |\n| --- | --- |\n| pe | 76 |\n", 1),
        ("| block | µm² |\n| --- | --- |\n| pe | 340 |\n", 1),
        ("**Considered.** With two it\ntook 340 µm².\n", 0),
        ("**Considered.** Variants:\n\n| variant | µm² |\n| --- | --- |\n| two | 340 |\n", 0),
        ("**Considered.** Another.\n\nIt takes 340 µm².\n", 1),
        ("**Considered.** Another.\n\n| two | 3 ps |\n\nIt takes 340 µm².\n\n| block | path, ps |\n", 2),
        ("<!-- measured: nibblecore area -->\n| a | 3 µm² |\n<!-- end -->\nIt takes 3 µm².\n", 1),
        ("```\nmake area    # 340 µm²\n```\nµm² with your library, steps of 340\n", 0),
    ],
)
def test_what_is_typed_is_found(text, found):
    assert len(typed(text)) == found


@pytest.fixture
def manual(tmp_path, monkeypatch):
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text("no figures\n")
    monkeypatch.setattr(figures, "ROOT", tmp_path)
    page = tmp_path / "docs" / "page.md"
    page.write_text(
        "# Page\n\n<!-- measured: nibblecore formal --list bus.reader -->\nbygone\n<!-- end -->\n\nbetween\n\n"
        "<!-- measured: nibblecore area --config none --liberty LIBERTY -->\nkept\n<!-- end -->\n"
    )
    return page


def test_a_part_is_what_the_command_prints(manual, capfd):
    assert figures.main(only="page.md", liberty=None, list=False) == 0
    text = manual.read_text()
    assert "```\nbus.reader.beats" in text and "bygone" not in text and "between" in text and "kept" in text
    out = capfd.readouterr().out
    assert "[1/2] docs/page.md: nibblecore formal --list bus.reader" in out and "left as it is, needs LIBERTY=" in out
    assert not list(manual.parent.glob(".figures-*"))


def test_a_command_that_fails_leaves_its_part(manual, capfd):
    before = manual.read_text()
    assert figures.main(only="area", liberty=manual, list=False) == 1
    assert manual.read_text() == before and "the page is left as it is" in capfd.readouterr().err


def test_list_and_only(manual, capfd):
    before = manual.read_text()
    assert figures.main(only=None, liberty=None, list=True) == 0
    assert len(capfd.readouterr().out.splitlines()) == 2 and manual.read_text() == before
    assert figures.main(only="nowhere", liberty=None, list=False) == 1
    assert "no measured part" in capfd.readouterr().err


def test_tables_stay_tables(manual):
    figures._put(manual, ["formal", "--list", "bus.reader"], "| a |\n| --- |\n| \\1 |\n")
    assert "-->\n| a |\n| --- |\n| \\1 |\n<!-- end -->" in manual.read_text()


def test_lines_keep_their_indent_and_blank_ones_around_them_go():
    assert figures._shown("\n\n   loss  1\naccuracy  2\n\n") == "```\n   loss  1\naccuracy  2\n```\n"
    assert figures._shown("\n| a |\n| --- |\n") == "| a |\n| --- |\n"
