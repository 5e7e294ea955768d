"""Read what a time stamp says, offline: RFC 3161 tokens and OpenTimestamps proofs.

Only what can be read is read: which digest a file stamps, and when or where it says so. Whether the authority
signed it, or the block chain holds it, is for `openssl ts -verify` and `ots verify`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from ..errors import DynstatError

RFC3161, OTS = "rfc3161", "opentimestamps"
_SHA256 = bytes.fromhex("608648016503040201")
_SIGNED_DATA = bytes.fromhex("2a864886f70d010702")
_TST_INFO = bytes.fromhex("2a864886f70d0109100104")
_OTS_MAGIC = b"\x00OpenTimestamps\x00\x00Proof\x00\xbf\x89\xe2\xe8\x84\xe8\x92\x94"
_BITCOIN = bytes.fromhex("0588960d73d71901")
_PENDING = bytes.fromhex("83dfe30d2ef90c8e")
_DEEP = 512


@dataclass(frozen=True)
class Stamp:
    """What a time stamp says of itself.

    Attributes
    ----------
    kind : {"rfc3161", "opentimestamps"}
    digest : str
        The SHA-256 that is stamped, in hexadecimal.
    time : str
        ``2026-01-31T12:00:00Z`` as the authority states it; empty where the file names none.
    says : str
        In words, what the file names: the authority's time, a block, or calendars that promise one.
    complete : bool
        False where there is only a promise.
    """

    kind: str
    digest: str
    time: str
    says: str
    complete: bool


def read_stamp(data: bytes, where: str = "") -> Stamp:
    """Read a time stamp, whichever of the two it is.

    Raises
    ------
    DynstatError
        F003 where the bytes are neither, are cut short, or stamp no SHA-256.
    """
    try:
        return _ots(data) if data.startswith(_OTS_MAGIC) else _rfc3161(data)
    except (ValueError, IndexError, RecursionError) as e:
        raise DynstatError(
            "F003",
            f"not a time stamp that can be read: {e}",
            where=where,
            expected="a response or token of RFC 3161 (.tsr, .tst), or an OpenTimestamps proof (.ots)",
            mend="stamp the lock file with SHA-256, as docs/locks.md shows",
        ) from None


# RFC 3161: DER


def _rfc3161(data: bytes) -> Stamp:
    tag, body, rest = _der(data)
    if tag != 0x30 or rest:
        raise ValueError("not one DER sequence")
    parts = _all(body)
    if parts[0][0] == 0x30:  # a response: status, then the token
        status = _all(parts[0][1])
        if status[0][0] != 0x02 or int.from_bytes(status[0][1], "big") not in (0, 1) or len(parts) < 2:
            raise ValueError("the authority refused the request")
        parts = _all(parts[1][1])
    if len(parts) != 2 or parts[0] != (0x06, _SIGNED_DATA):
        raise ValueError("no signed data")
    signed = _all(_only(parts[1], 0xA0, 0x30))
    content = next((_all(b) for t, b in signed if t == 0x30), [])
    if len(content) != 2 or content[0] != (0x06, _TST_INFO):
        raise ValueError("no time stamp in the signed data")
    info = _all(_der(_only(content[1], 0xA0, 0x04))[1])
    imprint = _all(info[2][1])
    if _all(imprint[0][1])[0] != (0x06, _SHA256) or imprint[1][0] != 0x04 or len(imprint[1][1]) != 32:
        raise ValueError("it stamps no SHA-256")
    if info[4][0] != 0x18:
        raise ValueError("no time in it")
    t = info[4][1].decode("ascii")
    if len(t) < 15 or not t[:14].isdigit() or not t.endswith("Z"):
        raise ValueError(f"time {t!r}")
    time = f"{t[:4]}-{t[4:6]}-{t[6:8]}T{t[8:10]}:{t[10:12]}:{t[12:14]}Z"
    return Stamp(RFC3161, imprint[1][1].hex(), time, f"its authority states {time}", True)


def _der(data: bytes) -> tuple[int, bytes, bytes]:
    """Return tag, content and what follows of the first element."""
    tag, length, at = data[0], data[1], 2
    if length & 0x80:
        n = length & 0x7F
        if not 1 <= n <= 4 or len(data) < 2 + n:
            raise ValueError("a length that DER has not")
        length, at = int.from_bytes(data[2 : 2 + n], "big"), 2 + n
    if len(data) < at + length:
        raise ValueError("it ends early")
    return tag, data[at : at + length], data[at + length :]


def _all(data: bytes) -> list[tuple[int, bytes]]:
    out = []
    while data:
        tag, body, data = _der(data)
        out.append((tag, body))
    return out


def _only(part: tuple[int, bytes], outer: int, inner: int) -> bytes:
    tag, body, rest = _der(part[1])
    if part[0] != outer or tag != inner or rest:
        raise ValueError("not the form of RFC 3161")
    return body


# OpenTimestamps


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, n: int) -> bytes:
        if n < 0 or self.at + n > len(self.data):
            raise ValueError("it ends early")
        self.at += n
        return self.data[self.at - n : self.at]

    def number(self) -> int:
        value = shift = 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            if not byte & 0x80:
                return value
            shift += 7

    def text(self) -> bytes:
        return self.take(self.number())


def _ots(data: bytes) -> Stamp:
    r = _Reader(data)
    r.take(len(_OTS_MAGIC))
    if (version := r.number()) != 1:
        raise ValueError(f"version {version} of OpenTimestamps")
    if r.take(1) != b"\x08":
        raise ValueError("it stamps no SHA-256")
    digest = r.take(32)
    found = list(_timestamp(r, digest, 0))
    if r.at != len(data):
        raise ValueError("bytes follow its end")
    blocks = sorted({(int(what), root) for kind, what, root in found if kind == "block"})
    calendars = sorted({what for kind, what, _ in found if kind == "pending"})
    if blocks:
        height, root = blocks[0]
        says = f"it leads to Bitcoin block {height}" + (f", Merkle root {root}" if root else "")
    else:
        says = f"pending: promised by {', '.join(calendars) or 'nobody known'}, in no block yet"
    return Stamp(OTS, digest.hex(), "", says, bool(blocks))


def _timestamp(r: _Reader, message: bytes | None, depth: int) -> Iterator[tuple[str, str, str]]:
    """Yield the attestations of a proof: kind, height or address, and the Merkle root it comes to."""
    if depth > _DEEP:
        raise ValueError("nested too deeply")
    while True:
        tag = r.take(1)[0]
        last = tag != 0xFF
        if not last:
            tag = r.take(1)[0]
        if tag == 0x00:
            kind, payload = r.take(8), _Reader(r.text())
            if kind == _BITCOIN:
                # Bitcoin prints its hashes with their bytes in reverse.
                yield "block", str(payload.number()), message[::-1].hex() if message else ""
            elif kind == _PENDING:
                yield "pending", payload.text().decode("ascii", "replace"), ""
        else:
            yield from _timestamp(r, _step(r, tag, message), depth + 1)
        if last:
            return


def _step(r: _Reader, tag: int, message: bytes | None) -> bytes | None:
    if tag in (0xF0, 0xF1):
        more = r.text()
        if message is None:
            return None
        return message + more if tag == 0xF0 else more + message
    if tag == 0x08:
        return hashlib.sha256(message).digest() if message is not None else None
    if tag == 0x02:
        return hashlib.sha1(message, usedforsecurity=False).digest() if message is not None else None
    if tag == 0xF2:
        return message[::-1] if message is not None else None
    if tag == 0xF3:
        return message.hex().encode() if message is not None else None
    if tag in (0x03, 0x67):  # RIPEMD-160 and Keccak, which not every Python has
        return None
    raise ValueError(f"step {tag:#04x} is none of OpenTimestamps")
