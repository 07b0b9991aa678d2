"""Sealed and signed models behind a server: served, refused, and nowhere to be read."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import grpc
import numpy as np
import onnx
import pytest
from inferd.oip.v2 import inference_pb2 as oip
from inferd_server.errors import SettingsError
from inferd_server.models.trust import check_trust
from inferd_server.settings.security import SealSettings
from onnx import helper, numpy_helper

from benchmarks.peers.memory import tree
from tests import models
from tests.seal.sealing import Keys, make_keys
from tests.server.lifecycle.process import Process, ready_process
from tests.server.sequences.test_served import reason
from tests.server.serving import (
    Running,
    arrays,
    failure,
    infer_request,
    rows,
    running,
    running_replicas,
    running_split,
)

STARTS = {"one process": running, "split": running_split, "replicas": running_replicas}
MARK = b"PLAINTEXT-OF-A-WEIGHT/32-BYTES!!"
WEIGHT = np.frombuffer(MARK * 1024, np.float32)


def marked() -> onnx.ModelProto:
    """OUTPUT0 is INPUT0 times 2; with a weight of which a disk must show nothing."""
    dims = ("batch", 4)
    weights = [
        numpy_helper.from_array(np.array(2.0, np.float32), "factor"),
        numpy_helper.from_array(WEIGHT, "marked"),
        numpy_helper.from_array(np.array(0.0, np.float32), "none"),
    ]
    nodes = [
        helper.make_node("ReduceMax", ["marked"], ["most"], keepdims=0),
        helper.make_node("Mul", ["most", "none"], ["nothing"]),
        helper.make_node("Mul", ["INPUT0", "factor"], ["twice"]),
        helper.make_node("Add", ["twice", "nothing"], ["OUTPUT0"]),
    ]
    ends = [models.tensor(name, "FP32", dims) for name in ("INPUT0", "OUTPUT0")]
    return models.model(nodes, ends[:1], ends[1:], weights)


def lay_out(root: Path, name: str = "m", version: int = 1, *, beside: bool = False) -> Path:
    """Put the model into a repository, its weights in a file beside it if asked for."""
    folder = root / name / str(version)
    folder.mkdir(parents=True)
    how = {"save_as_external_data": True, "location": "w.bin", "size_threshold": 1024}
    onnx.save(marked(), folder / "model.onnx", **(how if beside else {}))
    return folder


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return make_keys(tmp_path)


def index(server: Running) -> dict[tuple[str, str], tuple[str, str]]:
    """Return state and reason of every version."""
    told = server.stub.RepositoryIndex(oip.RepositoryIndexRequest())
    return {(one.name, one.version): (one.state, one.reason) for one in told.models}


def answers(server: Running, name: str = "m") -> None:
    reply = server.infer(infer_request(name, rows(3.0)))
    assert arrays(reply)["OUTPUT0"].tolist() == [[6.0] * 4]


def load(server: Running, name: str) -> None:
    server.stub.RepositoryModelLoad(oip.RepositoryModelLoadRequest(model_name=name))


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("beside", [False, True])
def test_a_sealed_model_is_served_and_a_damaged_one_is_refused_in_every_arrangement(
    keys: Keys, tmp_path: Path, start: str, beside: bool
) -> None:
    root = tmp_path / "models"
    keys.seal(lay_out(root, beside=beside))
    damaged = keys.seal(lay_out(root, "damaged", beside=beside)) / "model.onnx"
    content = bytearray(damaged.read_bytes())
    content[-20] ^= 1
    whole = {"strict_readiness": "false", **keys.settings}
    damaged.write_bytes(content)
    with STARTS[start](root, **whole) as server:
        answers(server)
        state, why = index(server)["damaged", "1"]
        assert (state, "part 1 of model.onnx was changed" in why) == ("UNAVAILABLE", True)
        error = failure(lambda: load(server, "damaged"))
        assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert reason(error) == "SEAL_TAMPERED"
        answers(server)


def flip(folder: Path) -> None:
    content = bytearray((folder / "model.onnx").read_bytes())
    content[-20] ^= 1
    (folder / "model.onnx").write_bytes(content)


def cut(folder: Path) -> None:
    content = (folder / "model.onnx").read_bytes()
    (folder / "model.onnx").write_bytes(content[:-1])


def unsign(folder: Path) -> None:
    (folder / "model.sig").unlink()


def lay_plain(folder: Path) -> None:
    shutil.rmtree(folder)
    models.save(marked(), folder / "model.onnx")


def other_name(folder: Path) -> None:
    told = folder.parents[1] / "other" / "1"
    shutil.rmtree(folder)
    shutil.copytree(told, folder)


REFUSED: dict[str, tuple[Callable[[Path], None], str]] = {
    "tampered": (flip, "SEAL_TAMPERED"),
    "truncated": (cut, "SEAL_TRUNCATED"),
    "unsigned": (unsign, "SEAL_NOT_SIGNED"),
    "plain": (lay_plain, "SEAL_NOT_SEALED"),
    "renamed": (other_name, "SEAL_RENAMED"),
}


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Running, Path, Keys]]:
    """Serve sealed models, one for each way in which it is damaged once it serves."""
    folder = tmp_path_factory.mktemp("strict")
    keys = make_keys(folder)
    for name in (*REFUSED, "other", "wrong-key", "wrong-signer", "newer", "resealed"):
        keys.seal(lay_out(folder / "models", name))
    with running(folder / "models", **keys.settings) as server:
        yield server, folder / "models", keys


@pytest.mark.parametrize("damage", REFUSED)
def test_each_damage_has_its_reason_and_what_serves_goes_on(
    strict: tuple[Running, Path, Keys], damage: str
) -> None:
    server, root, _ = strict
    do, expected = REFUSED[damage]
    do(root / damage / "1")
    error = failure(lambda: load(server, damage))
    assert (error.code(), reason(error)) == (grpc.StatusCode.FAILED_PRECONDITION, expected)
    state, why = index(server)[damage, "1"]
    assert state == "READY"
    assert why
    answers(server, damage)


@pytest.mark.parametrize("name", ["wrong-key", "wrong-signer"])
def test_a_wrong_key_and_a_wrong_signer_have_their_reasons(
    strict: tuple[Running, Path, Keys], name: str
) -> None:
    server, root, keys = strict
    others = make_keys(root.parent, f"{name}-")
    pair = (keys, others) if name == "wrong-signer" else (others, keys)
    shutil.rmtree(root / name)
    Keys(pair[0].key, pair[1].private, pair[1].public).seal(lay_out(root, name))
    error = failure(lambda: load(server, name))
    assert reason(error) == f"SEAL_{name.upper().replace('-', '_')}"


def test_an_older_version_put_in_the_place_of_a_newer_one_is_replayed(
    strict: tuple[Running, Path, Keys],
) -> None:
    server, root, _ = strict
    shutil.copytree(root / "newer/1", root / "newer/2")
    error = failure(lambda: load(server, "newer"))
    assert reason(error) == "SEAL_REPLAYED"
    assert arrays(server.infer(infer_request("newer", rows(1.0))))["OUTPUT0"].tolist()


def test_another_sealing_of_the_same_version_is_taken_until_its_key_is_taken_away(
    keys: Keys, tmp_path: Path
) -> None:
    other, root = make_keys(tmp_path, "other-"), tmp_path / "models"
    folder, older = keys.seal(lay_out(root)), tmp_path / "older"
    shutil.copytree(folder, older)
    shutil.rmtree(root)
    Keys(other.key, keys.private, keys.public).seal(lay_out(root))
    shutil.rmtree(folder)
    shutil.copytree(older, folder)
    # Both are whole, and by the same signer: docs/sealing.md.
    with running(root, **{**keys.settings, "model_keys": f"{keys.key},{other.key}"}) as server:
        answers(server)
    with running(root, **{**keys.settings, "model_keys": other.key}) as server:
        assert reason(failure(lambda: load(server, "m"))) == "SEAL_WRONG_KEY"


def test_a_file_of_another_sealing_of_the_same_version_is_replayed(
    strict: tuple[Running, Path, Keys],
) -> None:
    server, root, keys = strict
    older = keys.seal(lay_out(root.parent / "older", "resealed")) / "model.onnx"
    shutil.copy(older, root / "resealed/1/model.onnx")
    assert reason(failure(lambda: load(server, "resealed"))) == "SEAL_REPLAYED"


def test_a_library_of_operators_that_nobody_signed_is_refused_where_all_must_be(
    strict: tuple[Running, Path, Keys],
) -> None:
    server, root, keys = strict
    keys.seal(lay_out(root, "ops"))
    (root / "ops/model.yaml").write_text("custom_ops: [ops.so]")
    (root / "ops/ops.so").write_bytes(b"code")
    assert reason(failure(lambda: load(server, "ops"))) == "SEAL_NOT_SIGNED"


def test_a_key_that_cannot_be_had_is_asked_for_again(keys: Keys, tmp_path: Path) -> None:
    root, later = tmp_path / "models", tmp_path / "later"
    keys.seal(lay_out(root))
    with running(root, **{**keys.settings, "model_keys": f"command:cat {later}"}) as server:
        state, why = index(server)["m", "1"]
        assert (state, "the command of the key ended with 1" in why) == ("UNAVAILABLE", True)
        error = failure(lambda: load(server, "m"))
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert reason(error) == "SEAL_KEY_UNAVAILABLE"
        shutil.copy(tmp_path / "key", later)
        load(server, "m")
        answers(server)


def test_a_key_is_changed_while_the_model_serves(keys: Keys, tmp_path: Path) -> None:
    from inferd_seal.folder import rotate

    root, other = tmp_path / "models", make_keys(tmp_path, "other-")
    folder = keys.seal(lay_out(root))
    both = f"{keys.key},{other.key}"
    with running(root, **{**keys.settings, "model_keys": both}) as server:
        rotate(folder, [keys.key], [other.key])
        load(server, "m")
        answers(server)


def test_a_sealed_model_without_its_seal_says_what_it_is(keys: Keys, tmp_path: Path) -> None:
    folder = keys.seal(lay_out(tmp_path / "models"))
    (folder / "seal.json").unlink()
    with running(tmp_path / "models") as server:
        assert "is sealed, and its seal.json is not beside it" in index(server)["m", "1"][1]


def test_a_sealed_model_without_a_key_says_what_is_missing(keys: Keys, tmp_path: Path) -> None:
    keys.seal(lay_out(tmp_path / "models"))
    with running(tmp_path / "models") as server:
        assert "nothing says where its key is" in index(server)["m", "1"][1]


def test_weights_of_a_branch_are_not_unsealed_to_a_disk(keys: Keys, tmp_path: Path) -> None:
    folder = tmp_path / "models/m/1"
    folder.mkdir(parents=True)
    how = {"save_as_external_data": True, "location": "w.bin", "size_threshold": 0}
    onnx.save(branching(), folder / "model.onnx", **how)
    keys.seal(folder)
    with running(tmp_path / "models", **keys.settings) as server:
        assert "save the model as one file" in index(server)["m", "1"][1]


def branching() -> onnx.ModelProto:
    """OUTPUT0 is INPUT0 times a weight, by a branch."""

    def branch(name: str) -> onnx.GraphProto:
        weight = numpy_helper.from_array(np.ones(4, np.float32), f"{name}_weight")
        node = helper.make_node("Mul", ["INPUT0", f"{name}_weight"], [name])
        return helper.make_graph([node], name, [], [models.tensor(name, "FP32", (1, 4))], [weight])

    node = helper.make_node(
        "If", ["yes"], ["OUTPUT0"], then_branch=branch("then"), else_branch=branch("else")
    )
    ends = [models.tensor(name, "FP32", (1, 4)) for name in ("INPUT0", "OUTPUT0")]
    yes = models.tensor("yes", "BOOL", ())
    return models.model([node], [ends[0], yes], ends[1:])


@pytest.mark.parametrize("arrangement", [("inline",), ("split", "--fronts", "1")])
def test_no_plaintext_is_in_any_file_while_a_sealed_model_serves(
    keys: Keys, tmp_path: Path, arrangement: tuple[str, ...]
) -> None:
    root, temporary = tmp_path / "models", tmp_path / "tmp"
    temporary.mkdir()
    keys.seal(lay_out(root))
    keys.seal(lay_out(root, "beside", beside=True))
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in keys.settings.items()]
    flags += ["--verdict-store", str(tmp_path / "rows"), "--processes", *arrangement]
    environment = {"TMPDIR": str(temporary), "HOME": str(tmp_path)}
    before = set(Path("/dev/shm").iterdir())
    with ready_process(root, *flags, environment=environment) as (process, where):
        with grpc.insecure_channel(f"127.0.0.1:{where['grpc_port']}") as channel:
            stub = oip_stub(channel)
            for name in ("m", "beside"):
                stub(infer_request(name, rows(3.0)), timeout=10)
        seen = set(tmp_path.rglob("*")) | (set(Path("/dev/shm").iterdir()) - before)
        open_files = set(files_of(process))
        assert len(open_files) > 5
        assert [str(path) for path in sorted(seen | open_files) if holds_mark(path)] == []


def test_the_scan_finds_plaintext_where_there_is_some(tmp_path: Path) -> None:
    folder = lay_out(tmp_path)
    assert holds_mark(folder / "model.onnx")


def oip_stub(channel: grpc.Channel) -> Callable[..., object]:
    from inferd.oip.v2.inference_pb2_grpc import GRPCInferenceServiceStub

    infer: Callable[..., object] = GRPCInferenceServiceStub(channel).ModelInfer
    return infer


def files_of(process: Process) -> Iterator[Path]:
    """Yield the open files of a server's processes, memory without a name among them."""
    for pid in tree(process.pid):
        yield from Path(f"/proc/{pid}/fd").iterdir()


def holds_mark(path: Path) -> bool:
    """True for a regular file, or memory with a descriptor, that holds a piece of the weight."""
    # A piece as a file, a page or a chunk may begin anywhere.
    with suppress(OSError):
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return MARK in os.pread(file.fileno(), 1 << 30, 0)
    return False


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"require_models": "signed"}, "require_models is signed, and model_signers names nobody"),
        (
            {"require_models": "sealed", "model_signers": ["x.pem"]},
            "require_models is sealed, and model_keys names no key",
        ),
        ({"model_keys": ["env:"]}, "model_keys: 'env:' does not say where a key is"),
        ({"model_signers": ["no.pem"]}, "model_signers: the key no.pem cannot be read"),
    ],
)
def test_settings_that_nothing_could_meet_are_refused_at_the_start(
    settings: dict[str, object], sentence: str
) -> None:
    with pytest.raises(SettingsError, match=sentence):
        check_trust(SealSettings.model_validate(settings))


def test_the_index_of_a_sealed_model_tells_nothing_of_its_key(keys: Keys, tmp_path: Path) -> None:
    other = make_keys(tmp_path, "other-")
    keys.seal(lay_out(tmp_path / "models"))
    with running(tmp_path / "models", model_keys=other.key) as server:
        told = json.dumps(list(index(server).values()))
        assert "sealed with the key" in told
        assert (tmp_path / "key").read_bytes().hex() not in told
