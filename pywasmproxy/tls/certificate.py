"""What a certificate says: subject, alternative names, digests. X.509 (RFC 5280) in DER (ITU-T X.690).

The standard library decodes only certificates that it has verified; ours, and those of peers that nobody
asked us to verify, are read here. Nothing is checked but the form.
"""

from __future__ import annotations

import calendar
import hashlib
import ipaddress
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass

_INTEGER, _OID, _SEQUENCE, _VERSION, _EXTENSIONS = 0x02, 0x06, 0x30, 0xA0, 0xA3
_ALTERNATIVE_NAMES = bytes.fromhex("551d11")  # 2.5.29.17
_EMAIL, _DNS, _URI, _IP = 0x81, 0x82, 0x86, 0x87
_UTC_TIME = 0x17

_SHORT = {
    "550403": "CN",
    "550407": "L",
    "550408": "ST",
    "55040a": "O",
    "55040b": "OU",
    "550406": "C",
    "550409": "street",
    "0992268993f22c640119": "DC",
    "0992268993f22c640101": "UID",
    "2a864886f70d010901": "emailAddress",
    "550405": "serialNumber",
    "550404": "SN",
    "55042a": "GN",
}
"""Object identifiers of attributes (DER, hexadecimal) and their short names."""

_UTF16, _UTF32 = 0x1E, 0x1C


@dataclass(frozen=True, slots=True)
class Certificate:
    """The parts of a certificate that filters can read and that conditions are about."""

    der: bytes
    subject: str
    """As RFC 2253 writes it: the last part first."""
    dns_names: tuple[str, ...] = ()
    uris: tuple[str, ...] = ()
    emails: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    public_key: bytes = b""
    """SubjectPublicKeyInfo, in DER."""
    issuer: str = ""
    """Whoever vouches for it, written like the subject."""
    serial: str = ""
    """Its number, in hexadecimal digits."""
    not_before: int | None = None
    """Seconds since 1970 from which on it is valid; None for a time that cannot be read."""
    not_after: int | None = None

    @property
    def sha256(self) -> str:
        """SHA-256 of the certificate, in hexadecimal digits."""
        return hashlib.sha256(self.der).hexdigest()

    @property
    def key_sha256(self) -> str:
        """SHA-256 of its public key, in hexadecimal digits."""
        return hashlib.sha256(self.public_key).hexdigest()


def parse(der: bytes) -> Certificate:
    """Read a certificate. ValueError when it is none."""
    try:
        [(_, whole)] = _elements(der)
        _, body = next(_elements(whole))
        fields = [field for field in _elements(body, keep_heads=True)]
        if fields[0][0] == _VERSION:
            del fields[0]
        serial, issuer, validity, subject, key = (fields[place][1] for place in (0, 2, 3, 4, 5))
        begin, end = _elements(_inside(validity))
        names: dict[int, list[bytes]] = {}
        for tag, raw in fields[6:]:
            if tag == _EXTENSIONS:
                names = _alternative_names(raw)
        return Certificate(
            der,
            _name(subject),
            _texts(names.get(_DNS)),
            _texts(names.get(_URI)),
            _texts(names.get(_EMAIL)),
            tuple(str(ipaddress.ip_address(raw)) for raw in names.get(_IP, ()) if len(raw) in (4, 16)),
            key,
            _name(issuer),
            _inside(serial).lstrip(b"\0").hex(),
            _seconds(*begin),
            _seconds(*end),
        )
    except (IndexError, StopIteration, UnicodeDecodeError, RuntimeError) as error:
        raise ValueError("no certificate that can be read") from error


def parse_pem(pem: bytes) -> Certificate:
    """Read the first certificate of a PEM text. ValueError when there is none."""
    text = pem.decode("latin-1")
    begin, end = text.find(ssl.PEM_HEADER), text.find(ssl.PEM_FOOTER)
    if begin < 0 or end < begin:
        raise ValueError("no certificate in PEM form")
    return parse(ssl.PEM_cert_to_DER_cert(text[begin : end + len(ssl.PEM_FOOTER)]))


def _elements(data: bytes, *, keep_heads: bool = False) -> Iterator[tuple[int, bytes]]:
    """Tags and contents of elements that follow each other; `keep_heads`: contents with tag and length."""
    at = 0
    while at < len(data):
        tag, size, begin = data[at], data[at + 1], at + 2
        if size & 0x80:
            count = size & 0x7F
            size = int.from_bytes(data[begin : begin + count], "big")
            begin += count
        end = begin + size
        if end > len(data):
            raise ValueError("an element is longer than what it is in")
        yield tag, data[at if keep_heads else begin : end]
        at = end


def _inside(raw: bytes) -> bytes:
    """The content of an element that is given with its head."""
    return next(_elements(raw))[1]


def _alternative_names(raw: bytes) -> dict[int, list[bytes]]:
    found: dict[int, list[bytes]] = {}
    for _, extension in _elements(_inside(_inside(raw))):
        parts = list(_elements(extension))
        if parts[0] == (_OID, _ALTERNATIVE_NAMES):
            for tag, value in _elements(_inside(parts[-1][1])):
                found.setdefault(tag, []).append(value)
    return found


def _texts(raw: list[bytes] | None) -> tuple[str, ...]:
    return tuple(one.decode("utf-8", "replace") for one in raw or ())


def _name(raw: bytes) -> str:
    parts: list[str] = []
    for _, relative in _elements(_inside(raw)):
        several: list[str] = []
        for _, attribute in _elements(relative):
            (_, kind), (tag, value) = _elements(attribute)
            coding = {_UTF16: "utf-16-be", _UTF32: "utf-32-be"}.get(tag, "utf-8")
            name = _SHORT.get(kind.hex()) or _dotted(kind)
            several.append(f"{name}={_escaped(value.decode(coding, 'replace'))}")
        parts.append("+".join(several))
    return ",".join(reversed(parts))


def _seconds(tag: int, raw: bytes) -> int | None:
    """A time (RFC 5280, section 4.1.2.5) in seconds since 1970."""
    text = raw.decode("ascii", "replace")
    if tag == _UTC_TIME:
        text = ("19" if text[:2] >= "50" else "20") + text
    try:
        return calendar.timegm(time.strptime(text, "%Y%m%d%H%M%SZ"))
    except ValueError:
        return None


def _dotted(raw: bytes) -> str:
    """An object identifier in numbers."""
    numbers, value = [raw[0] // 40, raw[0] % 40], 0
    for byte in raw[1:]:
        value = value << 7 | byte & 0x7F
        if not byte & 0x80:
            numbers.append(value)
            value = 0
    return ".".join(map(str, numbers))


def _escaped(text: str) -> str:
    """A value with RFC 2253's escapes (section 2.4)."""
    escaped = "".join("\\" + one if one in ',+"\\<>;' else one for one in text)
    if escaped[:1] in ("#", " "):
        escaped = "\\" + escaped
    return escaped[:-1] + "\\ " if escaped.endswith(" ") and len(text) > 1 else escaped
