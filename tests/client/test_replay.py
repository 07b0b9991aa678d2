"""inferd replay: what it sends, in which order, and what it says of the answers."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import grpc
import numpy as np
import pytest
from inferd.oip.v2 import inference_pb2 as pb
from inferd.recording import NPZ, PARQUET, PartName, Recorded, part_key, write_part
from inferd.tensors import Array
from inferd_client.cli import main
from inferd_client.errors import InvalidInput
from inferd_client.replay.recording import Recording
from inferd_client.replay.sending import Outcome, Pace, Sender

from tests.fakes.clock import FakeClock
from tests.fakes.oip_server import OipServer, echo

PATIENCE = 10.0


def request(at: float, value: float = 0.0, **changes: object) -> Recorded:
    """Return a request that the echoing server answers as recorded."""
    rows = np.full((1, 2), value, np.float32)
    known = {"model": "m", "version": "1", "id": f"{at:g}", "inputs": {"x": rows}}
    return Recorded(**{**known, "at": at, "outputs": {"x": rows}, **changes})  # type: ignore[arg-type]


def record(
    folder: Path, *requests: Recorded, process: str = "a-1", number: int = 1, suffix: str = NPZ
) -> Path:
    name = PartName(requests[0].at, len(requests), suffix)
    path = folder / part_key(requests[0].model, requests[0].version, process, number, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(write_part(requests, suffix))
    return path


def replayed(
    server: OipServer, folder: Path, capsys: pytest.CaptureFixture[str], *flags: str
) -> tuple[int, dict[str, object]]:
    """Return the exit code and the JSON."""
    code = main(["replay", str(folder), "--url", server.address, "--json", *flags])
    return code, json.loads(capsys.readouterr().out)


def counts(report: Mapping[str, object]) -> Sequence[object]:
    names = ("agreed", "differed", "failed", "not_compared", "not_sent")
    return [report[name] for name in names]


# Reading.


def test_requests_of_several_processes_and_models_come_in_the_order_of_their_time(
    tmp_path: Path,
) -> None:
    pytest.importorskip("pyarrow", reason="the oldest libraries of a client have no Parquet")
    record(tmp_path, *map(request, (1.0, 4.0, 9.0)), process="a-1")
    record(tmp_path, *map(request, (2.0, 3.0, 8.0)), process="b-2")
    record(tmp_path, request(5.0, model="n"), request(7.0, model="n"), suffix=PARQUET)
    record(tmp_path, request(10.0), process="b-2", number=2)
    (tmp_path / "notes.txt").write_text("nothing of a recording")
    recording = Recording(str(tmp_path))
    assert [one.at for one in recording] == [1, 2, 3, 4, 5, 7, 8, 9, 10]
    assert recording.requests == 9


def test_a_part_is_read_only_when_its_time_has_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for at in range(5):
        record(tmp_path, request(10.0 * at), request(10.0 * at + 5), number=at)
    opened = list[str]()
    recording = Recording(str(tmp_path))
    read = recording._objects.read

    def counting(key: str, start: int) -> Iterator[bytes]:
        opened.append(key)
        return read(key, start)

    monkeypatch.setattr(recording._objects, "read", counting)
    seen = [(one.at, len(opened)) for one in recording]
    assert seen == [(5.0 * index, index // 2 + 1) for index in range(10)]


def test_one_part_can_be_read_alone_under_another_name(tmp_path: Path) -> None:
    path = record(tmp_path, request(1.0), request(2.0))
    assert [one.at for one in Recording(str(path))] == [1.0, 2.0]
    assert [one.at for one in Recording(str(path.rename(tmp_path / "some.npz")))] == [1.0, 2.0]


def test_a_folder_without_a_recording_is_refused(tmp_path: Path) -> None:
    for where in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(InvalidInput):
            Recording(str(where))


def test_a_damaged_part_is_told_by_its_name(tmp_path: Path) -> None:
    path = record(tmp_path, request(1.0))
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InvalidInput, match=r"m/1/19700101T000001.*cannot be read: it is damaged"):
        list(Recording(str(tmp_path)))


# Sending.


def sent(
    requests: Sequence[Recorded],
    send: Callable[[Recorded], Mapping[str, Array]],
    pace: Pace,
) -> list[Outcome]:
    found = list[Outcome]()
    Sender(send, pace, found.append).run(enumerate(requests))
    return found


def as_fast(concurrency: int) -> Pace:
    return Pace(concurrency, 0.0, FakeClock(), lambda _: None)


def test_as_many_requests_as_asked_for_await_their_answer_and_no_more() -> None:
    together = threading.Barrier(3)
    most, running = 0, 0
    lock = threading.Lock()

    def send(one: Recorded) -> Mapping[str, Array]:
        nonlocal most, running
        with lock:
            running += 1
            most = max(most, running)
        # Without three at a time this never ends.
        together.wait(PATIENCE)
        with lock:
            running -= 1
        return one.outputs

    found = sent([request(float(at)) for at in range(9)], send, as_fast(3))
    assert (len(found), most) == (9, 3)
    assert sorted(one.index for one in found) == list(range(9))


def test_requests_of_a_sequence_are_sent_one_after_the_other() -> None:
    held = threading.Event()
    order = list[str]()

    def send(one: Recorded) -> Mapping[str, Array]:
        if one.id == "0":
            held.wait(PATIENCE)
        order.append(one.id)
        if one.id == "3":
            held.set()
        return one.outputs

    steps = [request(float(at), parameters={"sequence_id": 7}) for at in range(3)]
    found = sent([*steps, request(3.0)], send, as_fast(4))
    assert order == ["3", "0", "1", "2"]
    assert len(found) == 4


def test_requests_are_sent_when_they_came_times_the_speed() -> None:
    clock = FakeClock(100.0)
    slept = list[float]()

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        clock.advance(seconds)

    requests = [request(50.0), request(51.0), request(60.0)]
    found = sent(requests, lambda one: one.outputs, Pace(1, 2.0, clock, sleep))
    assert slept == [0.5, 4.5]
    assert {one.late for one in found} == {0.0}


def test_who_cannot_keep_the_pace_is_told_by_how_much() -> None:
    clock = FakeClock()

    def send(one: Recorded) -> Mapping[str, Array]:
        clock.advance(3.0)
        return one.outputs

    # The second is read when the first was answered, three seconds after it came.
    found = list[Outcome]()
    sender = Sender(send, Pace(1, 1.0, clock, clock.advance), found.append)
    answered = threading.Event()

    def requests() -> Iterator[tuple[int, Recorded]]:
        yield 0, request(0.0)
        with sender._places:
            answered.set()
        yield 1, request(1.0)

    sender.run(requests())
    assert answered.is_set()
    assert [one.late for one in found] == [0.0, 2.0]


def test_an_error_of_the_reading_ends_the_replay_and_is_told() -> None:
    def requests() -> Iterator[tuple[int, Recorded]]:
        yield 0, request(0.0)
        raise InvalidInput("damaged")

    sender = Sender(lambda one: one.outputs, as_fast(2), lambda _: None)
    with pytest.raises(InvalidInput, match="damaged"):
        sender.run(requests())


# The command.


def test_answers_as_recorded_agree(
    server: OipServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record(tmp_path, *(request(float(at), at) for at in range(20)))
    code, report = replayed(server, tmp_path, capsys)
    assert (code, counts(report)) == (0, [20, 0, 0, 0, 0])


def test_a_request_is_sent_as_it_was_recorded(server: OipServer, tmp_path: Path) -> None:
    parameters = {"priority": 2, "note": "own", "sequence_id": 2**63 + 1}
    record(tmp_path, request(1.0, 2.5, parameters=parameters, id="abc", version="7"))
    assert main(["replay", str(tmp_path), "--url", server.address]) == 0
    seen = server.seen
    assert (seen.model_name, seen.model_version, seen.id) == ("m", "7", "abc")
    assert [output.name for output in seen.outputs] == ["x"]
    assert seen.parameters["priority"].int64_param == 2
    assert seen.parameters["note"].string_param == "own"
    assert seen.parameters["sequence_id"].uint64_param == 2**63 + 1
    assert list(seen.raw_input_contents) == [np.full((1, 2), 2.5, np.float32).tobytes()]


@pytest.mark.parametrize(
    ("flags", "model", "version"),
    [
        (["--model", "other"], "other", "1"),
        (["--version", "3"], "m", "3"),
        (["--version", "any"], "m", ""),
    ],
)
def test_another_model_or_version_can_be_asked(
    server: OipServer, tmp_path: Path, flags: list[str], model: str, version: str
) -> None:
    record(tmp_path, request(1.0))
    assert main(["replay", str(tmp_path), "--url", server.address, *flags]) == 0
    assert (server.seen.model_name, server.seen.model_version) == (model, version)


def spoilt(wrong: set[str]) -> Callable[[pb.ModelInferRequest], pb.ModelInferResponse]:
    """Answer some requests by id with 0.5 more than was recorded."""

    def infer(asked: pb.ModelInferRequest) -> pb.ModelInferResponse:
        answer = echo(asked)
        if asked.id in wrong:
            values = np.frombuffer(answer.raw_output_contents[0], np.float32) + 0.5
            answer.raw_output_contents[0] = values.tobytes()
        return answer

    return infer


def test_answers_that_differ_are_listed_by_index_and_by_how_much(
    server: OipServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.infer = spoilt({"3", "11"})
    record(tmp_path, *(request(float(at), at) for at in range(20)))
    code, report = replayed(server, tmp_path, capsys)
    assert (code, counts(report)) == (1, [18, 2, 0, 0, 0])
    different = report["different"]
    assert isinstance(different, list)
    assert [one["index"] for one in different] == [3, 11]
    assert different[0] == {
        "index": 3,
        "id": "3",
        "at": 3.0,
        "model": "m",
        "version": "1",
        "outputs": [
            {
                "output": "x",
                "what": "2 of 2 elements",
                "largest": 0.5,
                "place": [0, 0],
                "recorded": "3.0",
                "answered": "3.5",
            }
        ],
    }
    assert main(["replay", str(tmp_path), "--url", server.address, "--list", "1"]) == 1
    first, line, more = capsys.readouterr().out.splitlines()
    assert first.endswith("18 agreed, 2 differed, 0 failed")
    assert "x: 2 of 2 elements, most at [0, 0]: " in line
    assert line.endswith(", 0.5 apart")
    assert more == "and 1 more (--list shows more)"
    code, report = replayed(server, tmp_path, capsys, "--atol", "0.6")
    assert (code, counts(report)) == (0, [20, 0, 0, 0, 0])


def test_errors_are_counted_and_told_and_the_rest_goes_on(
    server: OipServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record(tmp_path, request(1.0), request(2.0))
    server.fail_infer = (grpc.StatusCode.NOT_FOUND, "no such version", "VersionNotFound")
    code, report = replayed(server, tmp_path, capsys)
    assert (code, counts(report)) == (1, [0, 0, 2, 0, 0])
    errors = report["errors"]
    assert isinstance(errors, list)
    assert [(one["index"], one["error"]) for one in errors] == [
        (0, "VersionNotFound: no such version"),
        (1, "VersionNotFound: no such version"),
    ]


def test_what_was_masked_is_neither_sent_nor_compared(
    server: OipServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hidden = np.zeros((1, 2), np.float32)
    record(
        tmp_path,
        request(1.0, 1.0),
        request(2.0, 1.0, masked_inputs=["x"]),
        request(3.0, 1.0, outputs={"x": hidden}, masked_outputs=["x"]),
        request(4.0, 1.0, outputs={}, masked_outputs=["x"]),
        request(5.0, 1.0),
    )
    server.infer = spoilt({"5"})
    code, report = replayed(server, tmp_path, capsys)
    assert (code, counts(report)) == (1, [1, 1, 0, 2, 1])
    different = report["different"]
    assert isinstance(different, list)
    assert [one["index"] for one in different] == [4]


def test_a_replay_that_compared_nothing_is_no_success(
    server: OipServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record(tmp_path, request(1.0, masked_inputs=["x"]))
    code, report = replayed(server, tmp_path, capsys)
    assert (code, counts(report)) == (1, [0, 0, 0, 0, 1])


@pytest.mark.parametrize(
    "flags", [["--concurrency", "0"], ["--speed", "-1"], ["--rtol", "nan"], ["--list", "-1"]]
)
def test_numbers_that_cannot_be_meant_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str]
) -> None:
    assert main(["replay", str(tmp_path), *flags]) == 1
    assert f"{flags[0]} must be" in capsys.readouterr().err


def test_json_can_go_to_a_file_beside_the_text(
    server: OipServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record(tmp_path / "r", request(1.0))
    target = tmp_path / "report.json"
    flags = ["--url", server.address, "--json", str(target), "--speed", "10"]
    assert main(["replay", str(tmp_path / "r"), *flags]) == 0
    assert "1 agreed" in capsys.readouterr().out
    report = json.loads(target.read_text())
    assert (report["agreed"], report["late_s"] >= 0) == (1, True)
