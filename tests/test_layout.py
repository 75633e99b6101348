"""The modules' imports go one way, and nothing of the runner needs anything but its own files."""

from __future__ import annotations

import ast
import importlib.util
import re
from pathlib import Path

import pytest

from gateway_launch import PACKAGES
from testing.runner_files import ROOT, RUNNER_FILES

pytestmark = pytest.mark.once

MODULES = tuple(name[:-3] for name in RUNNER_FILES if name.endswith(".py"))

# Which of the runner's modules each one may import; what is not named here imports none.
MAY_IMPORT = {
    "redact": {
        "redact_headers",
        "redact_json",
        "redact_judges",
        "redact_keys",
        "redact_known",
        "redact_names",
        "redact_shapes",
        "redact_tokens",
        "redact_view",
    },
    "redact_headers": {"redact_judges", "redact_shapes"},
    "redact_json": {"redact_judges"},
    "redact_judges": {"redact_shapes"},
    "redact_keys": {"redact_judges"},
    "redact_known": {"redact_judges", "redact_shapes"},
    "redact_layouts": {"redact_judges", "redact_values"},
    "redact_names": {
        "redact_headers",
        "redact_judges",
        "redact_layouts",
        "redact_shapes",
        "redact_values",
    },
    "redact_tokens": {"redact_judges", "redact_shapes"},
    "redact_values": {"redact_judges"},
    "gateway_client": {"gateway_transport", "redact"},
    "spool": {"redact", "spool_events", "spool_store"},
    "spool_events": {"redact", "spool_store"},
    "spool_syncer": {"spool"},
    "runner_config": {"allowlist", "redact"},
    "command_line": {"runner_config"},
    "gateway_launch": {"runner_config"},
    "gateway_check": {
        "gateway_client",
        "gateway_transport",
        "local_terminal",
        "runner_config",
        "spool_events",
    },
    "project_install": {"command_line", "local_terminal", "runner_config"},
    "shell_completion": {"command_line"},
    "runner_doctor": {
        "gateway_check",
        "gateway_client",
        "gateway_transport",
        "local_terminal",
        "redact",
        "run_plan",
        "runner_config",
        "spool",
    },
    "assist": {
        "child_end",
        "gateway_client",
        "gateway_pacer",
        "gateway_transport",
        "keeper",
        "local_terminal",
        "process_tree",
        "runner_config",
        "runner_mailbox",
        "spool_events",
    },
    "assist_tmate": {"assist", "runner_config"},
    "run_plan": {
        "assist",
        "assist_tmate",
        "child_events",
        "gateway_client",
        "local_terminal",
        "runner_config",
    },
    "keeper": {"process_tree"},
    "child_end": {"keeper"},
    "child_terminals": {"local_terminal", "pty_pump", "redact", "run_plan"},
    "session_terminal": {"keeper", "local_terminal"},
    "run_files": {"artifact_upload", "redact", "run_plan", "spool"},
    "claude_profile": {"claude_state", "claude_stream", "run_plan", "runner_config"},
    "claude_state": {"child_events"},
    "claude_stream": {"child_events"},
    "pty_pump": {"child_events", "local_terminal", "redact"},
    "gateway_pacer": {"gateway_client"},
    "artifact_upload": {"gateway_client", "gateway_pacer", "gateway_transport", "spool"},
    "delivery": {
        "artifact_upload",
        "gateway_client",
        "gateway_pacer",
        "gateway_transport",
        "local_terminal",
        "redact",
        "spool",
        "spool_events",
    },
    "run_folder": {"runner_config"},
    "sync_runs": {
        "artifact_upload",
        "delivery",
        "gateway_client",
        "gateway_pacer",
        "local_terminal",
        "redact",
        "run_folder",
        "runner_config",
        "spool",
    },
    "remote_control": {
        "allowlist",
        "command_executor",
        "gateway_client",
        "gateway_pacer",
        "gateway_transport",
        "redact",
        "spool",
    },
    "command_executor": {
        "allowlist",
        "artifact_upload",
        "child_end",
        "gateway_client",
        "gateway_pacer",
        "gateway_transport",
        "keeper",
        "redact",
        "spool",
    },
    "runner_session": {
        "allowlist",
        "assist",
        "child_end",
        "child_terminals",
        "command_executor",
        "delivery",
        "gateway_client",
        "gateway_pacer",
        "keeper",
        "local_terminal",
        "process_tree",
        "pty_pump",
        "redact",
        "remote_control",
        "run_files",
        "run_folder",
        "run_plan",
        "runner_config",
        "runner_mailbox",
        "session_terminal",
        "spool",
        "spool_syncer",
    },
    "claude_runner": set(MODULES) - {"claude_runner", "rev_runner"},
    "rev_runner": {"claude_runner", "run_plan", "runner_config"},
}
# The packages that a module may use besides the standard library.
MAY_USE = {
    "gateway_client": {"certifi", "requests", "urllib3"},
    "gateway_transport": {"requests", "urllib3"},
    "runner_config": {"dotenv"},
}


def imported_names(module: str) -> set[str]:
    """Return the top-level names that a module imports anywhere in it."""
    tree = ast.parse((ROOT / f"{module}.py").read_text(encoding="utf-8"))
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_one_way(module: str) -> None:
    """A module imports what the table allows, and nothing from tests or the gateway."""
    ours = imported_names(module) & {path.stem for path in ROOT.glob("*.py")}

    assert ours <= MAY_IMPORT.get(module, set())


def test_kinds_of_runners_do_not_know_each_other() -> None:
    """Claude Code's modules know nothing of rev, the others neither, and nobody the command line.

    Only the names of its own settings and files are anybody's business: a third kind of runner is
    one more file like `rev_runner.py`.
    """
    kinds = {
        "claude": {name for name in MODULES if name.startswith("claude_")},
        "rev": {"rev_runner"},
    }
    general = set(MODULES) - kinds["claude"] - kinds["rev"]

    for module in general:
        assert not imported_names(module) & (kinds["claude"] | kinds["rev"]), module
    for module in kinds["claude"]:
        assert not imported_names(module) & kinds["rev"], module
        assert not re.search(r"\brev\b|REV_", source_of(module)), module
    for module in general:
        code = ast.unparse(without_docstrings(ast.parse(source_of(module))))
        assert not re.search(r"\brev\b|REV_|ClaudeStream|\bclaude\.|CLAUDE_COMMAND", code), module
    importers = {name for name in MODULES if "claude_runner" in imported_names(name)}
    assert importers == {"rev_runner"}


def source_of(module: str) -> str:
    """Return a module's text."""
    return (ROOT / f"{module}.py").read_text(encoding="utf-8")


def without_docstrings(tree: ast.Module) -> ast.Module:
    """Return the tree without the texts that are for readers alone."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(
            node
        ):
            node.body[0] = ast.Pass()
    return tree


def is_installed_package(name: str) -> bool:
    """Whether a name is neither ours nor the standard library's."""
    spec = importlib.util.find_spec(name)
    return spec is not None and "site-packages" in (spec.origin or "")


@pytest.mark.parametrize("module", MODULES)
def test_only_two_packages_are_needed(module: str) -> None:
    """The runner uses requests (with what it brings) and python-dotenv, each in one place."""
    foreign = {name for name in imported_names(module) if is_installed_package(name)}

    assert foreign <= MAY_USE.get(module, set())


# What a reader of the gateway's imports sees of the runner.
GATEWAY_MAY_IMPORT = {"redact", "runner_config"}
GATEWAY_PACKAGES = {*PACKAGES, "requests"}  # the demo is a client


def test_the_gateways_packages_are_the_same_everywhere() -> None:
    """In the list that pip gets, in what the launcher looks for, and in what the shim does."""
    lines = (ROOT / "requirements-gateway.txt").read_text("utf-8").splitlines()
    listed = [line.partition(">=")[0].lower() for line in lines if line[0] not in "#-"]
    shim = (ROOT / "wrapper" / "claude-runner").read_text("utf-8")

    assert listed == list(PACKAGES)
    assert f'cr_modules="$cr_modules {" ".join(PACKAGES)}"' in shim


@pytest.mark.parametrize("module", MODULES)
def test_the_runner_does_without_the_gateway(module: str) -> None:
    """Its files can be copied without `gateway/`, and start it only as a process of its own."""
    assert "gateway" not in imported_names(module)


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "gateway").glob("*.py")))
def test_the_gateway_uses_little_of_the_runner(name: str) -> None:
    """The redactor and how settings are read; and the packages that it names."""
    names = imported_names(f"gateway/{name}")
    foreign = {each for each in names if is_installed_package(each)}

    assert names & {path.stem for path in ROOT.glob("*.py")} <= GATEWAY_MAY_IMPORT
    assert foreign <= GATEWAY_PACKAGES
    assert not names & {"testing", "tests"}


def test_every_module_has_a_docstring_that_says_what_it_is_for() -> None:
    """A reader finds the room for every line by the modules' first sentences."""
    gateway = (f"gateway/{path.stem}" for path in (ROOT / "gateway").glob("*.py"))
    for module in (*MODULES, *gateway):
        docstring = ast.get_docstring(ast.parse(Path(ROOT, f"{module}.py").read_text("utf-8")))
        assert docstring is not None
        assert len(docstring.splitlines()[0]) < 100
