"""Imports go one way, from room to room, and the program needs nothing but its own files."""

from __future__ import annotations

import ast
import functools
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from places import PACKAGES, PROGRAM, program_files
from testing.tables import each_row
from tools.packages import FILES as FILES_SET
from tools.packages import GATEWAY as GATEWAY_SET
from tools.packages import POSTGRESQL as POSTGRESQL_SET
from tools.packages import RUNNER as RUNNER_SET

# Which rooms each room may import. A room is a module at the top, or a package, which may import
# itself, in no circle. This is the whole rule.
MAY_IMPORT = {
    "places redaction allowlist": "",
    "redact": "redaction",
    "gateway_transport": "redact",
    "gateway_client": "gateway_transport redact",
    "config": "places allowlist redact",
    "journal": "redact",
    "kinds": "config places",
    "runner": "kinds journal config places gateway_client gateway_transport redact allowlist",
    "tools": "runner kinds journal config places gateway_client gateway_transport redact allowlist",
    "claude_runner rev_runner": "claude_runner tools runner kinds config places allowlist redact",
    "gateway": "redact config places",
}
# The gateway is a house of its own: a room there is a package or a module in its folder. Each row
# may import from rows above it alone, so that no rooms import each other in a circle.
GATEWAY_MAY_IMPORT = {
    "windows presence observing xterm demo_session opener whereabouts roles": "",
    "admission": "windows",
    "storage": "admission roles",
    "screens serving relay": "storage",
    "offers": "serving storage admission roles",
    "access": "offers storage admission windows roles",
    "notify": "serving storage presence",
    "settings": "notify serving access",
    "listing": "offers storage admission roles",
    "housekeeping": "listing storage",
    "news": "housekeeping access listing notify serving storage presence observing",
    "wire": "offers serving storage admission presence observing",
    "page": "access wire listing roles notify offers screens serving storage admission presence",
    "front": "access wire serving storage observing",
    "assembly": "front page access news wire housekeeping listing settings notify offers "
    "screens serving relay storage admission presence observing xterm",
    "announce": "assembly settings serving opener",
    "moving": "assembly settings storage",
    "command_line": "observing moving announce assembly settings serving storage opener "
    "whereabouts",
    "demo": "opener",
    "__main__": "command_line",
    "__init__": "",
}
# The packages of others, and the rooms that may import them.
MAY_USE = {
    "requests": {"gateway_client", "gateway_transport"},
    "urllib3": {"gateway_transport"},
    "certifi": {"gateway_transport"},
    "dotenv": {"config"},
}

MODULES = tuple(name[:-3] for name in program_files() if name.endswith(".py"))
GATEWAY = tuple(
    path.relative_to(PROGRAM).with_suffix("").as_posix()
    for path in (PROGRAM / "gateway").rglob("*.py")
)


def room_of(module: str) -> str:
    """Return the room of a module, which is given by its path or by its dotted name."""
    return re.split(r"[/.]", module)[0]


ROOMS = {room_of(module) for module in (*MODULES, *GATEWAY)}


@functools.cache
def imported_modules(module: str) -> set[str]:
    """Return the dotted names of what a module imports anywhere in it, also for its types alone."""
    names: set[str] = set()
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@functools.cache
def tree_of(module: str) -> ast.Module:
    """Return a module's syntax tree."""
    return ast.parse((PROGRAM / f"{module}.py").read_text("utf-8"))


@each_row("module", [*MODULES, *GATEWAY])
def test_imports_go_one_way(module: str) -> None:
    """A module imports from its own room, from those that the rule names, and nothing of tests."""
    room = room_of(module)
    allowed = next(may for rooms, may in MAY_IMPORT.items() if room in rooms.split()).split()

    imported = {room_of(name) for name in imported_modules(module)}

    assert imported & {*ROOMS, "tests", "testing", "benchmarks"} <= {room, *allowed}


@each_row("module", GATEWAY)
def test_imports_inside_the_gateway_go_one_way(module: str) -> None:
    """A module imports from its own room, and from those that the table names."""
    room = gateway_room(module)
    allowed = next(may for rooms, may in GATEWAY_MAY_IMPORT.items() if room in rooms.split())

    imported = {
        gateway_room(name) for name in imported_modules(module) if room_of(name) == "gateway"
    }

    assert imported <= {room, *allowed.split()}


def gateway_room(module: str) -> str:
    """Return the room of one of the gateway's modules, inside the gateway."""
    return re.split(r"[/.]", module)[1]


def test_the_gateway_s_rooms_stand_in_order() -> None:
    """What a room may import has its row above it."""
    above: set[str] = set()
    for rooms, may in GATEWAY_MAY_IMPORT.items():
        assert set(may.split()) <= above, rooms
        above |= set(rooms.split())


@pytest.mark.parametrize("package", [*PACKAGES, "gateway"])
def test_no_package_imports_itself_in_a_circle(package: str) -> None:
    """Inside a room too, what is imported stands below, also what is imported for types alone."""
    inside = [module for module in (*MODULES, *GATEWAY) if room_of(module) == package]
    below = {
        module: {other for other in inside if other != module and imports(module, other)}
        for module in inside
    }

    while below:
        ground = {module for module, others in below.items() if not others & below.keys()}
        assert ground, f"these import each other in a circle: {', '.join(sorted(below))}"
        below = {module: others for module, others in below.items() if module not in ground}


def imports(module: str, other: str) -> bool:
    """Whether a module imports another one, or something out of it."""
    name = other.replace("/", ".")
    return any(each == name or each.startswith(f"{name}.") for each in imported_modules(module))


@each_row("module", MODULES)
def test_only_two_packages_are_needed(module: str) -> None:
    """The runner uses requests (with what it brings) and python-dotenv, each in one place."""
    foreign = {room_of(name) for name in imported_modules(module)} - ROOMS

    for name in filter(is_installed_package, foreign):
        assert room_of(module) in MAY_USE.get(name, set()), name


def is_installed_package(name: str) -> bool:
    """Whether a name is neither ours nor the standard library's."""
    spec = importlib.util.find_spec(name)
    return spec is not None and "site-packages" in (spec.origin or "")


def test_the_lists_for_pip_are_what_is_looked_for() -> None:
    """In the list that pip gets, and in what is looked for; nothing stands in both lists."""
    listed = {
        packages: [
            line.partition(">=")[0].lower()
            for line in packages.file.read_text("utf-8").splitlines()
            if line[0] != "#"
        ]
        for packages in (RUNNER_SET, GATEWAY_SET, POSTGRESQL_SET, FILES_SET)
    }

    modules = [name.replace("-", "_").replace("_py", "") for name in listed[GATEWAY_SET]]
    assert modules == list(GATEWAY_SET.modules)
    assert listed[POSTGRESQL_SET] == ["psycopg[binary]"]
    assert POSTGRESQL_SET.modules == ("psycopg",)
    assert listed[FILES_SET] == list(FILES_SET.modules) == ["obstore"]
    assert [name.replace("python-", "") for name in listed[RUNNER_SET]] == list(RUNNER_SET.modules)
    assert not set(listed[GATEWAY_SET]) & set(listed[RUNNER_SET])


def test_kinds_of_runners_do_not_know_each_other() -> None:
    """Claude Code's modules know nothing of rev, the others neither, and nobody the command line.

    A third kind of runner is one more file like `rev_runner.py`.
    """
    claude = {module for module in MODULES if module.startswith("kinds/claude")}
    # `places` names the shims, as the files that they are.
    general = set(MODULES) - claude - {"claude_runner", "rev_runner", "places"}
    foreign = re.compile(r"\brev\b|REV_|ClaudeStream|\bclaude\.|CLAUDE_COMMAND")

    for module in general:
        text = (PROGRAM / f"{module}.py").read_text("utf-8")
        if foreign.search(text):  # perhaps in what is written for readers alone
            code = ast.unparse(without_docstrings(ast.parse(text)))
            assert not foreign.search(code), module
        assert not {name for name in imported_modules(module) if "claude" in name}, module
    for module in claude:
        text = (PROGRAM / f"{module}.py").read_text("utf-8")
        assert not re.search(r"\brev\b|REV_", text), module
    importers = {
        module
        for module in MODULES
        if any(room_of(name) == "claude_runner" for name in imported_modules(module))
    }
    assert importers == {"rev_runner"}


def without_docstrings(tree: ast.Module) -> ast.Module:
    """Return the tree without the texts that are for readers alone."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(
            node
        ):
            node.body[0] = ast.Pass()
    return tree


def test_every_module_has_a_docstring_that_says_what_it_is_for() -> None:
    """A reader finds the room for every line by the modules' first sentences."""
    for module in (*MODULES, *GATEWAY):
        docstring = ast.get_docstring(tree_of(module))
        assert docstring is not None, module
        assert len(docstring.splitlines()[0]) < 100, module


def test_every_module_can_be_imported() -> None:
    """Also on the oldest Python, on which few of the other tests run."""
    names = [
        module.replace("/", ".").replace(".__init__", "")
        for module in (*MODULES, *GATEWAY)
        # The last one is run by Alembic, and no module.
        if not module.endswith(("__main__", "migrations/env"))
    ]
    source = "import importlib, sys; [importlib.import_module(name) for name in sys.argv[1:]]"

    done = subprocess.run(
        [sys.executable, "-c", source, *names], cwd=PROGRAM, capture_output=True, text=True
    )

    assert (done.returncode, done.stderr) == (0, "")


def test_few_doors_at_the_top() -> None:
    """Who lists the repository sees at most eight modules, the four named ones among them."""
    top = {path.stem for path in Path(PROGRAM).glob("*.py")} - {"setup"}

    assert top >= {"claude_runner", "redact", "gateway_client", "allowlist"}
    assert len(top) <= 8, sorted(top)
