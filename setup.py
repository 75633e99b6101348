"""What pyproject.toml cannot say: the modules and files are those of wrapper/FILES."""

from pathlib import Path

from setuptools import setup  # type: ignore[import-untyped] # it brings no types

NAMES = (Path(__file__).resolve().parent / "wrapper" / "FILES").read_text("utf-8").split()

setup(
    py_modules=[name[:-3] for name in NAMES if name.endswith(".py")],
    # Beside the modules in a project, here for `install` alone, which finds them below sys.prefix.
    data_files=[
        ("share/claude-runner", [name for name in NAMES if name == ".env.example"]),
        ("share/claude-runner/wrapper", [name for name in NAMES if name.startswith("wrapper/")]),
    ],
)
