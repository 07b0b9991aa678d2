"""Sealed folders: made, read, signed, given other keys, and refused for what is wrong with them."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from inferd_seal import errors
from inferd_seal.folder import alone_in, rotate, seal_folder, seal_of
from inferd_seal.reader import Trust, VersionReader, verify_folder
from inferd_seal.signature import read_private_key, read_public_key

from tests.killing import NEVER

from .sealing import Keys, make_keys, plain_folder

MANY = 100
"""Times that a command is killed."""
ROOT = Path(__file__).parents[2]
CLI = ROOT / ".tools/model-signing/bin/python"


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return make_keys(tmp_path)


def content(folder: Path, trust: Trust, version: int = 1) -> bytes:
    with (folder / "model.onnx").open("rb") as file:
        return VersionReader(folder, folder.parent.name, version, trust).read("model.onnx", file)


def test_a_sealed_version_reads_as_it_was_and_shows_nothing(keys: Keys, tmp_path: Path) -> None:
    folder = plain_folder(tmp_path, content=b"a secret weight" * 9)
    keys.seal(folder)
    assert content(folder, keys.trust) == b"a secret weight" * 9
    assert not any(b"secret" in path.read_bytes() for path in folder.rglob("*") if path.is_file())
    assert sorted(path.name for path in folder.parent.iterdir()) == ["1"]


def test_what_fails_while_it_is_sealed_leaves_the_folder_as_it_was(
    keys: Keys, tmp_path: Path
) -> None:
    folder = plain_folder(tmp_path)
    (folder / "link").symlink_to("/etc/hostname")
    with pytest.raises(errors.Unusable, match="is a link"):
        keys.seal(folder)
    assert seal_of(folder) is None
    assert sorted(path.name for path in folder.parent.iterdir()) == ["1"]


def test_what_a_killed_command_left_in_the_clear_goes_with_the_next(
    keys: Keys, tmp_path: Path
) -> None:
    folder = keys.seal(plain_folder(tmp_path))
    (folder.parent / ".1.sealing").mkdir()
    (folder.parent / ".1.sealing/model.onnx").write_bytes(b"in the clear")
    with pytest.raises(errors.Unusable, match="sealed already"):
        keys.seal(folder)
    assert sorted(path.name for path in folder.parent.iterdir()) == ["1"]


def test_two_commands_do_not_seal_one_model_at_a_time(keys: Keys, tmp_path: Path) -> None:
    folder = plain_folder(tmp_path)
    with alone_in(folder.parent), pytest.raises(errors.Unusable, match="another process seals"):
        keys.seal(folder)
    keys.seal(folder)


def test_an_older_sealing_of_a_version_is_refused_once_its_key_or_signer_is_gone(
    keys: Keys, tmp_path: Path
) -> None:
    older = keys.seal(plain_folder(tmp_path / "older", content=b"older"))
    newer = plain_folder(tmp_path / "newer", content=b"newer")
    other = make_keys(tmp_path, "other-")
    other.seal(newer)
    # With both it is whole, and nothing in it tells of the other.
    signers = (*keys.trust.signers, *other.trust.signers)
    both = Trust((keys.key, other.key), signers, "sealed")
    assert (content(older, both), content(newer, both)) == (b"older", b"newer")
    with pytest.raises(errors.WrongKey):
        content(older, Trust((other.key,), signers, "sealed"))
    with pytest.raises(errors.WrongSigner):
        content(older, Trust((keys.key, other.key), other.trust.signers, "sealed"))


def run(words: list[str], line: int) -> subprocess.CompletedProcess[str]:
    """Run `inferd models` until a line of the package's own code."""
    return subprocess.run(
        [sys.executable, "-m", "tests.seal.commanding", str(line), *words],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )


def kill(keys: Keys, folder: Path, command: str, times: int) -> None:
    """Kill a command at random lines; each time all of a version is there, sealed or not."""
    other, chance = make_keys(folder, "other-"), random.Random(command)
    whole = plain_folder(folder / "whole", content=bytes(3 << 20))
    before = (whole / "model.onnx").read_bytes()
    both, ends = Trust((keys.key, other.key)), set()
    words = ["--key", keys.key]
    if command == "rotate":
        keys.seal(whole)
        words += ["--new-key", other.key]

    def copied(name: str) -> Path:
        # As the folder of the same model, which a seal is bound to.
        return Path(shutil.copytree(whole, folder / name / whole.parent.name / whole.name))

    lines = int(run([command, str(copied("first")), *words], NEVER).stdout.splitlines()[-1])
    for attempt in range(times):
        version = copied(str(attempt))
        ended = run([command, str(version), *words], chance.randint(1, lines))
        assert ended.returncode == -signal.SIGKILL
        sealed = seal_of(version) is not None
        found = content(version, both) if sealed else (version / "model.onnx").read_bytes()
        assert found == before
        keys_now = (version / "seal.keys").read_bytes() if sealed else b""
        ends.add(keys_now == (whole / "seal.keys").read_bytes() if command == "rotate" else sealed)
        shutil.rmtree(version)
    assert times < MANY or ends == {True, False}


@pytest.mark.parametrize("command", ["seal", "rotate"])
def test_a_command_that_is_killed_leaves_a_whole_version(
    keys: Keys, tmp_path: Path, command: str
) -> None:
    kill(keys, tmp_path, command, 1)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("command", ["seal", "rotate"])
def test_a_hundred_commands_that_are_killed_leave_whole_versions(
    keys: Keys, tmp_path: Path, command: str
) -> None:
    kill(keys, tmp_path, command, MANY)


def test_settings_in_the_folder_are_left_to_be_read_and_not_to_be_changed(
    keys: Keys, tmp_path: Path
) -> None:
    folder = plain_folder(tmp_path)
    (folder / "model.yaml").write_text("instances: 2")
    seal_folder(folder, [keys.key], None)
    assert (folder / "model.yaml").read_text() == "instances: 2"
    trust = Trust((keys.key,))
    assert content(folder, trust)
    (folder / "model.yaml").write_text("instances: 3")
    with pytest.raises(errors.Tampered, match=r"model\.yaml is not the file that was sealed"):
        content(folder, trust)
    (folder / "model.yaml").unlink()
    with pytest.raises(errors.Tampered, match="is gone since"):
        content(folder, trust)


def test_a_library_in_the_folder_is_left_in_the_clear_and_not_to_be_changed(
    keys: Keys, tmp_path: Path
) -> None:
    folder = plain_folder(tmp_path)
    (folder / "parts/ops.so").write_bytes(b"code")
    seal_folder(folder, [keys.key], None)
    reader = VersionReader(folder, "m", 1, Trust((keys.key,)))
    with (folder / "parts/ops.so").open("rb") as file:
        assert reader.read("parts/ops.so", file) == b"code"
    (folder / "parts/ops.so").write_bytes(b"evil")
    with (folder / "parts/ops.so").open("rb") as file, pytest.raises(errors.Tampered):
        reader.read("parts/ops.so", file)
    with pytest.raises(errors.Tampered, match=r"ops\.so is not the file that was sealed"):
        content(folder, Trust((keys.key,)))


def tampered(folder: Path) -> None:
    model = bytearray((folder / "model.onnx").read_bytes())
    model[-20] ^= 1
    (folder / "model.onnx").write_bytes(model)


def truncated(folder: Path) -> None:
    model = folder / "model.onnx"
    model.write_bytes(model.read_bytes()[:-5])


def plain_again(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(b"anything")


def seal_changed(folder: Path) -> None:
    told = json.loads((folder / "seal.json").read_bytes())
    (folder / "seal.json").write_text(json.dumps({**told, "version": 2}))


def keys_gone(folder: Path) -> None:
    (folder / "seal.keys").unlink()


def unsigned(folder: Path) -> None:
    (folder / "model.sig").unlink()


def unsealed(folder: Path) -> None:
    (folder / "seal.json").unlink()


def signature_changed(folder: Path) -> None:
    told = json.loads((folder / "model.sig").read_bytes())
    sig = told["dsseEnvelope"]["signatures"][0]["sig"]
    told["dsseEnvelope"]["signatures"][0]["sig"] = sig[:20] + sig[20:30].swapcase() + sig[30:]
    (folder / "model.sig").write_text(json.dumps(told))


@pytest.mark.parametrize(
    ("damage", "kind"),
    [
        (tampered, errors.Tampered),
        (truncated, errors.Truncated),
        (plain_again, errors.NotSealed),
        (seal_changed, errors.Tampered),
        (keys_gone, errors.Tampered),
        (unsigned, errors.NotSigned),
        (unsealed, errors.NotSealed),
        (signature_changed, errors.Tampered),
    ],
)
def test_each_damage_has_its_own_error(
    keys: Keys, tmp_path: Path, damage: object, kind: type[errors.SealError]
) -> None:
    folder = keys.seal(plain_folder(tmp_path))
    damage(folder)  # type: ignore[operator]
    with pytest.raises(kind) as caught:
        content(folder, keys.trust)
    assert type(caught.value) is kind


def test_without_a_signature_a_changed_seal_opens_nothing(keys: Keys, tmp_path: Path) -> None:
    folder = keys.seal(plain_folder(tmp_path, version=2))
    told = json.loads((folder / "seal.json").read_bytes())
    (folder / "seal.json").write_text(json.dumps({**told, "version": 3}))
    with pytest.raises(errors.Tampered, match="wrapped key"):
        content(folder, Trust((keys.key,)), 3)


def test_an_older_version_in_the_place_of_a_newer_one_is_replayed(
    keys: Keys, tmp_path: Path
) -> None:
    old = keys.seal(plain_folder(tmp_path, version=1))
    shutil.copytree(old, old.parent / "2")
    with pytest.raises(errors.Replayed, match="version 1, which is older than 2"):
        content(old.parent / "2", keys.trust, 2)


def test_a_file_of_an_older_version_among_those_of_a_newer_one_is_replayed(
    keys: Keys, tmp_path: Path
) -> None:
    old = keys.seal(plain_folder(tmp_path, version=1))
    new = keys.seal(plain_folder(tmp_path, version=2))
    shutil.copy(old / "model.onnx", new / "model.onnx")
    with pytest.raises(errors.Replayed):
        content(new, Trust((keys.key,)), 2)


def test_another_model_under_this_name_is_renamed(keys: Keys, tmp_path: Path) -> None:
    folder = keys.seal(plain_folder(tmp_path, "cheap"))
    (tmp_path / "dear").mkdir()
    shutil.copytree(folder, tmp_path / "dear/1")
    with pytest.raises(errors.Renamed, match="sealed as model 'cheap'"):
        content(tmp_path / "dear/1", keys.trust)


def test_two_files_of_a_version_cannot_change_places(keys: Keys, tmp_path: Path) -> None:
    folder = keys.seal(plain_folder(tmp_path))
    shutil.copy(folder / "parts/empty", folder / "model.onnx")
    with pytest.raises(errors.Renamed, match="sealed as parts/empty"):
        content(folder, Trust((keys.key,)))


def test_another_key_and_another_signer_are_told(keys: Keys, tmp_path: Path) -> None:
    other = make_keys(tmp_path, "other-")
    folder = keys.seal(plain_folder(tmp_path))
    with pytest.raises(errors.WrongKey, match=r"with the key \w{16}, and given is \w{16}"):
        content(folder, Trust((other.key,)))
    with pytest.raises(errors.WrongSigner, match="by nobody who is trusted"):
        content(folder, Trust((keys.key,), (read_public_key(other.public),)))


def test_a_signed_folder_that_is_not_sealed_is_taken_where_that_is_enough(
    keys: Keys, tmp_path: Path
) -> None:
    folder = plain_folder(tmp_path)
    before = (folder / "model.onnx").read_bytes()
    seal_folder(folder, [], read_private_key(keys.private))
    signed = Trust((), keys.trust.signers, "signed")
    assert content(folder, signed) == before
    with pytest.raises(errors.NotSealed, match="signed and not sealed"):
        content(folder, keys.trust)
    (folder / "model.onnx").write_bytes(b"another")
    with pytest.raises(errors.Tampered, match="not the file that was signed"):
        content(folder, signed)


def test_keys_rotate_and_files_and_signature_stay(keys: Keys, tmp_path: Path) -> None:
    other = make_keys(tmp_path, "other-")
    folder = keys.seal(plain_folder(tmp_path))
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    rotate(folder, [keys.key], [other.key])
    changed = [name for name, data in before.items() if (folder / name).read_bytes() != data]
    assert changed == ["seal.keys"]
    with pytest.raises(errors.WrongKey):
        content(folder, keys.trust)
    both = Trust((keys.key, other.key), keys.trust.signers, "sealed")
    assert content(folder, both)


def test_sealing_twice_is_refused_and_signing_later_is_not(keys: Keys, tmp_path: Path) -> None:
    folder = plain_folder(tmp_path)
    seal_folder(folder, [keys.key], None)
    with pytest.raises(errors.Unusable, match="rotate"):
        seal_folder(folder, [keys.key], None)
    seal_folder(folder, [], read_private_key(keys.private))
    assert content(folder, keys.trust)


@pytest.mark.skipif(not CLI.exists(), reason="make tools fetches it")
def test_the_model_signing_command_takes_our_signatures_and_we_take_its(
    keys: Keys, tmp_path: Path
) -> None:
    def model_signing(*words: object) -> int:
        command = [CLI, "-m", "model_signing", *map(str, words)]
        return subprocess.run(command, check=False, capture_output=True).returncode

    folder = keys.seal(plain_folder(tmp_path))
    signature = folder / "model.sig"
    verify = ("verify", "key", folder, "--signature", signature, "--public_key", keys.public)
    assert model_signing(*verify) == 0
    rotate(folder, [keys.key], [keys.key])
    assert model_signing(*verify) == 0
    signature.unlink()
    skip = ("--ignore-paths", folder / "seal.keys")
    sign = ("sign", "key", folder, "--signature", signature, "--private_key", keys.private)
    assert model_signing(*sign, *skip) == 0
    verify_folder(folder, "m", 1, keys.trust)
    tampered(folder)
    assert model_signing(*verify) != 0
    with pytest.raises(errors.Tampered):
        verify_folder(folder, "m", 1, keys.trust)


def inferd(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "inferd_client", "models", *map(str, words)]
    return subprocess.run(command, check=False, capture_output=True, text=True)


def test_the_commands_seal_verify_and_rotate(keys: Keys, tmp_path: Path) -> None:
    other = make_keys(tmp_path, "other-")
    plain_folder(tmp_path, version=1)
    folder = plain_folder(tmp_path, version=2)
    model = folder.parent
    done = inferd("seal", model, "--key", keys.key, "--sign", keys.private)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{folder}: 2 files, encrypted and signed" in done.stdout
    done = inferd("verify", folder, "--key", keys.key, "--signer", keys.public, "--json")
    (told,) = json.loads(done.stdout)
    assert (told["model"], told["version"], told["signed"]) == ("m", 2, True)
    assert inferd("rotate", folder, "--key", keys.key, "--new-key", other.key).returncode == 0
    done = inferd("verify", folder, "--key", keys.key)
    assert done.returncode == 1
    assert done.stderr.startswith(f"inferd models verify: {folder}: it is sealed with the key")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("seal", "nowhere", "--key", "key"), "nowhere has no version"),
        (("seal", "m/1"), "give --key to encrypt it, --sign to sign it, or both"),
        (("seal", "m/1", "--key", "no-key"), "the key no-key cannot be read: No such file"),
        (("seal", "m/1", "--key", "env:NO_SUCH"), "the variable NO_SUCH has no key"),
        (("seal", "m/1", "--key", "command:false"), "the command of the key ended with 1"),
        (("seal", "m/1", "--key", "command:no-such"), "the command of the key cannot be run"),
        (("seal", "m/1", "--key", "m/1/model.onnx"), "gives no key: 32 bytes were expected"),
        (("seal", "m/1", "--sign", "key"), "key is no private key in PEM without a password"),
        (("verify", "m/1", "--key", "key"), "is neither sealed nor signed"),
        (("rotate", "m/1", "--key", "key", "--new-key", "key"), "is not sealed"),
    ],
)
def test_bad_words_are_answered_with_a_sentence(
    keys: Keys,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    sentence: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from inferd_client.cli import main

    del keys
    monkeypatch.chdir(tmp_path)
    plain_folder(tmp_path)
    assert main(["models", *words]) == 1
    assert sentence in capsys.readouterr().err
    assert seal_of(tmp_path / "m/1") is None
