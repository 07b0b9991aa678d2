"""Refuses what a message of the protocol cannot carry, with an error of our tree."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from inferd_client.errors import InvalidInput

Given = ParamSpec("Given")
Made = TypeVar("Made")


def sendable(make: Callable[Given, Made]) -> Callable[Given, Made]:
    """Have a function that fills a message raise InvalidInput for text or types it cannot hold."""

    @wraps(make)
    def checked(*args: Given.args, **kwargs: Given.kwargs) -> Made:
        try:
            return make(*args, **kwargs)
        except UnicodeEncodeError as error:
            raise InvalidInput(f"{error.object!r} cannot be sent as UTF-8") from error
        except (TypeError, ValueError) as error:
            raise InvalidInput(f"the request cannot be sent: {error}") from error

    return checked
