"""The served OpenAPI document against the gateway that serves it, by generated requests.

schemathesis runs as a program of its own; this starts it, bounded, and looks at what came of it.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from testing.gateways.embedded_gateway import EmbeddedGateway
from testing.gateways.waiting_folder import WaitingFolder
from testing.programs.runner import ROOT

pytestmark = [
    pytest.mark.skipif(sys.version_info < (3, 11), reason="schemathesis needs Python 3.11"),
    pytest.mark.timeout(400),  # twenty seconds, and minutes on a machine with much other work
]

# Random requests for each operation, after those that the document itself suggests.
MAX_EXAMPLES = 10
# What every answer has to keep to, and nothing about which data is refused: the wire refuses with
# 500, and the page's API is lenient with what it does not use.
CHECKS = "status_code_conformance,content_type_conformance,response_schema_conformance"
# A stream has no end, so it has tests of its own.
STREAMS = r"/stream$"
WIRE = r"^/api/ingest/|/commands(/|$)|^/api/offers(/take)?$"


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[EmbeddedGateway]:
    """A gateway of its own: it gets thousands of runs and commands."""
    with EmbeddedGateway(tmp_path) as gateway:
        yield gateway


def generate(gateway: EmbeddedGateway, folder: Path, *options: str) -> None:
    """Let schemathesis run over a part of the API; what it finds fails the test."""
    run = gateway.create_run("a prompt")
    gateway.send_marker(run, {"event": "started", "commands": ["pwd"], "remoteInput": True}, 1)
    uploaded = gateway.send_artifact(run, "notes.md", b"# notes\n")
    folder_that_waits = WaitingFolder(gateway).begin(modes=["plan"], asks=True)
    facts = {
        "waiter_id": folder_that_waits.id,
        "waiter_key": folder_that_waits.key,
        "secret": gateway.secret,
        "admin_token": gateway.admin_token,
        "run_id": run.id,
        "token": run.token,
        "artifact_id": uploaded.json()["artifactId"],
        "answers": str(folder / "answers"),
    }
    document = gateway.api("GET", "/api/openapi.json").json()
    # Guessing at the token would have the login limit answer everything else.
    del document["security"], document["components"]["securitySchemes"]
    file = folder / "openapi.json"
    file.write_text(json.dumps(document))
    seed = random.SystemRandom().randrange(2**32)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "run", str(file)),
            *("--url", f"http://127.0.0.1:{gateway.port}", "--seed", str(seed)),
            *("--max-examples", str(MAX_EXAMPLES), "--request-timeout", "60"),
            *("--phases", "examples,coverage,fuzzing", "--suppress-health-check", "all"),
            *("--warnings", "off", "--exclude-path-regex", STREAMS),
            *options,
        ],
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "SCHEMATHESIS_HOOKS": "testing.gateways.api_hooks",
            "API_FACTS": json.dumps(facts),
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )

    assert done.returncode == 0, done.stdout  # the seed is in it
    assert gateway.request("GET", "/api/health").status == 200
    assert "Traceback" not in gateway.log
    assert "/api/" not in gateway.log  # how the gateway notes what it failed on, not the client
    # Some of what was sent was right: what reads is, whichever requests were made up.
    assert "GET 200" in (folder / "answers").read_text().splitlines()


def test_the_pages_api(gateway: EmbeddedGateway, tmp_path: Path) -> None:
    """Whatever comes, no 500, and every answer is one that the document describes."""
    checks = f"not_a_server_error,{CHECKS}"

    exclude = f"{STREAMS}|{WIRE}"
    generate(gateway, tmp_path, "--checks", checks, "--exclude-path-regex", exclude)


def test_the_wire(gateway: EmbeddedGateway, tmp_path: Path) -> None:
    """Signed rightly, with content of any kind; 500 is how the protocol refuses content."""
    generate(gateway, tmp_path, "--checks", CHECKS, "--include-path-regex", WIRE)
