"""Certificates for tests, made when they are needed by the `openssl` command. Elliptic curves: quick."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, as files in PEM form."""

    certificate: Path
    key: Path


class Authority:
    """Somebody who vouches for certificates; everything is in one folder."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self.folder, self.name = folder, name
        self.certificate, self._key = folder / f"{name}.pem", folder / f"{name}.key"
        _openssl(
            *("req", "-x509", *_KEY, "-days", "2", "-subj", f"/CN={name}"),
            *("-keyout", self._key, "-out", self.certificate),
            *("-addext", "keyUsage=critical,keyCertSign,cRLSign"),
        )

    def issue(
        self, name: str, names: str = "DNS:a.test", *, expired: bool = False, subject: str = ""
    ) -> Pair:
        """A certificate with alternative names, written as OpenSSL does."""
        pair = Pair(self.folder / f"{name}.pem", self.folder / f"{name}.key")
        request, extra = self.folder / f"{name}.csr", self.folder / f"{name}.ext"
        _openssl("req", *_KEY, "-keyout", pair.key, "-out", request, "-subj", subject or f"/CN={name}")
        # What a strict client (Python's own default since 3.13) wants to see.
        identifiers = "subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n"
        extra.write_text(f"basicConstraints=CA:FALSE\n{identifiers}subjectAltName={names}\n")
        _openssl(
            *("x509", "-req", "-in", request, "-out", pair.certificate, "-extfile", extra),
            *("-CA", self.certificate, "-CAkey", self._key, "-CAcreateserial"),
            *("-days", "-1" if expired else "1"),
        )
        return pair
