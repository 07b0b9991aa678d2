"""Let pytest explain the assertions of the shared contract, and run it over an engine's cases."""

import pytest

from tests.engines.cases import NO_BATCH

pytest.register_assert_rewrite("tests.engines.contract")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give tests of the contract each of their engine's cases."""
    cases = getattr(metafunc.cls, "CASES", ())
    for name, wanted in (
        ("case", cases),
        ("batching_case", [case for case in cases if case is not NO_BATCH]),
    ):
        if name in metafunc.fixturenames:
            metafunc.parametrize(name, wanted, ids=lambda case: case.name)
