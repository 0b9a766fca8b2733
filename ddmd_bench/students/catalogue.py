"""Published few-step students are rows: where the weights lie and how their authors sample them.

A checkpoint that a suite names itself is a `StudentWeights` too: `repository` may be a local file
or folder. A revision is given where the named files were seen in the listing of that commit.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ddmd_bench.errors import BenchError

SDXL_BASE = "stabilityai/stable-diffusion-xl-base-1.0"
PIPELINE = "pipeline"  # a format: a whole diffusers pipeline, sampled by its own rules


@dataclass(frozen=True)
class Sampling:
    """How a student is sampled.

    `scheduler` names a row of `backends.schedulers.SCHEDULERS`. guidance_scale is ours: 1 = none,
    which diffusers writes as 0 (any value <= 1 skips the unconditional pass).
    """

    scheduler: str
    num_inference_steps: int
    timesteps: tuple[int, ...] | None = None  # the scheduler's own where None
    guidance_scale: float = 1.0
    # The scale that a network with a guidance embedding is told, in diffusers' convention.
    embedded_guidance_scale: float | None = None
    sigmas: tuple[float, ...] | None = None  # of flow matching, in place of timesteps

    def words(self, class_name: str | None = None) -> str:
        """How the student is sampled, for people; class_name: of the scheduler, where known."""
        given = {"timesteps": self.timesteps, "sigmas": self.sigmas}
        levels = [f"{kind} {', '.join(map(str, v))}" for kind, v in given.items() if v is not None]
        guided = f"guidance {self.guidance_scale:g}" if self.guidance_scale != 1 else "no guidance"
        told = self.embedded_guidance_scale
        embedded = [] if told is None else [f"told guidance {told:g}"]
        steps = f"{self.num_inference_steps} step{'s' * (self.num_inference_steps > 1)}"
        scheduler = f"{self.scheduler} ({class_name})" if class_name else self.scheduler
        return ", ".join([f"scheduler {scheduler}", steps, *levels, guided, *embedded])


@dataclass(frozen=True)
class StudentWeights:
    """One student. `base` is the repository of all that the weights do not hold.

    backend: the family, "sdxl" or "pipeline" (a whole diffusers pipeline of another architecture).
    format: a key of `backends.stable_diffusion.formats.FORMATS`, or "pipeline".
    """

    title: str
    backend: str
    format: str
    repository: str  # owner/name on the Hub, or a local folder or file
    sampling: Sampling
    revision: str | None = None
    file: str | None = None  # in the repository; the repository itself where None
    base: str | None = SDXL_BASE
    # Of a pipeline, the part that the weights are, a folder in diffusers' format named by `file`;
    # the rest is the base's. None: the repository is the whole pipeline.
    component: str | None = None
    lora_scale: float = 1.0
    resolution: int | None = None  # pixels per side of its protocol; None: as the suite draws
    source: str = ""  # where the settings come from


def local_weights(row: StudentWeights) -> Path | None:
    """The weights of a row whose repository is a local file or folder; None for one on the Hub."""
    place = Path(row.repository).expanduser()
    if not place.exists():
        return None
    found = place / row.file if row.file else place
    if not found.exists():
        inside = ", ".join(sorted(p.name for p in place.iterdir())[:8]) if place.is_dir() else "-"
        raise BenchError(f"{row.title}: no {row.file!r} in {place}; it holds: {inside}")
    return found


_DMD2 = "README of tianweiy/DMD2 (GitHub, commit 8d8fa55)"
_LIGHTNING = (
    "Model card of ByteDance/SDXL-Lightning: EulerDiscreteScheduler with trailing timesteps, as "
    "many steps as the file's name says, guidance_scale 0"
)
_TURBO = (
    "diffusers' documentation of SDXL Turbo (trailing timesteps, 1 to 4 steps, guidance_scale 0, "
    "512 pixels) and scheduler_config.json of stabilityai/sdxl-turbo (EulerAncestralDiscrete)"
)
_PCM = (
    "demo/app.py of G-U-N/Phased-Consistency-Model (GitHub, commit b127277): TCDScheduler, "
    "guidance_scale 0, eta left at the pipeline's default 0"
)


def _lightning(steps: int, kind: str) -> StudentWeights:
    return StudentWeights(
        f"SDXL-Lightning, {steps} steps" + (", LoRA" if kind == "lora" else ""),
        backend="sdxl",
        format=kind,
        repository="ByteDance/SDXL-Lightning",
        revision="03d4092b312f051071af07b02d74671fa399869b",
        file=f"sdxl_lightning_{steps}step_{kind}.safetensors",
        sampling=Sampling("euler_trailing", steps),
        source=_LIGHTNING,
    )


def _turbo(steps: int) -> StudentWeights:
    return StudentWeights(
        f"SDXL-Turbo, {steps} step{'s' * (steps > 1)}",
        backend="sdxl",
        format="unet",
        repository="stabilityai/sdxl-turbo",
        revision="b0ff6e8c8d37d300d650d5f371c80d8bce29de92",
        file="unet/diffusion_pytorch_model.fp16.safetensors",
        base="stabilityai/sdxl-turbo",  # a whole pipeline: its own text encoders and VAE
        sampling=Sampling("euler_ancestral_trailing", steps),
        resolution=512,
        source=_TURBO,
    )


def _pcm(steps: int) -> StudentWeights:
    return StudentWeights(
        f"PCM, {steps} steps, LoRA",
        backend="sdxl",
        format="lora",
        repository="wangfuyun/PCM_Weights",
        revision="def27ed2e4061a5ae047fcba65e719431ad409e5",
        file=f"sdxl/pcm_sdxl_smallcfg_{steps}step_converted.safetensors",
        sampling=Sampling("tcd", steps),
        source=_PCM,
    )


PUBLISHED: dict[str, StudentWeights] = {
    "dmd2": StudentWeights(
        "DMD2, 4 steps",
        backend="sdxl",
        format="unet",
        repository="tianweiy/DMD2",
        revision="be22767697a1f3ca656b73c776e15fa335c86c6c",
        file="dmd2_sdxl_4step_unet_fp16.bin",
        sampling=Sampling("lcm", 4, timesteps=(999, 749, 499, 249)),
        source=f"{_DMD2}: LCMScheduler at timesteps 999, 749, 499, 249, guidance_scale 0",
    ),
    "dmd2_lora": StudentWeights(
        "DMD2, 4 steps, LoRA",
        backend="sdxl",
        format="lora",
        repository="tianweiy/DMD2",
        revision="be22767697a1f3ca656b73c776e15fa335c86c6c",
        file="dmd2_sdxl_4step_lora_fp16.safetensors",
        sampling=Sampling("lcm", 4, timesteps=(999, 749, 499, 249)),
        source=f"{_DMD2}: fused at scale 1.0, otherwise as the 4-step UNet",
    ),
    "dmd2_1step": StudentWeights(
        "DMD2, 1 step",
        backend="sdxl",
        format="unet",
        repository="tianweiy/DMD2",
        revision="be22767697a1f3ca656b73c776e15fa335c86c6c",
        file="dmd2_sdxl_1step_unet_fp16.bin",
        sampling=Sampling("lcm", 1, timesteps=(399,)),
        source=f"{_DMD2}: LCMScheduler at timestep 399, guidance_scale 0",
    ),
    "lcm": StudentWeights(
        "LCM-SDXL, 4 steps",
        backend="sdxl",
        format="unet",
        repository="latent-consistency/lcm-sdxl",
        revision="843cb4058e2bb79edc70a6d8002e1a96feddfd14",
        file="diffusion_pytorch_model.fp16.safetensors",
        # Guidance is an input of this network, so no second pass. The guide gives 3 to 13 as the
        # range of its training; the text of the model card says 1 to 2.
        sampling=Sampling("lcm", 4, embedded_guidance_scale=8.0),
        source="diffusers' guide to LCM (docs v0.27): LCMScheduler, 4 steps, guidance_scale 8.0",
    ),
    "lcm_lora": StudentWeights(
        "LCM-LoRA SDXL, 4 steps",
        backend="sdxl",
        format="lora",
        repository="latent-consistency/lcm-lora-sdxl",
        revision="e4f4bc876032ad70aa9d241af2a2f33db0f3f048",
        file="pytorch_lora_weights.safetensors",
        sampling=Sampling("lcm", 4),
        source="Model card of latent-consistency/lcm-lora-sdxl: fused, LCMScheduler, 4 steps, "
        "guidance disabled by guidance_scale 0",
    ),
    "sdxl_turbo": _turbo(4),
    "sdxl_turbo_1step": _turbo(1),
    "lightning": _lightning(4, "unet"),
    "lightning_2step": _lightning(2, "unet"),
    "lightning_8step": _lightning(8, "unet"),
    "lightning_lora": _lightning(4, "lora"),
    "lightning_2step_lora": _lightning(2, "lora"),
    "lightning_8step_lora": _lightning(8, "lora"),
    "hyper_sd_lora": StudentWeights(
        "Hyper-SD, 4 steps, LoRA",
        backend="sdxl",
        format="lora",
        repository="ByteDance/Hyper-SD",
        revision="1e2dd89c425351bcdd1ad22c4d73c0b97da4f5df",
        file="Hyper-SDXL-4steps-lora.safetensors",
        sampling=Sampling("ddim_trailing", 4),
        source="Model card of ByteDance/Hyper-SD: fused, DDIMScheduler with trailing timesteps, "
        "steps as in the file's name, guidance_scale 0",
    ),
    "hyper_sd_1step": StudentWeights(
        "Hyper-SD, 1 step",
        backend="sdxl",
        format="unet",
        repository="ByteDance/Hyper-SD",
        revision="1e2dd89c425351bcdd1ad22c4d73c0b97da4f5df",
        file="Hyper-SDXL-1step-Unet.safetensors",
        sampling=Sampling("lcm", 1, timesteps=(800,)),
        source="Model card of ByteDance/Hyper-SD: LCMScheduler at timestep 800, guidance_scale 0",
    ),
    "flash_sdxl": StudentWeights(
        "Flash-SDXL, 4 steps, LoRA",
        backend="sdxl",
        format="lora",
        repository="jasperai/flash-sdxl",
        revision="84e93604226d43e74ae9085a98ea4eaee57d8600",
        file="pytorch_lora_weights.safetensors",
        # The card asks for trailing spacing, which LCMScheduler does not read.
        sampling=Sampling("lcm", 4),
        source="Model card of jasperai/flash-sdxl (LCMScheduler, fused, 4 steps) and README of "
        "gojasper/flash-diffusion (guidance_scale 0)",
    ),
    "pcm": _pcm(4),
    "pcm_2step": _pcm(2),
    "pcm_8step": _pcm(8),
    "senseflow_flux": StudentWeights(
        "SenseFlow-FLUX, 4 steps",
        backend="pipeline",
        format="pipeline",
        repository="domiso/SenseFlow",
        file="SenseFlow-FLUX",
        base="black-forest-labs/FLUX.1-dev",
        component="transformer",
        # Their students of SDXL are not published: the repository has FLUX and SD 3.5 alone.
        # FLUX.1 dev's network is told its guidance: the call's guidance_scale.
        sampling=Sampling("own", 4, embedded_guidance_scale=0.0),
        resolution=1024,
        source="README of XingtongGe/SenseFlow and card of domiso/SenseFlow: the folder takes the "
        "place of FLUX.1 dev's transformer, 4 to 8 Euler steps at 1024 pixels; guidance_scale 0 as "
        "public code that samples it has it, since the card's own line was not seen",
    ),
    "z_image_turbo": StudentWeights(
        "Z-Image-Turbo, 8 steps",
        backend="pipeline",
        format="pipeline",
        repository="Tongyi-MAI/Z-Image-Turbo",
        base=None,
        # 8 in a diffusers whose pipeline makes sigmas from 1 to 1/8; older ones need 9, of which
        # the last does nothing.
        sampling=Sampling("own", 8),
        resolution=1024,
        source="Example of diffusers' ZImagePipeline (0.42): 8 steps, guidance_scale 0.0",
    ),
}
