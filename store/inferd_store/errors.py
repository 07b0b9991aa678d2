"""Everything that can go wrong with a store, as one tree.

StoreError
├── NotAStore       nothing there, or something else
├── NotThere        no such model, version, label or object
├── Refused         what was asked for cannot be: a bad name, a model that cannot be served
│   ├── GateClosed  a promotion whose version does not pass
│   └── InUse       a removal of what a label or a server uses
├── Conflict        somebody else changed the same thing first
├── ReadOnly        the store cannot be written
├── StoreFull
├── AccessDenied    credentials that are missing, wrong, or not enough
├── Unreachable     the store does not answer
└── Damaged         a content that is not what its digest says
"""

from __future__ import annotations


class StoreError(Exception):
    """Base of all; its text is a sentence for whoever asked."""


class NotAStore(StoreError):
    """Nothing is there, or something else."""


class NotThere(StoreError):
    """No such model, version, label or object."""


class Refused(StoreError):
    """What was asked for cannot be done as it is."""


class GateClosed(Refused):
    """A version does not pass what its promotion asks."""


class InUse(Refused):
    """A label or a server uses what was to be removed."""


class Conflict(StoreError):
    """Somebody else changed the same thing first."""


class ReadOnly(StoreError):
    """The store cannot be written."""


class StoreFull(StoreError):
    """There is no room left."""


class AccessDenied(StoreError):
    """Credentials are missing, wrong, or not enough."""


class Unreachable(StoreError):
    """The store does not answer."""


class Damaged(StoreError):
    """A content is not what its digest says."""
