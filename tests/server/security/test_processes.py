"""One process and several keep callers apart alike, and say at the start what is wrong."""

from __future__ import annotations

import os
import re
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trustme

from tests.server.lifecycle.process import Process, finished, ready_process
from tests.server.security.certificates import Files, expired, issued, trusting
from tests.server.security.named import entry, written
from tests.server.security.secured import calling, repository, told
from tests.server.serving import PATIENCE, failure, metrics_text
from tests.server.supervisor.split import Split

ARRANGEMENTS = {
    "one": ("threads",),
    "split": ("split", "--fronts", "2"),
    "replicas": ("replicas", "--replicas", "2"),
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return repository(tmp_path_factory.mktemp("models"))


@pytest.mark.parametrize("arrangement", ARRANGEMENTS)
def test_certificates_tokens_and_probes_work_in_one_process_and_in_several(
    arrangement: str, models: Path, files: Files, tmp_path: Path, authority: trustme.CA
) -> None:
    named = entry("service", "infer", certificates=["service.internal"])
    identities = written(tmp_path / "identities.yaml", entry("boss", "admin", "read"), named)
    settings = {**files.settings(mutual=True), "identities_file": str(identities)}
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
    arranged = ("--processes", *ARRANGEMENTS[arrangement])
    with ready_process(models, *arranged, "--probe-port", "0", *flags) as (process, where):
        port, shown = where["grpc_port"], trusting(authority, issued(authority, "service.internal"))
        with calling(port, shown) as caller:
            assert caller.infer().model_name == "scaled"
            assert len(caller.stream(2)) == 2
            assert told(failure(caller.load)) == ("PERMISSION_DENIED", "PERMISSION_MISSING")
        with calling(port, shown, "boss-token") as caller:
            caller.load()
            caller.log()
            assert told(failure(caller.infer)) == ("PERMISSION_DENIED", "PERMISSION_MISSING")
        with calling(port, trusting(authority)) as caller:
            assert told(failure(caller.infer)) == ("UNAVAILABLE", "")
        with calling(where["probe_port"]) as caller:
            assert caller.serving()
            assert told(failure(caller.infer)) == ("UNIMPLEMENTED", "")
        probe = finished("--port", str(where["probe_port"]), module="inferd_server.probe")
        assert (probe.returncode, probe.stdout) == (0, "SERVING\n")
        process.terminate()
        assert process.exit_code() == 0


@pytest.mark.parametrize("arrangement", ARRANGEMENTS)
def test_an_expired_certificate_shows_in_log_and_metrics(
    arrangement: str, models: Path, files: Files, authority: trustme.CA
) -> None:
    flags = [f"--{k.replace('_', '-')}={v}" for k, v in files.settings().items()]
    arranged = ("--processes", *ARRANGEMENTS[arrangement])
    with ready_process(models, *arranged, *flags) as (process, where):
        files.put(expired(authority, "127.0.0.1"))
        with calling(where["grpc_port"], trusting(authority)) as caller:
            # A handshake reads the files, and the caller judges what it is shown.
            assert told(failure(caller.infer)) == ("UNAVAILABLE", "")
        line = process.wait_for("the TLS certificate has expired: callers refuse it")
        assert line["ends"] < datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        text = metrics_text(where["metrics_port"])
        (value,) = re.findall(r"\ninferd_tls_certificate_expiry_timestamp_seconds (\S+)", text)
        assert float(value) < time.time()


@pytest.mark.parametrize("arrangement", ARRANGEMENTS)
def test_a_pipe_in_the_place_of_the_identities_hangs_no_call(
    arrangement: str, models: Path, tmp_path: Path
) -> None:
    path = written(tmp_path / "identities.yaml", entry("boss", "infer"))
    flags = ("--identities-file", str(path), "--processes", *ARRANGEMENTS[arrangement])
    with ready_process(models, *flags) as (process, where):
        os.mkfifo(tmp_path / "pipe")
        (tmp_path / "pipe").replace(path)
        with calling(where["grpc_port"], token="boss-token") as caller:
            until = time.monotonic() + PATIENCE
            while not any("it is not a regular file" in line for line in process.lines):
                assert caller.infer().model_name == "scaled"
                assert time.monotonic() < until
            assert caller.infer().model_name == "scaled"


def test_the_port_for_probes_does_not_die_with_a_front(models: Path, files: Files) -> None:
    flags = [f"--{k.replace('_', '-')}={v}" for k, v in files.settings().items()]
    arranged = ("--processes", *ARRANGEMENTS["split"], "--probe-port", "0")
    with ready_process(models, *arranged, *flags) as (process, where):
        Split(process, where).kill("front-0")
        assert process.wait_for("lost")["child"] == "front-0"
        with calling(where["probe_port"]) as caller:
            assert caller.serving()


def test_a_front_that_starts_anew_waits_for_its_certificates_while_others_serve(
    models: Path, files: Files, authority: trustme.CA
) -> None:
    flags = [f"--{k.replace('_', '-')}={v}" for k, v in files.settings().items()]
    with ready_process(models, "--processes", *ARRANGEMENTS["split"], *flags) as (process, where):
        good = files.key.read_bytes()
        files.key.write_bytes(b"half")
        Split(process, where).kill("front-0")
        assert "tls_private_key" in process.wait_for("waiting for files that can be used")["error"]
        with calling(where["grpc_port"], trusting(authority)) as caller:
            caller.infer()
        files.key.write_bytes(good)
        Split(process, where).kill("front-1")
        process.wait_for("not ready")
        process.wait_for("ready")


@pytest.mark.parametrize("arrangement", ARRANGEMENTS)
def test_a_start_with_files_that_cannot_be_used_fails_in_one_line(
    arrangement: str, models: Path, files: Files
) -> None:
    files.key.write_bytes(b"no key")
    flags = [f"--{k.replace('_', '-')}={v}" for k, v in files.settings().items()]
    arranged = ("--processes", *ARRANGEMENTS[arrangement])
    with Process("--model-repository", str(models), *arranged, *flags) as process:
        said = process.wait_for("cannot start")
        assert said["error"].startswith("tls_certificate and tls_private_key must be PEM")
        assert process.exit_code() == 1
        assert len(process.lines) == 1
