"""Prediction tokens: what an answer said, signed, so that no server has to remember it.

A token is base64url without padding of: a header (HEADER), the model's name, the class of each
row as whole numbers of one width, the confidence of each row as float16, and the first 16 bytes
of an HMAC-SHA256 of all that. All numbers are big-endian.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import logging
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from inferd.tensors import Array

from inferd_server.feedback.keys import TokenKeys

log = logging.getLogger(__name__)
FORMAT = 1
ID, MAC, DIGEST = 12, 16, 8
"""Bytes of a token's random id, of its signature, and of the digest of the model's files."""
HEADER = struct.Struct(f">B{ID}sIQ{DIGEST}sBB")
"""Format, id, seconds since the epoch, version, digest, width of a class, length of the name."""
PURPOSE = b"inferd prediction token\n"
"""Keeps the signatures apart from any other use of the same key."""
MOST_ROWS = 4096
"""Of one token."""
LONGEST = 4 * (HEADER.size + 255 + MOST_ROWS * 10 + MAC) // 3 + 4
"""Characters of a token."""
WIDTHS = (1, 2, 4, 8)


class ForgedToken(Exception):
    """A token that none of the keys signed, or that is none."""


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """What an answer said of each of its rows."""

    model: str
    version: int
    digest: bytes
    """Of the model's files: DIGEST bytes, zeros where it is not known."""
    classes: Array
    """[rows], whole numbers."""
    confidences: Array
    """[rows], floats; NaN where there is none."""


@dataclass(frozen=True, slots=True)
class SignedPrediction:
    """A prediction as its token tells of it."""

    prediction: Prediction
    ident: bytes
    made: int
    """Seconds since the epoch."""


class TokenSigner:
    """Signs and reads tokens. Any thread may call any method."""

    def __init__(
        self,
        keys: TokenKeys,
        wall: Callable[[], float],
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        """Keep the keys.

        Args:
            keys: the first signs, and all are accepted.
            wall: seconds since the epoch.
            random: returns so many bytes, for ids.
        """
        self._keys = [hmac.digest(key, PURPOSE, "sha256") for key in keys.keys]
        self._warn = not keys.lasting
        self._wall = wall
        self._random = random

    def sign(self, prediction: Prediction) -> str:
        """Return the token of a prediction of at most MOST_ROWS rows."""
        if self._warn:
            self._warn = False
            log.warning("prediction tokens do not survive a restart: feedback_keys names no key")
        made = int(self._wall())
        body = packed(SignedPrediction(prediction, self._random(ID), made))
        return _text(body + _mac(self._keys[0], body))

    def read(self, token: str) -> SignedPrediction:
        """Return what a token says.

        Raises:
            ForgedToken: none of the keys signed it.
        """
        data = _bytes(token)
        body, mac = data[:-MAC], data[-MAC:]
        if not any(hmac.compare_digest(_mac(key, body), mac) for key in self._keys):
            raise ForgedToken("no key of this server signed it")
        return unpacked(body)


def packed(signed: SignedPrediction) -> bytes:
    """Return a prediction as the bytes that are signed."""
    said, name = signed.prediction, signed.prediction.model.encode()
    width = _width(said.classes)
    header = HEADER.pack(
        FORMAT, signed.ident, signed.made, said.version, said.digest, width, len(name)
    )
    classes = said.classes.astype(f">i{width}").tobytes()
    return header + name + classes + said.confidences.astype(">f2").tobytes()


def unpacked(body: bytes) -> SignedPrediction:
    """Return what bytes that were signed say.

    Raises:
        ForgedToken: another version of this software signed them.
    """
    if len(body) < HEADER.size or body[0] != FORMAT:
        raise ForgedToken("it has the format of another version of the server")
    _, ident, made, version, digest, width, length = HEADER.unpack_from(body)
    start = HEADER.size + length
    rows = (len(body) - start) // (width + 2)
    classes = np.frombuffer(body, f">i{width}", rows, start).astype(np.int64)
    confidences = np.frombuffer(body, ">f2", rows, start + rows * width).astype(np.float32)
    name = body[HEADER.size : start].decode()
    said = Prediction(name, version, digest, classes, confidences)
    return SignedPrediction(said, ident, made)


def short_digest(digest: str) -> bytes:
    """Return what a token has of a digest in hexadecimal digits; zeros for an empty one."""
    return bytes.fromhex(digest)[:DIGEST].ljust(DIGEST, b"\0")


def _width(classes: Array) -> int:
    """Return the bytes that hold every class."""
    low, high = (int(classes.min()), int(classes.max())) if classes.size else (0, 0)
    return next(
        width for width in WIDTHS if -(1 << 8 * width - 1) <= low and high < 1 << 8 * width - 1
    )


def _mac(key: bytes, body: bytes) -> bytes:
    return hmac.digest(key, body, "sha256")[:MAC]


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _bytes(token: str) -> bytes:
    """Return the bytes of a token; each token has one spelling."""
    try:
        padding = "=" * (-len(token) % 4)
        data = base64.b64decode(token + padding, altchars=b"-_", validate=True)
    except (ValueError, binascii.Error):
        data = b""
    if len(data) <= MAC or _text(data) != token:
        raise ForgedToken("it is no prediction token")
    return data
