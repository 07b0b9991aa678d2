"""Signatures of a version's folder in the OpenSSF model-signing format, by keys.

A file `model.sig`: a Sigstore bundle whose DSSE envelope holds an in-toto statement with the
SHA-256 of every file. The command model_signing verifies what is written here, and what it signs
with a key is taken here; the package itself brings thirty others, most of them for signing over a
network. Sources: sigstore/model-transparency (predicate v1.0), DSSE v1.0.0 protocol.md, in-toto
Statement v1, Sigstore bundle v0.3.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from inferd_seal.errors import NotSigned, Tampered, Unusable, WrongSigner
from inferd_seal.trusted_files import SIGNATURE_FILE

BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
PAYLOAD = "application/vnd.in-toto+json"
STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://model_signing/signature/v1.0"
HASHES: Mapping[int, type[hashes.HashAlgorithm]] = {
    256: hashes.SHA256,
    384: hashes.SHA384,
    521: hashes.SHA512,
}
"""By the bits of the key's curve. Source: Sigstore's protobuf-specs, PublicKeyDetails."""


def read_private_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """Read the PEM file of a key to sign with, without a password.

    Raises:
        Unusable: it cannot be read, or is another kind of key.
    """
    content = _content(path)
    try:
        key = serialization.load_pem_private_key(content, None)
    except (TypeError, ValueError) as error:
        raise Unusable(f"{path} is no private key in PEM without a password") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise Unusable(f"{path} is no key for ECDSA: openssl ecparam -name prime256v1 -genkey")
    _hash_of(key.curve, path)
    return key


def read_public_key(path: Path) -> ec.EllipticCurvePublicKey:
    """Read the PEM file of a signer's public key.

    Raises:
        Unusable: it cannot be read, or is another kind of key.
    """
    content = _content(path)
    try:
        key = serialization.load_pem_public_key(content)
    except ValueError as error:
        raise Unusable(f"{path} is no public key in PEM") from error
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise Unusable(f"{path} is no public key for ECDSA")
    _hash_of(key.curve, path)
    return key


def signer_id(key: ec.EllipticCurvePublicKey) -> str:
    """Return what a signature names its signer by: the SHA-256 of the public key's PEM."""
    pem = key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return hashlib.sha256(pem).hexdigest()


def sign(
    name: str,
    digests: Mapping[str, str],
    key: ec.EllipticCurvePrivateKey,
    ignored: Sequence[str] = (),
) -> bytes:
    """Return a signature.

    Args:
        name: of what is signed.
        digests: SHA-256 as hexadecimal digits, by path relative to what is signed.
        key: of the signer.
        ignored: paths of files that are not signed.
    """
    payload = json.dumps(_statement(name, digests, ignored), indent=2).encode()
    signed = key.sign(_encoded(payload), ec.ECDSA(_hash_of(key.curve)))
    bundle = {
        "mediaType": BUNDLE,
        "verificationMaterial": {
            "publicKey": {"hint": signer_id(key.public_key())},
            "tlogEntries": [],
        },
        "dsseEnvelope": {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": PAYLOAD,
            "signatures": [{"sig": base64.b64encode(signed).decode(), "keyid": ""}],
        },
    }
    return json.dumps(bundle).encode() + b"\n"


def _statement(name: str, digests: Mapping[str, str], ignored: Sequence[str]) -> Mapping[str, Any]:
    root = _root(digests[file] for file in sorted(digests))
    resources = [
        {"name": file, "algorithm": "sha256", "digest": digests[file]} for file in sorted(digests)
    ]
    serialization = {
        "method": "files",
        "hash_type": "sha256",
        "allow_symlinks": False,
        "ignore_paths": [SIGNATURE_FILE, *ignored],
    }
    return {
        "_type": STATEMENT,
        "subject": [{"name": name, "digest": {"sha256": root}}],
        "predicateType": PREDICATE,
        "predicate": {"serialization": serialization, "resources": resources},
    }


def signed_digests(
    content: bytes, trusted: Sequence[ec.EllipticCurvePublicKey]
) -> Mapping[str, str]:
    """Return the SHA-256 of every file that a trusted signer signed, by relative path.

    Args:
        content: of the signature.
        trusted: keys of the signers.

    Raises:
        WrongSigner: none of them signed it.
        Tampered: it is no signature, or not that of its content.
        Unusable: it is of a kind that is not taken here.
    """
    try:
        bundle = json.loads(content)
        material, envelope = bundle["verificationMaterial"], bundle["dsseEnvelope"]
        payload = base64.b64decode(envelope["payload"], validate=True)
        signature = base64.b64decode(envelope["signatures"][0]["sig"], validate=True)
        kinds = (bundle["mediaType"], envelope["payloadType"])
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise Tampered(f"{SIGNATURE_FILE} is no signature") from error
    if kinds != (BUNDLE, PAYLOAD) or "publicKey" not in material:
        raise Unusable(f"{SIGNATURE_FILE} is not signed with a key, and nothing else is taken here")
    hint = str(material["publicKey"].get("hint") or "")
    _check_signer(payload, signature, hint, trusted)
    return _digests_in(payload)


def _check_signer(
    payload: bytes, signature: bytes, hint: str, trusted: Sequence[ec.EllipticCurvePublicKey]
) -> None:
    """Refuse a signature by nobody who is trusted."""
    named = [key for key in trusted if signer_id(key) == hint] if hint else trusted
    for key in named:
        try:
            key.verify(signature, _encoded(payload), ec.ECDSA(_hash_of(key.curve)))
        except InvalidSignature:
            continue
        return
    if hint and named:
        raise Tampered(f"{SIGNATURE_FILE} was changed: the signature is not that of its content")
    who = f" (of the key {hint[:16]})" if hint else ""
    raise WrongSigner(f"{SIGNATURE_FILE}{who} is by nobody who is trusted")


def _digests_in(payload: bytes) -> Mapping[str, str]:
    """Return the digests that a statement names, which somebody trusted has signed."""
    try:
        statement: Any = json.loads(payload)
        if (statement["_type"], statement["predicateType"]) != (STATEMENT, PREDICATE):
            raise Unusable(f"{SIGNATURE_FILE} signs no model in version 1.0 of the format")
        predicate, (subject,) = statement["predicate"], statement["subject"]
        how = (predicate["serialization"]["method"], predicate["serialization"]["hash_type"])
        if how != ("files", "sha256"):
            text = (
                f"{SIGNATURE_FILE} has digests of {how[0]} by {how[1]}; files by sha256 are taken"
            )
            raise Unusable(text)
        resources = predicate["resources"]
        root = _root(str(one["digest"]) for one in resources)
        if root != subject["digest"]["sha256"]:
            raise Tampered(f"{SIGNATURE_FILE} contradicts itself")
        return {str(one["name"]): str(one["digest"]) for one in resources}
    except (KeyError, TypeError, ValueError) as error:
        raise Tampered(f"{SIGNATURE_FILE} signs something that is no model") from error


def read_signature(folder: Path) -> bytes:
    """Read the signature of a folder.

    Raises:
        NotSigned: there is none.
    """
    try:
        return (folder / SIGNATURE_FILE).read_bytes()
    except OSError as error:
        raise NotSigned(f"there is no {SIGNATURE_FILE}") from error


def _root(digests: Any) -> str:
    whole = hashlib.sha256()
    for digest in digests:
        whole.update(bytes.fromhex(digest))
    return whole.hexdigest()


def _encoded(payload: bytes) -> bytes:
    """Return what is signed. Source: DSSE v1.0.0, pre-authentication encoding."""
    return f"DSSEv1 {len(PAYLOAD)} {PAYLOAD} {len(payload)} ".encode() + payload


def _hash_of(curve: ec.EllipticCurve, path: Path | None = None) -> hashes.HashAlgorithm:
    if not curve.name.startswith("secp") or not curve.name.endswith("r1"):
        raise Unusable(f"{path} is of the curve {curve.name}; P-256, P-384 and P-521 are taken")
    try:
        return HASHES[curve.key_size]()
    except KeyError:
        text = f"{path} is of the curve {curve.name}; P-256, P-384 and P-521 are taken"
        raise Unusable(text) from None


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Unusable(f"the key {path} cannot be read: {error.strerror}") from error
