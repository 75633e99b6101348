"""A run that is sent from the page to a folder that waits, with the real Claude Code."""

from __future__ import annotations

from pathlib import Path

from testing.gateways.embedded_gateway import EmbeddedGateway
from testing.programs.claude_code import make_home
from testing.programs.model_api import ModelApi
from testing.programs.waiter import Waiting
from testing.waiting import eventually

# The real program is slow to start on a busy machine.
ENDS_WITHIN_S = 60.0


def test_a_run_from_the_page(claude: Path, clean_environment: None, tmp_path: Path) -> None:
    """It is started in the folder, with the prompt as it was written, and says what came of it."""
    with ModelApi() as api, EmbeddedGateway(tmp_path / "gateway") as gateway:
        waiting = Waiting(gateway, tmp_path)
        waiting.launch.env.update(make_home(tmp_path / "claude").environment(api))
        waiting.run_program([str(claude)])
        with waiting.start() as process:
            prompt = "model: run pwd\nmodel: say Done — “as asked”."
            run_id = waiting.send(waiting.pair(process), prompt, title="From afar")

            def has_ended() -> None:
                run = gateway.api("GET", f"/api/runs/{run_id}").json()
                assert (run["status"], run["title"]) == ("done", "From afar"), process.stderr

            eventually(has_ended, ENDS_WITHIN_S)

        events = gateway.api("GET", f"/api/runs/{run_id}/events?after=0").json()["events"]
        text = "".join(each["data"] for each in events if each["type"] == "stdout")
        assert text.startswith("◆ Claude Code 2.")
        assert "● Bash: pwd\n" in text
        assert "Done — “as asked”." in text
        assert set(api.prompts) == {prompt}
