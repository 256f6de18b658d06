"""What all Go builds here share: the toolchain that is installed, module folders, and a low priority."""

from pathlib import Path

from testbed.provision import command
from testbed.provision.errors import ProvisionError

# `local`: never download another toolchain. No VCS stamp: the build folder isn't a checkout.
ENVIRONMENT = {"GOTOOLCHAIN": "local", "GOFLAGS": "-buildvcs=false", "GOWORK": "off"}
DOWNLOAD_SECONDS = 900
BUILD_SECONDS = 3600


def go(*words: str | Path, cwd: Path, env: dict[str, str] | None = None) -> str:
    """Runs `go words...` at a low priority in `cwd` and returns its output."""
    program = command.require("go", "install Go 1.24 or newer")
    return command.run(
        [program, *words], cwd=cwd, env={**ENVIRONMENT, **(env or {})}, seconds=BUILD_SECONDS, nice=True
    )


def module_folder(module: str, version: str, cwd: Path) -> Path:
    """Downloads one module and returns its read-only folder in Go's module cache."""
    go("mod", "download", f"{module}@{version}", cwd=cwd)
    folder = Path(go("env", "GOMODCACHE", cwd=cwd).strip()) / f"{module}@{version}"
    if not folder.is_dir():
        raise ProvisionError(f"go mod download {module}@{version}: no folder {folder}")
    return folder


def required_modules(go_mod: str) -> list[str]:
    """The lines inside all `require (...)` blocks of a go.mod, comments included, without indentation."""
    lines: list[str] = []
    inside = False
    for line in go_mod.splitlines():
        if line.startswith("require ("):
            inside = True
        elif line.startswith(")"):
            inside = False
        elif inside and line.strip():
            lines.append(line.strip())
    return lines


def directives(go_mod: str, *names: str) -> list[str]:
    """The one-line directives (`go`, `godebug`) of a go.mod, as they stand there."""
    return [line for line in go_mod.splitlines() if line.split(" ", 1)[0] in names and not line.endswith("(")]
