"""Where models go that each need some memory of a GPU: decisions, without any process."""

from __future__ import annotations

from pathlib import Path

import pytest
from inferd_engines.devices import Device
from inferd_server.errors import ModelNotReady
from inferd_server.models.overrides import Override
from inferd_server.processes.placement import Need, Placements, Room, choose, named

MIB = 1 << 20
DEVICES = [Device(f"GPU-{name}", nbytes=1000 * MIB) for name in ("aa00", "aa11", "bb22")]


def model(repository: Path, name: str, mib: int = 1, yaml: str = "") -> None:
    """Put a model into a repository whose file takes no room on the disk."""
    folder = repository / name / "1"
    folder.mkdir(parents=True)
    with (folder / "model.onnx").open("wb") as file:
        file.truncate(mib * MIB)
    if yaml:
        (repository / name / "model.yaml").write_text(yaml)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


def places(placements: Placements, count: int = 3) -> list[list[str]]:
    return [sorted(placements.names_of(worker) or ()) for worker in range(count)]


@pytest.mark.parametrize(
    ("nbytes", "rooms", "chosen"),
    [
        (1, {0: Room(10), 1: Room(20)}, 1),
        (1, {0: Room(20), 1: Room(20)}, 0),
        (8, {0: Room(10), 1: Room(20, busy=0.9)}, 1),
        (1, {0: Room(10, busy=0.2), 1: Room(20, busy=0.9)}, 0),
        (1, {0: Room(10, busy=0.21), 1: Room(20, busy=0.19)}, 1),
        (100, {0: Room(10), 1: Room(20, busy=0.9)}, 1),
    ],
    ids=["emptiest", "first", "fits", "least busy", "as busy", "fits nowhere"],
)
def test_a_model_goes_where_it_fits_and_least_is_done(
    nbytes: int, rooms: dict[int, Room], chosen: int
) -> None:
    assert choose(Need(nbytes), rooms) == chosen


def test_gpus_are_named_by_index_and_by_the_beginning_of_a_uuid() -> None:
    assert named([0, "GPU-b"], DEVICES) == {0, 2}
    assert named("all", DEVICES) == {0, 1, 2}


@pytest.mark.parametrize("gpu", [3, "GPU-cc", "GPU-aa", "MIG-aa"])
def test_a_gpu_that_is_not_there_or_not_alone_is_refused_with_those_that_are(
    gpu: int | str,
) -> None:
    there = r"0 \(GPU-aa00\), 1 \(GPU-aa11\), 2 \(GPU-bb22\)"
    with pytest.raises(ModelNotReady, match=f"gpus names {gpu!r}, and this server has {there}"):
        named([gpu], DEVICES)


def test_models_are_spread_by_size_the_largest_first(repository: Path) -> None:
    for name, mib in (("a", 10), ("b", 20), ("c", 30), ("d", 100), ("e", 40)):
        model(repository, name, mib)
    placements = Placements(repository, DEVICES)
    placements.survey()
    assert places(placements) == [["d"], ["a", "e"], ["b", "c"]]


def test_a_model_keeps_its_place_until_its_settings_name_another(repository: Path) -> None:
    model(repository, "a")
    placements = Placements(repository, DEVICES)
    placements.survey()
    busy = {0: 1.0}
    assert placements.decide("a", placements.need("a", None), busy) == {0}
    assert places(placements) == [["a"], [], []]
    override = Override('{"gpus": [1, 2]}')
    assert placements.decide("a", placements.need("a", override), busy) == {0}
    # Until it serves there, it does where it was.
    assert [placements.holds(worker, "a") for worker in range(3)] == [False, True, True]
    assert [placements.serves(worker, "a") for worker in range(3)] == [True, True, True]
    assert placements.leave("a") == {0}
    assert [placements.serves(worker, "a") for worker in range(3)] == [False, True, True]


def test_a_model_is_where_its_newest_version_with_settings_of_its_own_says(
    repository: Path,
) -> None:
    model(repository, "a")
    for version, gpus in ((2, "[1]"), (3, "[2]")):
        folder = repository / "a" / str(version)
        folder.mkdir()
        (folder / "model.onnx").touch()
        (folder / "model.yaml").write_text(f"gpus: {gpus}")
    (repository / "a" / "model.yaml").write_text("versions: all")
    placements = Placements(repository, DEVICES)
    placements.survey()
    assert places(placements) == [[], [], ["a"]]


def test_a_model_that_could_not_be_loaded_is_where_it_was(repository: Path) -> None:
    model(repository, "a")
    placements = Placements(repository, DEVICES)
    placements.survey()
    placements.restore("a", placements.decide("a", Need(gpus=[2]), {}))
    assert places(placements) == [["a"], [], []]
    placements.restore("new", placements.decide("new", Need(gpus=[2]), {}))
    assert places(placements) == [["a"], [], []]


def test_a_model_that_is_loaded_later_goes_to_the_gpu_with_the_least_to_do(
    repository: Path,
) -> None:
    placements = Placements(repository, DEVICES)
    placements.decide("a", Need(MIB), {0: 0.8, 1: 0.1, 2: 0.8})
    assert places(placements) == [[], ["a"], []]


def test_models_of_a_gpu_that_is_given_up_go_on_elsewhere_or_are_refused(
    repository: Path,
) -> None:
    model(repository, "everywhere", yaml="gpus: all")
    model(repository, "tied", yaml="gpus: [0]")
    model(repository, "free", 300)
    model(repository, "other", 200)
    placements = Placements(repository, DEVICES)
    placements.survey()
    assert places(placements) == [
        ["everywhere", "free", "tied"],
        ["everywhere", "other"],
        ["everywhere"],
    ]
    assert placements.give_up(0, "it ended 3 times") == ["free"]
    assert set(placements.workers) == {1, 2}
    assert places(placements) == [[], ["everywhere", "other"], ["everywhere", "free"]]
    assert placements.refused == {"tied": "GPU GPU-aa00 is given up: it ended 3 times"}
    with pytest.raises(ModelNotReady, match="GPU-aa00 is given up"):
        placements.decide("tied", placements.need("tied", None), {})
    placements.decide("tied", Need(gpus=[0, 1]), {})
    assert placements.refused == {}
    assert "tied" in places(placements)[1]


def test_a_model_that_names_no_gpu_of_this_server_is_refused_at_the_start(
    repository: Path,
) -> None:
    model(repository, "a", yaml="gpus: [7]")
    model(repository, "b")
    placements = Placements(repository, DEVICES)
    placements.survey()
    assert list(placements.refused) == ["a"]
    assert places(placements) == [["b"], [], []]


@pytest.mark.parametrize("devices", [[], DEVICES[:1]])
def test_one_worker_has_all_models_whatever_they_name(
    repository: Path, devices: list[Device]
) -> None:
    model(repository, "a", yaml="gpus: [7]")
    placements = Placements(repository, devices)
    placements.survey()
    placements.decide("a", placements.need("a", None), {})
    assert (placements.names_of(0), placements.refused) == (None, {})
    assert placements.holds(0, "a")
