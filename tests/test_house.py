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
    assert {"ltoaq/array/wide_pe", "ltoaq/top", "bus/reader", "memory"} <= set(docs.block_names())


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
        if (
            len(inner.parts) < 2
            or inner.parts[0] not in ("arith", "boards", "bus", "cambriconq", "link", "ltoaq")
            or path.stem == "__init__"
        ):
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
    (phony,) = re.findall(r"^\.PHONY:(.*)$", makefile, re.M)
    targets = set(phony.split())
    rules = set(re.findall(r"^([a-z-]+):", makefile, re.M))
    assert targets == rules
    run = subprocess.run(["make", "--no-print-directory", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    listed = re.findall(r"^  ([a-z-]+) +\S", run.stdout, re.M)
    assert sorted(listed) == sorted(targets)


def test_make_runs_modules_that_exist():
    for module in re.findall(r"-m nibblecore\.(\S+)", (ROOT / "Makefile").read_text()):
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), module


def test_every_folder_is_a_package():
    """What setup.py finds: a folder without ``__init__.py`` would be missing from a wheel, and so would what is not Python."""
    folders = {path.parent for top in ("hdl", "sim", "formal") for path in (ROOT / top).rglob("*.py")}
    assert all((folder / "__init__.py").exists() for folder in folders)
    data = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    for path in (ROOT / "sim").rglob("*.cpp"):
        assert "*.cpp" in data.get(".".join(("nibblecore", *path.relative_to(ROOT).parent.parts)), []), path


def test_file_has_the_name_of_its_class():
    """A block's file is called after a class in it; on the bus the class says whose bus it is, and a machine's top is an Accelerator."""
    for block in docs.block_names():
        tree = ast.parse((ROOT / "hdl" / f"{block}.py").read_text())
        classes = {node.name.lower() for node in tree.body if isinstance(node, ast.ClassDef)}
        name = Path(block).name.replace("_", "")
        wanted = {name, f"axi{name}", f"axilite{name}"} if block.startswith("bus/") else {"accelerator" if name == "top" else name}
        assert wanted & classes, f"hdl/{block}.py defines {sorted(classes)}, none of the file's name"


def components():
    """Every component of the hardware, as (its name below the repository, its class)."""
    for path in sorted((ROOT / "hdl").rglob("*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and any(ast.unparse(base).endswith("Component") for base in node.bases):
                yield f"{path.relative_to(ROOT).with_suffix('')}:{node.name}", node


def ports(component):
    """Names of its ports: keys of what is given to ``super().__init__``, as far as they are written out there."""
    for node in ast.walk(component):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "super().__init__" and isinstance(node.args[0], ast.Dict):
            yield from (key.value for key in node.args[0].keys if isinstance(key, ast.Constant))


COMPONENTS = dict(components())


@pytest.mark.parametrize("name", COMPONENTS)
def test_docstring_is_the_contract(name):
    """A component says how long it takes, how much it does in a cycle, and what each port is."""
    text, _, members = (ast.get_docstring(COMPONENTS[name]) or "").partition("\nMembers\n-------\n")
    assert members, f"{name} lists no members"
    for word in ("Latency:", "Throughput:"):
        assert word in text, f"{name} says nothing of its {word.lower().rstrip(':')}"
    listed = {port for line in re.findall(r"^(\S.*?) : ", members, re.M) for port in line.split(", ")}
    missing = set(ports(COMPONENTS[name])) - listed
    assert not missing, f"{name} does not say what {', '.join(sorted(missing))} are"


HARDWARE = {
    "ltoaq": ("command", "operands", "array", "fused", "output"),
    "cambriconq": ("program", "buffers", "quantize", "matrix", "movers", "vector", "update", "control"),
}
"""The rooms of a machine; what is in one imports only from its own and those before."""

SOFTWARE = (
    "formats",
    "golden",
    "compiler",
    "frontends",
    "host",
    "perf",
    "boards",
    "regress",
    "measure",
    "train",
    "export",
    "faults",
)
"""The same of sim/. What lies in sim/ itself may import any of them."""

SHARED = ("config", "emit", "memory", "arith", "bus", "link")
"""Of hdl/, for both machines; none of them imports from a machine."""


def imports(path):
    """The modules of ours that a file imports, as paths below the repository: ``"hdl/bus/reader"``."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").startswith("nibblecore")):
            base = path.relative_to(ROOT).parts[: -node.level] if node.level else ()
            module = (node.module or "").removeprefix("nibblecore").lstrip(".")
            parts = (*base, *filter(None, module.split(".")))
            for alias in node.names:
                inner = ROOT.joinpath(*parts, alias.name)
                yield "/".join((*parts, alias.name) if inner.is_dir() or inner.with_suffix(".py").exists() else parts)
        elif isinstance(node, ast.Import):
            yield from (
                alias.name.removeprefix("nibblecore.").replace(".", "/") for alias in node.names if "nibblecore" in alias.name
            )


def modules(*folders):
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


@pytest.mark.parametrize("machine", HARDWARE)
def test_rooms_of_a_machine_import_in_order(machine):
    order = HARDWARE[machine]
    assert {path.name for path in (ROOT / "hdl" / machine).iterdir() if path.is_dir() and path.name[0] != "_"} == set(order)
    for path in modules(f"hdl/{machine}"):
        inner = path.relative_to(ROOT / "hdl" / machine).parts
        mine = order.index(inner[0]) if len(inner) > 1 else len(order)
        for name in imports(path):
            top, place, *rest = name.split("/")
            assert top == "hdl" and place in (*SHARED, machine), f"{path.relative_to(ROOT)} imports {name}"
            if place == machine:
                room = order.index(rest[0]) if len(rest) > 1 else len(order)
                assert room <= mine, f"{path.relative_to(ROOT)} imports {name}, whose room comes after its own"


def test_core_decodes_nothing():
    """Cambricon-Q's core joins lanes, buffers and DMAs; what an instruction means is for the units of the lanes."""
    tree = ast.parse((ROOT / "hdl/cambriconq/core.py").read_text())
    imported = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and ".program." in f"{node.module}."]
    names = {alias.name for node in imported for alias in node.names}
    assert names <= {"INSTRUCTION_BYTES", "Side"}, f"hdl/cambriconq/core.py imports {sorted(names)} from program/"


def test_shared_hardware_knows_no_machine():
    for path in [*modules(*(f"hdl/{name}" for name in SHARED)), *(ROOT / "hdl").glob("*.py")]:
        for name in imports(path):
            assert name.split("/")[0] == "hdl" and name.split("/")[1] in SHARED, f"{path.relative_to(ROOT)} imports {name}"


def test_boards_reach_into_no_machine():
    """A board joins an accelerator by its ports."""
    for path in modules("hdl/boards"):
        for name in imports(path):
            top, place, *rest = name.split("/")
            whole = place in HARDWARE and rest in (["top"], ["registers"], ["update", "dram_port"])
            assert top == "hdl" and (place in (*SHARED, "boards") or whole), f"{path.relative_to(ROOT)} imports {name}"


def test_software_imports_in_order():
    assert {path.name for path in (ROOT / "sim").iterdir() if path.is_dir() and path.name[0] != "_"} == set(SOFTWARE)
    for path in modules(*(f"sim/{room}" for room in SOFTWARE)):
        mine = SOFTWARE.index(path.relative_to(ROOT / "sim").parts[0])
        for name in imports(path):
            top, place = name.split("/")[:2]
            assert top in ("hdl", "sim"), f"{path.relative_to(ROOT)} imports {name}"
            if top == "sim" and place in SOFTWARE:
                assert SOFTWARE.index(place) <= mine, f"{path.relative_to(ROOT)} imports {name}, whose room comes after its own"


def test_frameworks_are_imported_by_the_frontends_alone():
    """PyTorch and ONNX are an extra: all else runs without."""
    for path in modules("hdl", "sim", "formal", "tests"):
        nodes = list(ast.walk(ast.parse(path.read_text())))
        names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
        names += [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom) and not node.level]
        if {name.partition(".")[0] for name in names} & {"torch", "onnx", "onnxscript"}:
            assert path.relative_to(ROOT).parts[1] == "frontends", f"{path.relative_to(ROOT)} imports a framework"


def test_formats_and_golden_model_share_nothing_with_the_hardware():
    for path in modules("sim/formats", "sim/golden"):
        foreign = [name for name in imports(path) if name != "hdl/config" and not name.startswith(("sim/formats", "sim/golden"))]
        assert not foreign, f"{path.relative_to(ROOT)} imports {foreign}"


def test_generated_pages_are_in_step():
    stale = [str(path.relative_to(ROOT)) for path, text in docs.pages().items() if path.read_text() != text]
    assert not stale, f"run `make docs`: {stale} are out of step"


@pytest.mark.parametrize("page", [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md"], ids=lambda path: path.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"
