"""Everything that can be wrong with a sealed or signed model, as one tree.

SealError
├── Tampered            bytes that are not those that were sealed or signed
├── Truncated           a file that ends too early
├── Reordered           parts of a file in another order
├── WrongKey            sealed with a key that was not given
├── KeyUnavailable      no key can be had now; it may be later
├── WrongSigner         signed by somebody who is not trusted
├── NotSigned           no signature where one is demanded
├── NotSealed           plain where sealing is demanded
├── Replayed            another version of the same model
├── Renamed             another model, or another file of it
└── Unusable            a folder, key or signature that this cannot work with
"""

from __future__ import annotations


class SealError(Exception):
    """Base of all; its text is a sentence for people, and `reason` the same for machines."""

    reason = "SEAL"


class Tampered(SealError):
    """The bytes are not those that were sealed or signed."""

    reason = "SEAL_TAMPERED"


class Truncated(SealError):
    """A file ends before all of it was read."""

    reason = "SEAL_TRUNCATED"


class Reordered(SealError):
    """Parts of a file stand in each other's place."""

    reason = "SEAL_REORDERED"


class WrongKey(SealError):
    """The model is sealed with a key that was not given."""

    reason = "SEAL_WRONG_KEY"


class KeyUnavailable(SealError):
    """A key cannot be had: a file, a variable or a command that failed."""

    reason = "SEAL_KEY_UNAVAILABLE"


class WrongSigner(SealError):
    """The signature is by somebody who is not trusted."""

    reason = "SEAL_WRONG_SIGNER"


class NotSigned(SealError):
    """There is no signature, or a file is not among what was signed."""

    reason = "SEAL_NOT_SIGNED"


class NotSealed(SealError):
    """A model or file is plain where it must be sealed."""

    reason = "SEAL_NOT_SEALED"


class Replayed(SealError):
    """The files are those of another version of the model."""

    reason = "SEAL_REPLAYED"


class Renamed(SealError):
    """The files are those of another model, or a file is another one of it."""

    reason = "SEAL_RENAMED"


class Unusable(SealError):
    """A folder, key or signature of a kind that this cannot work with."""

    reason = "SEAL_UNUSABLE"
