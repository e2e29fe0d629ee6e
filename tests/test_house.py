"""The house is in order: every block has its rooms, every bench checks something, every list names what is there."""

import ast
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from nibblecore.sim import docs

ROOT = Path(__file__).resolve().parent.parent
TESTS = sorted((ROOT / "tests").rglob("test_*.py"))


def functions(path):
    tree = ast.parse(path.read_text())
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def is_cocotb_test(function):
    return any("cocotb.test" in ast.unparse(decorator) for decorator in function.decorator_list)


def test_there_are_blocks():
    assert {"ltoaq/pe", "ltoaq/top", "bus/reader", "memory"} <= set(docs.block_names())


@pytest.mark.parametrize("block", docs.block_names())
def test_block_has_its_rooms(block):
    """A docs page, and for each room either its file or the page's word on why there is none ("No proof: …")."""
    page = docs.page_of(block)
    assert page, f"no page in docs/blocks/ is about {block}: it needs one of its name, or to be named in the title of another"
    text = page.read_text()
    for kind in docs.ROOMS:
        reason = re.search(rf"\bno {kind}\b[^.]{{10,}}", text, re.I)
        assert docs.room(block, kind).exists() or reason, f"{block} has no {kind}, and {page.name} does not say why: 'No {kind}: …'"


@pytest.mark.parametrize("wing", ["golden twin", "proof"])
def test_no_room_without_a_block(wing):
    """What lies in another wing belongs to a block, or is a helper that others import."""
    folder = {"golden twin": "sim/golden", "proof": "formal"}[wing]
    modules = {str(path.relative_to(ROOT / "hdl").with_suffix("")) for path in (ROOT / "hdl").rglob("*.py")}
    sources = [path.read_text() for top in ("sim", "formal", "tests") for path in (ROOT / top).rglob("*.py")]
    for path in (ROOT / folder).rglob("*.py"):
        inner = path.relative_to(ROOT / folder)
        if len(inner.parts) < 2 or inner.parts[0] not in ("arith", "bus", "cambriconq", "ltoaq") or path.stem == "__init__":
            continue
        block = str(inner.with_suffix(""))
        module = re.compile(
            rf"\b{re.escape(str(inner.with_suffix('')).replace('/', '.'))}\b|import [^\n]*\b{path.stem}\b|\.{path.stem} import"
        )
        imported = sum(module.search(text) is not None for text in sources)
        assert block in modules or imported, f"{path.relative_to(ROOT)} belongs to no block and nothing imports it"


@pytest.mark.parametrize("path", TESTS, ids=lambda path: str(path.relative_to(ROOT / "tests")))
def test_every_bench_checks_something(path):
    text = path.read_text()
    found = functions(path)
    checks = re.compile(r"\bassert\b|\braises\(|\bprove\(|\bcheck\w*\(|\bcompare\w*\(|assert_\w+\(")
    assert checks.search(text), f"{path.name} checks nothing"
    if any(is_cocotb_test(function) for function in found):
        assert re.search(r"\bassert\b", text), f"{path.name}: its benches assert nothing"
        assert re.search(r"\bbench\.run\(", text), f"{path.name}: nothing runs its benches"
        assert all(not function.name.startswith("test_") for function in found if is_cocotb_test(function))
    assert any(function.name.startswith("test_") for function in found), f"{path.name} holds no test"


def test_make_help_lists_every_target():
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.search(r"^\.PHONY:(.*)$", makefile, re.M)[1].split())
    rules = set(re.findall(r"^([a-z]+):", makefile, re.M))
    assert targets == rules
    run = subprocess.run(["make", "--no-print-directory", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    listed = re.findall(r"^  ([a-z]+) +\S", run.stdout, re.M)
    assert sorted(listed) == sorted(targets)


def test_make_runs_modules_that_exist():
    for module in re.findall(r"-m nibblecore\.(\S+)", (ROOT / "Makefile").read_text()):
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), module


def test_packages_are_the_folders():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    folders = {str(path.parent.relative_to(ROOT)) for top in ("hdl", "sim", "formal") for path in (ROOT / top).rglob("*.py")}
    packages = [package.removeprefix("nibblecore.").replace(".", "/") for package in project["tool"]["setuptools"]["packages"]]
    assert sorted(packages) == sorted(folders)
    assert all((ROOT / folder / "__init__.py").exists() for folder in folders)
    data = project["tool"]["setuptools"]["package-data"]
    for path in (ROOT / "sim").rglob("*.cpp"):
        assert "*.cpp" in data.get(".".join(("nibblecore", *path.relative_to(ROOT).parent.parts)), []), path


def test_hardware_imports_nothing_else_of_ours():
    for path in (ROOT / "hdl").rglob("*.py"):
        assert not re.search(r"nibblecore\.(sim|formal)", path.read_text()), path
    for path in (ROOT / "sim" / "golden").rglob("*.py"):
        foreign = re.findall(r"^(?:from|import) nibblecore\.(\S+)", path.read_text(), re.M)
        assert all(name.startswith(("sim.golden", "hdl.config")) for name in foreign), f"{path.name} imports {foreign}"


def test_generated_pages_are_in_step():
    stale = [str(path.relative_to(ROOT)) for path, text in docs.pages().items() if path.read_text() != text]
    assert not stale, f"run `make docs`: {stale} are out of step"


@pytest.mark.parametrize("page", [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md"], ids=lambda path: path.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"
