"""What Claude Code may be doing when it is stopped: how it gets there, and how that is seen.

One table for the checks, which stop it once in each state, and for the soak, which goes on at it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Callable, Final, Union

from testing.programs.claude_code import EVERYTHING, KEY, TRUST
from testing.programs.runner import Launch, RunnerProcess
from testing.programs.terminal import Terminal
from tests.claude.scene import Scene, wait_for_file

# Where the runner runs: in front of a person, or without one.
Stage = Union[Terminal, RunnerProcess]
Reached = Callable[[Scene, Stage], object]

# What stands before the person's own words.
PROMPT_SIGN: Final = "\u276f"
TOOL: Final = f"model: run {wait_for_file('never')}"
# Needs an approval that nobody gives.
TOUCH: Final = "model: run touch made"
MANUAL: Final = ("--permission-mode", "manual")
_REACHED_WITHIN_S: Final = 30.0


def shows(*signs: str) -> Reached:
    """Return how to wait for these words on the screen, one after the other."""

    def is_shown(_: Scene, stage: Stage) -> None:
        assert isinstance(stage, Terminal)
        for sign in signs:
            stage.expect(sign.encode(), _REACHED_WITHIN_S)

    return is_shown


def is_asked(scene: Scene, _: Stage) -> None:
    """Wait until the model has got the prompt."""
    scene.api.wait_for(lambda: scene.api.prompts, _REACHED_WITHIN_S)


def is_streaming(scene: Scene, _: Stage) -> None:
    """Wait until a part of the answer has been sent."""
    scene.api.wait_for(lambda: scene.api.delta_count > 3, _REACHED_WITHIN_S)


def is_running_a_tool(scene: Scene, _: Stage) -> None:
    """Wait until a tool runs."""
    scene.tool_pid()


def is_starting(scene: Scene, stage: Stage) -> None:
    """Wait until the program has been executed, and for nothing that it does."""
    scene.wait_for_claude(stage.pid)


@dataclass(frozen=True)
class State:
    """One state. `accepted` are the first dialogs that have been answered before."""

    name: str
    prompt: str | None
    reached: Reached
    is_session: bool = True
    accepted: frozenset[str] = EVERYTHING
    arguments: tuple[str, ...] = MANUAL
    env: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.name}, {'session' if self.is_session else 'print'}"

    @contextlib.contextmanager
    def enter(self, scene: Scene) -> Iterator[tuple[Launch, Stage]]:
        """Start a run, and wait until Claude Code is in this state.

        In the end the terminal has to be as it was, and nothing approved that was asked for.
        """
        scene.make_home(self.accepted)
        options = ["--mode", "interactive"] if self.is_session else []
        launch = scene.plan(self.prompt, *self.arguments, options=options, env=self.env)
        stage: Stage = scene.terminal(launch) if self.is_session else RunnerProcess(launch)
        with stage:
            self.reached(scene, stage)
            yield launch, stage
            if isinstance(stage, Terminal):
                assert stage.attributes() == stage.first_attributes
        assert not (scene.home.work / "made").exists(), "its end has approved a tool"


def _print(name: str, prompt: str, reached: Reached) -> State:
    return State(name, prompt, reached, is_session=False, arguments=("--allowedTools=Bash",))


PRINT: Final = (
    _print("start-up", "model: slow 60", is_starting),
    _print("streaming", "model: slow 60", is_streaming),
    _print("waiting for the API", "model: hang", is_asked),
    _print("waiting to ask again", "model: fail 500", is_asked),
    _print("tool running", TOOL, is_running_a_tool),
)
SESSIONS: Final = (
    State("start-up", None, is_starting),
    State("idle", None, shows(PROMPT_SIGN)),
    State("streaming", "model: slow 60", is_streaming),
    State("waiting for the API", "model: hang", is_asked),
    # How it counts its attempts while it waits.
    State("waiting to ask again", "model: fail 500", shows("attempt")),
    State("tool running", TOOL, is_running_a_tool, arguments=(*MANUAL, "--allowedTools=Bash")),
    State("onboarding", None, shows("connectivity"), accepted=frozenset()),
    State("trust dialog", None, shows("trust"), accepted=EVERYTHING - {TRUST}),
    State("API key dialog", None, shows("recommended"), accepted=EVERYTHING - {KEY}),
    State("permission dialog", TOUCH, shows("proceed")),
    State("question dialog", "model: ask", shows("colour?")),
    State(
        "bypass dialog",
        TOUCH,
        shows("Bypass", "exit"),
        arguments=("--dangerously-skip-permissions",),
        env={"IS_SANDBOX": "1"},  # without it Claude Code refuses root
    ),
)


def stop(scene: Scene, state: State, pause_s: float = 0.0) -> float:
    """Stop it in this state as the operator does; return the seconds until all was gone.

    Both ways of ending it wait `pause_s` longer in the state.
    """
    with state.enter(scene) as (launch, stage):
        time.sleep(pause_s)
        return scene.stop_and_check(launch, stage.pid, stage.wait)


def kill_runner(scene: Scene, state: State, pause_s: float = 0.0) -> float:
    """Kill the runner in this state; return the seconds until all that it started was gone."""
    with state.enter(scene) as (_, stage):
        time.sleep(pause_s)
        begun_at = time.monotonic()
        os.kill(stage.pid, signal.SIGKILL)
        scene.assert_nothing_left()
        took_s = time.monotonic() - begun_at
        assert stage.wait() == -signal.SIGKILL
    return took_s
