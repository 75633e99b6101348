"""The questions of a run that are open: how each is shown, and what a valid answer is.

What is approved is what was shown and what runs: an answer has to carry the digest of the question
as it was shown, or a code that belongs to it alone; what was not shown whole is not allowed; the
child gets back its own input, unchanged. The first valid answer wins, and there is no second.

Passive. Thread: one at a time; its owner is `runner.conversation`.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from redact import CUT_BY_GATEWAY

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kinds.dialogue import Choice, Question, Scope
    from redact import RedactedText, Rules

# A longer question is not shown whole, so it can only be denied.
MAX_SHOWN_CHARS: Final = 65_536
# So much of each field of a longer one is shown.
_EXCERPT_CHARS: Final = 4_000
# The same for a gateway without cards, where it is shown as lines of text.
MAX_LINE_CHARS: Final = 4_000
_MAX_LABEL_CHARS: Final = 200
# What the diff of an edit shows of its input.
_TOLD_BY_DIFF: Final = ("old_string", "new_string", "edits")
_MAX_WORDS_CHARS: Final = 10_000
_MAX_OPEN: Final = 100

# Letters and digits that are not mistaken for one another.
_LETTERS: Final = "ACDEFHJKMNPQRTUVWXY"
_DIGITS: Final = "2346789"
_CODE_LENGTH: Final = 5
# A code has both letters and digits, so that no word and no number passes for one.
_WITH_CODE: Final = re.compile(
    r"\s*(allow|deny|answer)\s+((?=[a-z]*[0-9])(?=[0-9]*[a-z])[a-z0-9]{4,6})(?![a-z0-9])\s*:?\s*(.*)",
    re.IGNORECASE | re.DOTALL,
)
_NUMBERED: Final = re.compile(r"(?:^|;)\s*([0-9]{1,2})\s*:\s*")
# Characters that Unicode calls printable, and that no screen shows.
_UNSEEN: Final = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u2800\u3164\ufe00-\ufe0f\uffa0"
    "\U000e0100-\U000e01ef]"
)


class Refusal(Exception):  # noqa: N818 - it is what the operator is told
    """An answer, a message or a wish that does nothing; the text says why."""


class Answer(NamedTuple):
    """What a person decided: `decision` is allow or deny. `words` are to the choices, in order."""

    decision: str
    message: str = ""
    words: tuple[str, ...] = ()
    scope: Scope | None = None

    @property
    def shown_decision(self) -> str:
        """What the marker `answered` calls it."""
        return "answers" if self.decision == "allow" and self.words else self.decision


class OpenQuestion(NamedTuple):
    """A question that was shown. `id`, `code` and `digest` are the runner's; see docs/protocol.md.

    `shown` has the fields of the marker `asked`, redacted, with nothing invisible in them, and is
    `size_chars` long if it is whole. `scopes` are those that were offered, by their ids.
    """

    question: Question
    id: str
    code: str
    digest: str
    shown: dict[str, Any]
    size_chars: int
    scopes: dict[str, Scope]
    due_at: float | None

    @property
    def is_whole(self) -> bool:
        """Whether all of it was shown at the keyboard, and on a card."""
        return self.size_chars <= MAX_SHOWN_CHARS


class Questions:
    """The open questions.

    `may_switch_to` are the modes that an answer may bring. The operator may allow what is at most
    `max_chars` long: what is longer is not shown whole there.
    """

    def __init__(self, rules: Rules, may_switch_to: Sequence[str], max_chars: int) -> None:
        self._rules = rules
        self._may_switch_to = may_switch_to
        self._max_chars = max_chars
        self._key = secrets.token_bytes(32)
        self._open: dict[str, OpenQuestion] = {}  # by its id
        self._answered_by: dict[str, str] = {}  # by id and code
        self._count = 0

    def __iter__(self) -> Iterator[OpenQuestion]:
        return iter(list(self._open.values()))

    def __len__(self) -> int:
        return len(self._open)

    def open(self, question: Question, due_at: float | None) -> OpenQuestion | None:
        """Take a question; None if it is open already. Raises Refusal if too many are."""
        if self.find(question.key) is not None:
            return None
        if len(self._open) >= _MAX_OPEN:
            raise Refusal("Too many questions are open. Ask again later.")
        self._count += 1
        question_id = f"q{self._count}"
        scopes = {
            f"s{number}": scope
            for number, scope in enumerate(question.scopes, start=1)
            if self._may_offer(scope)
        }
        shown, size_chars = self._show(question, scopes)
        opened = OpenQuestion(
            question,
            question_id,
            self._new_code(),
            self._digest(question_id, question, scopes),
            shown,
            size_chars,
            scopes,
            due_at,
        )
        self._open[question_id] = opened
        return opened

    def find(self, key: str) -> OpenQuestion | None:
        """Return the open question that the child calls `key`."""
        return next((each for each in self._open.values() if each.question.key == key), None)

    def close(self, opened: OpenQuestion, by: str) -> None:
        """Take no answer to it any more. `by` is who answered, or what became of it."""
        del self._open[opened.id]
        self._answered_by[opened.id] = self._answered_by[opened.code] = by

    # --- what a person says ----------------------------------------------------------------------

    def read_answer(self, text: str) -> tuple[OpenQuestion, Answer]:
        """Read the JSON of an answer. Raises Refusal."""
        try:
            fields = json.loads(text)
        except (ValueError, RecursionError):
            fields = None
        if not isinstance(fields, dict):
            raise Refusal("the answer is not JSON")
        opened = self._find_open(fields.get("id"))
        if fields.get("digest") != opened.digest:
            raise Refusal("the question has changed")
        message = fields.get("message", "")
        scope_id = fields.get("scope")
        if scope_id is not None and scope_id not in list(opened.scopes):
            raise Refusal("this scope was not offered")
        scope = None if scope_id is None else opened.scopes[scope_id]
        decision = fields.get("decision")
        if decision not in ("allow", "deny") or not isinstance(message, str):
            raise Refusal("the answer says neither allow nor deny")
        words: tuple[str, ...] = ()
        if decision == "allow" and opened.question.choices:
            words = _pick_all(opened.question.choices, fields.get("answers"))
        return opened, self._check(opened, Answer(decision, message, words, scope))

    def read_line(self, text: str) -> tuple[OpenQuestion, Answer] | None:
        """Read `allow CODE` and the like; None for a text that is none. Raises Refusal."""
        match = _WITH_CODE.fullmatch(text)
        if match is None:
            return None
        verb, code, rest = match[1].lower(), match[2].upper(), match[3].strip()
        opened = next((each for each in self._open.values() if each.code == code), None)
        if opened is None:
            opened = self._find_open(code)
        if verb == "deny":
            return opened, self._check(opened, Answer("deny", rest))
        choices = opened.question.choices
        if verb == "answer" or (choices and rest):
            if not choices:
                raise Refusal(f"it has no options to choose; write allow {code} or deny {code}")
            words = _pick_all(choices, _read_picks(rest, choices))
            return opened, self._check(opened, Answer("allow", words=words))
        if rest.lower() not in ("", "run"):
            raise Refusal(f"write allow {code}, or allow {code} run")
        scope = next(iter(opened.scopes.values()), None) if rest else None
        if rest and scope is None:
            raise Refusal(f"this can be allowed once only; write allow {code}")
        return opened, self._check(opened, Answer("allow", scope=scope))

    def _find_open(self, name: Any) -> OpenQuestion:
        """Return the open question of this id. Raises Refusal, also for a malformed id."""
        opened = self._open.get(name) if isinstance(name, str) else None
        if opened is None:
            by = self._answered_by.get(name) if isinstance(name, str) else None
            raise Refusal("no such question" if by is None else f"already {by}")
        return opened

    def _check(self, opened: OpenQuestion, answer: Answer) -> Answer:
        """Return the operator's answer if it may be given. Raises Refusal."""
        if len(answer.message) > _MAX_WORDS_CHARS:
            raise Refusal("the message is too long")
        if answer.decision == "allow" and opened.size_chars > self._max_chars:
            raise Refusal("it is too long to be shown whole, so it can only be denied")
        if answer.decision == "allow" and opened.question.choices and not answer.words:
            raise Refusal(f"it needs an answer; write answer {opened.code} and the numbers")
        return answer

    # --- how it is shown -------------------------------------------------------------------------

    def _may_offer(self, scope: Scope) -> bool:
        """Whether a scope can be shown as it is, and does not go too far."""
        is_seen = visible(self._rules.redact(scope.label)) == scope.label
        is_within = scope.mode is None or scope.mode in self._may_switch_to
        return is_seen and is_within and len(scope.label) <= _MAX_LABEL_CHARS

    def _show(self, question: Question, scopes: dict[str, Scope]) -> tuple[dict[str, Any], int]:
        """Return the fields that show it, and how long they are if all of it is in them."""
        raw: dict[str, Any] = {
            "tool": question.tool,
            "title": question.title,
            "reason": question.reason,
            "agent": question.agent,
            "diff": question.diff,
            "plan": question.plan,
            "input": question.given,
            "questions": [
                {
                    "question": choice.text,
                    "header": choice.header,
                    "multiSelect": choice.is_multiple,
                    "options": [
                        {"label": option.label, "description": option.description}
                        for option in choice.options
                    ],
                }
                for choice in question.choices
            ],
        }
        redacted = json.loads(self._rules.redact_json(raw))
        hidden = redacted != json.loads(json.dumps(raw))
        size_chars = len(json.dumps(redacted, ensure_ascii=False))
        if size_chars <= MAX_SHOWN_CHARS:
            shown = _visible_all(redacted)
            size_chars = len(json.dumps(shown, ensure_ascii=False))
        is_whole = size_chars <= MAX_SHOWN_CHARS
        if not is_whole:
            del redacted["questions"]
            shown = {name: visible(_excerpt(value)) for name, value in redacted.items()}
            shown["inputChars"] = len(json.dumps(question.given, ensure_ascii=False))
        shown = {name: value for name, value in shown.items() if value not in ("", [], {})}
        return {
            "kind": question.kind,
            **shown,
            "hidden": hidden,
            "whole": is_whole,
            "scopes": [{"id": name, "label": scope.label} for name, scope in scopes.items()],
            "defaultsToNo": question.defaults_to_no,
        }, size_chars

    def _new_code(self) -> str:
        """Return a code that no other question of this run has had."""
        while True:
            code = "".join(secrets.choice(_LETTERS + _DIGITS) for _ in range(_CODE_LENGTH))
            has_both = not (code.isalpha() or code.isdigit())
            if (
                has_both
                and code not in self._answered_by
                and not any(code == each.code for each in self._open.values())
            ):
                return code

    def _digest(self, question_id: str, question: Question, scopes: dict[str, Scope]) -> str:
        """Return a digest of the question as it was asked. Without the key it tells nothing."""
        asked: list[Any] = [question_id, question.tool, question.given]
        asked += [[name, dict(scope.grant)] for name, scope in scopes.items()]
        text = json.dumps(asked, sort_keys=True)
        return hmac.new(self._key, text.encode(), hashlib.sha256).hexdigest()


def marker_fields(opened: OpenQuestion) -> dict[str, Any]:
    """Return the fields of the marker `asked`."""
    named = {"event": "asked", "id": opened.id, "code": opened.code, "digest": opened.digest}
    if opened.due_at is None:
        return {**named, **opened.shown}
    until = round(time.time() + opened.due_at - time.monotonic())
    return {**named, **opened.shown, "until": until}


def one_line(opened: OpenQuestion, rules: Rules, *, is_remote: bool) -> RedactedText:
    """Return the question for a gateway without cards, and how to answer it if that is possible."""
    text = f"{opened.code}: {describe(opened)}\n{_told(opened)}"
    told = [text]
    if CUT_BY_GATEWAY.search(text):
        told.append("(the gateway may have hidden a part of it)")
    if is_remote:
        told.append(f"To answer, type: {' | '.join(_ways(opened))}")
    return rules.redact("\n".join(told))


def at_keyboard(opened: OpenQuestion, number: int) -> tuple[str, str]:
    """Return the question for the person at the keyboard, and what can be typed.

    Of several choices it is the one of this number.
    """
    question = opened.question
    if question.choices:
        choice = question.choices[number]
        count = f" ({number + 1} of {len(question.choices)})" if len(question.choices) > 1 else ""
        lines = [f"? Claude Code asks{count}: {visible(choice.text)}"]
        lines += [
            f"    {each}. {visible(option.label)}"
            + (f": {visible(option.description)}" if option.description else "")
            for each, option in enumerate(choice.options, start=1)
        ]
        several = ", several as 1,2" if choice.is_multiple else ""
        told = "\n".join(_continued(line, "       ") for line in lines)
        return told, f"  type a number{several}, or your own words"
    told = f"? {describe(opened)}\n{_told(opened)}".replace("\n", "\n    ")
    ways = ["y = allow once"] if opened.is_whole else ["it is too long to be shown whole"]
    if opened.is_whole and opened.scopes:
        label = next(iter(opened.scopes.values())).label
        ways.append(f"a = and for this run: {label}")
    return told, f"  {'; '.join([*ways, 'n = deny', 'or a sentence to deny with'])}"


def describe(opened: OpenQuestion) -> str:
    """Return the question in a few words, as it was shown."""
    shown = opened.shown
    who = "a subagent" if shown.get("agent") else "Claude Code"
    if opened.question.kind == "plan":
        return f"{who} has a plan and asks to begin"
    if opened.question.kind == "question":
        return f"{who} asks"
    return f"{who} asks to use {' '.join(shown.get('tool', 'a tool').split())}"


def _told(opened: OpenQuestion) -> str:
    """Return the whole question as it was shown, as text."""
    shown, kind = opened.shown, opened.question.kind
    given = shown.get("input", {})
    if kind == "question":
        lines = list(_told_choices(shown))
    elif not isinstance(given, dict):
        lines = [given]  # its beginning
    elif kind == "plan":
        plan = shown.get("plan") or "(Claude Code gave no text of the plan)"
        lines = [plan, *_told_fields(given, ("plan", "planFilePath"))]
    elif shown.get("diff"):
        lines = [*_told_fields(given, _TOLD_BY_DIFF), shown["diff"]]
    else:
        lines = list(_told_fields(given, ()))
    lines += [_continued(f"why it asks: {shown['reason']}")] if shown.get("reason") else []
    lines += ["(a secret in it is hidden)"] if shown["hidden"] else []
    return "\n".join(lines)


def _told_choices(shown: dict[str, Any]) -> Iterator[str]:
    for number, asked in enumerate(shown.get("questions", ()), start=1):
        yield _continued(f"{number}: {asked['question']}")
        for place, option in enumerate(asked["options"], start=1):
            text = f"   {place}. {option['label']}: {option['description']}".rstrip(": ")
            yield _continued(text, "      ")


def _told_fields(given: dict[str, Any], apart: Sequence[str]) -> Iterator[str]:
    for name, value in given.items():
        if name not in apart:
            shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            yield _continued(f"{name}: {shown}")


def _continued(text: str, indent: str = "  ") -> str:
    """Return a text whose further lines are indented: none passes for something else."""
    return text.replace("\n", f"\n{indent}")


def _ways(opened: OpenQuestion) -> list[str]:
    code = opened.code
    if opened.question.choices:
        first = "2: 1,3" if len(opened.question.choices) > 1 else "2"
        example = f"1: 2; {first}" if len(opened.question.choices) > 1 else first
        return [f"answer {code} {example}", f"answer {code} =own words", f"deny {code}: why"]
    if opened.size_chars > MAX_LINE_CHARS:
        return [f"deny {code}: why (it is too long to be shown whole, so it cannot be allowed)"]
    labels = [scope.label for scope in opened.scopes.values()][:1]
    run = [f"allow {code} run ({label})" for label in labels]
    return [f"allow {code}", *run, f"deny {code}: why"]


# --- choices --------------------------------------------------------------------------------------


def pick(choice: Choice, line: str) -> str:
    """Return what a line typed at the keyboard answers to a choice. Raises Refusal."""
    numbers = line.replace(" ", "")
    if re.fullmatch(r"[0-9]{1,3}(?:,[0-9]{1,3})*", numbers):
        return _pick(choice, {"options": [int(each) - 1 for each in numbers.split(",")]})
    return _pick(choice, {"text": line})


def _read_picks(text: str, choices: Sequence[Choice]) -> list[Any]:
    """Read `1: 2,3; 2: =own words`; for a single question the number may be missing."""
    if not _NUMBERED.match(text):
        text = f"1: {text}"
    parts = _NUMBERED.split(text)[1:]
    picks: list[Any] = [None] * len(choices)
    for number, told in zip(parts[::2], parts[1::2]):
        place = int(number) - 1
        if not 0 <= place < len(choices):
            raise Refusal(f"there is no question {number}")
        told = told.strip()
        if told.startswith("="):
            picks[place] = {"text": told[1:].strip()}
        elif re.fullmatch(r"[0-9]{1,3}(?:\s*,\s*[0-9]{1,3})*", told):
            picks[place] = {"options": [int(each) - 1 for each in told.split(",")]}
        else:
            raise Refusal("write the numbers of options, or = and your own words")
    return picks


def _pick_all(choices: Sequence[Choice], picks: Any) -> tuple[str, ...]:
    if not isinstance(picks, list) or len(picks) != len(choices):
        raise Refusal("each question needs an answer")
    return tuple(_pick(choice, picked) for choice, picked in zip(choices, picks))


def _pick(choice: Choice, picked: Any) -> str:
    """Return the words of one answer: those of the child, or a person's own."""
    if isinstance(picked, dict) and isinstance(picked.get("text"), str) and picked["text"].strip():
        if len(picked["text"]) > _MAX_WORDS_CHARS:
            raise Refusal("the answer is too long")
        return str(picked["text"]).strip()
    numbers = picked.get("options") if isinstance(picked, dict) else None
    if not isinstance(numbers, list) or not numbers:
        raise Refusal("each question needs an answer")
    for number in numbers:
        if isinstance(number, bool) or not isinstance(number, int):
            raise Refusal("an option is chosen by its number")
        if not 0 <= number < len(choice.options):
            raise Refusal(f"there is no option {number + 1}")
    if len(numbers) > 1 and not choice.is_multiple:
        raise Refusal("only one option can be chosen here")
    return ", ".join(choice.options[number].label for number in dict.fromkeys(numbers))


# --- what the user sees ---------------------------------------------------------------------------


def visible(text: str) -> str:
    """Return a text in which nothing is invisible or changes its direction: such is escaped."""
    return "".join(
        c
        if c in "\n\t" or (c.isprintable() and not _UNSEEN.match(c))
        else c.encode("unicode_escape").decode()
        for c in text
    )


def _visible_all(value: Any) -> Any:
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, dict):
        return {visible(name): _visible_all(each) for name, each in value.items()}
    return [_visible_all(each) for each in value] if isinstance(value, list) else value


def _excerpt(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text[:_EXCERPT_CHARS]
