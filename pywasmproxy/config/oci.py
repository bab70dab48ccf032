"""Filters in OCI image layout folders, as `crane`, `oras`, `skopeo` and `buildah` write them.

Source: OCI image-layout and image-spec 1.1; the "Wasm image" specifications of Solo and of Istio for what an
image of a filter holds: a layer that is the module, or (compat variant) a tar archive with `plugin.wasm`.
Every blob is checked against its digest; nothing is unpacked but that one file, and no more than it may have.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import re
import tarfile
import zlib
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

MARKER = "oci-layout"
"""The file that makes a folder an image layout."""

MOST_BYTES = 1 << 28
"""Of a module, or of a blob."""

MOST_NESTED = 4
"""Indexes within indexes."""

_REFERENCE = "org.opencontainers.image.ref.name"
_MODULE = frozenset(
    (
        "application/vnd.module.wasm.content.layer.v1+wasm",
        "application/vnd.wasm.content.layer.v1+wasm",
        "application/wasm",
    )
)
_ARCHIVE = re.compile(
    r"application/vnd\.(oci\.image\.layer\.v1\.tar(\+gzip)?|docker\.image\.rootfs\.diff\.tar\.gzip)"
)
_PLUGIN = "plugin.wasm"
_DIGEST = re.compile(r"(sha256|sha512):([0-9a-f]{64,128})")


class OciError(Exception):
    """The folder holds no filter that can be used, and why."""


def split(directory: Path, name: str) -> tuple[Path, str | None, str] | None:
    """Folder, tag or digest, and the folder as written, if a name means an image layout: `folder`,
    `folder:tag`, or `folder@sha256:...`."""
    if (directory / name / MARKER).is_file():
        return directory / name, None, name
    for separator in "@:":
        folder, found, reference = name.partition("@") if separator == "@" else name.rpartition(":")
        if found and folder and (directory / folder / MARKER).is_file():
            return directory / folder, reference, folder
    return None


def wasm_of(folder: Path, reference: str | None, written: str, files: MutableMapping[str, bytes]) -> bytes:
    """The module in an image layout. `files` gets what tells that another image has been put there.

    Raises OciError.
    """
    layout = _json((folder / MARKER).read_bytes(), MARKER)
    if layout.get("imageLayoutVersion") != "1.0.0":
        raise OciError(f"image layout version {layout.get('imageLayoutVersion')!r} is unknown")
    try:
        index = (folder / "index.json").read_bytes()
    except OSError as error:
        raise OciError(f"index.json cannot be read: {error.strerror or error}") from None
    files[f"{written}/index.json"] = index
    manifest = _manifest(folder, _json(index, "index.json"), reference)
    layers = [layer for layer in _list(manifest, "layers") if isinstance(layer, dict)]
    for layer in layers:
        if layer.get("mediaType") in _MODULE:
            return _blob(folder, layer)
    for layer in reversed(layers):
        kind = _ARCHIVE.fullmatch(str(layer.get("mediaType")))
        if kind is not None:
            module = _unpacked(_blob(folder, layer), str(layer.get("digest")))
            if module is not None:
                return module
    kinds = ", ".join(str(layer.get("mediaType")) for layer in layers) or "no layers"
    raise OciError(f"the image holds neither a Wasm layer nor an archive with {_PLUGIN} ({kinds})")


def _manifest(folder: Path, index: dict[str, Any], reference: str | None, depth: int = 0) -> dict[str, Any]:
    """The manifest that a reference means, or the only one there is."""
    entries = [entry for entry in _list(index, "manifests") if isinstance(entry, dict)]
    if reference is not None:
        chosen = [
            entry
            for entry in entries
            if reference in (entry.get("digest"), (entry.get("annotations") or {}).get(_REFERENCE))
        ]
    else:
        chosen = entries
    if len({entry.get("digest") for entry in chosen}) != 1:
        known = sorted(str((entry.get("annotations") or {}).get(_REFERENCE, "?")) for entry in entries)
        what = "several images" if reference is None else f"no image {reference!r}"
        raise OciError(f"there is {what}; the folder has {', '.join(known) or 'none'}")
    found = _json(_blob(folder, chosen[0]), str(chosen[0].get("digest")))
    if "manifests" in found:  # an index for several platforms: code for all of them is the same
        if depth >= MOST_NESTED:
            raise OciError("indexes are nested too deep")
        found["manifests"] = _list(found, "manifests")[:1]
        return _manifest(folder, found, None, depth + 1)
    return found


def _blob(folder: Path, descriptor: dict[str, Any]) -> bytes:
    """The contents of a blob, which are what its descriptor says."""
    digest = _DIGEST.fullmatch(str(descriptor.get("digest")))
    if digest is None:
        raise OciError(f"{descriptor.get('digest')!r} is no digest")
    algorithm, value = digest.groups()
    try:
        with open(folder / "blobs" / algorithm / value, "rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise OciError(f"blob {digest[0]} cannot be read: {error.strerror or error}") from None
    if len(data) > MOST_BYTES:
        raise OciError(f"blob {digest[0]} has more than {MOST_BYTES} bytes")
    if hashlib.new(algorithm, data).hexdigest() != value:
        raise OciError(f"blob {digest[0]} is damaged: its contents have another digest")
    return data


def _unpacked(archive: bytes, what: str) -> bytes | None:
    """`plugin.wasm` of a tar archive, packed or not."""
    stream: Any = io.BytesIO(archive)
    if archive[:2] == b"\x1f\x8b":
        stream = gzip.GzipFile(fileobj=stream)
    try:
        with tarfile.open(fileobj=stream, mode="r|") as tar:
            left = MOST_BYTES
            for member in tar:
                left -= member.size + tarfile.BLOCKSIZE
                if left < 0:
                    raise OciError(f"layer {what} unpacks to more than {MOST_BYTES} bytes")
                if member.isfile() and member.name.removeprefix("./").lstrip("/") == _PLUGIN:
                    file = tar.extractfile(member)
                    return None if file is None else file.read()
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise OciError(f"layer {what} is no archive: {error}") from None
    return None


def _json(data: bytes, what: str) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except ValueError as error:
        raise OciError(f"{what} is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise OciError(f"{what} is no JSON object")
    return found


def _list(found: dict[str, Any], key: str) -> list[Any]:
    value = found.get(key)
    return value if isinstance(value, list) else []
