"""Examples, units, locks and benchmark reports: what is shipped beside the program is right."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from gatepost import __version__
from gatepost.backends.config_dir import compile_directory
from gatepost.backends.settings_file import load_settings
from gatepost.core.compile.surroundings import surroundings
from gatepost.core.manifest.relay_policy import BareNewline, RequireFor, SenderMatch, TlsMode
from gatepost.core.manifest.settings import Role
from testbed.installation import GATEPOST

ROOT = Path(__file__).resolve().parent.parent.parent
EXAMPLES = sorted(path.parent for path in (ROOT / "examples").rglob("gatepost.yaml"))
SECONDS = 60
NO_STORE = {"type": "Mailbox", "store": "none"}


@pytest.mark.parametrize("folder", EXAMPLES, ids=lambda path: str(path.relative_to(ROOT / "examples")))
def test_an_example_is_accepted_without_a_warning(folder: Path) -> None:
    done = subprocess.run([GATEPOST, "check", folder], capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 refused" in done.stdout
    assert "warning" not in done.stdout


def test_there_are_the_examples_that_the_docs_name() -> None:
    names = {str(folder.relative_to(ROOT / "examples")) for folder in EXAMPLES}
    assert names >= {
        "quickstart",
        "recommended",
        "three-tier/gateway",
        "three-tier/internal-relay",
        "three-tier/mailbox-server",
    }


@pytest.mark.requirement("S1-12")
def test_the_recommended_set_is_closed_and_complete() -> None:
    """Fails without a ready configuration that relays for nobody, wants TLS and login, and logs decisions."""
    folder = ROOT / "examples/recommended"
    settings = load_settings(folder / "gatepost.yaml", None)
    compiled = compile_directory(folder, surroundings(settings, any_namespace=True))
    policies = {policy.listener: policy for policy in compiled.configuration.listeners}
    assert set(policies) == {listener.name for listener in settings.listeners}
    for listener in settings.listeners:
        policy = policies[listener.name]
        assert policy.relay_clients == ()
        assert policy.bare_newline is BareNewline.REJECT
        assert listener.tls.certificate_file
        if listener.role is Role.SUBMISSION:
            assert policy.auth_enabled
            assert policy.auth_require_tls
            assert policy.auth_require_for is RequireFor.ALL
            assert policy.auth_sender_match is SenderMatch.STRICT
            assert policy.tls_mode is TlsMode.REQUIRE
        else:
            assert not policy.auth_enabled
    (domain,) = compiled.configuration.domains
    assert {"postmaster", "abuse", "hostmaster"} <= set(domain.role_addresses)
    assert settings.telemetry.decision_log is not None
    assert settings.admin.address.startswith("127.0.0.1:")
    version = subprocess.run([GATEPOST, "--version"], capture_output=True, text=True, timeout=SECONDS, check=True)
    assert version.stdout.strip() == f"gatepost {__version__}"
    assert "## Updates" in (ROOT / "SECURITY.md").read_text()


def test_the_unit_is_one_that_systemd_takes(tmp_path: Path) -> None:
    unit = tmp_path / "gatepost.service"
    text = (ROOT / "examples/systemd/gatepost.service").read_text()
    for line in (
        "NoNewPrivileges=yes",
        "ProtectSystem=strict",
        "AmbientCapabilities=CAP_NET_BIND_SERVICE",
        "CapabilityBoundingSet=CAP_NET_BIND_SERVICE",
        "User=gatepost",
    ):
        assert line in text.splitlines()
    unit.write_text(text.replace("/opt/gatepost/bin/gatepost", str(GATEPOST)))
    verifier = shutil.which("systemd-analyze")
    if verifier is not None:  # without systemd the lines above are what can be said
        done = subprocess.run(
            [verifier, "verify", unit], capture_output=True, text=True, timeout=SECONDS, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.requirement("S4-85")
def test_dependencies_are_locked_with_hashes_and_reports_have_a_way() -> None:
    """Fails without a version and a hash for each dependency, and a page on reports, updates and hardening."""
    locks = sorted((ROOT / "requirements").glob("*.txt"))
    assert len(locks) >= 3
    for lock in locks:
        blocks = re.split(r"\n(?=[A-Za-z0-9])", lock.read_text())
        pinned = [block for block in blocks if re.match(r"[A-Za-z0-9][\w.\[\]-]*\s*==", block)]
        assert pinned
        for block in pinned:
            assert "--hash=sha256:" in block, f"{lock.name}: {block.splitlines()[0]}"
        names = [block for block in blocks if re.match(r"[A-Za-z0-9]", block)]
        assert names == pinned, f"{lock.name}: something is not pinned"
    makefile = (ROOT / "Makefile").read_text()
    assert makefile.count("--require-hashes") >= 3
    assert "\naudit:" in makefile
    security = (ROOT / "SECURITY.md").read_text()
    for title in ("## Reporting", "## Updates", "## What it depends on", "## Hardening"):
        assert title in security


@pytest.mark.requirement("S4-75")
def test_benchmarks_state_their_circumstances() -> None:
    """Fails without bandwidth, features, hardware, OS, versions, durability, replication, users and rounds."""
    text = (ROOT / "benchmarks/RESULTS.md").read_text()
    circumstances = text.split("## Circumstances", 1)[1].split("\n## ", 1)[0]
    wanted = {
        "hardware": r"\d+ cores of .+, \d+ GiB",
        "system": r"Linux \d",
        "load before": r"load average before the run [\d.]+",
        "versions": r"Python 3\.\d+.*aiokafka.*Kafka \d.*Postfix \d",
        "bandwidth": r"loopback",
        "users": r"(five|\d+) mailboxes",
        "clients": r"20 sessions",
        "rounds": r"\d+ rounds",
        "size": r"messages of 4 KB",
        "features": r"Recipients are verified.*events are written.*traced.*log line",
        "replication": r"replication 1",
        "durability": r"Durability at 250",
        "no extrapolation": r"no figure here is extrapolated",
    }
    missing = [name for name, pattern in wanted.items() if not re.search(pattern, circumstances, re.DOTALL)]
    assert missing == []


@pytest.mark.requirement("S2-34")
def test_a_fault_stays_where_it_is(tmp_path: Path) -> None:
    """Fails without a bad object being left out alone: other domains, listeners and policies are as without it."""
    folder = tmp_path / "config"
    shutil.copytree(ROOT / "examples/recommended", folder)
    settings = load_settings(folder / "gatepost.yaml", None)
    around = surroundings(settings, any_namespace=True)
    good = compile_directory(folder, around)
    bad = [
        {
            "apiVersion": "gatepost.dev/v1alpha1",
            "kind": kind,
            "metadata": {"name": f"zz-bad-{number}"},
            "spec": spec,
        }
        for number, (kind, spec) in enumerate(
            [
                ("MailDomain", {"domain": "a_b", "recipients": {"source": {"type": "Any"}}}),
                ("MailDomain", {"domain": "example.test", "recipients": {"source": {"type": "Any"}}}),
                (
                    "MailDomain",
                    {"domain": "c.test", "recipients": {"source": {"type": "Any"}}, "delivery": NO_STORE},
                ),
                ("RelayPolicy", {"target": {"type": "Listeners", "listeners": ["nowhere"]}}),
            ]
        )
    ]
    (folder / "zz-bad.yaml").write_text(yaml.safe_dump_all(bad))
    mixed = compile_directory(folder, around)
    assert len(mixed.rejected) == len(bad)
    assert mixed.configuration.domains == good.configuration.domains
    assert mixed.configuration.listeners == good.configuration.listeners
