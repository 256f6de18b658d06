"""Every check and every reply has a documented meaning, and every refusal names its check."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

from docgen.replies_page import all_replies, replies_page
from gatepost.core.delivery_meanings import DELIVERY
from gatepost.core.meanings import CHECKS, Meaning
from gatepost.core.reply_meanings import REPLIES
from testbed.installation import GATEPOST

ROOT = Path(__file__).resolve().parent.parent.parent
SERVICES = ROOT / "services/gatepost"
# Where statuses of deliveries come from; the edge's own replies have their checks.
DELIVERING = ("relay", "router", "mailbox", "work", "backends")
DELIVERING_CORE = ("routing.py", "aftermath.py", "dsn.py")
STATUS = re.compile(r"[45]\.[0-9]\.[0-9]{1,3}")
SECONDS = 60


def reply_calls() -> list[tuple[str, list[object]]]:
    """Each call of Reply(...) in the sources, with its arguments as far as they are written out."""
    found = []
    for path in SERVICES.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Reply":
                arguments = [one.value if isinstance(one, ast.Constant) else None for one in node.args]
                found.append((f"{path.name}:{node.lineno}", arguments))
    return found


def statuses() -> set[str]:
    files = [file for folder in DELIVERING for file in (SERVICES / folder).rglob("*.py")]
    files += [SERVICES / "core" / name for name in DELIVERING_CORE]
    found: set[str] = set()
    for path in files:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and STATUS.fullmatch(node.value):
                found.add(node.value)
    return found


@pytest.mark.requirement("S3-20")
def test_every_check_and_every_reply_has_a_meaning() -> None:
    """Fails without a documented meaning for a check, for a reply, or for a status of a delivery."""
    replies = all_replies()
    assert len(replies) > 50
    assert {reply.check for reply in replies.values() if not reply.positive} - set(CHECKS) == set()
    assert set(replies) - set(REPLIES) == set(), "core/reply_meanings.py does not tell when they are given"
    assert statuses() - set(DELIVERY) == set()
    assert len(statuses()) > 10


def test_replies_that_are_made_in_a_function_have_a_known_check() -> None:
    """Reply(code, enhanced, text, check): a fourth argument that is written out is a check of the table."""
    checks = {arguments[3] for _, arguments in reply_calls() if len(arguments) > 3 and arguments[3] is not None}
    assert checks - {""} - set(CHECKS) == set()
    assert "address" in checks


def test_nothing_is_explained_that_does_not_exist() -> None:
    replies = all_replies()
    assert set(REPLIES) <= set(replies)
    used = {reply.check for reply in replies.values()}
    used |= {arguments[3] for _, arguments in reply_calls() if len(arguments) > 3}
    assert set(CHECKS) <= used


@pytest.mark.parametrize("name", sorted({**CHECKS, **DELIVERY}))
def test_a_meaning_says_something_to_each(name: str) -> None:
    meaning: Meaning = {**CHECKS, **DELIVERY}[name]
    for text in (meaning.cause, meaning.sender, meaning.administrator):
        assert text.endswith((".", "?"))
        assert "|" not in text


def test_the_page_has_them_all() -> None:
    page = replies_page()
    assert (ROOT / "docs/replies.md").read_text("utf-8") == page
    for check in CHECKS:
        assert f"## `{check}`\n" in page
    for reply in all_replies().values():
        assert reply.text in page


def test_the_command_tells_a_meaning() -> None:
    def ask(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [GATEPOST, "meaning", *words], capture_output=True, text=True, timeout=SECONDS, check=False
        )

    assert CHECKS["relay"].administrator in ask("(relay)").stdout
    assert DELIVERY["4.4.1"].cause in ask("4.4.1").stdout
    assert '"early-talker"' in ask("--output", "json").stdout
    unknown = ask("nonsense")
    assert (unknown.returncode, "no check" in unknown.stderr) == (1, True)
