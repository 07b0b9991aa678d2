"""The keys that prediction tokens are signed with."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass

from inferd_seal.errors import SealError
from inferd_seal.key_sources import KEY, read_key

from inferd_server.errors import SettingsError
from inferd_server.settings.feedback import FeedbackSettings


@dataclass(frozen=True, slots=True)
class TokenKeys:
    """Keys of 32 bytes; the first signs, and all are accepted."""

    keys: tuple[bytes, ...] = ()
    lasting: bool = False
    """False for a random key, which ends with the server."""


def token_keys(
    settings: FeedbackSettings, random: Callable[[int], bytes] = secrets.token_bytes
) -> TokenKeys:
    """Return the keys of the settings, or a random one where they name none.

    Raises:
        SettingsError: a key cannot be had.
    """
    try:
        keys = tuple(read_key(source) for source in settings.feedback_keys)
    except SealError as error:
        raise SettingsError(f"feedback_keys: {error}") from error
    return TokenKeys(keys or (random(KEY),), bool(keys))
