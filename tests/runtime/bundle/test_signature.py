"""A signature covers every file of a directory and the manifest; only the right key's holds."""

import base64
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from edgepress.errors import EdgepressError, GateFailed, InputError, OutputExists
from edgepress.files.hashed_tree import SIGNATURE, hash_tree
from edgepress.files.storage import write_json
from edgepress.runtime.bundle.bundle import Bundle
from edgepress.runtime.bundle.signature import PASSWORD, Signer, sign_directory, signature_problems
from edgepress.runtime.bundle.verification import verify_directory

SECRET = b"the password of the key"


def _save(
    folder: Path, name: str, private: ec.EllipticCurvePrivateKey, password: bytes | None = None
) -> Path:
    folder.mkdir(exist_ok=True)
    locked = (
        serialization.NoEncryption() if password is None else serialization.BestAvailableEncryption(password)
    )
    form = serialization.PrivateFormat.PKCS8
    path = folder / f"{name}.pem"
    path.write_bytes(private.private_bytes(serialization.Encoding.PEM, form, locked))
    public = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    (folder / f"{name}.pub").write_bytes(public)
    return path


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """A private P-256 key; its public half lies beside it with the suffix ``.pub``."""
    return _save(tmp_path / "keys", "mine", ec.generate_private_key(ec.SECP256R1()))


def _signed_names(signature: Path) -> set[str]:
    payload = json.loads(signature.read_text())["dsseEnvelope"]["payload"]
    return {item["name"] for item in json.loads(base64.b64decode(payload))["predicate"]["resources"]}


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1()], ids=lambda curve: curve.name)
def test_a_signature_lists_every_file_and_holds(
    own_bundle: Path, tmp_path: Path, curve: ec.EllipticCurve
) -> None:
    key = _save(tmp_path / "keys", "mine", ec.generate_private_key(curve))
    before = {path.name for path in own_bundle.iterdir()}
    signature = sign_directory(own_bundle, key)
    assert signature == own_bundle / SIGNATURE
    assert _signed_names(signature) == before
    assert signature_problems(own_bundle, Signer(key.with_suffix(".pub"))) == []
    assert verify_directory(own_bundle).problems == ()
    assert Bundle.open(own_bundle).kind == "decoder"


def test_a_compressed_checkpoint_is_signed_too(tmp_path: Path, key: Path) -> None:
    folder = tmp_path / "checkpoint"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / ".gitattributes").write_text("a name that signing tools like to leave out")
    (folder / "model.safetensors").write_bytes(b"weights")
    manifest = {"schema": "edgepress.checkpoint/1", "files": hash_tree(folder)}
    write_json(folder / "edgepress.json", manifest)
    signature = sign_directory(folder, key)
    assert _signed_names(signature) == {"edgepress.json", "model.safetensors", "sub/.gitattributes"}
    assert signature_problems(folder, Signer(key.with_suffix(".pub"))) == []


def test_every_bit_of_the_manifest_is_signed(own_bundle: Path, key: Path) -> None:
    sign_directory(own_bundle, key)
    manifest, generator = own_bundle / "manifest.json", random.Random(0)
    published = manifest.read_bytes()
    for _ in range(40):
        bit = generator.randrange(8 * len(published))
        damaged = bytearray(published)
        damaged[bit // 8] ^= 1 << (bit % 8)
        manifest.write_bytes(damaged)
        (problem,) = signature_problems(own_bundle, Signer(key.with_suffix(".pub")))
        assert "does not hold" in problem and "manifest.json" in problem
    manifest.write_bytes(published)
    assert signature_problems(own_bundle, Signer(key.with_suffix(".pub"))) == []


def test_a_bit_of_any_file_is_found_and_named(own_bundle: Path, key: Path) -> None:
    sign_directory(own_bundle, key)
    for file in sorted(own_bundle.iterdir()):
        if file.name != SIGNATURE:
            published = file.read_bytes()
            file.write_bytes(published[:-1] + bytes([published[-1] ^ 1]))
            (problem,) = signature_problems(own_bundle, Signer(key.with_suffix(".pub")))
            assert "does not hold" in problem and file.name in problem
            file.write_bytes(published)
    assert signature_problems(own_bundle, Signer(key.with_suffix(".pub"))) == []


def test_a_signature_of_another_directory_does_not_hold(
    own_bundle: Path, encoder_bundle: Path, tmp_path: Path, key: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(encoder_bundle, other)
    moved = sign_directory(other, key)
    shutil.copy(moved, own_bundle / SIGNATURE)
    (problem,) = signature_problems(own_bundle, Signer(key.with_suffix(".pub")))
    assert "does not hold" in problem


def test_every_bit_of_the_signature_counts_or_changes_nothing(own_bundle: Path, key: Path) -> None:
    """A flip may leave the signature as it is (the padding of base64), never another statement."""
    signature = sign_directory(own_bundle, key)
    names, generator = _signed_names(signature), random.Random(1)
    published, found = signature.read_bytes(), 0
    for _ in range(60):
        bit = generator.randrange(8 * len(published))
        damaged = bytearray(published)
        damaged[bit // 8] ^= 1 << (bit % 8)
        signature.write_bytes(damaged)
        if signature_problems(own_bundle, Signer(key.with_suffix(".pub"))):
            found += 1
        else:
            assert _signed_names(signature) == names
    assert found >= 50


def test_a_key_of_any_size_is_not_read(own_bundle: Path, key: Path) -> None:
    os.truncate(key, 1 << 40)  # a hole: it takes no disk
    with pytest.raises(InputError, match="more than any key"):
        sign_directory(own_bundle, key)


def _add(folder: Path) -> None:
    (folder / "extra.py").write_text("x")


def _remove(folder: Path) -> None:
    (folder / "tokenizer_config.json").unlink()


def _swap(folder: Path) -> None:
    first, second = folder / "tokenizer.json", folder / "tokenizer_config.json"
    one, other = first.read_bytes(), second.read_bytes()
    first.write_bytes(other)
    second.write_bytes(one)


def _publish_again(folder: Path) -> None:
    """Another tokenizer, and a manifest that fits it."""
    (folder / "tokenizer_config.json").write_text("{}")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"] = hash_tree(folder, skip=frozenset({"manifest.json", SIGNATURE}))
    write_json(folder / "manifest.json", manifest)
    assert verify_directory(folder).problems == ()


@pytest.mark.parametrize("change", [_add, _remove, _swap, _publish_again], ids=lambda f: f.__name__)
def test_what_changes_after_signing_is_found(
    own_bundle: Path, key: Path, change: Callable[[Path], None]
) -> None:
    sign_directory(own_bundle, key)
    change(own_bundle)
    assert signature_problems(own_bundle, Signer(key.with_suffix(".pub")))


def test_another_s_key_and_another_s_signature_do_not_hold(own_bundle: Path, key: Path) -> None:
    other = _save(key.parent, "other", ec.generate_private_key(ec.SECP256R1()))
    mine, others = Signer(key.with_suffix(".pub")), Signer(other.with_suffix(".pub"))
    assert "not signed" in signature_problems(own_bundle, mine)[0]
    sign_directory(own_bundle, key)
    assert "Key mismatch" in signature_problems(own_bundle, others)[0]
    with pytest.raises(OutputExists, match="signed already"):
        sign_directory(own_bundle, other)
    sign_directory(own_bundle, other, overwrite=True)
    assert signature_problems(own_bundle, others) == []
    assert "Key mismatch" in signature_problems(own_bundle, mine)[0]


def test_a_signer_who_left_files_out_is_told_of(own_bundle: Path, key: Path) -> None:
    from model_signing import hashing, signing

    some = hashing.Config().set_ignored_paths(paths=[SIGNATURE, "tokenizer.json"], ignore_git_paths=False)
    signer = signing.Config().use_elliptic_key_signer(private_key=key).set_hashing_config(some)
    signer.sign(own_bundle, own_bundle / SIGNATURE)
    problems = signature_problems(own_bundle, Signer(key.with_suffix(".pub")))
    assert problems == ["the signature leaves out tokenizer.json"]


@pytest.mark.chain
def test_the_library_s_own_command_accepts_it(own_bundle: Path, key: Path) -> None:
    signature = sign_directory(own_bundle, key)
    words = ["verify", "key", str(own_bundle), "--signature", str(signature), "--public_key"]
    command = [sys.executable, "-m", "model_signing", *words, str(key.with_suffix(".pub"))]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_file_of_the_signature_s_name_is_no_hole(own_bundle: Path, key: Path, tmp_path: Path) -> None:
    (own_bundle / SIGNATURE).write_text("{")
    assert verify_directory(own_bundle).problems == ()
    assert "does not hold" in signature_problems(own_bundle, Signer(key.with_suffix(".pub")))[0]
    (own_bundle / SIGNATURE).rename(tmp_path / SIGNATURE)
    (own_bundle / SIGNATURE).symlink_to(tmp_path / SIGNATURE)
    assert verify_directory(own_bundle).problems
    with pytest.raises(EdgepressError, match="does not match"):
        Bundle.open(own_bundle)


def test_what_is_damaged_is_not_signed(own_bundle: Path, key: Path) -> None:
    _add(own_bundle)
    with pytest.raises(GateFailed, match="not signed") as raised:
        sign_directory(own_bundle, key)
    assert "extra.py" in raised.value.why and not (own_bundle / SIGNATURE).exists()


def test_an_encrypted_key_needs_its_password(
    own_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = _save(tmp_path / "keys", "locked", ec.generate_private_key(ec.SECP256R1()), SECRET)
    with pytest.raises(InputError, match="encrypted") as raised:
        sign_directory(own_bundle, key)
    assert PASSWORD in raised.value.fix
    monkeypatch.setenv(PASSWORD, "wrong")
    with pytest.raises(InputError, match="no private key"):
        sign_directory(own_bundle, key)
    monkeypatch.setenv(PASSWORD, SECRET.decode())
    sign_directory(own_bundle, key)
    assert signature_problems(own_bundle, Signer(key.with_suffix(".pub"))) == []


def test_files_that_are_no_keys_are_named(own_bundle: Path, key: Path) -> None:
    folder, public = key.parent, key.with_suffix(".pub")
    (folder / "text.pem").write_text("no key")
    (folder / "broken.pem").write_text(key.read_text().replace("A", "B", 40))
    ed = ed25519.Ed25519PrivateKey.generate()
    form, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (folder / "ed.pem").write_bytes(ed.private_bytes(serialization.Encoding.PEM, form, plain))
    _save(folder, "koblitz", ec.generate_private_key(ec.SECP256K1()))
    for name in ("missing", "text", "broken", "ed", "koblitz"):
        with pytest.raises(InputError, match=f"{name}.pem"):
            sign_directory(own_bundle, folder / f"{name}.pem")
    with pytest.raises(InputError, match="is a public key"):
        sign_directory(own_bundle, public)
    with pytest.raises(InputError, match="is a private key"):
        signature_problems(own_bundle, Signer(key))
    for name in ("missing.pub", "text.pem", "koblitz.pub"):
        with pytest.raises(InputError, match=name):
            signature_problems(own_bundle, Signer(folder / name))
    assert not (own_bundle / SIGNATURE).exists()
