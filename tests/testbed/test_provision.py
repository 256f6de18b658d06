"""The cache that installers share, and their pure parts."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from testbed.provision import apt, golang, kubernetes
from testbed.provision.cache import built
from testbed.provision.errors import ProvisionError


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "gatepost"


def test_a_thing_is_built_once(own_cache: Path) -> None:
    builds = []

    def build(folder: Path) -> None:
        builds.append(folder)
        (folder / "file").write_text("made")

    for _ in range(2):
        folder = built("thing", "1", build)
        assert folder == own_cache / "thing-1"
        assert (folder / "file").read_text() == "made"
    assert len(builds) == 1
    assert not builds[0].exists()


def test_a_failed_build_leaves_nothing_and_is_tried_again(own_cache: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "half").touch()
        raise ProvisionError("no")

    with pytest.raises(ProvisionError):
        built("thing", "1", fail)
    assert [path.name for path in own_cache.iterdir()] == [".thing-1.lock"]
    assert built("thing", "1", lambda folder: None).is_dir()


def test_parallel_callers_wait_for_the_first_one(tmp_path: Path) -> None:
    run = (
        "import os, sys, time\nfrom testbed.provision.cache import built\n"
        "def build(folder):\n"
        "    os.mkdir(sys.argv[1])\n"  # fails when a second one builds at the same time, or again
        "    time.sleep(0.2)\n"
        "print(built('thing', '1', build))\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    words = [sys.executable, "-c", run, str(tmp_path / "built")]
    runs = [subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert len({process.communicate(timeout=60)[0] for process in runs}) == 1
    assert [process.returncode for process in runs] == [0, 0, 0]


def test_missing_packages_are_named_to_those_who_can_not_install_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apt, "is_installed", lambda package: package != "slapd")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(ProvisionError, match=r"missing: slapd\. Only root .* apt:servers"):
        apt.install("servers")
    monkeypatch.setattr(apt, "is_installed", lambda package: True)
    assert apt.install("servers") == []


GO_MOD = """module k8s.io/kubernetes

go 1.24.0

godebug default=go1.24

godebug (
	other=1
)

require (
	github.com/a/b v1.2.3
	k8s.io/api v0.0.0
)

require (
	github.com/c/d v0.4.0 // indirect
	k8s.io/utils v0.0.0-20250604170112-4c0f3b243397
)

replace (
	k8s.io/api => ./staging/src/k8s.io/api
)
"""


def test_a_module_of_our_own_keeps_the_pins() -> None:
    assert golang.required_modules(GO_MOD)[-1] == "k8s.io/utils v0.0.0-20250604170112-4c0f3b243397"
    assert kubernetes._go_mod(GO_MOD) == (
        "module kubernetesnode\n"
        "go 1.24.0\n"
        "godebug default=go1.24\n"
        "require k8s.io/kubernetes v1.34.4\n"
        "require (\n"
        "\tgithub.com/a/b v1.2.3\n"
        "\tgithub.com/c/d v0.4.0 // indirect\n"
        "\tk8s.io/utils v0.0.0-20250604170112-4c0f3b243397\n"
        ")\n"
        "replace (\n"
        "\tk8s.io/api => k8s.io/api v0.34.4\n"
        ")\n"
    )


def test_the_command_line_lists_what_there_is() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    words = [sys.executable, "-m", "testbed.provision"]
    done = subprocess.run([*words, "--list"], env=environment, capture_output=True, text=True, timeout=60)
    assert {line.split()[0] for line in done.stdout.splitlines()} >= {
        "apt:servers",
        "kafka",
        "jaeger",
        "kubernetes",
    }
    done = subprocess.run([*words, "nothing"], env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, "unknown: nothing" in done.stderr) == (2, True)
