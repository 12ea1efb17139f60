"""Bundles on the Hugging Face Hub: opened by their id as models of transformers are, and pushed."""

import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError, require
from ..files.storage import cache_directory
from ..files.third_party_errors import third_party_errors_are_typed
from .api import open_bundle
from .bundle.bundle import Bundle

if TYPE_CHECKING:
    from collections.abc import Callable

HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")
# What the hub's errors mean to the user, by their classes.
_REFUSED = {
    "GatedRepoError": (
        "its authors ask for their terms to be accepted",
        "accept them on its page of the hub",
    ),
    "LocalTokenNotFoundError": ("you are not logged in to the hub", "log in first: hf auth login"),
    "RepositoryNotFoundError": (
        "the hub has no such model, or does not let you",
        "check the id; for a private model, or to push, first: hf auth login",
    ),
}


class Model:
    """Bundles as users of transformers open them.

    Raises:
        BundleError, InputError: as :meth:`from_pretrained`.
    """

    @staticmethod
    def from_pretrained(
        name: Path | str, *, download: bool = False, threads: int | None = None, provider: str = "cpu"
    ) -> Any:
        """The bundle in the directory ``name``, or of that hub id as it was fetched before, as
        :func:`edgepress.open_bundle` opens it; ``download`` fetches what is new there first.

        Raises:
            BundleError, InputError: there is none, or it cannot be opened.
        """
        path = Path(name).expanduser()
        if not path.exists() and HUB_ID.fullmatch(str(name)):
            path = _fetched(str(name), download=download)
        return open_bundle(path, threads=threads, provider=provider)


def _fetched(name: str, *, download: bool) -> Path:
    # Not Hugging Face's cache: its files are links, which a bundle may not be made of.
    path = cache_directory() / "hub" / name.replace("/", "--")
    if download:
        require("huggingface_hub", "compress")
        from huggingface_hub import snapshot_download

        with third_party_errors_are_typed(_typed(f"{name} cannot be downloaded")):
            snapshot_download(name, local_dir=path, ignore_patterns=[".gitattributes"])
        shutil.rmtree(path / ".cache", ignore_errors=True)  # the client's notes, which no manifest lists
    elif not path.exists():
        raise InputError(
            f"there is no directory {name}", fix="for a hub id give download=True, which fetches it"
        )
    return path


def push(path: Path, name: str, *, private: bool = False) -> str:
    """Upload the bundle at ``path``, verified first, in one commit to the model ``name`` of the hub, which
    is made where it is missing. The address of the commit.

    Raises:
        BundleError: it is not whole.
        InputError: ``name`` is no hub id, or the hub does not take it.
    """
    if not HUB_ID.fullmatch(name):
        raise InputError(f"{name} is no hub id", fix="an id is OWNER/NAME")
    bundle = Bundle.open(path)
    require("huggingface_hub", "compress")
    from huggingface_hub import HfApi

    with third_party_errors_are_typed(_typed(f"{name} cannot be pushed")):
        api = HfApi()
        api.create_repo(name, private=private, exist_ok=True)
        done = api.upload_folder(
            repo_id=name, folder_path=bundle.path, commit_message=f"{bundle.name} by edgepress"
        )
    return str(done.commit_url)


def _typed(what: str) -> "Callable[[str], InputError]":
    def error(said: str) -> InputError:
        network = (said.splitlines()[0], "check the network and HF_HUB_OFFLINE; the same command goes on")
        why, fix = _REFUSED.get(said.partition(":")[0], network)
        return InputError(what, why=why, fix=fix)

    return error
