"""What pyproject.toml cannot say: the package has the program in it, as places.py lists it."""

import os
import shutil
import sys
from pathlib import Path

from setuptools import setup  # type: ignore[import-untyped] # it brings no types
from setuptools.command.build_py import build_py  # type: ignore[import-untyped]

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT))  # a build does without it

from places import COMPANIONS, companion, program_files  # noqa: E402

# Where a file goes in the package, and where it lies here.
FILES = {
    **{f"program/{name}": name for name in program_files()},
    **{f"wrapper/{name}": str(companion(name).relative_to(ROOT)) for name in COMPANIONS},
}


class BuildProgram(build_py):  # type: ignore[misc] # see above
    """Copies the program and what `install` needs into the package."""

    def run(self) -> None:
        """Build, and take nothing along that an earlier build has left."""
        if self.editable_mode:
            raise SystemExit("a clone needs no -e: ./wrapper/claude-runner runs what is in it")
        shutil.rmtree(self.build_lib, ignore_errors=True)
        super().run()
        for name, source in FILES.items():
            target = Path(self.build_lib, "claude_runner_program", name)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / source, target)

    def get_source_files(self) -> list[str]:
        """Return what a source distribution needs for a build."""
        return [*super().get_source_files(), *FILES.values()]


# The build of a release sets it; the tree itself has no address of the project.
REPOSITORY = os.environ.get("REPOSITORY_URL", "")
URLS = {
    "Source": REPOSITORY,
    "Documentation": f"{REPOSITORY}/blob/main/docs/index.md",
    "Changelog": f"{REPOSITORY}/blob/main/CHANGELOG.md",
    "Issues": f"{REPOSITORY}/issues",
}

setup(cmdclass={"build_py": BuildProgram}, project_urls=URLS if REPOSITORY else {})
