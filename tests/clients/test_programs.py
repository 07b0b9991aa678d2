"""What a client needs and the machine lacks is named, and nothing fails for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from .programs import BUILDERS


@pytest.mark.parametrize("language", BUILDERS)
def test_a_missing_package_skips_with_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, language: str
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(pytest.skip.Exception, match=r"^no [\w+-]+: apt-get install \w"):
        BUILDERS[language](tmp_path)
