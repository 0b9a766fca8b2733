"""The parts of a published model's repository, in diffusers' layout, as files to fetch and find."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ddmd_bench.backends import Base
from ddmd_bench.files.reading import FETCH_AGAIN
from ddmd_bench.files.records import read_record
from ddmd_bench.hub import Layout, Remote, folder_of, remote_identity
from ddmd_bench.suite.settings import Model

INDEX = "model_index.json"
SCHEDULER = "scheduler/scheduler_config.json"


@dataclass(frozen=True)
class Parts:
    """Where the files of a model are, or are to come from."""

    model: Model  # as a suite names it, with the backend's defaults
    network: str  # the folder of the denoising network
    main: Remote  # the denoising network and the scheduler
    shell: Remote  # the same without the network's weights
    text: Remote  # text encoders and tokenizers
    vae: Remote
    # What the family's pipeline sets in any scheduler that it is given.
    scheduler_overrides: Mapping[str, Any] = field(default_factory=dict)
    # Whether the family's pipeline decodes in float32 where the VAE asks for it.
    upcasts_vae: bool = False

    def weights(self) -> dict[str, str]:
        """What determines the networks: a commit, or a folder's hash, each."""
        return {self.network: remote_identity(self.main), "vae": remote_identity(self.vae)}

    def without_network(self) -> Base:
        """What a student of a whole network takes of the model."""
        return Base(
            lambda: {"shell": remote_identity(self.shell), "vae": remote_identity(self.vae)},
            (self.shell, self.text, self.vae),
        )

    def vae_folder(self) -> Path:
        """The VAE's own folder: a repository of its own, or a part of the main one."""
        folder = folder_of(self.vae)
        return folder / "vae" if self._vae_inside() else folder

    def vae_config(self) -> str:
        """The name of the VAE's configuration in its repository."""
        return "vae/config.json" if self._vae_inside() else "config.json"

    def _vae_inside(self) -> bool:
        return self.vae.repository == self.main.repository

    def scheduler_config(self) -> dict[str, Any]:
        """The repository's scheduler_config.json, with the class that its index names."""
        found = with_class(self._config(SCHEDULER), self._config(INDEX))
        return {**found, **self.scheduler_overrides}

    def network_config(self) -> dict[str, Any]:
        """The denoising network's config.json, for which its weights need not be here."""
        return self._config(f"{self.network}/config.json")

    def _config(self, name: str) -> dict[str, Any]:
        config: dict[str, Any] = read_record(folder_of(self.shell) / name, remedy=FETCH_AGAIN)
        return config


def with_class(scheduler: Mapping[str, Any], index: Mapping[str, Any]) -> dict[str, Any]:
    """A scheduler's settings; its class is the index's to say, as for `from_pretrained`."""
    named = index.get("scheduler") or (None, scheduler.get("_class_name"))
    return {**scheduler, "_class_name": named[1]}


def parts_of(
    model: Model, network: str, encoders: tuple[str, ...], tokenizers: tuple[str, ...]
) -> Parts:
    """The files that a suite's model needs; `network` and the others are its folders' names."""
    assert model.repository is not None, "backends have a default"
    repository, revision = model.repository, model.revision

    def remote(what: str, networks: tuple[str, ...], *files: str) -> Remote:
        layout = Layout(networks, variant=model.variant)
        return Remote(repository, revision, files, kind="model", what=what, layout=layout)

    if model.vae is None:
        vae = remote("VAE", ("vae",))
    else:
        files = ("config.json", "diffusion_pytorch_model.safetensors")
        vae = Remote(model.vae, model.vae_revision, files, kind="model", what="VAE")
    shell = (INDEX, "scheduler/*.json", f"{network}/config.json")
    return Parts(
        model,
        network,
        remote(network, (network,), INDEX, "scheduler/*.json"),
        remote(f"{network}'s settings", (), *shell),
        remote("text encoders", encoders, INDEX, *(f"{name}/*" for name in tokenizers)),
        vae,
    )


def with_defaults(model: Model, defaults: Model) -> Model:
    """The suite's model, with the backend's own values for what it leaves out."""
    # A repository of the user's own has its own revision and, if it names no other, its own VAE.
    own = model.repository is not None
    left = {"revision", "vae", "vae_revision"} if own else set()
    if model.vae is not None:  # another VAE has another commit
        left |= {"vae_revision"}
    chosen = defaults.model_dump(exclude_none=True, exclude=left)
    return Model(**{**chosen, **model.model_dump(exclude_unset=True, exclude_none=True)})
