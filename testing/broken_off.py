"""Kills `install` at each of its steps, and repeats it.

    python -m testing.broken_off KIND OLD NEW WORK

OLD and NEW are two versions of the runner, and KIND is what is done: `install`, `upgrade`, `flat`
(an upgrade of what lies in WORK/flat) or `uninstall`. A step is a file that is opened to be
written, made, renamed or removed. Prints how many there were.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

from kinds.claude import ClaudeProfile
from tools.install import Target, install, uninstall

STEPS = frozenset({"os.mkdir", "os.rename", "os.remove", "os.rmdir"})


def tree(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder, with its content."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


class BrokenOff:
    """One kind of change to one project, and what is left of it when it is killed."""

    def __init__(self, kind: str, old: Path, new: Path, work: Path) -> None:
        self.old, self.new, self.work, self.kind = old, new, work, kind
        self.project = work / "project"
        self.wrapper = self.project / "wrapper"

    def begin(self) -> None:
        """Make the project as it was before the change."""
        shutil.rmtree(self.project, ignore_errors=True)
        if self.kind == "flat":
            shutil.copytree(self.work / "flat", self.project)
        else:
            self.project.mkdir()
        if self.kind in ("upgrade", "uninstall"):
            install(self.old, Target(self.project))

    def change(self) -> None:
        """Do what is to be killed, or repeat it."""
        if self.kind != "uninstall":
            install(self.new, Target(self.project), upgrade=self.kind != "install")
        elif Target(self.project).is_installed:
            uninstall(Target(self.project), ClaudeProfile.settings)

    def kill_at(self, step: int) -> bool:
        """Begin, and kill the change there; False if it came to its end before."""
        self.begin()
        pid = os.fork()
        if not pid:
            count = 0

            def look(event: str, arguments: tuple[Any, ...]) -> None:
                nonlocal count
                if event in STEPS or (event == "open" and arguments[2] & os.O_WRONLY):
                    count += 1
                    if count == step:
                        os.kill(os.getpid(), signal.SIGKILL)

            sys.addaudithook(look)
            self.change()
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        assert os.WIFSIGNALED(status) or status == 0, (step, status)
        return os.WIFSIGNALED(status)

    def check_program(self) -> None:
        """Assert that the program is whole, or that it was set aside whole."""
        versions = [tree(self.old / "modules"), tree(self.new / "modules")]
        if (self.wrapper / "program").exists():
            assert tree(self.wrapper / "program") in versions
        elif self.kind == "upgrade":
            assert tree(self.wrapper / "program.old") in versions

    def start(self) -> None:
        """Repair what the shim repairs when it is started."""
        program, new = self.wrapper / "program", self.wrapper / "program.new"
        if not program.exists() and new.exists():
            new.rename(program)

    def run(self) -> int:
        """Kill it at every step; return how many there are."""
        self.begin()
        self.change()
        whole = tree(self.project)
        step = 1
        while self.kill_at(step):
            if self.kind != "uninstall":
                self.check_program()
            if step % 2 and (self.wrapper / "program.old").exists():
                self.start()
            self.change()
            left = tree(self.project)
            assert left == whole, (step, {*left} ^ {*whole})
            step += 1
        return step


if __name__ == "__main__":
    print(BrokenOff(sys.argv[1], *map(Path, sys.argv[2:])).run())
