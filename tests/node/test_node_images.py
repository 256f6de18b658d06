"""The images as files: the same input gives the same bytes, with what belongs in and nothing else."""

from __future__ import annotations

import hashlib
import json
import platform
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from compiling.modules import COMPILED
from images.layers import PYTHON, compile_tree, not_in, tree_layer
from images.service import build_gatepost, build_operator
from images.version import app_version
from testbed.provision.cache import key_of

pytestmark = pytest.mark.node

REPOSITORY = Path(__file__).resolve().parents[2]
IMAGE_SUFFIX = f".cpython-{''.join(map(str, PYTHON))}-{platform.machine()}-linux-gnu.so"


class Image:
    """An OCI tar, read as a whole."""

    def __init__(self, file: Path) -> None:
        with tarfile.open(file) as archive:
            (entry,) = _json(archive, "index.json")["manifests"]
            self.reference = entry["annotations"]["io.containerd.image.name"]
            manifest = _json(archive, _blob(entry))
            self.config = _json(archive, _blob(manifest["config"]))["config"]
            self.layers = [layer["digest"] for layer in manifest["layers"]]
            self._entries = [list(_entries(archive, _blob(layer))) for layer in manifest["layers"]]

    def files(self, first_layer: int = 1) -> list[tarfile.TarInfo]:
        """What our own layers hold: those above Debian's root."""
        return [entry for layer in self._entries[first_layer:] for entry in layer]


def _blob(descriptor: dict[str, Any]) -> str:
    return f"blobs/sha256/{descriptor['digest'].removeprefix('sha256:')}"


def _json(archive: tarfile.TarFile, name: str) -> Any:
    stream = archive.extractfile(name)
    assert stream is not None
    return json.load(stream)


def _entries(archive: tarfile.TarFile, name: str) -> Iterator[tarfile.TarInfo]:
    stream = archive.extractfile(name)
    assert stream is not None
    with tarfile.open(fileobj=stream) as layer:
        yield from layer


def test_the_services_image(tmp_path: Path) -> None:
    first, second = (build_gatepost(tmp_path / f"{n}.tar", app_version()) for n in (1, 2))
    assert hashlib.sha256(first.read_bytes()).digest() == hashlib.sha256(second.read_bytes()).digest()
    image = Image(first)
    assert image.reference == f"docker.io/gatepost/gatepost:{app_version()}"
    assert image.config["User"] == "10001:10001"
    assert image.config["Entrypoint"] == ["/usr/local/bin/gatepost"]
    entries = {f"/{entry.name}": entry for entry in image.files()}
    assert entries["/usr/local/bin/gatepost"].mode & 0o111
    assert not [
        name for name, entry in entries.items() if entry.mode & 0o6022 or entry.uid or entry.gid or entry.mtime
    ]
    sources = {
        f"/opt/gatepost/app/{file.relative_to(REPOSITORY / root)}"
        for root in ("services", "operator")
        for file in (REPOSITORY / root).rglob("*.py")
    }
    assert sources == {name for name in entries if name.startswith("/opt/gatepost/app/") and name.endswith(".py")}
    for module in COMPILED:
        assert f"/opt/gatepost/app/{module.removesuffix('.py')}{IMAGE_SUFFIX}" in entries
    packages = {name.split("/")[4] for name in entries if name.startswith("/opt/gatepost/lib/")}
    assert {"aiokafka", "uvloop"} <= packages
    assert not {"kopf", "lightkube", "pip", "pytest", "uv"} & packages


def test_the_operators_image_adds_only_its_own_packages(tmp_path: Path) -> None:
    services = Image(build_gatepost(tmp_path / "services.tar", app_version()))
    operator = Image(build_operator(tmp_path / "operator.tar", app_version()))
    assert operator.config["Entrypoint"] == ["/usr/local/bin/gatepost-operator"]
    assert operator.layers[:3] == services.layers[:3]  # a node keeps them once
    added = {entry.name.split("/")[3] for entry in operator.files(3) if entry.name.startswith("opt/gatepost/lib/")}
    assert {"kopf", "lightkube"} <= added
    assert not {"aiokafka", "uvloop", "aiohttp"} & added


def test_layers_hold_bytecode_that_is_not_compared_with_its_source(tmp_path: Path) -> None:
    """A time in the bytecode would never fit the image's sources, and every start would compile everything."""
    tree = tmp_path / "tree"
    (tree / "package").mkdir(parents=True)
    (tree / "package" / "module.py").write_text("ANSWER = 42\n")
    compile_tree(tree, "/opt/x")
    layer = tree_layer(tmp_path / "layer.tar", tree, "/opt/x")
    with tarfile.open(layer) as archive:
        (name,) = [one for one in archive.getnames() if one.endswith(".pyc")]
        stream = archive.extractfile(name)
        assert stream is not None
        # PEP 552: bit 0 says that a hash stands for the time, bit 1 that it is to be checked.
        content = stream.read()
        assert int.from_bytes(content[4:8], "little") == 0b01
        assert b"/opt/x/package/module.py" in content  # what a traceback will name
        assert {"opt", "opt/x", "opt/x/package"} <= set(archive.getnames())


def test_a_layer_of_differences(tmp_path: Path) -> None:
    known, more = tmp_path / "known", tmp_path / "more"
    for folder, files in (
        (known, {"same": "1", "changed": "1"}),
        (more, {"same": "1", "changed": "2", "new": "3"}),
    ):
        folder.mkdir()
        for name, text in files.items():
            (folder / name).write_text(text)
    layer = tree_layer(tmp_path / "layer.tar", more, "/x", not_in(known, more))
    with tarfile.open(layer) as archive:
        assert archive.getnames() == ["x", "x/changed", "x/new"]
    assert key_of(["ab", "c"]) != key_of(["a", "bc"])
