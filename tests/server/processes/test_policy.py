"""How many processes serve, and when one starts again."""

from __future__ import annotations

from pathlib import Path

import pytest
from inferd_server import command
from inferd_server.errors import SettingsError
from inferd_server.processes.policy import (
    FAILURES_ON_GPU,
    LIMIT,
    LONGEST_S,
    MOST_REPLICAS,
    REPLICA_BYTES,
    SMALL_BYTES,
    Arrangement,
    Host,
    ModelFacts,
    Wish,
    arrange,
    cause,
    for_replica,
    restart_delay,
    wants_gpu,
    without_gpu,
)
from inferd_server.settings.model import (
    EngineSettings,
    ListenSettings,
    RepositorySettings,
    Settings,
)

from tests import models as model_files

GPU = ("CUDAExecutionProvider",)
SMALL, LARGE = ModelFacts(SMALL_BYTES), ModelFacts(SMALL_BYTES + 1)


@pytest.mark.parametrize(
    ("asked", "fronts", "cores", "providers", "expected"),
    [
        ("auto", 0, 1, (), 0),
        ("auto", 0, 2, (), 0),
        ("auto", 0, 2, ("CPUExecutionProvider",), 0),
        ("auto", 0, 3, (), 1),
        ("auto", 0, 16, (), 4),
        ("auto", 7, 16, (), 7),
        ("auto", 0, 2, GPU, 1),
        ("auto", 0, 16, GPU, 12),
        ("auto", 0, 8, GPU, 6),
        ("split", 0, 1, (), 1),
        ("split", 3, 1, (), 3),
        ("inline", 3, 64, GPU, 0),
        ("threads", 0, 64, (), 0),
    ],
)
def test_processes_follow_from_cores_and_device(
    asked: str, fronts: int, cores: int, providers: tuple[str, ...], expected: int
) -> None:
    arrangement = arrange(Wish(asked, fronts), Host(cores, providers), lambda: LARGE)
    assert (arrangement.fronts, arrangement.replicas) == (expected, 0)
    assert arrangement.reason
    assert arrangement.described


@pytest.mark.parametrize(
    ("wish", "cores", "providers", "models", "expected"),
    [
        (Wish("auto"), 3, (), SMALL, (0, 3)),
        (Wish("auto"), 64, (), SMALL, (0, MOST_REPLICAS)),
        (Wish("auto", replicas=2), 8, (), SMALL, (0, 2)),
        (Wish("auto"), 2, (), SMALL, (0, 0)),
        (Wish("auto"), 8, GPU, SMALL, (6, 0)),
        (Wish("auto"), 8, (), LARGE, (2, 0)),
        (Wish("auto"), 8, (), ModelFacts(1, sequences="talks"), (2, 0)),
        (Wish("auto"), 8, (), ModelFacts(known=False), (2, 0)),
        (Wish("auto", fronts=3), 8, (), SMALL, (3, 0)),
        (Wish("replicas"), 1, (), LARGE, (0, 1)),
        (Wish("replicas"), 5, (), LARGE, (0, 5)),
        (Wish("replicas", replicas=40), 2, GPU, LARGE, (0, 40)),
    ],
)
def test_replicas_serve_small_models_without_state_on_several_cores(
    wish: Wish,
    cores: int,
    providers: tuple[str, ...],
    models: ModelFacts,
    expected: tuple[int, int],
) -> None:
    arrangement = arrange(wish, Host(cores, providers), lambda: models)
    assert (arrangement.fronts, arrangement.replicas) == expected
    assert arrangement.reason


@pytest.mark.parametrize(
    ("wish", "room", "expected"),
    [
        (Wish("auto"), None, (0, 8)),
        (Wish("auto"), 100 * REPLICA_BYTES, (0, 8)),
        (Wish("auto"), 3 * REPLICA_BYTES, (0, 3)),
        (Wish("auto"), 2 * REPLICA_BYTES - 1, (2, 0)),
        (Wish("auto", replicas=4), 2 * REPLICA_BYTES, (0, 4)),
        (Wish("replicas"), 3 * REPLICA_BYTES, (0, 3)),
        (Wish("replicas"), 0, (0, 1)),
        (Wish("replicas", replicas=4), 0, (0, 4)),
    ],
)
def test_there_are_no_more_replicas_than_memory_has_room_for(
    wish: Wish, room: int | None, expected: tuple[int, int]
) -> None:
    arrangement = arrange(wish, Host(8, (), room), lambda: ModelFacts(0))
    assert (arrangement.fronts, arrangement.replicas) == expected


def test_a_model_takes_its_room_in_every_replica() -> None:
    arrangement = arrange(Wish("auto"), Host(8, (), 8 * REPLICA_BYTES), lambda: SMALL)
    assert 2 <= arrangement.replicas < 8


def test_an_arrangement_is_told_in_words() -> None:
    assert Arrangement(0, "").described == "one process"
    assert Arrangement(1, "").described == "1 front process and a worker process"
    assert Arrangement(0, "", 1).described == "1 replica process"
    assert Arrangement(0, "", 2).described == "2 replica processes"


@pytest.mark.parametrize(
    ("asked", "usable", "replicas", "cores"), [(0, 8, 2, 4), (6, 99, 3, 2), (0, 2, 4, 1)]
)
def test_a_replica_counts_on_its_part_of_the_cores(
    asked: int, usable: int, replicas: int, cores: int
) -> None:
    settings = Settings(engine=EngineSettings(cores=asked))
    assert for_replica(settings, replicas, usable).engine.cores == cores


def repository_of(tmp_path: Path, *, yaml: str = "") -> Path:
    return model_files.repository(
        tmp_path / "models", {"m": model_files.scale(2.0)}, {"m": yaml} if yaml else {}
    )


def test_what_is_known_before_a_process_starts_is_the_size_of_the_files_and_their_yaml(
    tmp_path: Path,
) -> None:
    folder = repository_of(tmp_path)
    (folder / "m" / "1" / "weights.bin").write_bytes(bytes(1000))
    model = folder / "m" / "1" / "model.onnx"
    size = model.stat().st_size
    assert command.model_facts(folder) == ModelFacts(size + 1000)
    # A file that is served alone: what lies beside it may be anything.
    assert command.model_facts(model) == ModelFacts(size)
    assert not command.model_facts(tmp_path / "gone").known
    (folder / "m" / "model.yaml").write_text("nonsense: true\n")
    assert not command.model_facts(folder).known


def test_replicas_are_refused_for_a_model_whose_requests_build_on_each_other(
    tmp_path: Path,
) -> None:
    folder = repository_of(tmp_path, yaml="sequence: {}\n")
    section = RepositorySettings(model_repository=folder)
    asked = Settings(repository=section, engine=EngineSettings(processes="replicas", cores=4))
    with pytest.raises(SettingsError, match="replicas cannot serve model 'm'"):
        command.arranged(asked)
    auto = Settings(repository=section, engine=EngineSettings(cores=4))
    assert command.arranged(auto).fronts == 1


def test_only_one_replica_can_listen_on_a_unix_socket(tmp_path: Path) -> None:
    listen = ListenSettings(host=f"unix://{tmp_path}/s")
    two = EngineSettings(processes="replicas", replicas=2)
    with pytest.raises(SettingsError, match="replicas: only one process"):
        command.arranged(Settings(listen=listen, engine=two))
    alone = EngineSettings(processes="replicas", cores=4)
    assert command.arranged(Settings(listen=listen, engine=alone)).replicas == 1


@pytest.mark.parametrize(("there", "fronts"), [(False, 0), (True, 1)])
def test_a_plan_store_makes_processes_only_where_there_is_a_gpu(
    monkeypatch: pytest.MonkeyPatch, there: bool, fronts: int
) -> None:
    monkeypatch.setattr(command, "gpu", lambda: there)
    settings = Settings(engine=EngineSettings(plan_store="/plans", cores=2))
    assert command.arranged(settings).fronts == fronts


def test_restarts_come_ever_later_and_end() -> None:
    delays = [restart_delay(failures) for failures in range(1, LIMIT + 2)]
    assert delays[0] == 0.0
    assert delays[-1] is None
    between = [delay for delay in delays if delay is not None]
    assert between == sorted(between)
    assert between[-1] <= LONGEST_S


@pytest.mark.parametrize(
    ("allowed", "gpu", "failures", "leaves"),
    [
        (True, True, FAILURES_ON_GPU - 1, False),
        (True, True, FAILURES_ON_GPU, True),
        (False, True, LIMIT, False),
        (True, False, LIMIT, False),
    ],
)
def test_the_gpu_is_left_alone_where_workers_on_it_do_not_live(
    allowed: bool, gpu: bool, failures: int, leaves: bool
) -> None:
    assert bool(without_gpu(allowed, gpu, failures)) is leaves


@pytest.mark.parametrize(
    ("engine", "gpu"),
    [
        (EngineSettings(), False),
        (EngineSettings(engine_providers=("CPUExecutionProvider",)), False),
        (EngineSettings(engine_providers=GPU), True),
        (EngineSettings(plan_store="/plans"), True),
    ],
)
def test_a_gpu_is_asked_for_by_a_provider_or_a_store_of_plans(
    engine: EngineSettings, gpu: bool
) -> None:
    assert wants_gpu(engine) is gpu


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (70, "its engine failed for good"),
        (1, "it ended with exit code 1"),
        (-9, "killed by SIGKILL, as the kernel does where memory runs out"),
        (-15, "killed by SIGTERM"),
        (-300, "killed by signal 300"),
    ],
)
def test_the_end_of_a_process_is_told_in_words(code: int, told: str) -> None:
    assert cause(code) == told
