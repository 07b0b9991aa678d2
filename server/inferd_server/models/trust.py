"""What a server's settings demand of the files of its models: sealed, or signed, by whom."""

from __future__ import annotations

from inferd_seal.errors import SealError
from inferd_seal.trusted_files import CURE, Demands

from inferd_server.errors import SettingsError
from inferd_server.settings.security import SealSettings


def demands_of(settings: SealSettings) -> Demands:
    """Return what is demanded of models."""
    return Demands(settings.model_keys, settings.model_signers, settings.require_models)


def check_trust(settings: SealSettings) -> None:
    """See whether what models are checked with can be used; the keys need not be there yet.

    Raises:
        SettingsError: a signer's key is none, something has to be installed, or is demanded that
            no model could meet.
    """
    demands = demands_of(settings)
    try:
        demands.check()
    except SealError as error:
        raise SettingsError(str(error)) from error
    if not demands.keys and not demands.signers:
        return
    try:
        import inferd_seal.reader  # noqa: F401 what models are checked with
        from inferd_seal.key_sources import parse_source
    except ModuleNotFoundError as error:
        name = "model_keys" if demands.keys else "model_signers"
        raise SettingsError(f"{name}: {error.name} is missing: {CURE}") from error
    for source in demands.keys:
        try:
            parse_source(source)
        except SealError as error:
            raise SettingsError(f"model_keys: {error}") from error
    try:
        demands.trust()
    except SealError as error:
        raise SettingsError(f"model_signers: {error}") from error
