"""Signatures in the OpenSSF model-signing form, made and checked by its library (the extra ``sign``).

``model.sig`` is a Sigstore bundle around an in-toto statement that lists the SHA-256 of every other file, the
manifest among them. It is made offline with an elliptic-curve key, or by Sigstore, with no key to keep.
"""

import base64
import json
import os
import sys
import tempfile
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import GateFailed, InputError, OutputExists, require
from ...files.disk import disk_full_is_typed
from ...files.hashed_tree import SIGNATURE
from ...files.storage import read_at_most, write_atomic
from ...files.third_party_errors import third_party_errors_are_typed
from .verification import verify_directory

PASSWORD = "EDGEPRESS_KEY_PASSWORD"
CURVES = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}
_LARGEST, _LARGEST_KEY = 64 << 20, 1 << 20


@dataclass(frozen=True)
class Signer:
    """Whose signature is asked for: the holder of the private half of the PEM file ``key``, or else the
    Sigstore ``identity`` (a mail address, a workflow) that ``provider`` (a URL) vouches for.
    """

    key: Path | None = None
    identity: str = ""
    provider: str = ""


def sign_directory(root: Path, key: Path | None, *, overwrite: bool = False) -> Path:
    """Sign a bundle or checkpoint with the private PEM file ``key``, or by Sigstore when that is None.

    The password of an encrypted key comes from the environment variable ``EDGEPRESS_KEY_PASSWORD``.
    """
    require("model_signing", "sign")
    found, target = verify_directory(root), root / SIGNATURE
    if found.problems:
        raise GateFailed(
            f"{root} is not as it was published, so it was not signed", why="; ".join(found.problems[:8])
        )
    if target.exists() and not overwrite:
        raise OutputExists(f"{root} is signed already", fix="pass --overwrite to replace the signature")
    password = None if key is None else _check_private(key)
    from model_signing import signing

    config = signing.Config().set_hashing_config(_hashing())
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(sys.stderr):
        made = Path(folder) / SIGNATURE
        with third_party_errors_are_typed(lambda why: _not_signed(root, key, why)):
            if key is None:
                config.use_sigstore_signer(use_ambient_credentials=True)
            else:
                config.use_elliptic_key_signer(private_key=key, password=password)
            config.sign(root, made)
        with disk_full_is_typed(target):
            write_atomic(target, made.read_bytes())
    return target


def signature_problems(root: Path, signer: Signer) -> list[str]:
    """Why the signature of ``root`` is none of ``signer`` over every file in it, as sentences."""
    require("model_signing", "sign")
    if signer.key is not None:
        _check_public(signer.key)
    signature = root / SIGNATURE
    if not signature.is_file() or signature.is_symlink() or signature.stat().st_size > _LARGEST:
        return [f"it is not signed: there is no file {SIGNATURE} of a signature's size"]
    try:
        with redirect_stdout(sys.stderr), third_party_errors_are_typed(_not_held):
            _verifier(signer).verify(root, signature)
            signed = _signed_names(signature)
    except GateFailed as error:
        return [f"{error.what}: {error.why}"]
    present = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}
    return [f"the signature leaves out {name}" for name in sorted(present - signed - {SIGNATURE})]


def _verifier(signer: Signer) -> Any:
    from model_signing import verifying

    config = verifying.Config().set_hashing_config(_hashing())
    if signer.key is not None:
        return config.use_elliptic_key_verifier(public_key=signer.key)
    with third_party_errors_are_typed(
        lambda why: InputError(
            "the signature could not be checked: Sigstore's own keys were not fetched",
            why=why,
            fix="checking who signed by Sigstore needs the network",
        )
    ):
        return config.use_sigstore_verifier(identity=signer.identity, oidc_issuer=signer.provider)


def _hashing() -> Any:
    """How files are hashed: every one of them, but for the signature; links are refused."""
    from model_signing import hashing

    return hashing.Config().set_ignored_paths(paths=[SIGNATURE], ignore_git_paths=False)


def _signed_names(signature: Path) -> set[str]:
    """The files in the statement of a signature that holds; a signer may have left some out on purpose."""
    envelope = json.loads(signature.read_bytes())["dsseEnvelope"]
    statement = json.loads(base64.b64decode(envelope["payload"]))
    return {resource["name"] for resource in statement["predicate"]["resources"]}


def _check_private(path: Path) -> bytes | None:
    """The password of an encrypted private key that can sign, None of a plain one."""
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    data, asked = read_at_most(path, _LARGEST_KEY, "key"), os.environ.get(PASSWORD)
    if b"PUBLIC KEY" in data:
        raise InputError(f"{path} is a public key", fix="sign with the private one; `verify` takes this one")
    if b"ENCRYPTED" in data and asked is None:
        raise InputError(f"the key {path} is encrypted", fix=f"put its password into {PASSWORD}")
    password = asked.encode() if asked is not None and b"ENCRYPTED" in data else None
    with third_party_errors_are_typed(lambda why: _no_key(path, "private", why)):
        key = load_pem_private_key(data, password)
    _check_curve(path, key, "private")
    return password


def _check_public(path: Path) -> None:
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    data = read_at_most(path, _LARGEST_KEY, "key")
    if b"PRIVATE KEY" in data:
        raise InputError(
            f"{path} is a private key",
            why="whoever checks a signature needs the public one alone",
            fix="make it with: openssl ec -in PRIVATE.pem -pubout -out PUBLIC.pem",
        )
    with third_party_errors_are_typed(lambda why: _no_key(path, "public", why)):
        key = load_pem_public_key(data)
    _check_curve(path, key, "public")


def _check_curve(path: Path, key: Any, half: str) -> None:
    curve = getattr(getattr(key, "curve", None), "name", type(key).__name__)
    if curve not in CURVES:
        raise _no_key(path, half, f"it is {curve}, no elliptic-curve key on {', '.join(CURVES.values())}")


def _no_key(path: Path, half: str, why: str) -> InputError:
    return InputError(
        f"{path} is no {half} key that signatures are made with",
        why=why,
        fix="make a pair with: openssl ecparam -name prime256v1 -genkey -noout -out PRIVATE.pem; "
        "openssl ec -in PRIVATE.pem -pubout -out PUBLIC.pem",
    )


def _not_signed(root: Path, key: Path | None, why: str) -> InputError:
    fix = "Sigstore needs the network; without it, sign with --key" if key is None else ""
    return InputError(f"{root} could not be signed", why=why, fix=fix)


def _not_held(why: str) -> GateFailed:
    readable = why.partition(": Expected ")[0].replace("\\'", "'")  # bytes of two digests follow
    return GateFailed("the signature does not hold", why=readable.removeprefix("ValueError: "))
