"""What a repository of Lumina-Image-2.0 must say of itself to be drawn as diffusers draws it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ddmd_bench.backends.assumptions import (
    NO_STATISTICS,
    VAE_CLASS,
    Rule,
    Said,
    broken,
    unread_channels,
    vae_factor,
    wrong_pipeline,
    wrong_resolution,
)

RULES = (
    Rule("network", "_class_name", ("Lumina2Transformer2DModel",), "no other network is loaded"),
    Rule(
        "scheduler",
        "_class_name",
        ("FlowMatchEulerDiscreteScheduler",),
        "Lumina2Pipeline gives it levels, and the harness's are flow matching's. Name that class",
    ),
    *(
        Rule("scheduler", key, (False, None), f"{why}. Set it to false")
        for key, why in (
            ("stochastic_sampling", "the pipeline draws that noise from no seed of an image"),
            ("invert_sigmas", "its levels would run from image to noise"),
        )
    ),
    VAE_CLASS,
    *NO_STATISTICS,
)


def problems(said: Mapping[str, Said], parts: tuple[str, ...], resolution: int) -> Iterator[str]:
    """Whatever keeps a model from being taught by and drawn as diffusers' pipeline draws it.

    parts: names of the text encoder and the tokenizer.
    """
    if wrong := list(wrong_pipeline(said, "lumina2", parts)):
        yield from wrong  # all else would follow from it
        return
    yield from broken(RULES, said)
    yield from unread_channels(said)
    network, vae, text = said["network"], said["vae"], said["text_encoder"]
    if vae.own and vae.values.get("shift_factor") is None:
        yield f"{vae.place} has no shift_factor, which Lumina2Pipeline adds to latents. Set it to 0"
    reads, gives = network.values.get("cap_feat_dim", 1024), text.values.get("hidden_size")
    if isinstance(gives, int) and reads != gives:
        yield f"{network.place} reads embeddings of width {reads}, the text encoder gives {gives}"
    # Tokens per side, of which the position embedding knows so many.
    pixels = vae_factor(vae.values) * network.values["patch_size"]
    yield from wrong_resolution(resolution, pixels, pixels * min(network.values["axes_lens"][1:]))
