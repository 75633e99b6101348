"""The commands of a Python that pip installed the program into, beside this file.

Each starts its Python once more, isolated, and runs the program there. What is imported until then
may be anybody's, by PYTHONPATH: so nothing is that Python has not imported at its own start.
"""

import os
import sys

_HERE = os.path.dirname(os.path.abspath(__file__))


def claude_runner() -> None:
    """Become `claude-runner`."""
    _become("claude_runner")


def rev_runner() -> None:
    """Become `rev-runner`."""
    _become("rev_runner")


def _become(module: str) -> None:
    # An option and not a variable: those are for the program's children, and they get them all.
    arguments = ["-I", os.path.join(_HERE, "__init__.py"), module, *sys.argv[1:]]
    os.execv(sys.executable, [sys.executable, *arguments])  # noqa: S606 - no shell is wanted


def _run() -> None:
    import runpy

    sys.path.insert(0, os.path.join(_HERE, "program"))
    # `pip install --user` and `--target` put the packages that are needed beside this one, into a
    # folder that an isolated Python does not look into.
    beside = os.path.dirname(_HERE)
    if beside not in sys.path:
        sys.path.append(beside)
    runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _run()
