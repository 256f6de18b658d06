"""The images `gatepost` and `gatepost-operator`: Debian's Python, the locked requirements, our code, no root.

Layers from the bottom: the root, user and certificates, requirements/run.txt, (for the operator) what
requirements/operator.txt adds to that, and our code. The lower ones are cached by the hash of the lock.
"""

from __future__ import annotations

import platform
import shutil
import sys
from pathlib import Path
from typing import Final

from compiling.build import compiled
from images.layers import PYTHON, compile_tree, not_in, tree_layer
from testbed.ociimage import base_root, file_layer, write_image
from testbed.provision import command
from testbed.provision.cache import built, key_of

REPOSITORY: Final = Path(__file__).resolve().parents[2]
REQUIREMENTS: Final = REPOSITORY / "requirements"
LIBRARIES: Final = "/opt/gatepost/lib"
CODE: Final = "/opt/gatepost/app"
CERTIFICATES: Final = "/etc/ssl/certs/ca-certificates.crt"
USER: Final = 10001
SCRATCH: Final = "/tmp"  # noqa: S108  (in the image, where only one program lives)
# Wheels for Debian 12 and newer: glibc 2.36.
PLATFORMS: Final = {"x86_64": "x86_64-manylinux_2_36", "aarch64": "aarch64-manylinux_2_36"}
INSTALL_SECONDS: Final = 600
# Raised when this file builds other layers from the same lock.
FORM: Final = "2"

_COMMAND = """#!/usr/bin/python3
import sys
from {module} import main
sys.exit(main())
"""
ENVIRONMENT: Final = {
    "PYTHONPATH": f"{CODE}:{LIBRARIES}",
    # The root file system is read-only.
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONUNBUFFERED": "1",
    "LANG": "C.UTF-8",
    "SSL_CERT_FILE": CERTIFICATES,
    # The user has no home, and programs that ask for a name look here first.
    "HOME": SCRATCH,
    "LOGNAME": "gatepost",
}


def build_gatepost(out: Path, tag: str) -> Path:
    """Writes the services' image to `out`."""
    return _write(out, f"docker.io/gatepost/gatepost:{tag}", "gatepost", "run")


def build_operator(out: Path, tag: str) -> Path:
    """Writes the operator's image to `out`."""
    return _write(out, f"docker.io/gatepost/gatepost-operator:{tag}", "gatepost-operator", "operator")


def _write(out: Path, reference: str, name: str, lock: str) -> Path:
    layers = [base_root(), *_requirements("run")]
    if lock != "run":
        layers.append(_requirements(lock)[-1])
    code = _code_layer(out.with_name(f".{out.name}.code"))
    try:
        return write_image(
            out,
            reference,
            [*layers, code],
            entrypoint=[f"/usr/local/bin/{name}"],
            env=ENVIRONMENT,
            user=f"{USER}:{USER}",
            workdir=SCRATCH,
            labels={"org.opencontainers.image.title": name, "org.opencontainers.image.licenses": "Apache-2.0"},
        )
    finally:
        code.unlink()


def _requirements(lock: str) -> list[Path]:
    """The cached layers of a lock: for `run` user and certificates, then libraries; else what it adds to `run`."""
    files = [REQUIREMENTS / f"{name}.txt" for name in dict.fromkeys(("run", lock))]
    key = key_of([FORM, platform.machine(), *files])
    if lock == "run":
        folder = built("image-libraries", key, _install_run)
        return [folder / "system.tar", folder / "libraries.tar"]
    folder = built(f"image-{lock}", key, lambda draft: _install_more(draft, lock))
    return [folder / "libraries.tar"]


def _install_run(draft: Path) -> None:
    libraries = _install(draft / "run", "run")
    file_layer(draft / "system.tar", _system_files(libraries))
    tree_layer(draft / "libraries.tar", libraries, LIBRARIES)
    shutil.rmtree(libraries)


def _install_more(draft: Path, lock: str) -> None:
    known, more = _install(draft / "run", "run"), _install(draft / lock, lock)
    tree_layer(draft / "libraries.tar", more, LIBRARIES, not_in(known, more))
    shutil.rmtree(known)
    shutil.rmtree(more)


def _install(folder: Path, lock: str) -> Path:
    """Unpacks a lock's wheels, checked by their hashes, for the image's Python rather than for ours."""
    uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or command.require("uv", "run `make venv`")
    words = [uv, "pip", "install", "--quiet", "--require-hashes", "--only-binary=:all:", "--link-mode=copy"]
    words += ["--python", sys.executable, "--python-version", ".".join(map(str, PYTHON))]
    words += ["--python-platform", PLATFORMS[platform.machine()], "--target", str(folder)]
    command.run([*words, "-r", REQUIREMENTS / f"{lock}.txt"], seconds=INSTALL_SECONDS)
    shutil.rmtree(folder / "bin", ignore_errors=True)
    (folder / ".lock").unlink(missing_ok=True)
    compile_tree(folder, LIBRARIES)
    return folder


def _system_files(libraries: Path) -> dict[str, Path | bytes]:
    """What Debian's packages would have made: the user, where names come from, and the public authorities."""
    users = f"root:x:0:0:root:/:/sbin/nologin\ngatepost:x:{USER}:{USER}::{SCRATCH}:/sbin/nologin\n"
    return {
        "etc/passwd": users.encode(),
        "etc/group": f"root:x:0:\ngatepost:x:{USER}:\n".encode(),
        "etc/nsswitch.conf": b"passwd: files\ngroup: files\nhosts: files dns\n",
        CERTIFICATES.lstrip("/"): (libraries / "certifi" / "cacert.pem").read_bytes(),
    }


def _code_layer(out: Path) -> Path:
    """Our packages and commands, the modules of the hot path as machine code. The working tree stays as it is.

    Extension modules of another minor version would be ignored in the image, so they are left out then.
    """
    copy = out.with_name(f"{out.name}.tree")
    target = copy / CODE.lstrip("/")
    services = compiled() if sys.version_info[:2] == PYTHON else REPOSITORY / "services"
    try:
        for root in (services, REPOSITORY / "operator"):
            shutil.copytree(root, target, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
        compile_tree(copy, "/")
        commands = copy / "usr/local/bin"
        commands.mkdir(parents=True)
        for name, module in (("gatepost", "gatepost.cli.main"), ("gatepost-operator", "gatepost_operator.main")):
            (commands / name).write_text(_COMMAND.format(module=module))
            (commands / name).chmod(0o755)
        return tree_layer(out, copy, "/")
    finally:
        shutil.rmtree(copy, ignore_errors=True)
