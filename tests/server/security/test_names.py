"""What a caller who may only infer is told of models: nothing but of those that it asks for."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from inferd_server.batching.inline import InlineLoop

from tests.server.security.named import entry, written
from tests.server.security.secured import calling, repository
from tests.server.serving import (
    Running,
    failure,
    infer_request,
    rows,
    running,
    running_split,
)


def serving(arrangement: str, models: Path, identities: Path) -> AbstractContextManager[Running]:
    if arrangement == "split":
        return running_split(models, identities_file=identities)
    inline = InlineLoop(time.monotonic) if arrangement == "inline" else None
    return running(models, inline=inline, identities_file=identities)


@pytest.mark.parametrize("arrangement", ["threads", "inline", "split"])
def test_a_caller_who_may_only_infer_is_told_no_names_of_other_models(
    arrangement: str, tmp_path: Path
) -> None:
    path = written(
        tmp_path / "identities.yaml", entry("infers", "infer"), entry("reads", "infer", "read")
    )
    request = infer_request("nope", rows(1.0))
    with serving(arrangement, repository(tmp_path / "models"), path) as server:
        for token, names in (("infers-token", ""), ("reads-token", "; known are scaled")):
            told = f"model 'nope' is not known{names}"
            with calling(server.port, token=token) as caller:
                unary = failure(lambda: caller.stub.ModelInfer(request, **caller.options))
                assert unary.details() == told
                answers = caller.stub.ModelStreamInfer(iter([request]), **caller.options)
                assert [answer.error_message for answer in answers] == [told]
