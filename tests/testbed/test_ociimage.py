"""Images made without an engine: their layout, and that the same input gives the same bytes."""

import hashlib
import json
import tarfile
from pathlib import Path
from typing import Any

from testbed.ociimage import file_layer, folder_layer, write_image


def read_json(archive: tarfile.TarFile, name: str) -> Any:
    member = archive.extractfile(name)
    assert member is not None
    return json.load(member)


def blob(descriptor: dict[str, Any]) -> str:
    return f"blobs/sha256/{descriptor['digest'].removeprefix('sha256:')}"


def test_an_image_names_its_layers_and_how_to_run(tmp_path: Path) -> None:
    layer = file_layer(tmp_path / "layer.tar", {"app/run.py": b"print(1)"})
    out = write_image(
        tmp_path / "image.tar",
        "docker.io/x/y:1",
        [layer, layer],
        entrypoint=["/usr/bin/python3", "/app/run.py"],
        env={"A": "b"},
        user="10001",
    )
    with tarfile.open(out) as archive:
        [entry] = read_json(archive, "index.json")["manifests"]
        assert entry["annotations"]["io.containerd.image.name"] == "docker.io/x/y:1"
        manifest = read_json(archive, blob(entry))
        config = read_json(archive, blob(manifest["config"]))
        assert config["config"]["Entrypoint"] == ["/usr/bin/python3", "/app/run.py"]
        assert (config["config"]["User"], config["config"]["Env"][-1]) == ("10001", "A=b")
        digest = "sha256:" + hashlib.sha256(layer.read_bytes()).hexdigest()
        assert config["rootfs"]["diff_ids"] == [part["digest"] for part in manifest["layers"]] == [digest] * 2
        stored = archive.extractfile(blob(manifest["layers"][0]))
        assert stored is not None
        assert stored.read() == layer.read_bytes()
        assert len(archive.getnames()) == len(set(archive.getnames()))


def test_a_folder_becomes_a_layer_of_roots_without_times(tmp_path: Path) -> None:
    source = tmp_path / "package"
    (source / "__pycache__").mkdir(parents=True)
    (source / "__pycache__" / "x.pyc").touch()
    (source / "tool").write_text("#!/bin/sh\n")
    (source / "tool").chmod(0o755)
    first = folder_layer(tmp_path / "1.tar", source, "/opt/app")
    (source / "tool").touch()
    second = folder_layer(tmp_path / "2.tar", source, "/opt/app")
    assert first.read_bytes() == second.read_bytes()
    with tarfile.open(first) as archive:
        assert archive.getnames() == ["opt", "opt/app", "opt/app/tool"]
        member = archive.getmember("opt/app/tool")
        assert (member.mode, member.uid, member.mtime) == (0o755, 0, 0)
