"""Filters in OCI image layouts: which image, which layer, and what is refused."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from pywasmproxy.config import ConfigError, load, oci
from tests.pywasmproxy.server.support import HCM

WASM = "application/vnd.module.wasm.content.layer.v1+wasm"
TAR = "application/vnd.oci.image.layer.v1.tar"
INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
MODULE = b"\0asm\1\0\0\0"


class Layout:
    """An image layout being written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "blobs" / "sha256").mkdir(parents=True)
        (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
        self.manifests: list[dict[str, Any]] = []

    def blob(self, data: bytes, kind: str) -> dict[str, Any]:
        digest = hashlib.sha256(data).hexdigest()
        (self.folder / "blobs" / "sha256" / digest).write_bytes(data)
        return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(data)}

    def manifest(self, *layers: tuple[bytes, str]) -> dict[str, Any]:
        config = self.blob(b"{}", "application/vnd.module.wasm.config.v1+json")
        found = {"schemaVersion": 2, "config": config, "layers": [self.blob(*layer) for layer in layers]}
        return self.blob(json.dumps(found).encode(), MANIFEST)

    def image(self, *layers: tuple[bytes, str], tag: str | None = None) -> dict[str, Any]:
        made = self.manifest(*layers)
        self.add(made, tag)
        return made

    def add(self, manifest: dict[str, Any], tag: str | None = None) -> None:
        named = {} if tag is None else {"annotations": {"org.opencontainers.image.ref.name": tag}}
        self.manifests.append(manifest | named)
        (self.folder / "index.json").write_text(json.dumps({"manifests": self.manifests}))


def tar(**files: bytes) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name.replace("__", ".").replace("_in_", "/"))
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return stream.getvalue()


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "image")


def found(layout: Layout, name: str = "image") -> bytes:
    split = oci.split(layout.folder.parent, name)
    assert split is not None
    return oci.wasm_of(*split, {})


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (MODULE, WASM),
        (MODULE, "application/vnd.wasm.content.layer.v1+wasm"),
        (MODULE, "application/wasm"),
        (tar(other=b"x", plugin__wasm=MODULE), TAR),
        (gzip.compress(tar(plugin__wasm=MODULE)), TAR + "+gzip"),
        (gzip.compress(tar(plugin__wasm=MODULE)), "application/vnd.docker.image.rootfs.diff.tar.gzip"),
    ],
    ids=["istio", "solo", "plain", "archive", "packed archive", "docker"],
)
def test_the_module(layout: Layout, data: bytes, kind: str) -> None:
    layout.image((b"?", "application/octet-stream"), (data, kind))
    assert found(layout) == MODULE


def test_the_layer_on_top_wins(layout: Layout) -> None:
    layout.image((tar(plugin__wasm=b"old"), TAR), (tar(plugin__wasm=MODULE), TAR), (tar(a=b""), TAR))
    assert found(layout) == MODULE


def test_which_image(layout: Layout) -> None:
    one = layout.image((b"one", WASM), tag="1")
    layout.image((b"two", WASM), tag="2")
    assert found(layout, "image:1") == b"one"
    assert found(layout, "image:2") == b"two"
    assert found(layout, f"image@{one['digest']}") == b"one"
    with pytest.raises(oci.OciError, match="there is several images; the folder has 1, 2"):
        found(layout)
    with pytest.raises(oci.OciError, match="there is no image '3'; the folder has 1, 2"):
        found(layout, "image:3")


def test_an_index_of_platforms(layout: Layout) -> None:
    inner = [layout.manifest((MODULE, WASM)), layout.manifest((b"other", WASM))]
    for _ in range(oci.MOST_NESTED):
        inner = [layout.blob(json.dumps({"manifests": inner}).encode(), INDEX)]
    layout.add(inner[0])
    assert found(layout) == MODULE


def test_an_index_without_an_end(layout: Layout) -> None:
    inner = [layout.manifest((MODULE, WASM))]
    for _ in range(oci.MOST_NESTED + 1):
        inner = [layout.blob(json.dumps({"manifests": inner}).encode(), INDEX)]
    layout.add(inner[0])
    with pytest.raises(oci.OciError, match="nested too deep"):
        found(layout)


def test_damage(layout: Layout) -> None:
    layout.image((MODULE, WASM))
    for blob in (layout.folder / "blobs" / "sha256").iterdir():
        good = blob.read_bytes()
        if good == b"{}":  # nobody looks at the image's configuration
            continue
        blob.write_bytes(good + b" ")
        with pytest.raises(oci.OciError, match="is damaged: its contents have another digest"):
            found(layout)
        blob.unlink()
        with pytest.raises(oci.OciError, match="cannot be read: No such file"):
            found(layout)
        blob.write_bytes(good)
    assert found(layout) == MODULE


@pytest.mark.parametrize("digest", ["sha256:../../../etc/passwd", "md5:" + "0" * 32, 7, None])
def test_a_digest_is_no_path(layout: Layout, digest: object) -> None:
    layout.add({"mediaType": MANIFEST, "digest": digest})
    with pytest.raises(oci.OciError, match="is no digest"):
        found(layout)


@pytest.mark.parametrize(
    ("data", "kind", "reason"),
    [
        (b"no archive at all" * 100, TAR, "is no archive"),
        (gzip.compress(tar(plugin__wasm=MODULE))[:-20], TAR + "+gzip", "is no archive"),
        (b"\x1f\x8b" + bytes(40), TAR + "+gzip", "is no archive"),
        (tar(dir_in_plugin__wasm=MODULE), TAR, "neither a Wasm layer nor an archive"),
        (MODULE, "image/png", r"neither .* \(image/png\)"),
    ],
    ids=["text", "cut", "zeros", "elsewhere", "picture"],
)
def test_no_module(layout: Layout, data: bytes, kind: str, reason: str) -> None:
    layout.image((data, kind))
    with pytest.raises(oci.OciError, match=reason):
        found(layout)


def test_a_bomb(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oci, "MOST_BYTES", 1 << 16)
    layout.image((gzip.compress(tar(zeros=bytes(1 << 17), plugin__wasm=MODULE)), TAR + "+gzip"))
    with pytest.raises(oci.OciError, match="unpacks to more than 65536 bytes"):
        found(layout)


@pytest.mark.parametrize("text", ["[", "[]", '{"imageLayoutVersion": "2.0.0"}'])
def test_another_layout(layout: Layout, text: str) -> None:
    layout.image((MODULE, WASM))
    (layout.folder / "oci-layout").write_text(text)
    with pytest.raises(oci.OciError, match=r"no JSON|is unknown"):
        found(layout)


CONFIGURATION = """
static_resources:
  listeners:
  - address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}
    filter_chains:
    - filters:
      - name: hcm
        typed_config:
          "@type": "%s"
          stat_prefix: test
          route_config: {{}}
          http_filters:
          - name: wasm
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm
              config: {{vm_config: {{code: {{local: {{filename: "{name}"}}}}}}}}
          - name: envoy.filters.http.router
"""
CONFIGURATION %= HCM


def test_in_a_configuration(layout: Layout) -> None:
    layout.image((MODULE, WASM), tag="v1")
    for name in ("image", "image:v1"):
        bootstrap = load(CONFIGURATION.format(name=name), directory=layout.folder.parent)
        [plugin] = bootstrap.listeners[0].filter_chains[0].plugins
        assert (plugin.code.data, plugin.code.filename) == (MODULE, name)
        assert bootstrap.files == (str(layout.folder / "index.json"),)
    with pytest.raises(ConfigError, match=r"filename: image:v2: there is no image 'v2'"):
        load(CONFIGURATION.format(name="image:v2"), directory=layout.folder.parent)
    with pytest.raises(ConfigError, match="Invalid path: none"):
        load(CONFIGURATION.format(name="none"), directory=layout.folder.parent)
