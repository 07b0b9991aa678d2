"""What fuzzing once found worth keeping is run again, without a fuzzer."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.seeds import seeds
from tests.fuzz.targets import TARGETS

CORPUS = Path(__file__).parent / "corpus"


@pytest.mark.parametrize("name", TARGETS)
def test_the_kept_inputs_of_a_target_find_nothing(name: str) -> None:
    kept = [path.read_bytes() for path in sorted((CORPUS / name).iterdir())]
    assert kept, "the corpus is gone"
    for data in (*seeds()[name], *kept):
        TARGETS[name](data)
