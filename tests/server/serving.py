"""A server inside the test's process, on a free port, with a raw channel and the typed stub."""

from __future__ import annotations

import io
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np
from inferd.oip.v2.inference_pb2 import ModelInferRequest, ModelInferResponse
from inferd.oip.v2.inference_pb2_grpc import GRPCInferenceServiceStub
from inferd.tensors import (
    BYTES,
    CONTENTS_FIELDS,
    DATATYPES,
    Array,
    datatype_of,
    decode_bytes,
    encode_bytes,
)
from inferd_engines.engine import EngineOptions, Opener
from inferd_engines.onnx import open_onnx
from inferd_server.batching.inline import InlineLoop
from inferd_server.monitoring.logs import LogControl
from inferd_server.security.opening import credentials_of
from inferd_server.server import Server
from inferd_server.settings.sources import load_settings
from inferd_server.transport.completion_queue.server import NoTurns
from inferd_server.transport.making import AIO, COMPLETION_QUEUE, for_probes, make
from inferd_server.transport.options import transport_options

from tests.fakes.engine import FakeEngine
from tests.server.lifecycle.process import ready_process

PATIENCE = 10.0
"""Seconds within which anything awaited must have happened."""
CHANNEL = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


def metrics_text(port: int, headers: Mapping[str, str] | None = None) -> str:
    """Return /metrics."""
    asked = urllib.request.Request(f"http://127.0.0.1:{port}/metrics", headers=dict(headers or {}))
    with urllib.request.urlopen(asked, timeout=PATIENCE) as response:
        text: str = response.read().decode()
        return text


def samples(port: int) -> dict[str, float]:
    """Return what /metrics says, by name and labels."""
    lines = metrics_text(port).splitlines()
    pairs = [line.rsplit(" ", 1) for line in lines if not line.startswith("#")]
    return {name: float(value) for name, value in pairs}


@dataclass
class Running:
    """A server that listens, and how to talk to it."""

    server: Server | None
    port: int
    metrics_port: int
    channel: grpc.Channel
    stub: GRPCInferenceServiceStub

    def infer(self, request: ModelInferRequest, **options: object) -> ModelInferResponse:
        return self.stub.ModelInfer(request, timeout=PATIENCE, **options)

    def refused(self, request: ModelInferRequest) -> grpc.RpcError:
        return failure(lambda: self.infer(request))


@contextmanager
def running(
    repository: Path,
    opener: Opener = open_onnx,
    *,
    load: bool = True,
    inline: InlineLoop | None = None,
    **settings: object,
) -> Iterator[Running]:
    """Serve a repository; at the end no request may hold rows any more.

    Over grpc.aio with a thread for each engine, or over the completion queue with `inline`.
    """
    ports = {"grpc_port": 0, "metrics_port": 0}
    # Batches that a test did not ask for would be counted with its own.
    # A verdict that another test left would be that of another fake.
    usual = {**ports, "canary_interval_s": 0, "verdict_store": ""}
    flags = {"model_repository": repository, **usual, **settings}
    given = load_settings({name: str(value) for name, value in flags.items()}, {})
    options = transport_options(given.listen, credentials=credentials_of(given))
    name = AIO if inline is None else COMPLETION_QUEUE
    probe = make(name, for_probes(options)) if given.security.probe_port >= 0 else None
    transport = make(name, options, NoTurns() if inline is None else inline)
    logs = LogControl(given.log, io.StringIO())
    server = Server(given, opener, transport, logs, inline=inline, probe=probe)
    port, metrics_port = server.start()
    handles = []
    try:
        if load:
            server.load()
        with grpc.insecure_channel(f"127.0.0.1:{port}", CHANNEL) as channel:
            stub = GRPCInferenceServiceStub(channel)
            yield Running(server, port, metrics_port, channel, stub)
    finally:
        handles = [entry.handle for entry in server.repository.entries() if entry.handle]
        server.stop(PATIENCE)
    assert {handle.name: handle.arena.rows for handle in handles} == {
        handle.name: 0 for handle in handles
    }


@contextmanager
def running_split(repository: Path, **settings: object) -> Iterator[Running]:
    """Serve a repository by processes; there is no server in this one to look into."""
    with running_processes(repository, ("split", "--fronts", "2"), **settings) as server:
        yield server


@contextmanager
def running_replicas(repository: Path, **settings: object) -> Iterator[Running]:
    """Serve a repository by processes that each do everything."""
    with running_processes(repository, ("replicas", "--replicas", "2"), **settings) as server:
        yield server


@contextmanager
def running_processes(
    repository: Path, arrangement: tuple[str, ...], **settings: object
) -> Iterator[Running]:
    """Serve a repository by processes, in the arrangement that some flags ask for."""
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
    with ready_process(repository, "--processes", *arrangement, *flags) as (process, where):
        port = where["grpc_port"]
        with grpc.insecure_channel(f"127.0.0.1:{port}", CHANNEL) as channel:
            stub = GRPCInferenceServiceStub(channel)
            yield Running(None, port, where["metrics_port"], channel, stub)
        process.terminate()
        assert process.exit_code() == 0


class FakeEngines:
    """An opener of fake engines, remembered by the name of their model."""

    def __init__(self, make: Callable[[], FakeEngine] = FakeEngine) -> None:
        self._make = make
        self.opened: dict[str, FakeEngine] = {}

    def __call__(self, path: Path, options: EngineOptions) -> FakeEngine:
        engine = self._make()
        self.opened[path.parents[1].name] = engine
        return engine


@contextmanager
def running_fake(
    folder: Path, engines: FakeEngines | None = None, **settings: object
) -> Iterator[tuple[Running, FakeEngine]]:
    """Serve one model, `fake`, on a fake engine that has forgotten the runs of the start."""
    opener = engines or FakeEngines()
    (folder / "fake" / "1").mkdir(parents=True)
    (folder / "fake" / "1" / "model.onnx").write_bytes(b"what answers are kept for")
    with running(folder, opener, **settings) as server:
        engine = opener.opened["fake"]
        engine.batches.clear()
        engine.running.clear()
        try:
            yield server, engine
        finally:
            engine.release()


def infer_request(
    model: str,
    inputs: dict[str, Array],
    *,
    typed: bool = False,
    outputs: tuple[str, ...] = (),
    version: str = "",
    ident: str = "",
) -> ModelInferRequest:
    """Build a request, with raw contents or with typed ones."""
    request = ModelInferRequest(model_name=model, model_version=version, id=ident)
    for name, array in inputs.items():
        datatype = datatype_of(array.dtype)
        tensor = request.inputs.add(name=name, datatype=datatype, shape=array.shape)
        if typed:
            tensor.contents.SetInParent()
            getattr(tensor.contents, CONTENTS_FIELDS[datatype]).extend(array.reshape(-1).tolist())
        else:
            request.raw_input_contents.append(raw(array))
    for output in outputs:
        request.outputs.add(name=output)
    return request


def raw(array: Array) -> bytes:
    """Return an array's elements as the protocol writes them."""
    return encode_bytes(array) if datatype_of(array.dtype) == BYTES else array.tobytes()


def arrays(response: ModelInferResponse) -> dict[str, Array]:
    """Return the outputs of a response, decoded as a client would."""
    contents = response.raw_output_contents
    return {
        output.name: array_of(output.datatype, tuple(output.shape), data)
        for output, data in zip(response.outputs, contents, strict=True)
    }


def array_of(datatype: str, shape: tuple[int, ...], data: bytes) -> Array:
    """Decode one tensor."""
    if datatype == BYTES:
        return decode_bytes(data, int(np.prod(shape))).reshape(shape)
    return np.frombuffer(data, DATATYPES[datatype]).reshape(shape)


def rows(*values: float) -> dict[str, Array]:
    """Return INPUT0 FP32 [rows, 4], each row filled with its value."""
    return {"INPUT0": np.repeat(np.array(values, dtype=np.float32)[:, None], 4, axis=1)}


def failure(attempt: Callable[[], object]) -> grpc.RpcError:
    """Return the error that an attempt must raise."""
    try:
        attempt()
    except grpc.RpcError as error:
        return error
    raise AssertionError("the call was answered")
