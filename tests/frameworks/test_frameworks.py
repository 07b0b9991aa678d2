"""Models of five libraries as their users export them, served and compared with the library.

`make test-models` sets up the environment in which they are made, and runs this in every
arrangement.
"""

from __future__ import annotations

import locale
import re
import subprocess
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
from inferd_client import Client
from inferd_client.information import ModelMetadata, ModelVersionStatus

from tests.conformance.process import ServerProcess

pytestmark = [pytest.mark.frameworks, pytest.mark.timeout(900)]

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs/exporting.md"
PYTHON = HERE.parents[1] / ".tools/frameworks/bin/python"
TENSORFLOW = HERE.parents[1] / ".tools/tensorflow/bin/python"
ARRANGEMENTS = ("inline", "threads", "split")
# Its converter gives the labels of all rows one row.
UNBATCHED = frozenset({"qda"})
LOCALES = {"tfidf": "en_US"}
"""Models that load only where the machine has a locale."""
BOOSTED = "LightGBM, XGBoost, CatBoost"
EXPORTERS = {"torch": "PyTorch, both exporters"} | dict.fromkeys(
    ("lightgbm", "xgboost", "catboost"), BOOSTED
)
"""By what the names of models begin with, the line of the page's table; scikit-learn otherwise."""
Arrays: TypeAlias = Mapping[str, np.ndarray[Any, Any]]


@dataclass(frozen=True, slots=True)
class Answers:
    """Rows for a model, and what its library answers; names are the file's."""

    given: Arrays
    asked: Arrays

    @property
    def rows(self) -> int:
        """How many there are."""
        return len(next(iter(self.given.values())))

    def part(self, first: int, last: int) -> Answers:
        """Return some of the rows."""
        given = {name: array[first:last] for name, array in self.given.items()}
        return Answers(given, {name: array[first:last] for name, array in self.asked.items()})


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every model and its answers, made on the spot."""
    if not PYTHON.exists():
        pytest.skip("the libraries are not installed; `make test-models` does that")
    folder = tmp_path_factory.mktemp("frameworks")
    command = [PYTHON, HERE / "make.py", folder]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


@pytest.fixture(scope="session", params=ARRANGEMENTS)
def client(made: Path, request: pytest.FixtureRequest) -> Iterator[Client]:
    """A client of a server with all of them, which may leave some out."""
    flags = ("--processes", request.param, "--strict-readiness", "false")
    server = ServerProcess(made / "models", *flags)
    try:
        port = server.wait_for("listening")["grpc_port"]
        with Client(f"127.0.0.1:{port}") as client:
            client.wait_until_ready(120)
            yield client
    finally:
        assert server.stop() == 0


def read(path: Path) -> Answers:
    """Read what `saving.save` wrote."""
    with np.load(path) as arrays:
        given = {name[3:]: text(arrays[name]) for name in arrays if name.startswith("in:")}
        asked = {name[4:]: arrays[name] for name in arrays if name.startswith("out:")}
    return Answers(given, asked)


def text(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return text as the objects that clients send."""
    return array.astype(object) if array.dtype.kind == "U" else array


def everything(made: Path) -> dict[str, Answers]:
    """Return the answers by model, of those that this machine can load."""
    paths = sorted((made / "answers").glob("*.npz"))
    return {path.stem: read(path) for path in paths if has_locale(LOCALES.get(path.stem, "C"))}


def has_locale(name: str) -> bool:
    """True where a model that names a locale can be loaded."""
    before = locale.setlocale(locale.LC_ALL)
    try:
        locale.setlocale(locale.LC_ALL, name)
    except locale.Error:
        return False
    locale.setlocale(locale.LC_ALL, before)
    return True


def served(client: Client) -> dict[str, ModelVersionStatus]:
    """Return what the server says of each model."""
    return {model.name: model for model in client.status().models}


def compare(metadata: ModelMetadata, got: Arrays, asked: Arrays) -> None:
    """Hold what came to what the library says, output by output."""
    places = [tensor.name for tensor in metadata.outputs]
    for place, (name, right) in enumerate(asked.items()):
        came = got[name if name in got else places[place]]
        if came.dtype == object:
            assert [str(value) for value in np.ravel(right)] == [
                value.decode() for value in np.ravel(came)
            ]
            continue
        loose = 1e-2 if came.dtype == np.float16 else 1e-3
        expected = np.reshape(right, came.shape)
        np.testing.assert_allclose(came, expected, rtol=loose, atol=loose, err_msg=name)


def test_every_model_is_served(client: Client, made: Path) -> None:
    models = served(client)
    missing = {
        name: models[name].reason if name in models else "not in the index"
        for name in everything(made)
        if name not in models or models[name].state != "READY"
    }
    assert not missing


def test_every_model_whose_rows_are_independent_is_batched(client: Client, made: Path) -> None:
    models = served(client)
    alone = {
        name: model.reason
        for name, model in models.items()
        if model.state == "READY" and model.max_batch_size < 2 and name not in UNBATCHED
    }
    assert not alone


def test_the_table_of_the_page_says_what_was_found(client: Client) -> None:
    """As it is on a machine without locales."""
    found: dict[str, list[int]] = {}
    for name, model in served(client).items():
        ready = model.state == "READY" and name not in LOCALES
        counts = (1, ready, ready and model.max_batch_size > 1)
        for line in (EXPORTERS.get(name.partition("_")[0], "scikit-learn"), "all of them"):
            found[line] = [a + b for a, b in zip(found.get(line, [0] * 3), counts, strict=True)]
    lines = re.findall(
        r"^\| ([^|]+) \| (\d+) \| (\d+) \| (\d+) \|$", PAGE.read_text(), re.MULTILINE
    )
    told = {line: [int(count) for count in counts] for line, *counts in lines}
    assert {line: told.get(line) for line in found} == found


def test_all_rows_at_once_are_answered_as_the_library_does(client: Client, made: Path) -> None:
    for name, answers in everything(made).items():
        metadata = client.metadata(name)
        most = 32
        for first in range(0, answers.rows, most):
            part = answers.part(first, first + most)
            compare(metadata, client.infer(name, inputs=part.given).outputs, part.asked)


def test_single_rows_in_company_are_answered_as_the_library_does(
    client: Client, made: Path
) -> None:
    """Each row is a request of its own, all of them in flight at once."""
    with ThreadPoolExecutor(16) as pool:
        for name, answers in everything(made).items():
            metadata = client.metadata(name)
            parts = [answers.part(place, place + 1) for place in range(answers.rows)]
            results = list(
                pool.map(lambda part, name=name: client.infer(name, inputs=part.given), parts)
            )
            for part, result in zip(parts, results, strict=True):
                compare(metadata, result.outputs, part.asked)


def test_every_snippet_of_the_page_makes_a_model_that_is_batched(tmp_path: Path) -> None:
    if not (PYTHON.exists() and TENSORFLOW.exists()):
        pytest.skip("the libraries are not installed; `make test-models` does that")
    snippets = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    for snippet in snippets:
        python = TENSORFLOW if "keras" in snippet or "tensorflow" in snippet else PYTHON
        # From a file, because TensorFlow reads the source of functions.
        (tmp_path / "snippet.py").write_text(snippet)
        subprocess.run([python, "snippet.py"], cwd=tmp_path, check=True, capture_output=True)
    server = ServerProcess(tmp_path / "models")
    try:
        port = server.wait_for("listening")["grpc_port"]
        server.wait_for("ready")
        with Client(f"127.0.0.1:{port}") as client:
            models = served(client)
            assert len(models) == len(snippets)
            assert all(model.max_batch_size > 1 for model in models.values())
    finally:
        assert server.stop() == 0
