"""Header blocks: ours, always the same bytes, and the status in the server's.

Ours name nothing but HPACK's static table (RFC 7541). The server may use the dynamic one, as
with any client: without it an answer costs a server on gRPC core a tenth more.
"""

from __future__ import annotations

import math

import grpc
import hpack

from inferd_client.bench.fast.frames import ErrorCode, ProtocolError

# Names, and whole fields, by their index in the static table (RFC 7541, appendix A).
_POST, _HTTP = 3, 6
_NAMES = {":authority": 1, ":path": 4, "content-type": 31, "user-agent": 58}
# Largest value of grpc-timeout, and its units in seconds, the finest first.
_MAX_TIMEOUT = 99_999_999
_UNITS = {"u": 1e-6, "m": 1e-3, "S": 1.0, "H": 3600.0}

_NAMES_OF_CODES = {code.value[0]: code.name for code in grpc.StatusCode}
# By HTTP status, where a server sends no other ("HTTP to gRPC Status Code Mapping").
_HTTP_CODES = {
    b"400": "INTERNAL",
    b"401": "UNAUTHENTICATED",
    b"403": "PERMISSION_DENIED",
    b"404": "UNIMPLEMENTED",
    b"429": "UNAVAILABLE",
    b"502": "UNAVAILABLE",
    b"503": "UNAVAILABLE",
    b"504": "UNAVAILABLE",
}
# Error texts may be all different.
_KEPT = 1024


def request_block(authority: str, path: str, timeout: float) -> bytes:
    """Return the header block of a gRPC request; `timeout` in seconds, infinite for none."""
    fields = {
        ":path": path,
        ":authority": authority,
        "te": "trailers",
        "content-type": "application/grpc",
        "user-agent": "inferd-bench",
    }
    if math.isfinite(timeout):
        fields["grpc-timeout"] = _timeout(timeout)
    whole = bytes((0x80 | _POST, 0x80 | _HTTP))
    return whole + b"".join(_literal(name, value) for name, value in fields.items())


def _timeout(seconds: float) -> str:
    for unit, size in _UNITS.items():
        value = math.ceil(max(seconds, 0.0) / size)
        if value <= _MAX_TIMEOUT:
            return f"{value}{unit}"
    return f"{_MAX_TIMEOUT}H"


def _literal(name: str, value: str) -> bytes:
    """Return a literal field without indexing (RFC 7541, section 6.2.2)."""
    index = _NAMES.get(name, 0)
    return _integer(index, 4) + (b"" if index else _string(name)) + _string(value)


def _string(text: str) -> bytes:
    data = text.encode("ascii")
    return _integer(len(data), 7) + data


def _integer(value: int, bits: int) -> bytes:
    """Return an integer with a prefix of so many bits, the others zero (section 5.1)."""
    most = (1 << bits) - 1
    if value < most:
        return bytes((value,))
    encoded, value = bytearray((most,)), value - most
    while value >= 0x80:
        encoded.append(0x80 | value & 0x7F)
        value >>= 7
    return bytes((*encoded, value))


class StatusReader:
    """Finds the status in the header blocks of one connection.

    What a block means depends on the table that the blocks before it built (RFC 7541, section
    2.2). Blocks that leave the table as it is are remembered until another one changes it.
    """

    def __init__(self) -> None:
        self._decoder = hpack.Decoder()
        self._seen: dict[bytes, str | None] = {}

    def code(self, block: bytes) -> str | None:
        """Return the name of the gRPC code that a block states, or None if it states none.

        Every block has to come here, in order, whether or not anybody wants its status.

        Raises:
            ProtocolError: it cannot be decoded.
        """
        try:
            return self._seen[block]
        except KeyError:
            return self._decode(block)

    def _decode(self, block: bytes) -> str | None:
        before = self._table()
        try:
            fields = {
                bytes(name): bytes(value) for name, value in self._decoder.decode(block, True)
            }
        except hpack.HPACKError as error:
            raise ProtocolError(f"bad headers: {error}", ErrorCode.COMPRESSION_ERROR) from error
        code = _code(fields)
        size, count, first = self._table()
        if (size, count) != before[:2] or first is not before[2] or len(self._seen) >= _KEPT:
            self._seen.clear()
        else:
            self._seen[block] = code
        return code

    def _table(self) -> tuple[int, int, object]:
        """Return what differs whenever the table does: every entry comes in at the front."""
        table = self._decoder.header_table
        entries = table.dynamic_entries
        return table.maxsize, len(entries), entries[0] if entries else None


def _code(fields: dict[bytes, bytes]) -> str | None:
    if (status := fields.get(b"grpc-status")) is not None:
        known = status.isdigit() and int(status) in _NAMES_OF_CODES
        return _NAMES_OF_CODES[int(status)] if known else "UNKNOWN"
    http = fields.get(b":status", b"200")
    # 1xx comes before the answer's own headers.
    return None if http == b"200" or http.startswith(b"1") else _HTTP_CODES.get(http, "UNKNOWN")
