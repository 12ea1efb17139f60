"""The verbs ``sign`` and ``verify --key`` through the command line's own entry."""

import json
import shutil
import socket
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from edgepress.cli.entry import run

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def keys(tmp_path: Path) -> tuple[str, str]:
    """A private key and its public half."""
    key = ec.generate_private_key(ec.SECP256R1())
    form = serialization.PrivateFormat.TraditionalOpenSSL
    pem = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    (tmp_path / "key.pem").write_bytes(pem)
    public = serialization.PublicFormat.SubjectPublicKeyInfo
    (tmp_path / "key.pub").write_bytes(key.public_key().public_bytes(serialization.Encoding.PEM, public))
    return str(tmp_path / "key.pem"), str(tmp_path / "key.pub")


@pytest.fixture
def bundle(encoder_bundle: Path, tmp_path: Path) -> Path:
    """A bundle to be signed."""
    return Path(shutil.copytree(encoder_bundle, tmp_path / "bundle"))


def test_sign_then_verify(bundle: Path, keys: tuple[str, str], capsys: Capture) -> None:
    private, public = keys
    assert run(["verify", str(bundle)]) == 0
    assert "not signed" in capsys.readouterr().out
    assert run(["sign", str(bundle), "--key", private, "--json"]) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out) == {"signature": str(bundle / "model.sig")}
    secret = Path(private).read_text().splitlines()[1]
    assert secret not in shown.out + shown.err + (bundle / "model.sig").read_text()
    assert run(["verify", str(bundle)]) == 0
    assert "signed, not checked" in capsys.readouterr().out
    assert run(["verify", str(bundle), "--key", public, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["signature"] == f"signed by {public}"


def test_a_manifest_that_says_something_else_is_found(
    bundle: Path, keys: tuple[str, str], capsys: Capture
) -> None:
    private, public = keys
    assert run(["sign", str(bundle), "--key", private, "-q"]) == 0
    manifest = bundle / "manifest.json"
    manifest.write_text(manifest.read_text().replace("random weights", "sandom weights"))
    assert (
        run(["verify", str(bundle)]) == 0
    )  # every file is as the manifest says: this is what signing is for
    capsys.readouterr()
    assert run(["verify", str(bundle), "--key", public]) == 1
    assert "does not hold" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["sign", "x"],
        ["sign", "x", "--key", "k", "--sigstore"],
        ["verify", "x", "--identity", "me@example.org"],
        ["verify", "x", "--identity-provider", "https://example.org"],
        ["verify", "x", "--key", "k", "--identity", "me", "--identity-provider", "https://example.org"],
    ],
    ids=" ".join,
)
def test_whose_signature_is_said_in_one_way(arguments: list[str], capsys: Capture) -> None:
    assert run([*arguments, "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "E-USAGE"


def test_sigstore_without_a_network_is_said(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture, tmp_path: Path
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("no network in this test")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert run(["sign", str(bundle), "--sigstore", "--json"]) == 2
    shown = capsys.readouterr()
    assert "--key" in json.loads(shown.out)["error"]["fix"] and "Traceback" not in shown.err
    assert not (bundle / "model.sig").exists()
    (bundle / "model.sig").write_text("{}")
    who = ["--identity", "me@example.org", "--identity-provider", "https://example.org"]
    assert run(["verify", str(bundle), *who, "--json"]) == 2
    assert "could not be checked" in json.loads(capsys.readouterr().out)["error"]["what"]
