"""Lumina-Image-2.0's transformer as a denoiser: it predicts a velocity, the objective reads x0."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ddmd_bench.backends.mixed_precision import input_dtype
from ddmd_bench.errors import BenchError
from ddmd_bench.objective.process import flow_level, x0_from_velocity
from ddmd_bench.objective.terms import Cond

# Attention, as diffusers' training script joins LoRA to Lumina-Image-2.0, and, as DMD2 does for
# SDXL, feed-forward.
LORA_TARGETS = (
    "to_q", "to_k", "to_v", "to_out.0",
    "feed_forward.linear_1", "feed_forward.linear_2", "feed_forward.linear_3",
)  # fmt: skip


class LuminaDenoiser(nn.Module):
    """A Lumina2Transformer2DModel, called as `denoise(x_t, t, cond) -> x0`."""

    def __init__(self, transformer: Any) -> None:
        super().__init__()
        self.transformer = transformer
        self.image_tokens = ImageTokens()

    def predict(self, x_t: Tensor, t: Tensor, cond: Cond) -> Tensor:
        """x_t [B, C, H, W], t [B] in [0, 1] -> velocity `eps - x0` in the dtype of x_t."""
        dtype = input_dtype(self.transformer, x_t)
        step_embedding = step_embedding_of(self)
        if step_embedding is not None:
            step_embedding.step = cond.get("step")
        with self._tapped(x_t, cond):
            # Its time runs from noise to image, 1 - t, and its velocity with it: x0 - eps.
            predicted: Tensor = self.transformer(
                x_t.to(dtype),
                1 - t,
                cond["prompt_embeds"].to(dtype),
                cond["prompt_attention_mask"],
                return_dict=False,
            )[0]
        return -predicted.to(x_t.dtype)

    def forward(self, x_t: Tensor, t: Tensor, cond: Cond) -> Tensor:
        """x_t [B, C, H, W], t [B] in [0, 1] -> x0 [B, C, H, W]."""
        return x0_from_velocity(self.predict(x_t, t, cond), x_t, flow_level(t))

    @contextmanager
    def _tapped(self, x_t: Tensor, cond: Cond) -> Iterator[None]:
        """Show the tokens half way to `image_tokens` while a pass runs, if anyone reads it.

        Not always: gradient checkpointing runs a layer again, when no sample is at hand.
        """
        if not self.image_tokens._forward_hooks:
            yield
            return
        patch = self.transformer.config.patch_size
        size = x_t.shape[2] // patch, x_t.shape[3] // patch
        first = cond["prompt_attention_mask"].sum(dim=1).tolist()

        def show(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            self.image_tokens(inputs[0], first, size)

        layers = self.transformer.layers
        handle = layers[len(layers) // 2].register_forward_pre_hook(show)
        try:
            yield
        finally:
            handle.remove()


class ScheduledLumina(nn.Module):
    """A transformer as diffusers' schedulers of flow matching call a network."""

    def __init__(self, transformer: Any) -> None:
        super().__init__()
        self.denoiser = LuminaDenoiser(transformer)

    def predict(
        self,
        x_t: Tensor,
        timestep: Tensor,
        cond: Cond,
        embedded_guidance_scale: float | None = None,
    ) -> Tensor:
        """x_t [B, C, H, W], timestep (0 to 1000; one, or [B]) -> velocity `eps - x0`."""
        if embedded_guidance_scale is not None:
            raise BenchError("Lumina has no guidance input; leave embedded_guidance_scale out")
        return self.denoiser.predict(x_t, (timestep / 1000).expand(len(x_t)), cond)


class ImageTokens(nn.Module):
    """The bottleneck that a transformer does not have: its tokens half way, as a map.

    It holds no weights, and the transformer does not depend on it.
    """

    def forward(self, tokens: Tensor, first: Sequence[int], size: tuple[int, int]) -> Tensor:
        """Tokens [B, L, D], each sample's image from `first` on after its text -> [B, D, h, w]."""
        num = size[0] * size[1]
        rows = [row[start : start + num] for row, start in zip(tokens, first, strict=True)]
        return torch.stack(rows).transpose(1, 2).reshape(len(rows), -1, *size)


class StepEmbedding(nn.Module):
    """Adds to the time embedding which of the student's steps made a sample.

    It starts at zero, so that nothing changes; its last row, for inputs that come from no step,
    stays zero.
    """

    def __init__(self, num_steps: int, size: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(num_steps + 1, size, padding_idx=num_steps)
        nn.init.zeros_(self.embedding.weight)
        self.step: Tensor | None = None  # of the samples in the pass that runs

    def forward(self, time_embedding: Tensor) -> Tensor:
        """[B, size] -> [B, size], in the same dtype."""
        step = self.step
        if step is None:
            shape, device = time_embedding.shape[:1], time_embedding.device
            step = torch.full(shape, self.embedding.weight.shape[0] - 1, device=device)
        added: Tensor = self.embedding(step)
        return time_embedding + added.to(time_embedding.dtype)


def add_step_embedding(denoiser: nn.Module, num_steps: int) -> None:
    """Let a network read which of the student's steps made a sample, beside the time."""
    embedder = _time_embedder(denoiser)
    # The place of an activation after the embedding, which Lumina-Image-2.0 leaves empty: there
    # the names of all other weights stay what they are.
    embedder.post_act = StepEmbedding(num_steps, embedder.linear_2.out_features)


def step_embedding_of(denoiser: nn.Module) -> StepEmbedding | None:
    """The added embedding of a network that has one."""
    found = _time_embedder(denoiser).post_act
    return found if isinstance(found, StepEmbedding) else None


def bottleneck(denoiser: nn.Module) -> nn.Module:
    """The module whose output a discriminator reads: [B, D, h, w], a token of the image each."""
    assert isinstance(denoiser, LuminaDenoiser)
    return denoiser.image_tokens


def _time_embedder(denoiser: nn.Module) -> Any:
    assert isinstance(denoiser, LuminaDenoiser)
    return denoiser.transformer.time_caption_embed.timestep_embedder
