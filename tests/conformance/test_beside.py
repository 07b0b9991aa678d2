"""Our client shares a process with every other package that speaks the protocol."""

from __future__ import annotations

import json

import pytest

from .beside.calls import ROW
from .tools import BESIDE_PYTHON, output, require


@pytest.mark.parametrize("other", ["tritonclient", "kserve"])
@pytest.mark.parametrize("ours_first", [True, False])
def test_ours_and_another_package_infer_in_one_process(
    address: str, other: str, ours_first: bool
) -> None:
    names = ["inferd", other] if ours_first else [other, "inferd"]
    python = str(require(BESIDE_PYTHON))
    # Modules of the other packages warn of what is deprecated; that is theirs to mend.
    printed = output([python, "-W", "ignore", "-m", "tests.conformance.beside", address, *names])
    assert json.loads(printed) == {name: ROW.tolist() for name in names}
