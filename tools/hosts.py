"""Find the tools of a project that would take the runner's folder for a part of the project.

Builds, linters and tests differ in what they leave out by themselves. Only settings in files are
seen here. Of TOML and INI files the sections are read, and the keys at the beginning of a line:
Python 3.9 has no TOML parser. Nothing is changed, so in doubt a hint is given.

Below them, the ignore files, which `install` does change.
"""

from __future__ import annotations

import fnmatch
import json
import os
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from config import write_whole
from places import is_in_repository

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

_MAX_BYTES: Final = 1 << 20

# The names that setuptools' automatic discovery leaves out, besides those that begin with _.
_NO_PACKAGES: Final = """
    ci bin debian doc docs documentation manpages news newsfragments changelog test tests unit_test
    unit_tests example examples scripts tools util utils python build dist venv env requirements
    tasks fabfile site_scons benchmark benchmarks exercise exercises htmlcov
"""
_NO_MODULES: Final = """
    setup conftest test tests example examples build toxfile noxfile pavement dodo tasks fabfile
    conanfile manage benchmark benchmarks exercise exercises
"""
# No Python package has such a name.
_NAME_THAT_NO_BUILD_TAKES: Final = "claude-runner"


class _Section(NamedTuple):
    """One section of a file, and the keys in it with their values as they are written."""

    file: str
    name: str
    values: Mapping[str, str]
    is_there: bool = True

    def text(self, *keys: str) -> str:
        return "\n".join(self.values.get(key, "") for key in keys)

    def advise(self, problem: str, key: str, item: str, *, more: str = "") -> str:
        """Return what to add: the line, or the item if the key has a value."""
        where = f"[{self.name}] of {self.file}" if self.name else f"the top of {self.file}"
        if key in self.values:
            return f"{problem}: add {item} to `{key}` in {where}{more}"
        is_list = self.file.endswith(".toml") and key != "addopts"
        line = f"{key} = [{item}]" if is_list else f"{key} = {item}"
        if self.is_there:
            return f"{problem}: add to {where}{more}\n    {line}"
        return f"{problem}: add to {self.file}{more}\n    [{self.name}]\n    {line}"


class _Project:
    """The settings of a project's tools, and the name of the runner's folder in it."""

    def __init__(self, path: Path, folder: str) -> None:
        self.path = path
        self.folder = folder

    def read(self, file: str) -> str:
        """Return a file's text; "" if it cannot be read as text."""
        path = self.path / file
        try:
            is_readable = path.is_file() and path.stat().st_size <= _MAX_BYTES
            return path.read_text("utf-8-sig") if is_readable else ""
        except (OSError, ValueError):
            return ""

    def sections(self, file: str) -> dict[str, _Section]:
        """Return the sections of a file; what stands before the first is called ""."""
        found: dict[str, dict[str, str]] = {"": {}}
        values, key = found[""], ""
        # In an INI file an indented line continues the value above.
        indent, equals = (r"\s*", "=") if file.endswith(".toml") else ("", "[=:]")
        for line in self.read(file).splitlines():
            header = re.match(rf"{indent}\[+\s*([A-Za-z][^\]]*?)\s*\]+\s*([#;].*)?$", line)
            pair = re.match(rf'{indent}([\w.-]+|"[^"]+")\s*{equals}\s*(.*)', line)
            if header:
                values, key = found.setdefault(header.group(1).replace('"', ""), {}), ""
            elif pair:
                key = pair.group(1).strip('"')
                values[key] = pair.group(2)
            elif key and not line.lstrip().startswith(("#", ";")):
                values[key] += f"\n{line}"
        return {name: _Section(file, name, values) for name, values in found.items()}

    def find(self, *places: tuple[str, str]) -> _Section | None:
        """Return the first of these sections that is there: a file, and a name in it."""
        for file, name in places:
            sections = self.sections(file)
            if name in sections and (name or self.read(file)):
                return sections[name]
            if any(each.startswith(f"{name}.") for each in sections if name):
                return _Section(file, name, {}, is_there=False)
        return None

    def is_named(self, text: str) -> bool:
        """Whether a setting speaks of the runner's folder."""
        name = re.escape(self.folder)
        return re.search(rf"(?<![\w-]){name}(?![\w-])", text.replace("\\", "")) is not None

    def is_covered(self, paths: str) -> bool:
        """Whether a list of places, none meaning all, has the runner's folder in it."""
        file = f"{self.folder}/program/claude_runner.py"
        words = [word.rstrip("/") for word in re.findall(r"[^\s,\"'\[\]]+", paths)]
        return not words or any(
            word == "." or fnmatch.fnmatch(file, word) or file.startswith(f"{word}/")
            for word in words
        )


def find_hints(path: Path, folder: str) -> list[str]:
    """Return what to add to which file, for each tool that would take the folder in."""
    project = _Project(path, folder)
    asked = (_ask_setuptools, _ask_npm, _ask_ruff, _ask_mypy, _ask_pytest, _ask_coverage)
    return [hint for ask in asked if (hint := ask(project))]


def _ask_setuptools(project: _Project) -> str | None:
    pyproject, config = project.sections("pyproject.toml"), project.sections("setup.cfg")
    script = project.read("setup.py")
    backend = pyproject["build-system"].text("build-backend") if "build-system" in pyproject else ""
    is_used = "setuptools" in backend or (
        not backend and ("project" in pyproject or "metadata" in config or bool(script))
    )
    if not is_used:
        return None
    problem = f"setuptools would take {project.folder} for a package of the project"
    find = pyproject.get("tool.setuptools.packages.find")
    if "find_namespace" in config.get("options", _NONE).text("packages"):
        find = config.get("options.packages.find", find)
    if find is not None:
        takes = project.is_covered(find.text("where")) and not find.text("include").strip()
        is_left_out = "false" in find.text("namespaces") or project.is_named(find.text("exclude"))
        item = f'"{project.folder}*"' if find.file.endswith(".toml") else f"{project.folder}*"
        return find.advise(problem, "exclude", item) if takes and not is_left_out else None
    if _names_its_packages(pyproject, config, script) or (project.path / "src").is_dir():
        return None
    if not _is_package(project.folder):
        return None
    packages, modules = _discover(project)
    if len(packages) == 1:
        line, call = f'include = ["{packages[0]}", "{packages[0]}.*"]', "packages.find"
    elif not packages and len(modules) == 1:
        line, call = f'py-modules = ["{modules[0]}"]', ""
    else:
        return None  # it finds nothing, or refuses, without us as well
    return _advise_setuptools(pyproject, config, problem, line, call)


def _advise_setuptools(
    pyproject: Mapping[str, _Section],
    config: Mapping[str, _Section],
    problem: str,
    line: str,
    call: str,
) -> str:
    """Return the lines for the file that describes the project."""
    key, _, value = line.partition(" = ")
    or_else = f"\n  or choose a folder that it leaves out: --folder {_NAME_THAT_NO_BUILD_TAKES}"
    if "project" in pyproject:
        name = ".".join(filter(None, ("tool.setuptools", call)))
        there = pyproject.get(name, _Section("pyproject.toml", name, {}, is_there=False))
        return there.advise(problem, key, value.strip("[]")) + or_else
    items = value.strip("[]").replace('"', "")
    if "metadata" in config:
        there = config.get("options", _Section("setup.cfg", "options", {}, is_there=False))
        if not call:
            return there.advise(problem, "py_modules", items) + or_else
        found = "\n    [options.packages.find]\n    include = " + items
        return there.advise(problem, "packages", "find_namespace:") + found + or_else
    argument = (
        f"packages=setuptools.find_namespace_packages(include={value})"
        if call
        else f"py_modules={value}"
    )
    return f"{problem}: add to the call of setup() in setup.py\n    {argument}{or_else}"


def _names_its_packages(
    pyproject: Mapping[str, _Section], config: Mapping[str, _Section], script: str
) -> bool:
    """Whether setuptools is told what to take, and discovers nothing by itself."""
    table = pyproject.get("tool.setuptools", _NONE).values
    keys = {"packages", "py-modules", "package-dir", "ext-modules"}
    return (
        any(key.partition(".")[0] in keys for key in table)
        or "tool.setuptools.package-dir" in pyproject
        or bool(
            config.get("options", _NONE).values.keys() & {"packages", "py_modules", "package_dir"}
        )
        or re.search(r"\b(packages|py_modules|package_dir|ext_modules)\s*=", script) is not None
    )


def _discover(project: _Project) -> tuple[list[str], list[str]]:
    """Return the packages and modules that setuptools discovers in the root, without ours."""
    entries = sorted(project.path.iterdir())
    packages = [path.name for path in entries if path.is_dir() and _is_package(path.name)]
    modules = [path.stem for path in entries if path.suffix == ".py" and path.stem.isidentifier()]
    return (
        [name for name in packages if name != project.folder],
        [name for name in modules if name not in _NO_MODULES.split() and name[0] != "_"],
    )


def _is_package(name: str) -> bool:
    return name.isidentifier() and name not in _NO_PACKAGES.split() and not name.startswith("_")


def _ask_npm(project: _Project) -> str | None:
    try:
        package = json.loads(project.read("package.json"))
    except ValueError:
        return None
    if not isinstance(package, dict) or package.get("private") is True or "files" in package:
        return None
    problem = f"npm would put {project.folder} into the package"
    if not (project.path / ".npmignore").exists():
        # A `.npmignore` in the root would take the place of `.gitignore`.
        own = f"{project.folder}/.npmignore"
        return None if "*" in project.read(own).split() else f"{problem}: write into {own}\n    *"
    if project.is_named(project.read(".npmignore")):
        return None
    return f"{problem}: add to .npmignore\n    {project.folder}/"


def _ask_ruff(project: _Project) -> str | None:
    place = project.find((".ruff.toml", ""), ("ruff.toml", ""), ("pyproject.toml", "tool.ruff"))
    if place is None or project.is_named(place.text("exclude", "extend-exclude")):
        return None
    if not project.is_covered(place.text("include")):
        return None
    return place.advise(
        f"ruff would check {project.folder}", "extend-exclude", f'"{project.folder}"'
    )


def _ask_mypy(project: _Project) -> str | None:
    place = project.find(
        ("mypy.ini", "mypy"),
        (".mypy.ini", "mypy"),
        ("pyproject.toml", "tool.mypy"),
        ("setup.cfg", "mypy"),
    )
    if place is None or project.is_named(place.text("exclude")):
        return None
    if place.text("packages", "modules").strip() or not project.is_covered(place.text("files")):
        return None
    pattern = f"^{re.escape(project.folder)}/"
    item = f"'{pattern}'" if place.file.endswith(".toml") else pattern
    if place.text("exclude").lstrip()[:1] not in ("", "["):
        item = f"|{pattern}"  # one regular expression, not a list of them
    return place.advise(f"mypy would check {project.folder}", "exclude", item)


def _ask_pytest(project: _Project) -> str | None:
    place = project.find(
        ("pytest.ini", "pytest"),
        (".pytest.ini", "pytest"),
        ("pyproject.toml", "tool.pytest.ini_options"),
        ("tox.ini", "pytest"),
        ("setup.cfg", "tool:pytest"),
    )
    if place is None or project.is_named(place.text("addopts", "norecursedirs")):
        return None
    imports_all = "--doctest-modules" in place.text("addopts")
    if not (imports_all or re.search(r"(?<!\w)\*\.py", place.text("python_files"))):
        return None
    if not project.is_covered(place.text("testpaths")):
        return None
    problem = f"pytest would import {project.folder}"
    option = f"--ignore={project.folder}"
    if not place.values.get("addopts") and place.file.endswith(".toml"):
        option = f'"{option}"'
    return place.advise(problem, "addopts", option)


def _ask_coverage(project: _Project) -> str | None:
    for file, prefix in (
        (".coveragerc", ""),
        ("setup.cfg", "coverage:"),
        ("tox.ini", "coverage:"),
        ("pyproject.toml", "tool.coverage."),
    ):
        run = project.find((file, f"{prefix}run"))
        report = project.find((file, f"{prefix}report")) or _NONE
        if run is None:
            continue
        # A folder without `__init__.py` counts only where this is set.
        counts = "true" in report.text("include_namespace_packages").lower()
        is_left_out = project.is_named(run.text("omit") + report.text("omit"))
        is_source = bool(run.text("source").strip()) and project.is_covered(run.text("source"))
        if not counts or is_left_out or not is_source:
            return None
        item = f'"{project.folder}/*"' if file.endswith(".toml") else f"{project.folder}/*"
        return run.advise(f"coverage would count {project.folder}", "omit", item)
    return None


_NONE: Final = _Section("", "", {}, is_there=False)


# === Ignore files, and what git tracks ============================================================
#
# Keep `.env` and `.data/` out of what leaves a project.
#
# `install` adds a heading and the lines below it to an ignore file. The heading says how the file
# was before, so that `uninstall` can restore it byte for byte.

# What holds secrets and output.
IGNORED: Final = (".env", ".data/")
IGNORE_FILES: Final = (".gitignore", ".npmignore", ".dockerignore", ".hgignore")
_MADE_IF_MISSING: Final = ".gitignore"  # it counts as soon as the project becomes a repository

_HEADING: Final = "# claude-runner keeps its secrets and output out:"
_HEADING_OF_NEW_FILE: Final = "# claude-runner made this file to keep its secrets and output out:"
_HEADING_AFTER_UNENDED_LINE: Final = (
    "# claude-runner keeps its secrets and output out (and ended the line above):"
)
_HEADINGS: Final = (_HEADING, _HEADING_OF_NEW_FILE, _HEADING_AFTER_UNENDED_LINE)
_GIT_TIMEOUT_S: Final = 30.0


def add_ignores(project: Path) -> list[str]:
    """Add what is missing to the ignore files, and return what the user should know."""
    return [sentence for _, sentence in mend_ignores(project)]


def mend_ignores(project: Path) -> Iterator[tuple[bool, str]]:
    """Add what is missing to the ignore files; yield for each whether it was done, and a sentence.

    Raises OSError.
    """
    for path in (project / name for name in IGNORE_FILES):
        is_there = os.path.lexists(path)
        if is_there and (path.is_symlink() or not path.is_file()):
            # What a link leads to may belong to other projects as well.
            what = "a link" if path.is_symlink() else "not a file"
            yield False, f"{path.name} is {what} and was not changed; add {_join(IGNORED)} yourself"
        elif is_there or path.name == _MADE_IF_MISSING:
            before = path.read_bytes() if is_there else None
            missing = [entry for entry in IGNORED if not _ignores(before or b"", entry, path.name)]
            if missing:
                _replace(path, _add_lines(before, missing, path.name))
                yield True, f"{path.name}: {_join(missing)} added"


def find_unignored(project: Path) -> list[str]:
    """Return a sentence for each ignore file that does not keep secrets and output out."""
    names = [
        name
        for name in IGNORE_FILES
        if (project / name).is_file()
        or (name == _MADE_IF_MISSING and is_in_repository(project / name))
    ]
    told = []
    for path in (project / name for name in names):
        before = path.read_bytes() if path.exists() else b""
        missing = [entry for entry in IGNORED if not _ignores(before, entry, path.name)]
        if missing:
            told.append(f"{path} does not have {_join(missing)}")
    return told


def remove_ignores(project: Path) -> list[str]:
    """Remove what `add_ignores` added, and return what the user should know."""
    told: list[str] = []
    for path in (project / name for name in IGNORE_FILES):
        if path.is_symlink() or not path.is_file():
            continue
        before = path.read_bytes()
        after = _remove_lines(before, path.name)
        if after is None:
            path.unlink()
            told.append(f"{path.name} removed")
        elif after != before:
            _replace(path, after)
            told.append(f"{path.name}: the lines that `install` added are removed")
    return told


def _join(entries: Iterable[str]) -> str:
    return " and ".join(entries)


def _replace(path: Path, content: bytes) -> None:
    write_whole(path, content, path.stat().st_mode & 0o777 if path.exists() else 0o644)


def _spell(entry: str, file: str) -> str:
    """Return the line for an entry. Mercurial's files may be in another syntax at their end."""
    return f"glob:{entry.rstrip('/')}" if file == ".hgignore" else entry


def _add_lines(before: bytes | None, entries: Sequence[str], file: str) -> bytes:
    content = before or b""
    end = b"\r\n" if b"\r\n" in content else b"\n"
    is_unended = content != b"" and not content.endswith(b"\n")
    heading = _HEADING_OF_NEW_FILE if before is None else _HEADING
    lines = [_HEADING_AFTER_UNENDED_LINE if is_unended else heading]
    lines += [_spell(entry, file) for entry in entries]
    return content + end * is_unended + b"".join(line.encode() + end for line in lines)


def _remove_lines(content: bytes, file: str) -> bytes | None:
    """Return the content without our lines; None if the file was made for them alone."""
    lines = content.splitlines(keepends=True)
    texts = [line.decode("utf-8", "replace").rstrip("\r\n") for line in lines]
    begin = next((number for number, text in enumerate(texts) if text in _HEADINGS), None)
    if begin is None:
        return content
    end = begin + 1
    while end < len(texts) and texts[end] in [_spell(entry, file) for entry in IGNORED]:
        end += 1
    left = b"".join(lines[:begin])
    if texts[begin] == _HEADING_AFTER_UNENDED_LINE and end == len(lines):
        left = re.sub(rb"\r?\n\Z", b"", left)
    left += b"".join(lines[end:])
    return None if texts[begin] == _HEADING_OF_NEW_FILE and not left else left


def _ignores(content: bytes, entry: str, file: str) -> bool:
    """Whether these lines ignore the entry by its name; the last line that says so counts.

    In doubt they do not: a line more does no harm. `.env/` is about folders alone. A line ends, and
    its blanks count, as git has it.
    """
    name = entry.rstrip("/")
    is_ignored = False
    is_glob = file != ".hgignore"
    for line in content.decode("utf-8", "replace").split("\n"):
        pattern = (line[:-1] if line.endswith("\r") else line).rstrip(" ")
        if file == ".hgignore" and pattern.startswith("syntax:"):
            is_glob = pattern.endswith("glob")
        elif file == ".hgignore":
            is_ignored |= pattern == f"glob:{name}" or (is_glob and pattern == name)
        elif pattern.startswith("!"):
            is_ignored = is_ignored and not _may_take_back(pattern[1:], name)
        elif pattern.lstrip("/") in (name, entry):
            is_ignored = True
    return is_ignored


def _may_take_back(pattern: str, name: str) -> bool:
    """Whether a pattern may be about this name, or about what is in a folder of this name."""
    parts = pattern.replace("\\", "").split("/")
    return "[" in pattern or any(fnmatch.fnmatchcase(name, part) for part in parts)


# --- what git makes of it ------------------------------------------------------------------------


def ask_git(project: Path, folder: str, written: Sequence[str]) -> list[str]:
    """Return what the user should change: git tracks a secret, or ignores a file of ours."""
    tracked = _git(project, "ls-files", "--", ".env", ".data")
    told = [
        f"git tracks {name}: `git rm -r --cached {name}` takes it out of the next commit; what was "
        "committed stays readable, so change its secrets"
        for name in sorted({line.partition("/")[0] for line in tracked})
    ]
    for line in _git(project, "check-ignore", "--verbose", "--no-index", "--", *written):
        where, _, name = line.partition("\t")
        source, number, pattern = where.split(":", 2)
        if not pattern.startswith("!"):
            told.append(
                f"git ignores {name}, so a commit leaves it out: change line {number} of {source}, "
                f"which is {pattern}, or choose a folder other than {folder} (`install --folder`)"
            )
            break
    return told


def _git(project: Path, *arguments: str) -> list[str]:
    """Return the lines that git prints; none without git, or where it has nothing to say."""
    # A relative entry of PATH is a place in the project.
    folders = [folder for folder in os.get_exec_path() if os.path.isabs(folder)]
    programs = [os.path.join(folder, "git") for folder in folders]
    program = next(
        (each for each in programs if os.access(each, os.X_OK) and os.path.isfile(each)), None
    )
    if program is None:
        return []
    environ = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    # The project's own settings must not start a program.
    safe = [
        "-c",
        "core.fsmonitor=false",
        "-c",
        "safe.bareRepository=explicit",
        "-c",
        "core.quotePath=false",
    ]
    try:
        done = subprocess.run(
            [program, *safe, *arguments],
            cwd=project,
            env=environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_GIT_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return done.stdout.decode("utf-8", "replace").splitlines()
