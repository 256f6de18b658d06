"""Jaeger 1.x all-in-one, built through Go modules (there is no package of it)."""

import shutil
from pathlib import Path

from testbed.provision import golang
from testbed.provision.cache import built

VERSION = "1.76.0"
MODULE = "github.com/jaegertracing/jaeger"


def install() -> Path:
    """The path of the `jaeger-all-in-one` program; about 200 s when built for the first time."""
    return built("jaeger", VERSION, _build) / "jaeger-all-in-one"


def _build(folder: Path) -> None:
    work = folder / "src"
    work.mkdir()
    module = golang.module_folder(MODULE, f"v{VERSION}", work)
    (work / "go.mod").write_text(_go_mod((module / "go.mod").read_text()))
    shutil.copyfile(module / "go.sum", work / "go.sum")
    program = folder / "jaeger-all-in-one"
    golang.go(
        *("build", "-mod=mod", "-trimpath", "-ldflags", "-s -w", "-o", program, f"{MODULE}/cmd/all-in-one"),
        cwd=work,
    )
    shutil.rmtree(work)


def _go_mod(original: str) -> str:
    """A module that only requires Jaeger, with every third-party pin exactly as Jaeger has it.

    Jaeger's own `replace` of sarama must be repeated: a dependency's replacements are ignored by Go.
    """
    lines = ["module jaegertools", *golang.directives(original, "go"), f"require {MODULE} v{VERSION}"]
    lines += ["replace github.com/Shopify/sarama => github.com/Shopify/sarama v1.33.0", "require ("]
    lines += [f"\t{line}" for line in golang.required_modules(original)] + [")", ""]
    return "\n".join(lines)
