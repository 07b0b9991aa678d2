"""One sealed file: a header, and AES-256-GCM in chunks.

    MAGIC, length of the header (4 bytes, big endian), header (JSON), chunk 0, chunk 1, ...

A chunk is the ciphertext of `chunk` bytes of plaintext (the last one of the rest) and its tag of 16
bytes. Each file has a key of its own, derived from the model's data key, a random salt and the
header, so that a changed header opens nothing. The nonce of a chunk is its number (11 bytes) and 1
for the last chunk, else 0: chunks in another order, or fewer of them, do not open (the STREAM
construction of Hoang, Reyhanitabar, Rogaway and Vizár, 2015).
"""

from __future__ import annotations

import io
import json
import secrets
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from inferd_seal.errors import Reordered, Tampered, Truncated
from inferd_seal.key_sources import KEY

MAGIC = b"inferd seal 1\n"
CHUNK = 1 << 20
"""Bytes of plaintext in a chunk."""
LARGEST_CHUNK = 1 << 24
TAG = 16
SALT = 32
LONGEST_HEADER = 1 << 16
MOST_COMPARED = 4096
"""Chunks that a strange one is compared with."""


class Readable(Protocol):
    """What bytes are read from: an open file, or a stream."""

    def read(self, count: int, /) -> bytes:
        """Return so many bytes or fewer; none at the end."""


@dataclass(frozen=True, slots=True)
class Header:
    """What a sealed file is; all of it is authenticated."""

    model: str
    version: int
    file: str
    """Relative to the version's folder."""
    size: int
    """Bytes of plaintext."""
    seal: str
    """Identifies the sealing: all files of a version have one."""
    salt: str
    """SALT random bytes as hexadecimal digits."""
    chunk: int = CHUNK

    def __post_init__(self) -> None:
        """Refuse what no header says.

        Raises:
            ValueError: it does.
        """
        texts = (self.model, self.file, self.seal, self.salt)
        numbers = (self.version, self.size, self.chunk)
        if not all(isinstance(text, str) for text in texts) or not all(
            isinstance(number, int) and number >= 0 for number in numbers
        ):
            raise ValueError("a value of another type")
        if not 1 <= self.chunk <= LARGEST_CHUNK or len(bytes.fromhex(self.salt)) != SALT:
            raise ValueError("a value out of range")

    @property
    def chunks(self) -> int:
        """Chunks of the file; one that is empty has one."""
        return max(1, -(-self.size // self.chunk))

    def length(self, index: int) -> int:
        """Return the bytes of plaintext in a chunk."""
        return min(self.chunk, self.size - index * self.chunk)


def new_header(model: str, version: int, file: str, size: int, seal: str) -> Header:
    """Return the header of a file that is about to be sealed."""
    return Header(model, version, file, size, seal, secrets.token_hex(SALT))


def seal_stream(source: Readable, header: Header, key: bytes) -> Iterator[bytes]:
    """Yield a sealed file, in pieces of about a chunk.

    Args:
        source: the plaintext, of exactly the header's size.
        header: of the file.
        key: the data key of the model.

    Raises:
        Truncated: the source ends too early.
        Tampered: it is longer.
    """
    told = _encoded(header)
    yield MAGIC + len(told).to_bytes(4, "big") + told
    cipher = AESGCM(_file_key(key, header, told))
    for index in range(header.chunks):
        data = _read(source, header.length(index))
        if len(data) < header.length(index):
            raise Truncated(f"{header.file} became shorter while it was sealed")
        yield cipher.encrypt(_nonce(index, header), data, None)
    if source.read(1):
        raise Tampered(f"{header.file} grew while it was sealed")


def is_sealed(begin: bytes) -> bool:
    """Tell whether a file that begins so is a sealed one."""
    return begin.startswith(MAGIC)


def read_header(source: Readable, name: str) -> Header:
    """Read the header of a sealed file, which nothing vouches for before a chunk is opened.

    Args:
        source: at its begin.
        name: of the file, for messages.

    Raises:
        Truncated: it ends within the header.
        Tampered: it has none.
    """
    begin = _read(source, len(MAGIC) + 4)
    length = int.from_bytes(begin[len(MAGIC) :], "big")
    if not is_sealed(begin) or length > LONGEST_HEADER:
        raise Tampered(f"{name} does not begin as a sealed file does")
    told = _read(source, length)
    if len(begin) < len(MAGIC) + 4 or len(told) < length:
        raise Truncated(f"{name} ends within its header")
    try:
        header = Header(**json.loads(told))
    except (TypeError, ValueError) as error:
        raise Tampered(f"the header of {name} was changed: {error}") from error
    if _encoded(header) != told:
        raise Tampered(f"the header of {name} was changed")
    return header


def unseal(source: Readable, header: Header, key: bytes) -> bytes:
    """Return the plaintext of a file; a chunk is all that is held besides.

    Args:
        source: behind its header.
        header: as it was read.
        key: the data key of the model.

    Raises:
        Truncated: it ends too early.
        Reordered: its chunks are in another order.
        Tampered: anything else about it was changed.
    """
    cipher = AESGCM(_file_key(key, header, _encoded(header)))
    whole = io.BytesIO()
    for index in range(header.chunks):
        data = _read(source, header.length(index) + TAG)
        if len(data) < header.length(index) + TAG:
            raise Truncated(
                f"{header.file} is truncated: {index} of its {header.chunks} parts are whole"
            )
        opened = _opened(cipher, header, index, data)
        if index == 0:
            # At once and not by growing, once it is known that the header is not made up.
            _reserve(whole, header.size)
        whole.write(opened)
    if source.read(1):
        raise Tampered(f"{header.file} goes on behind its end")
    # Without a copy: the buffer has this size and no other owner.
    return whole.getvalue()


def _reserve(whole: io.BytesIO, size: int) -> None:
    if size:
        whole.seek(size - 1)
        whole.write(b"\0")
        whole.seek(0)


def _opened(cipher: AESGCM, header: Header, index: int, data: bytes) -> bytes:
    """Return the plaintext of a chunk."""
    try:
        return cipher.decrypt(_nonce(index, header), data, None)
    except InvalidTag:
        pass
    other = _place_of(cipher, header, data)
    if other is None:
        raise Tampered(f"part {index + 1} of {header.file} was changed")
    raise Reordered(f"part {other + 1} of {header.file} stands in the place of part {index + 1}")


def _place_of(cipher: AESGCM, header: Header, data: bytes) -> int | None:
    """Return the number of the chunk that a chunk really is; None if it is none of the first."""
    # The header may be made up, and claim any number of them.
    for index in range(min(header.chunks, MOST_COMPARED)):
        try:
            cipher.decrypt(_nonce(index, header), data, None)
        except InvalidTag:
            continue
        return index
    return None


def _nonce(index: int, header: Header) -> bytes:
    return index.to_bytes(11, "big") + bytes([index == header.chunks - 1])


def _file_key(key: bytes, header: Header, told: bytes) -> bytes:
    return HKDF(SHA256(), KEY, bytes.fromhex(header.salt), MAGIC + told).derive(key)


def _encoded(header: Header) -> bytes:
    return json.dumps(asdict(header), sort_keys=True, separators=(",", ":")).encode()


def _read(source: Readable, count: int) -> bytes:
    """Read so many bytes, or all that are left: what is no file may give them in pieces."""
    data = source.read(count)
    while len(data) < count and (more := source.read(count - len(data))):
        data += more
    return data
