"""CoreDNS, the DNS inside a cluster, built through Go modules with only the plugins that it needs there."""

import shutil
from pathlib import Path

from testbed.provision import golang
from testbed.provision.cache import built

VERSION = "1.14.7"
MODULE = "github.com/coredns/coredns"


def install() -> Path:
    """The path of the `coredns` program; a minute or two when built for the first time."""
    return built("coredns", VERSION, _build) / "coredns"


def _build(folder: Path) -> None:
    work = folder / "src"
    work.mkdir()
    module = golang.module_folder(MODULE, f"v{VERSION}", work)
    original = (module / "go.mod").read_text()
    lines = ["module clusterdns", *golang.directives(original, "go"), f"require {MODULE} v{VERSION}", "require ("]
    lines += [f"\t{line}" for line in golang.required_modules(original)] + [")", ""]
    (work / "go.mod").write_text("\n".join(lines))
    shutil.copyfile(module / "go.sum", work / "go.sum")
    shutil.copyfile(Path(__file__).parent / "sources" / "coredns.go", work / "main.go")
    golang.go("build", "-mod=mod", "-trimpath", "-ldflags", "-s -w", "-o", folder / "coredns", ".", cwd=work)
    shutil.rmtree(work)
