"""Projects of several kinds, with their real tools: `install` changes none of their results."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

import claude_runner
from testing.needs import needs
from tools.hosts import find_hints

WITHIN_S = 100.0
# Like `python -m build`, but with the environment's own setuptools: tests do not reach the network.
BUILD = "import setuptools.build_meta as b; b.build_wheel('dist')"
SETUPTOOLS = """\
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "host"
version = "1"
"""


def run(host: Path, *argv: str) -> str:
    """Return what a tool prints; it may fail. What it keeps for itself lies beside the project."""
    kept = host.parent / "kept"
    env = {**os.environ, "COVERAGE_FILE": str(kept / "coverage"), "MYPY_CACHE_DIR": str(kept)}
    env["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # loading them all takes longer than the tests
    done = subprocess.run(
        argv, cwd=host, env=env, capture_output=True, text=True, timeout=WITHIN_S, check=False
    )
    return f"{done.stdout}{done.stderr}exit code {done.returncode}"


def run_python(host: Path, *arguments: str) -> str:
    """Return what a Python tool of the tests' environment prints; it leaves no bytecode."""
    return run(host, sys.executable, "-B", *arguments)


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """An empty project, with a place beside it for the caches of tools."""
    (tmp_path / "kept").mkdir()
    (tmp_path / "host").mkdir()
    return tmp_path / "host"


def wheel(host: Path) -> list[str]:
    """Return the names of the files that the project's wheel holds, or what setuptools says."""
    said = run_python(host, "-c", BUILD)
    wheels = list((host / "dist").glob("*.whl"))
    names = zipfile.ZipFile(wheels[0]).namelist() if wheels else [said]
    for path in (*host.glob("*.egg-info"), host / "dist", host / "build"):
        shutil.rmtree(path, ignore_errors=True)
    return sorted(names)


def write(host: Path, files: Mapping[str, str]) -> None:
    """Write files with these texts into a project."""
    for name, text in files.items():
        (host / name).parent.mkdir(parents=True, exist_ok=True)
        (host / name).write_text(text)


def snapshot(host: Path) -> dict[str, bytes | None]:
    """Return every file below a folder with its content, and every folder."""
    return {
        str(path.relative_to(host)): path.read_bytes() if path.is_file() else None
        for path in host.rglob("*")
    }


def use_install(host: Path, *options: str) -> None:
    """Install into a project, or remove it."""
    assert claude_runner.main(["install", str(host), *options]) == 0


def take_hints(host: Path, folder: str = "wrapper") -> int:
    """Do what `install` says, by its own words; return to how many tools it was."""
    hints = find_hints(host, folder)
    for hint in hints:
        first, *lines = (line for line in hint.split("\n") if not line.startswith("  or "))
        text = "\n".join(line[4:] for line in lines) + "\n"
        section = re.search(r": add to (\[.*\]) of (\S+)$", first)
        item = re.search(r": add (\S+) to `(\S+)` in \S+ of (\S+)$", first)
        if item:
            path = host / item[3]
            glue = " " if item[2] == "addopts" else ", "
            begins_and_ends = re.compile(rf'(?m)^({item[2]} = ["\[].*)(["\]])$')
            path.write_text(begins_and_ends.sub(rf"\1{glue}{item[1]}\2", path.read_text()))
        elif section:
            path = host / section[2]
            path.write_text(path.read_text().replace(f"{section[1]}\n", f"{section[1]}\n{text}", 1))
        else:
            path = host / first.rsplit(" ", 1)[1]
            path.write_text((path.read_text() if path.exists() else "") + text)
    return len(hints)


def check(host: Path, *tools: Callable[[], object], hints: int) -> None:
    """Assert that results are the same before and after, and the tree as it was at the end."""
    before, tree = [tool() for tool in tools], snapshot(host)

    use_install(host)
    assert tools[0]() != before[0]
    assert take_hints(host) == hints

    assert [tool() for tool in tools] == before
    assert find_hints(host, "wrapper") == []
    for name in tree:
        if snapshot(host)[name] != tree[name]:
            (host / name).write_bytes(tree[name] or b"")
    use_install(host, "--uninstall")
    assert snapshot(host) == tree


def test_a_package_with_linters_and_tests(host: Path) -> None:
    """ruff, mypy strict, coverage, pytest with doctests, and the wheel."""
    write(
        host,
        {
            "pyproject.toml": SETUPTOOLS
            + '[tool.ruff.lint]\nselect = ["E", "F", "I"]\n'
            + "[tool.mypy]\nstrict = true\n"
            + '[tool.pytest.ini_options]\naddopts = "--doctest-modules"\n'
            + '[tool.coverage.run]\nsource = ["."]\n'
            + "[tool.coverage.report]\ninclude_namespace_packages = true\n",
            "host/__init__.py": "",
            "host/sums.py": "def add(a: int, b: int) -> int:\n"
            '    """Add.\n\n    >>> add(1, 2)\n    3\n    """\n    return a + b\n',
            "tests/test_host.py": "from host.sums import add\n\n\n"
            "def test_add() -> None:\n    assert add(1, 2) == 3\n",
        },
    )

    def checked() -> str:
        return run_python(host, "-m", "ruff", "check", "--no-cache", ".")

    def typed() -> str:
        return run_python(host, "-m", "mypy", ".")

    def tested() -> str:
        options = [
            "-q",
            "-p",
            "no:cacheprovider",
            "-p",
            "pytest_cov",
            "--cov",
            "--cov-report=term",
        ]
        return re.sub(r"in [\d.]+s", "", run_python(host, "-m", "pytest", *options))

    check(host, checked, typed, tested, lambda: wheel(host), hints=5)


@pytest.mark.parametrize(
    ("file", "text", "holds"),
    [
        ("pyproject.toml", SETUPTOOLS, "host.py"),
        ("setup.cfg", "[metadata]\nname = host\nversion = 1\n", "host/__init__.py"),
        ("setup.cfg", "[metadata]\nname = host\nversion = 1\n", "host.py"),
    ],
)
def test_a_wheel_of_what_setuptools_discovers(file: str, text: str, holds: str, host: Path) -> None:
    """A package, or a single module, that no file names."""
    write(host, {file: text, holds: "x = 1\n"})

    check(host, lambda: wheel(host), hints=1)


def test_a_folder_that_setuptools_leaves_out(host: Path) -> None:
    """The name that a hint offers, and others: nothing has to be added."""
    write(host, {"pyproject.toml": SETUPTOOLS, "host.py": "x = 1\n"})
    before = wheel(host)

    for name in ("claude-runner", "tools"):
        use_install(host, "--folder", name)

        assert find_hints(host, name) == []
        assert wheel(host) == before
        use_install(host, "--uninstall")


@needs("npm")
@pytest.mark.parametrize("ignores", [None, "*.log\n"])
def test_a_node_package(ignores: str | None, host: Path) -> None:
    """Neither the secret nor the program goes into the package."""
    write(host, {"package.json": '{"name": "host", "version": "1.0.0"}\n', "index.js": "1\n"})
    if ignores is not None:
        write(host, {".npmignore": ignores})
    tree = snapshot(host)

    def packed() -> set[str]:
        said = run(host, "npm", "pack", "--dry-run", "--json", "--offline")
        listed = json.loads(said[said.index("[") : said.rindex("]") + 1])
        return {file["path"] for file in listed[0]["files"]}

    use_install(host)
    if ignores is None:  # a file of the project's own changes nothing of that; npm takes a second
        names = packed()
        assert {"index.js", "wrapper/claude-runner"} < names
        assert not {name for name in names if name.startswith(".")}
    assert take_hints(host) == 1

    assert packed() == {"index.js", "package.json"}
    assert find_hints(host, "wrapper") == []
    if ignores is None:
        (host / "wrapper" / ".npmignore").unlink()
    else:
        own = host / ".npmignore"
        own.write_text(own.read_text().replace("wrapper/\n", ""))
    use_install(host, "--uninstall")
    assert snapshot(host) == tree


@needs("go")
def test_a_go_module(host: Path) -> None:
    """Go looks for files in Go; the folder has none."""
    write(host, {"go.mod": "module host\n", "host.go": "package host\n"})
    before, tree = run(host, "go", "list", "./..."), snapshot(host)

    use_install(host)

    assert run(host, "go", "list", "./...") == before
    use_install(host, "--uninstall")
    assert snapshot(host) == tree


MODULE, PACKAGE, SRC = "host.py", "host/__init__.py", "src/host/__init__.py"
FIND = f"{SETUPTOOLS}[tool.setuptools.packages.find]\n"
CFG = "[metadata]\nname = host\n[options]\n"
FOUND_IN = "[options.packages.find]\nexclude =\n    tests\n"
FIND_CALL = 'packages=setuptools.find_namespace_packages(include=["host", "host.*"])'


@pytest.mark.parametrize(
    ("file", "text", "holds", "hint"),
    [
        ("setup.py", "setup(name='host')", MODULE, 'setup.py\n    py_modules=["host"]'),
        ("setup.py", "setup(name='host')", PACKAGE, FIND_CALL),
        ("setup.py", "setup(packages=['host'])", PACKAGE, None),
        ("pyproject.toml", f'{SETUPTOOLS}[tool.setuptools]\npackages = ["host"]\n', PACKAGE, None),
        (
            "pyproject.toml",
            f"{SETUPTOOLS}[tool.setuptools]\nzip-safe = false\n",
            MODULE,
            'add to [tool.setuptools] of pyproject.toml\n    py-modules = ["host"]',
        ),
        ("pyproject.toml", SETUPTOOLS, SRC, None),
        ("pyproject.toml", SETUPTOOLS, "docs/x", None),
        ("pyproject.toml", SETUPTOOLS.replace("setuptools", "hatchling"), PACKAGE, None),
        ("pyproject.toml", f'{FIND}exclude = ["x"]\n', PACKAGE, 'add "wrapper*" to `exclude` in'),
        ("pyproject.toml", f'{FIND}where = ["lib"]\n', PACKAGE, None),
        ("setup.cfg", f"{CFG}packages = find_namespace:\n{FOUND_IN}", PACKAGE, "add wrapper* to"),
        ("setup.cfg", f"{CFG}packages = find:\n", PACKAGE, None),
    ],
)
def test_hints_about_builds(
    file: str, text: str, holds: str, hint: str | None, tmp_path: Path
) -> None:
    """A line where the folder would be taken in, and none where it is left out already."""
    write(tmp_path, {file: text, holds: ""})

    assert_hint(tmp_path, hint)


def assert_hint(project: Path, hint: str | None) -> None:
    """Assert that there is this hint alone, or none."""
    (project / "wrapper").mkdir()

    hints = find_hints(project, "wrapper")

    assert len(hints) == (hint is not None)
    assert not hints or str(hint) in hints[0]


EXCLUDED = "[mypy]\nexclude = (?x)(\n    build\n    | ^wrapper/\n    )\n"
DOCTESTS = "[pytest]\naddopts = -q --doctest-modules"
COUNTED = "[run]\nsource = .\n[report]\ninclude_namespace_packages = True\n"


LISTED = """\
[tool.pytest.ini_options]
  addopts = [
    '--doctest-modules',
    "--cov=src",
    '--ignore=wrapper',
  ]
"""


@pytest.mark.parametrize(
    ("file", "text", "hint"),
    [
        ("ruff.toml", "line-length = 80\n", 'top of ruff.toml\n    extend-exclude = ["wrapper"]'),
        ("ruff.toml", "extend-exclude = [\n  'wrapper',\n]\n", None),
        ("ruff.toml", "extend-exclude = ['wrappers']\n", 'add "wrapper" to `extend-exclude` in'),
        ("ruff.toml", 'include = ["src/**"]\n', None),
        ("pyproject.toml", "  [tool.ruff]\n  extend-exclude = ['wrapper']\n", None),
        ("pyproject.toml", LISTED, None),
        ("pyproject.toml", "[tool.ruff.lint]\nselect = []\n", "toml\n    [tool.ruff]\n    extend-"),
        ("mypy.ini", "[mypy]\nstrict = True\n", "[mypy] of mypy.ini\n    exclude = ^wrapper/"),
        ("mypy.ini", "[mypy]\nfiles = src, tests\n", None),
        ("mypy.ini", "[mypy]\nfiles = .\n", "exclude = ^wrapper/"),
        ("mypy.ini", EXCLUDED, None),
        ("setup.cfg", "[mypy]\nexclude = build/\n", "add |^wrapper/ to `exclude` in [mypy] of"),
        ("pytest.ini", "[pytest]\naddopts = -q\n", None),
        ("pytest.ini", f"{DOCTESTS}\n", "add --ignore=wrapper to `addopts` in [pytest] of"),
        ("pytest.ini", f"{DOCTESTS}\ntestpaths = tests\n", None),
        ("pytest.ini", f"{DOCTESTS} --ignore=wrapper\n", None),
        ("tox.ini", "[pytest]\npython_files = *.py\n", "tox.ini\n    addopts = --ignore=wrapper"),
        (".coveragerc", "[run]\nsource = .\n", None),
        (".coveragerc", COUNTED, "add to [run] of .coveragerc\n    omit = wrapper/*"),
        ("package.json", '{"name": "x", "private": true}', None),
        ("package.json", '{"name": "x", "files": ["lib"]}', None),
        ("package.json", "{", None),
        ("pyproject.toml", "\ufeff[[[\x00", None),
    ],
)
def test_hints_about_linters_and_tests(
    file: str, text: str, hint: str | None, tmp_path: Path
) -> None:
    """The same for what is run in the project's folder."""
    write(tmp_path, {file: text})

    assert_hint(tmp_path, hint)
