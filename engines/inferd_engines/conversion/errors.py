"""Why a model could not be made or compared, in a sentence.

ConversionFailed
├── BadData         the rows that were given are not the model's
├── Unsupported     this model cannot be converted that way
├── Differs         what was made does not answer as the original does
└── MissingExtra    a package is not installed
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from inferd_engines.engine import EngineError


class ConversionFailed(EngineError):
    """Base of all; nothing was written."""


class BadData(ConversionFailed):
    """The rows that were given are not rows of the model's inputs."""


class Unsupported(ConversionFailed):
    """A model that cannot be converted as it was asked."""


class Differs(ConversionFailed):
    """The answers of what was made are too far from the original's."""


class MissingExtra(ConversionFailed):
    """A package is missing, and an extra of inferd brings it."""


@contextmanager
def needing(extra: str) -> Iterator[None]:
    """Say which extra brings a module that is not there.

    Raises:
        MissingExtra: one is not.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        text = f"needs {error.name}: run pip install 'inferd[{extra}]' first"
        raise MissingExtra(text) from error
