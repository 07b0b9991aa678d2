"""L0_lifecycle: loading, unloading and replacing by calls, and what cannot be loaded.

The third argument is the folder of the models, in which this suite puts files.
"""

from __future__ import annotations

import shutil
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from tritonclient.grpc import InferenceServerClient

from .expectation import Suite, expect, refused, row

suite = Suite()
MODEL, OTHER = "life", "life_other"


def folder() -> Path:
    """Return where the models lie."""
    return Path(sys.argv[3])


def factor(client: InferenceServerClient, model: str, version: str = "") -> float:
    """Return what a model multiplies by."""
    return float(client.infer(model, row(1, 1, 1, 1), version).as_numpy("OUTPUT0")[0, 0])


def weights(times: int) -> bytes:
    """Return the file of a model that multiplies by 2, 3 or 4."""
    return (folder() / "all" / str(times - 1) / "model.onnx").read_bytes()


def put(model: str, version: str, times: int) -> Path:
    """Write the file of a version, and return its path."""
    path = folder() / model / version / "model.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(weights(times))
    return path


@contextmanager
def fresh(client: InferenceServerClient, name: str, times: int = 2) -> Iterator[str]:
    """Put a model of one version into the folder and load it; both go in the end."""
    put(name, "1", times)
    client.load_model(name)
    try:
        yield name
    finally:
        client.unload_model(name)
        shutil.rmtree(folder() / name, ignore_errors=True)


def states(client: InferenceServerClient, model: str) -> dict[str, str]:
    """Return the state of each version, as the index tells it."""
    found = client.get_model_repository_index().models
    return {each.version: each.state for each in found if each.name == model}


@suite.expects("a model whose file is damaged does not keep the others from serving")
def damaged(client: InferenceServerClient) -> None:
    expect(client.is_server_live())
    expect(not client.is_model_ready("life_damaged"))
    refused(client.infer, "life_damaged", row(1, 1, 1, 1))
    expect(factor(client, MODEL) == 4.0)


@suite.expects("the index says why a model could not be loaded")
def reason(client: InferenceServerClient) -> None:
    found = client.get_model_repository_index().models
    (entry,) = (each for each in found if each.name == "life_damaged")
    expect(entry.state == "UNAVAILABLE" and entry.reason, entry)


@suite.expects("a model without a version is not served")
def no_version(client: InferenceServerClient) -> None:
    expect(not client.is_model_ready("life_empty"))
    refused(client.infer, "life_empty", row(1, 1, 1, 1))


@suite.expects("a version that begins with a zero is passed over")
def zero(client: InferenceServerClient) -> None:
    expect(set(states(client, "life_zero")) == {"1"}, states(client, "life_zero"))
    expect(factor(client, "life_zero") == 2.0)


@suite.expects("a folder that is no number is passed over")
def text(client: InferenceServerClient) -> None:
    expect(set(states(client, "life_text")) == {"1"}, states(client, "life_text"))
    expect(factor(client, "life_text") == 2.0)


@suite.expects("an unloaded model is refused until it is loaded again, and others serve")
def unloaded(client: InferenceServerClient) -> None:
    client.unload_model(MODEL)
    try:
        expect(not client.is_model_ready(MODEL))
        refused(client.infer, MODEL, row(1, 1, 1, 1))
        expect(factor(client, OTHER) == 2.0)
    finally:
        client.load_model(MODEL)
    expect(client.is_model_ready(MODEL) and factor(client, MODEL) == 4.0)


@suite.expects("unloading twice is no error")
def unloaded_twice(client: InferenceServerClient) -> None:
    client.unload_model(MODEL)
    client.unload_model(MODEL)
    client.load_model(MODEL)


@suite.expects("unloading an unknown model is no error")
def unload_unknown(client: InferenceServerClient) -> None:
    client.unload_model("unknown_model")


@suite.expects("loading an unknown model is refused as 'failed to load'")
def load_unknown(client: InferenceServerClient) -> None:
    refused(client.load_model, "unknown_model", text="failed to load 'unknown_model'")


@suite.expects("the same says 'failed to poll from model repository'")
def load_unknown_text(client: InferenceServerClient) -> None:
    refused(client.load_model, "unknown_model", text="failed to poll from model repository")


@suite.expects("a model that is put into the folder serves once it is loaded")
def added(client: InferenceServerClient) -> None:
    expect(not client.is_model_ready("life_added"))
    with fresh(client, "life_added"):
        expect(factor(client, "life_added") == 2.0)
        expect(states(client, "life_added") == {"1": "READY"})


@suite.expects("a model that was taken out of the folder cannot be loaded")
def removed(client: InferenceServerClient) -> None:
    with fresh(client, "life_removed") as name:
        client.unload_model(name)
        shutil.rmtree(folder() / name)
        refused(client.load_model, name)
        put(name, "1", 2)
        client.load_model(name)


@suite.expects("a new version serves after a load, and the one before no more")
def version_added(client: InferenceServerClient) -> None:
    with fresh(client, "life_versions") as name:
        put(name, "2", 3)
        client.load_model(name)
        expect(factor(client, name) == 3.0)
        expect(not client.is_model_ready(name, "1") and client.is_model_ready(name, "2"))


@suite.expects("a version that is taken away is gone after a load")
def version_removed(client: InferenceServerClient) -> None:
    with fresh(client, "life_versions") as name:
        put(name, "2", 3)
        client.load_model(name)
        shutil.rmtree(folder() / name / "2")
        client.load_model(name)
        expect(factor(client, name) == 2.0)
        expect(client.is_model_ready(name, "1") and not client.is_model_ready(name, "2"))


@suite.expects("a file that is replaced serves after a load")
def modified(client: InferenceServerClient) -> None:
    with fresh(client, "life_modified") as name:
        put(name, "1", 3)
        client.load_model(name)
        expect(factor(client, name) == 3.0)


@suite.expects("a change of a folder is seen without a call")
def polled(client: InferenceServerClient) -> None:
    with fresh(client, "life_polled") as name:
        put(name, "1", 3)
        expect(factor(client, name) == 3.0)


@suite.expects("a file that is deleted while it serves goes on serving")
def deleted(client: InferenceServerClient) -> None:
    with fresh(client, "life_deleted") as name:
        (folder() / name / "1/model.onnx").unlink()
        expect(factor(client, name) == 2.0)


@suite.expects("a load that fails leaves what serves")
def failed(client: InferenceServerClient) -> None:
    with fresh(client, "life_failed") as name:
        (folder() / name / "1/model.onnx").write_bytes(b"no model")
        refused(client.load_model, name)
        expect(factor(client, name) == 2.0 and client.is_model_ready(name))
        put(name, "1", 2)
        client.load_model(name)


@suite.expects("requests are answered while their model is loaded anew")
def available(client: InferenceServerClient) -> None:
    with fresh(client, "life_available") as name:
        over, found = threading.Event(), []

        def ask() -> None:
            while not over.is_set():
                found.append(factor(client, name))

        with ThreadPoolExecutor(2) as pool:
            asking = [pool.submit(ask) for _ in range(2)]
            try:
                for times in (3, 4, 2):
                    put(name, "1", times)
                    client.load_model(name)
            finally:
                over.set()
            for each in asking:
                each.result()
        expect(set(found) <= {2.0, 3.0, 4.0} and factor(client, name) == 2.0, set(found))


@suite.expects("the index has every model with version and state")
def index(client: InferenceServerClient) -> None:
    expect(states(client, MODEL) == {"3": "READY"}, states(client, MODEL))
    names = {each.name for each in client.get_model_repository_index().models}
    expect({MODEL, OTHER, "life_damaged", "life_empty"} <= names, names)


@suite.expects("a configuration with the call takes the place of the file until the next load")
def config(client: InferenceServerClient) -> None:
    with fresh(client, "life_config") as name:
        client.load_model(name, config='{"max_batch_size": 5}')
        expect(client.get_model_config(name).config.max_batch_size == 5)
        client.load_model(name)
        expect(client.get_model_config(name).config.max_batch_size != 5)


@suite.expects("Triton's version_policy is taken in a configuration")
def version_policy(client: InferenceServerClient) -> None:
    with fresh(client, "life_policy") as name:
        put(name, "2", 3)
        client.load_model(name, config='{"version_policy": {"specific": {"versions": [1]}}}')
        expect(client.is_model_ready(name, "1") and not client.is_model_ready(name, "2"))


@suite.expects("a configuration that is none is refused, and what serves goes on")
def bad_config(client: InferenceServerClient) -> None:
    with fresh(client, "life_bad_config") as name:
        refused(client.load_model, name, config="no json", text=f"failed to load '{name}'")
        expect(factor(client, name) == 2.0)


@suite.expects("files without a configuration are refused, and what serves goes on")
def files_alone(client: InferenceServerClient) -> None:
    with fresh(client, "life_files") as name:
        given = {"file:1/model.onnx": weights(3)}
        refused(client.load_model, name, files=given, text=f"failed to load '{name}'")
        expect(factor(client, name) == 2.0)


@suite.expects("files with a configuration make a model of another name")
def files_named(client: InferenceServerClient) -> None:
    client.load_model("life_given", config="{}", files={"file:1/model.onnx": weights(3)})
    try:
        expect(factor(client, "life_given") == 3.0 and factor(client, MODEL) == 4.0)
    finally:
        client.unload_model("life_given")


@suite.expects("files take the place of the folder until the model is unloaded and loaded")
def files_instead(client: InferenceServerClient) -> None:
    with fresh(client, "life_instead") as name:
        client.load_model(name, config="{}", files={"file:7/model.onnx": weights(3)})
        expect(factor(client, name) == 3.0)
        expect(client.is_model_ready(name, "7") and not client.is_model_ready(name, "1"))
        client.unload_model(name)
        client.load_model(name)
        expect(factor(client, name) == 2.0)
        expect(client.is_model_ready(name, "1") and not client.is_model_ready(name, "7"))


@suite.expects("Triton's backend is taken in a configuration")
def backend(client: InferenceServerClient) -> None:
    given = {"file:1/model.onnx": weights(3)}
    client.load_model("life_backend", config='{"backend": "onnxruntime"}', files=given)
    client.unload_model("life_backend")


for place in ("../escaped", "../../escaped", "/tmp/inferd-escaped", "1/../../escaped"):

    def escape(client: InferenceServerClient, place: str) -> None:
        given = {f"file:{place}": b"escaped", "file:1/model.onnx": weights(3)}
        refused(client.load_model, "life_escape", config="{}", files=given)
        expect(not (folder() / "escaped").exists() and not (folder().parent / "escaped").exists())
        expect(not Path("/tmp/inferd-escaped").exists())

    suite.add(f"a file named {place} is written nowhere", escape, place)


@suite.expects("models are loaded side by side, and all serve")
def side_by_side(client: InferenceServerClient) -> None:
    names = [f"life_side_{index}" for index in range(6)]
    for index, name in enumerate(names):
        put(name, "1", 2 + index % 3)
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(client.load_model, names))
    try:
        expect([factor(client, name) for name in names] == [2.0, 3.0, 4.0] * 2)
    finally:
        for name in names:
            client.unload_model(name)
            shutil.rmtree(folder() / name)


@suite.expects("loads and unloads of one model at once end in a state that is told", quick=False)
def stress(client: InferenceServerClient) -> None:
    with fresh(client, "life_stress") as name:

        def change(index: int) -> None:
            (client.load_model if index % 2 else client.unload_model)(name)

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(change, range(40)))
        client.load_model(name)
        expect(states(client, name) == {"1": "READY"}, states(client, name))
        expect(factor(client, name) == 2.0)


if __name__ == "__main__":
    suite.run()
