"""Where the program lies, which files it consists of, and which project it serves.

There are three homes for one and the same tree of files. In a clone of the repository the program
and the project are one folder. `install` writes the program into a folder of somebody's project:
`wrapper/program/`, with the shims beside it. pip puts it among a Python's packages, into
`claude_runner_program/program/`, where it serves no project, and its files are those of the user.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

PROGRAM: Final = Path(__file__).resolve().parent

# The folders of the program. What else lies in a clone (the gateway, tests, …) stays there.
PACKAGES: Final = ("journal", "kinds", "redaction", "runner", "tools")

# What `install` needs besides the program. The shims find their program by where they lie: so pip's
# are in a folder from where they find none, and the program there is not taken for a project's.
COMPANIONS: Final = ("LICENSE", "claude-runner", "requirements.txt", "rev-runner")

_BUILDS_THE_PACKAGE: Final = "setup.py"


def find_project(program: Path = PROGRAM) -> Path | None:
    """Return the folder that has `.env` and `.data`; None for a program that pip installed."""
    if (program / "wrapper" / "claude-runner").is_file():
        return program
    if program.name == "program" and (program.parent / "claude-runner").is_file():
        return program.parent.parent
    return None


def typed_name(name: str, program: Path = PROGRAM) -> str:
    """Return what the user types to start `claude-runner` or `rev-runner`."""
    project = find_project(program)
    if project is None:
        return name
    return f"./wrapper/{name}" if project == program else f"./{program.parent.name}/{name}"


def companion(name: str, program: Path = PROGRAM) -> Path:
    """Return where one of COMPANIONS lies."""
    project = find_project(program)
    if project is None:
        return program.parent / "wrapper" / name
    if project == program:
        return program / name if name == "LICENSE" else program / "wrapper" / name
    return program.parent / name


def program_files(program: Path = PROGRAM) -> list[str]:
    """Return the program's files, sorted, by their paths relative to it."""
    modules = [path for path in program.glob("*.py") if path.name != _BUILDS_THE_PACKAGE]
    rooms = [path for name in PACKAGES for path in (program / name).rglob("*")]
    files = [path for path in rooms if path.suffix in (".py", ".txt") and path.is_file()]
    return sorted(path.relative_to(program).as_posix() for path in (*modules, *files))
