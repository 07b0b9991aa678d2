"""The contract keeps buf's rules, but for the names that a public protocol fixed."""

from __future__ import annotations

from tests.conformance.tools import BUF, output, require


def test_the_contract_keeps_the_rules() -> None:
    assert output([str(require(BUF)), "lint", "proto"]) == ""
