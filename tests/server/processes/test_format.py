"""Messages between processes: every one arrives as it was sent, and nothing else is ever made."""

from __future__ import annotations

import json
import os
import pickle
import socket
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from inferd.tensors import DATATYPES
from inferd_engines.engine import Signature, Tensor
from inferd_server.errors import InferdError, QueueFull, Unavailable
from inferd_server.models.config import ModelConfig
from inferd_server.models.health_check import TrialVerdict
from inferd_server.monitoring.drift.measures import Kind, Measure
from inferd_server.monitoring.drift.reference import Feature, Reference
from inferd_server.monitoring.snapshot import MetricsSnapshot
from inferd_server.processes import format as plain
from inferd_server.processes.channel import Channel, PeerLost
from inferd_server.processes.format import Answered, Asked, FormatError, Told, pack, unpack
from inferd_server.processes.messages import (
    Layout,
    Measured,
    ModelRecord,
    ModelRecords,
    ProcessPlace,
)
from inferd_server.settings.model import Settings

PATIENCE = 10.0
CONFIGS = [
    ModelConfig(),
    ModelConfig.model_validate(
        {
            "priority_levels": 3,
            "priority_queue_rows": {1: 4},
            "versions": [1, 7],
            "labels": {"OUTPUT0": ["a", "b"]},
            "queue_policy": {"default_timeout_ms": 2.5, "allow_timeout_override": False},
            "priority_queue_policy": {3: {"timeout_action": "delay"}},
            "sequence": None,
            "response_cache": {"ttl_s": 1.5},
            "warm_up": [],
        }
    ),
]
st.register_type_strategy(np.dtype, st.sampled_from(list(DATATYPES.values())))
st.register_type_strategy(float, st.floats(allow_nan=False))
st.register_type_strategy(ModelConfig, st.sampled_from(CONFIGS))
st.register_type_strategy(
    Settings, st.sampled_from([Settings(), Settings.model_validate({"split": {"fronts": 3}})])
)
REFERENCE = Reference(
    "a file",
    300,
    (Measure("p", output=True, kind=Kind.PROBABILITIES, labels=("0", "1")),),
    (Feature("p.class", (0.5, 1.5), (200, 100, 0, 0), ("0", "1")),),
)
# Of its many parts each would be drawn, which takes long.
st.register_type_strategy(Reference, st.just(REFERENCE))
BODIES = st.one_of([st.from_type(kind) for kind in plain.KINDS.values()])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=20,
)
KINDS = st.sampled_from(sorted(plain.KINDS))


@settings(deadline=None, max_examples=300)
@given(BODIES)
def test_every_message_arrives_as_it_was_sent(body: object) -> None:
    for message in (Told(body), Asked(7, body), Answered(7, body, None)):
        assert unpack(pack(message)) == message


def test_every_kind_of_message_is_known() -> None:
    assert {
        "ProcessPlace",
        "ModelRecords",
        "TrialVerdict",
        "Measured",
        "Stop",
        "RegisterRegion",
    } <= plain.KINDS.keys()


@settings(deadline=None, max_examples=300)
@given(st.binary() | JSON.map(lambda data: json.dumps(data).encode()))
def test_garbage_is_refused_by_the_formats_own_error(data: bytes) -> None:
    with pytest.raises(FormatError):
        unpack(data)


@settings(deadline=None, max_examples=300)
@given(st.sampled_from(["told", "asked", "answered"]), KINDS, JSON, JSON)
def test_a_wrong_body_is_refused_or_read_as_what_it_claims(
    envelope: str, kind: str, body: Any, last: Any
) -> None:
    parts = {"told": [], "asked": [1], "answered": [1]}[envelope]
    data = [envelope, *parts, [kind, body], *([last] if envelope == "answered" else [])]
    try:
        found = unpack(json.dumps(data).encode())
    except FormatError:
        return
    assert isinstance(found, Told | Asked | Answered)


@settings(deadline=None, max_examples=200)
@given(BODIES, st.data())
def test_a_message_with_a_part_replaced_is_refused_or_another_message(
    body: object, data: st.DataObject
) -> None:
    written = pack(Told(body))
    start = data.draw(st.integers(0, len(written) - 1))
    end = data.draw(st.integers(start, len(written)))
    try:
        unpack(written[:start] + data.draw(st.binary(max_size=9)) + written[end:])
    except FormatError:
        return


class Exploit:
    """What a process that was taken over would send to one that reads pickles."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return os.mkdir, (str(self.path),)


def test_a_process_that_was_taken_over_runs_no_code_in_the_one_that_listens(
    tmp_path: Path,
) -> None:
    ours, theirs = socket.socketpair()
    channel, evil = Channel(Connection(ours.detach())), Connection(theirs.detach())
    heard: list[object] = []
    question = channel.ask("anything")
    evil.send(Told(Exploit(tmp_path / "made")))
    # It returns: who sends what is no message is not listened to.
    channel.read(heard.append)
    assert heard == []
    assert not (tmp_path / "made").exists()
    assert isinstance(question.exception(PATIENCE), PeerLost)
    evil.close()


@pytest.mark.parametrize(
    "data",
    [
        b'["told",["Popen",{"args":"true"}]]',
        b'["told",["builtins.eval","1"]]',
        b"[" * 100_000,
        b"9" * 100_000,
        b'["told",["Stop",{"grace":1.0,"more":2}]]',
        b'["told",["Stop",{}]]',
        b'["told",["Stop",{"grace":"1"}]]',
        b'["told",["Attach",{"link":true}]]',
        b'["answered",1,null,["SystemExit","0","",[],null]]',
        b'["asked","1",null]',
        b"",
        b"\xff",
        pickle.dumps(Told("x")),
    ],
)
def test_unknown_types_and_wrong_fields_are_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        unpack(data)


def test_an_error_that_others_do_not_know_arrives_as_the_nearest_one_they_do() -> None:
    answer = unpack(pack(Answered(1, None, PeerLost("gone"))))
    assert isinstance(answer, Answered)
    assert type(answer.error) is Unavailable
    assert str(answer.error) == "gone"


def test_an_error_keeps_what_it_says() -> None:
    error = QueueFull("full", reason="FULL", facts={"rows": "3"}, retry_after=1.5)
    answer = unpack(pack(Answered(1, None, error)))
    assert isinstance(answer, Answered)
    found = answer.error
    assert isinstance(found, InferdError)
    assert (str(found), found.reason, found.facts, found.retry_after) == (
        "full",
        "FULL",
        {"rows": "3"},
        1.5,
    )


def test_what_counts_is_a_plain_number_on_its_way() -> None:
    gauges = {"a": True, "b": 2, "c": np.float32(0.5)}
    told = unpack(pack(Told(Measured(MetricsSnapshot(gauges=gauges), {}))))
    assert told == Told(Measured(MetricsSnapshot(gauges={"a": 1.0, "b": 2.0, "c": 0.5}), {}))


def test_numbers_of_numpy_are_plain_numbers_on_their_way() -> None:
    layout = Layout(np.int64(8), np.int32(4096), np.uint8(64))
    assert unpack(pack(Told(ProcessPlace(Settings(), 0, layout, (), (), (1,), "")))) == Told(
        ProcessPlace(Settings(), 0, Layout(8, 4096, 64), (), (), (1,), "")
    )


@pytest.mark.parametrize(
    "body", [object(), ModelRecords, Signature((), ()), Tensor, {"a": 1}, 1.5j]
)
def test_what_is_no_message_is_not_sent(body: object) -> None:
    with pytest.raises(FormatError):
        pack(Told(body))


def test_a_message_that_is_too_long_ends_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inferd_server.processes.channel.MOST_BYTES", 100)
    ours, theirs = socket.socketpair()
    channel, other = Channel(Connection(ours.detach())), Connection(theirs.detach())
    other.send_bytes(pack(Told("x" * 200)))
    heard: list[object] = []
    channel.read(heard.append)
    assert heard == []
    other.close()


def test_types_with_parts_are_made_of_checked_parts() -> None:
    told = unpack(pack(Told(ModelRecords((ModelRecord("m", 1, "READY", "", None),), True))))
    assert told == Told(ModelRecords((ModelRecord("m", 1, "READY", "", None),), True))
    assert Measured in plain.KINDS.values()
    assert TrialVerdict in plain.KINDS.values()
