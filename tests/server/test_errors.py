"""Errors travel between the processes of a server as they are."""

from __future__ import annotations

import pytest
from inferd_server import errors
from inferd_server.errors import InferdError
from inferd_server.processes.format import Answered, pack, unpack

CLASSES = [kind for kind in vars(errors).values() if isinstance(kind, type)]


@pytest.mark.parametrize("kind", [kind for kind in CLASSES if issubclass(kind, InferdError)])
def test_an_error_survives_being_sent_to_another_process(kind: type[InferdError]) -> None:
    error = kind("a sentence")
    error.reason, error.facts, error.retry_after = "WHY", {"limit": "3"}, 1.5
    answer = unpack(pack(Answered(1, None, error)))
    assert isinstance(answer, Answered)
    sent = answer.error
    assert sent is not None
    assert (type(sent), str(sent)) == (kind, "a sentence")
    assert (sent.reason, sent.facts, sent.retry_after) == ("WHY", {"limit": "3"}, 1.5)
