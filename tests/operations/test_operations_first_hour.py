"""Every command of the first hour works as written, and the Japanese page has the same ones."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest
import yaml

from gatepost.core.manifest.settings import Settings
from testbed.installation import GATEPOST, Member

# Whole processes of ours: seconds each.
pytestmark = [pytest.mark.servers, pytest.mark.lengthy]

ROOT = Path(__file__).resolve().parent.parent.parent
PAGES = {"en": ROOT / "docs/first-hour.md", "ja": ROOT / "docs/ja/first-hour.md"}
SECONDS = 60
BLOCK = re.compile(r"(?:<!-- (run[^>]*) -->\n)?```(\w+)\n(.*?)```", re.DOTALL)


class Block(NamedTuple):
    mark: str
    kind: str
    text: str


def blocks(page: str) -> list[Block]:
    return [Block(*found.groups(default="")) for found in BLOCK.finditer(PAGES[page].read_text("utf-8"))]


def commands(text: str) -> str:
    """A console block as a script: `$ ` begins a command, what follows belongs to it."""
    return "\n".join(line.removeprefix("$ ") for line in text.splitlines())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkout as far as the page needs it, its quickstart on ports of its own."""
    (tmp_path / "examples").mkdir()
    shutil.copytree(ROOT / "examples/quickstart", tmp_path / "examples/quickstart")
    (tmp_path / ".venv").symlink_to(Path(sys.executable).parent.parent)
    return tmp_path


def start(folder: Path) -> Member:
    document = yaml.safe_load((folder / "examples/quickstart/gatepost.yaml").read_text())
    member = Member("run", "first-hour", folder / "member", document)
    (folder / "examples/quickstart/gatepost.yaml").write_text((member.config / "gatepost.yaml").read_text())
    shutil.rmtree(member.config)
    member.config.symlink_to(folder / "examples/quickstart")
    (folder / "var").symlink_to(member.state)
    subprocess.run(
        [GATEPOST, "quickstart", "--state", member.state], check=True, timeout=SECONDS, capture_output=True
    )
    return member


@pytest.mark.requirement("S4-77")
def test_every_command_of_the_page_works(folder: Path) -> None:
    """Fails without first message, own domain, refusal, queue, trace, evidence and watching, as written."""
    outputs = []
    with start(folder) as own:
        for block in (block for block in blocks("en") if block.mark):
            script = commands(block.text)
            for port, mine in (("2525", own.mx), ("2587", own.submission), ("8025", own.admin)):
                script = script.replace(f"127.0.0.1:{port}", f"127.0.0.1:{mine}")
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", script],
                cwd=folder,
                capture_output=True,
                text=True,
                timeout=SECONDS,
                check=False,
            )
            said = done.stdout + done.stderr
            assert (done.returncode != 0) is ("refused" in block.mark), f"{script}\n{said}"
            outputs.append(said)
    everything = "\n".join(outputs)
    for wanted in (
        "Subject: hello",
        "4 objects, 0 refused",
        "550 5.1.1 <nobody@example.test>: user unknown (recipient)",
        "in the mailbox",
        "The queue is empty.",
        "evidence/MANIFEST.json",
        "gatepost_log_available 1.0",
    ):
        assert wanted in everything
    assert len(outputs) == 8


@pytest.mark.requirement("S4-77")
def test_the_pages_have_the_same_commands() -> None:
    """Fails without the Japanese page having each command, file and heading of the English one."""
    assert blocks("ja") == blocks("en")
    headings = {
        page: [line[:5] for line in file.read_text("utf-8").splitlines() if line.startswith("## ")]
        for page, file in PAGES.items()
    }
    assert headings["ja"] == headings["en"]
    japanese = BLOCK.sub("", PAGES["ja"].read_text("utf-8"))
    assert len(re.findall(r"[\u3040-\u30ff\u4e00-\u9fff]", japanese)) > 800


def test_the_ldap_settings_of_the_page_are_valid() -> None:
    (block,) = [block for block in blocks("en") if block.kind == "yaml"]
    settings = msgspec.convert(yaml.safe_load(block.text), Settings)
    assert settings.directories["users"].ldap is not None


def test_links_of_the_pages_lead_somewhere() -> None:
    for file in (*PAGES.values(), ROOT / "docs/operations.md", ROOT / "SECURITY.md"):
        for target in re.findall(r"\]\(([^)#:]+)\)", file.read_text("utf-8")):
            assert (file.parent / target).exists(), f"{file.name}: {target}"
