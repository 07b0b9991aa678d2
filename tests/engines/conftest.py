"""Let pytest explain the assertions of the shared contract."""

import pytest

pytest.register_assert_rewrite("tests.engines.contract")
