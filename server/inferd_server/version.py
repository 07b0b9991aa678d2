"""The version of this distribution."""

from importlib.metadata import PackageNotFoundError, version


def _version() -> str:
    try:
        return version("inferd")
    except PackageNotFoundError:
        # Run from a source tree that was never installed.
        return "0.0.0"


VERSION = _version()
