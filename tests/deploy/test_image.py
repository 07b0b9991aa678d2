"""The images: built without network, run read-only without a privilege, and stopped."""

from __future__ import annotations

import json
import os
import shlex
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from inferd_client import Client

from tests.deploy import image
from tests.deploy.helm import ROOT
from tests.deploy.image import KINDS, Store
from tests.ports import free_port

# Building the bases and the images takes minutes.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
LARGEST = 600_000_000
"""Bytes that the image for the CPU may have."""
SOON = 10.0
"""Seconds from `podman run` until the shipped model is served."""
LIMITS = ("--memory=1g", "--pids-limit=128")
IN_FORCE = """
cd /sys/fs/cgroup
cat memory/memory.limit_in_bytes pids/pids.max 2>/dev/null || cat memory.max pids.max
"""


@pytest.fixture(scope="module", params=KINDS)
def store(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Store]:
    """A store that holds one of the built images."""
    if image.absent():
        pytest.skip(f"not here: {', '.join(image.absent())}")
    if os.geteuid() != 0:
        pytest.skip("the image is built as root")
    folder = tmp_path_factory.mktemp("image")
    store = Store(folder)
    store.build(KINDS[request.param])
    yield store
    store.podman("rmi", "--all", "--force")


def shell(store: Store, script: str) -> str:
    """Return what a shell in the image writes."""
    confined = [*image.confinement(), "--entrypoint", "sh"]
    return store.podman("run", "--rm", *confined, image.IMAGE, "-c", script)


def test_it_runs_as_an_unprivileged_user_that_has_a_name(store: Store) -> None:
    assert shell(store, "id -u; id -g; id -un") == "10001\n10001\ninferd"


def test_it_keeps_its_health_check_ports_and_signal(store: Store) -> None:
    form = "{{.Config.StopSignal}} {{.Config.ExposedPorts}} {{.HealthCheck.Test}}"
    told = store.podman("image", "inspect", "--format", form, image.IMAGE)
    signal, rest = told.split(" ", 1)
    assert signal in ("15", "SIGTERM")
    assert "8001/tcp" in rest
    assert "8002/tcp" in rest
    assert "inferd_server.probe" in rest


def test_only_tmp_can_be_written(store: Store) -> None:
    script = "touch /tmp/x && echo yes; touch /opt/inferd/x /var/tmp/x 2>/dev/null || echo no"
    assert shell(store, script) == "yes\nno"


def test_the_runtime_and_every_package_of_ours_import_from_bytecode(store: Store) -> None:
    program = """
import importlib, pathlib, grpc, numpy, onnxruntime
for name in (
    "inferd", "inferd_client", "inferd_engines", "inferd_seal", "inferd_server", "onnxruntime",
):
    print(name, pathlib.Path(importlib.import_module(name).__spec__.cached).exists())
"""
    told = shell(store, f"python -W error -c {shlex.quote(program)}")
    assert [line.split()[1] for line in told.splitlines()] == ["True"] * 6


@pytest.mark.parametrize("store", ["gpu"], indirect=True)
def test_plans_are_built_in_it_and_the_missing_driver_is_named(store: Store) -> None:
    program = """
from inferd_engines.tensorrt.device import load_driver
from inferd_engines.tensorrt.errors import DeviceMissing
from inferd_engines.tensorrt.shim import find
print(find().flavour, find().builds)
try:
    load_driver()
except DeviceMissing as error:
    print(error)
"""
    built, driver = shell(store, f"python -c {shlex.quote(program)}").splitlines()
    assert built == "tensorrt_rtx True"
    # Of the library that pycuda asks for, and not of a symbol that it misses.
    assert driver.startswith("there is no NVIDIA driver here (libcuda.so.1: cannot open")
    model = "$(python -c 'from inferd_server.settings.model import *; print(shipped_models())')"
    command = f"inferd build {model}/digits/1/model.onnx --output /tmp/plans --target 8.9 2>&1"
    assert "/tmp/plans/" in shell(store, command).splitlines()[-1]


def test_it_has_the_locale_that_text_models_name(store: Store) -> None:
    line = "python -c 'import locale; locale.setlocale(locale.LC_ALL, \"%s\")' && echo set"
    for name in ("en_US", "en_US.UTF-8"):
        assert shell(store, line % name) == "set"


def test_it_holds_no_installer_and_no_wheels(store: Store) -> None:
    script = "command -v pip; ls /build 2>/dev/null; find / -xdev -name '*.whl'"
    told = shell(store, f"({script}) 2>/dev/null || true")
    # Those that Debian's own venv brings belong to the base.
    assert [line for line in told.splitlines() if "/usr/share/python-wheels/" not in line] == []


def wait_until(status: int, port: int, service: str) -> None:
    """Watch a service, from before the server is there, until it is so."""
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        request = health_pb2.HealthCheckRequest(service=service)
        stub = health_pb2_grpc.HealthStub(channel)
        for told in stub.Watch(request, timeout=60, wait_for_ready=True):
            if told.status == status:
                return
    raise AssertionError("the stream of states ended")


def digits(client: Client) -> Sequence[int]:
    """Return what the shipped model reads in five images."""
    images = np.load(ROOT / "examples/digits/heldout.npz")["images"][:5].astype(np.float32)
    read: list[int] = client.infer("digits", image=images)["probabilities"].argmax(axis=1).tolist()
    return read


@pytest.mark.parametrize("store", ["cpu"], indirect=True)
def test_the_image_for_the_cpu_is_small_and_has_no_compiler(store: Store) -> None:
    size = store.podman("image", "inspect", "--format", "{{.Size}}", image.IMAGE)
    assert int(size) <= LARGEST
    assert shell(store, "command -v gcc g++ cc ld make || echo none") == "none"


def test_every_package_in_it_stands_in_its_bill_of_materials(store: Store) -> None:
    bill = json.loads(shell(store, "cat /opt/inferd/inferd.cdx.json"))
    listed = {f"{each['name']}=={each['version']}" for each in bill["components"]}
    program = """
from importlib.metadata import distributions
for one in distributions():
    print(f"{one.name}=={one.version}")
"""
    installed = set(shell(store, f"python -c {shlex.quote(program)}").splitlines())
    assert len(installed) > 20
    own = bill["metadata"]["component"]["name"]
    assert {name for name in installed if not name.startswith(f"{own}==")} <= listed


def test_its_labels_tell_what_it_is(store: Store) -> None:
    form = '{{index .Labels "org.opencontainers.image.version"}}'
    assert store.podman("image", "inspect", "--format", form, image.IMAGE) == image.VERSION


def test_a_prediction_is_served_within_limits_soon_after_the_start(store: Store) -> None:
    port = free_port()
    options = [f"--env=INFERD_GRPC_PORT={port}", f"--env=INFERD_METRICS_PORT={free_port()}"]
    begun = time.monotonic()
    with store.container(*LIMITS, *options) as container:
        wait_until(SERVING, port, "digits")
        took = time.monotonic() - begun
        with Client(f"127.0.0.1:{port}") as client:
            assert digits(client) == [7, 6, 3, 7, 7]
        told = store.podman("exec", container, "sh", "-c", IN_FORCE)
        assert told.split() == [str(1 << 30), "128"]
    assert took <= SOON


def test_the_server_gets_ready_answers_its_probe_drains_and_stops_cleanly(store: Store) -> None:
    port, metrics = free_port(), free_port()
    settings = {"GRPC_PORT": port, "METRICS_PORT": metrics, "DRAIN_DELAY_S": 3}
    options = [f"--env=INFERD_{name}={value}" for name, value in settings.items()]
    with store.container(*options) as container:
        try:
            wait_until(SERVING, port, "")
            wait_until(SERVING, port, "liveness")
        except grpc.RpcError as error:
            pytest.fail(f"{error}\n{store.logs(container)}")
        probe = ("python", "-m", "inferd_server.probe", "--port", str(port))
        store.podman("exec", container, *probe)
        with ThreadPoolExecutor() as other, Client(f"127.0.0.1:{port}") as client:
            stopped = other.submit(store.podman, "stop", "--time", "20", container)
            wait_until(NOT_SERVING, port, "")
            assert digits(client) == [7, 6, 3, 7, 7]
            stopped.result()
        assert store.podman("wait", container) == "0", store.logs(container)
