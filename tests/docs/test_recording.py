"""What the page on recordings says of tolerances is what the code has."""

from __future__ import annotations

from inferd_client.replay.comparing import TOLERANCES

from .pages import section, tables


def test_the_tolerances_are_those_of_the_code() -> None:
    ((_, found),) = tables(section("recording", "Replaying"))
    told = {datatype: (rtol, atol) for datatype, rtol, atol in found}
    assert told == {name: (str(one.rtol), str(one.atol)) for name, one in TOLERANCES.items()}
