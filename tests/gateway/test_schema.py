"""The served OpenAPI document against the gateway that serves it, by generated requests.

schemathesis runs as a program of its own; this starts it, bounded, and looks at what came of it.
"""

from __future__ import annotations

import json
import os
import random
import re
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
MAX_EXAMPLES = 2
# What every answer has to keep to, and nothing about which data is refused: the wire refuses with
# 500, and the page's API is lenient with what it does not use.
CHECKS = "status_code_conformance,content_type_conformance,response_schema_conformance"
# One method that an address does not have stands for all of them.
SETTINGS = '[phases.coverage]\nunexpected-methods = ["PATCH"]\n'
# A stream has no end, so it has tests of its own.
STREAMS = r"/stream$"
WIRE = r"^/api/ingest/|/commands(/|$)|^/api/offers(/take)?$"


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[EmbeddedGateway]:
    """A gateway of its own: it gets thousands of runs and commands."""
    with EmbeddedGateway(tmp_path) as gateway:
        yield gateway


def test_every_answer_is_described(gateway: EmbeddedGateway, tmp_path: Path) -> None:
    """Whatever comes, signed rightly where it must be, every answer is one that the document
    describes. The page's API never answers 500, which is how the protocol refuses content.
    """
    folder = tmp_path
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
    (folder / "schemathesis.toml").write_text(SETTINGS)
    seed = random.SystemRandom().randrange(2**32)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "run", str(file)),
            *("--url", f"http://127.0.0.1:{gateway.port}", "--seed", str(seed)),
            *("--max-examples", str(MAX_EXAMPLES), "--request-timeout", "60"),
            *("--phases", "examples,coverage,fuzzing", "--suppress-health-check", "all"),
            *("--warnings", "off", "--exclude-path-regex", STREAMS, "--checks", CHECKS),
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
    answers = [line.split() for line in (folder / "answers").read_text().splitlines()]
    assert not [
        answer for answer in answers if answer[1][0] == "5" and not re.search(WIRE, answer[2])
    ], done.stdout
    # Some of what was sent was right: what reads is, whichever requests were made up.
    assert any(answer[:2] == ["GET", "200"] for answer in answers)
