"""Published few-step students: where the weights lie, how their authors sample them, where seen.

A revision is a commit that has the named file, or none; `seen_in` says how that is known. Nobody's
weights were loaded here: each setting was read in the text that `seen_in` names for it.
"""

from __future__ import annotations

from ddmd_bench.students.catalogue import PIPELINE, Sampling, StackedLora, StudentWeights

_LISTING = "listing of that commit on the Hub"
_SAMPLING = ("scheduler", "num_inference_steps", "guidance_scale")


def _seen(place: str, *settings: str, revision: str = _LISTING) -> dict[str, str]:
    return {"revision": revision, **dict.fromkeys(settings or _SAMPLING, place)}


def _dmd2(title: str, kind: str, file: str, section: str, *timesteps: int) -> StudentWeights:
    """ "LCMScheduler's default timesteps are different from the one we used for training"."""
    place = f'README of tianweiy/DMD2 (GitHub, commit 8d8fa55), "{section} generation"'
    scale = ("lora_scale",) if kind == "lora" else ()
    return StudentWeights(
        title,
        backend="sdxl",
        format=kind,
        repository="tianweiy/DMD2",
        revision="be22767697a1f3ca656b73c776e15fa335c86c6c",
        file=file,
        sampling=Sampling("lcm", len(timesteps), timesteps=timesteps),
        seen_in=_seen(place, *_SAMPLING, "timesteps", *scale),
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
        # EulerDiscreteScheduler, trailing, as many steps as the file's name says, guidance 0.
        seen_in=_seen("card of ByteDance/SDXL-Lightning"),
    )


def _turbo(steps: int) -> StudentWeights:
    documented = "diffusers' documentation of SDXL Turbo: trailing, 1 to 4 steps, 512 pixels"
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
        seen_in={
            **_seen(documented, "num_inference_steps", "guidance_scale", "resolution"),
            "scheduler": "scheduler_config.json of stabilityai/sdxl-turbo (EulerAncestralDiscrete)",
        },
    )


_HYPER_CARD = "card of ByteDance/Hyper-SD (its text as copied in public code), "
# Not the listing of the commit itself, where the 4-step LoRA and the 1-step UNet were seen.
_HYPER_LISTINGS = "listings of commits 490423a, 4f05039 and d0e3aae, which have the 4-step LoRA too"


def _hyper_sd(steps: int, listing: str = _HYPER_LISTINGS) -> StudentWeights:
    return StudentWeights(
        f"Hyper-SD, {steps} steps, LoRA",
        backend="sdxl",
        format="lora",
        repository="ByteDance/Hyper-SD",
        revision="1e2dd89c425351bcdd1ad22c4d73c0b97da4f5df",
        file=f"Hyper-SDXL-{steps}steps-lora.safetensors",
        sampling=Sampling("ddim_trailing", steps),
        seen_in=_seen(f'{_HYPER_CARD}"2-Steps, 4-Steps, 8-steps LoRA"', revision=listing),
    )


def _pcm(steps: int, guidance: str) -> StudentWeights:
    """Both kinds of guidance are in the demo: small is none (0), normal is 7.5."""
    normal = guidance == "normalcfg"
    demo = "demo/app.py of G-U-N/Phased-Consistency-Model (GitHub, commit b127277)"
    return StudentWeights(
        f"PCM, {steps} steps, LoRA" + (", guidance 7.5" if normal else ""),
        backend="sdxl",
        format="lora",
        repository="wangfuyun/PCM_Weights",
        revision="def27ed2e4061a5ae047fcba65e719431ad409e5",
        file=f"sdxl/pcm_sdxl_{guidance}_{steps}step_converted.safetensors",
        # eta is left at the pipeline's default, 0.
        sampling=Sampling("tcd", steps, guidance_scale=7.5 if normal else 1.0),
        seen_in=_seen(demo),
    )


_OF_ITS_CACHE = "public code that loads the pipeline from the Hub's cache of that commit"


def _sana_sprint(parameters: str, revision: str, code: str) -> StudentWeights:
    """Its pipeline has a middle level for two steps alone."""
    return StudentWeights(
        f"SANA-Sprint {parameters}, 2 steps",
        backend=PIPELINE,
        format=PIPELINE,
        repository=f"Efficient-Large-Model/Sana_Sprint_{parameters}_1024px_diffusers",
        revision=revision,
        base=None,
        sampling=Sampling("own", 2, embedded_guidance_scale=4.5),
        resolution=1024,
        seen_in=_seen(
            "app.py of the Space Efficient-Large-Model/SanaSprint: 2 steps, guidance 4.5, which "
            "its network is told, 1024 pixels",
            *_SAMPLING,
            "embedded_guidance_scale",
            "resolution",
            revision=code,
        ),
    )


_LIGHTNING_SCRIPT = (
    "generate_with_diffusers.py of ModelTC/Qwen-Image-Lightning (GitHub, commit 142338f), which "
    "names no version: shift 3"
)


def _qwen_lightning(steps: int, version: str, place: str, listed: str) -> StudentWeights:
    """Their script adds ", Ultra HD, 4K, cinematic composition." to each prompt; no suite does."""
    return StudentWeights(
        f"Qwen-Image-Lightning V{version}, {steps} steps",
        backend=PIPELINE,
        format=PIPELINE,
        repository="Qwen/Qwen-Image",
        revision="75e0b4be04f60ec59a75f475837eced720f823b6",
        base=None,
        adapters=(
            StackedLora(
                "lightx2v/Qwen-Image-Lightning",
                "813e69cd4c5627f2c7b921667f79690a0e12bd4e",
                f"Qwen-Image-Lightning-{steps}steps-V{version}.safetensors",
            ),
        ),
        sampling=Sampling("flow_euler_shift_3", steps),
        resolution=1024,
        seen_in={
            **_seen(place, "num_inference_steps", "guidance_scale", revision=_OF_ITS_CACHE),
            "scheduler": _LIGHTNING_SCRIPT,
            "adapters": listed,
            # Their own script draws 1328 x 1328 and six other shapes.
            "resolution": "diffusers' documentation of Qwen-Image: 8 steps at 1024 pixels",
        },
    )


_LIGHTNING_V2 = (
    "README of ModelTC/Qwen-Image-Lightning (GitHub, commit 0351270), its comparison of V1.x and "
    "V2.x: one evaluation a step"
)
_LIGHTNING_V1 = (
    "README of ModelTC/Qwen-Image-Lightning (GitHub, commit 0351270), its commands for 4 and 8 "
    "steps of V1.0 (--cfg 1.0), and its comparison with V1.1"
)
_FLASH_RECIPE = (
    "README of examples/diffusers/fastgen/dmd2 in NVIDIA/Model-Optimizer (GitHub, commit 235e208), "
    "whose students of Qwen-Image are drawn at 1024 pixels"
)
_DP_DMD = "README of Multimedia-Analytics-Laboratory/dpdmd (GitHub, commit d8f75c9)"
_CDM = "scripts/infer/sd3_m.py of byliutao/cdm (GitHub, commit bacc57f)"
_NO_COMMIT = "none: no commit of it was seen"
_FLUX_DEV = (
    "public code that loads the Hub's cache of that commit, and states the sha256 of its "
    "vae/diffusion_pytorch_model.safetensors (candle-gen-flux)"
)
_SENSEFLOW_CARD = "card of domiso/SenseFlow: takes the place of FLUX.1 dev's transformer, "
_SENSEFLOW_TRAINER = "senseflow/trainer/trainer_flux_senseflow.py of XingtongGe/SenseFlow (GitHub)"
_Z_IMAGE = "example of ZImagePipeline in diffusers 0.42"

PUBLISHED: dict[str, StudentWeights] = {
    "dmd2": _dmd2(
        "DMD2, 4 steps", "unet", "dmd2_sdxl_4step_unet_fp16.bin", "4-step UNet", 999, 749, 499, 249
    ),
    "dmd2_lora": _dmd2(
        "DMD2, 4 steps, LoRA",
        "lora",
        "dmd2_sdxl_4step_lora_fp16.safetensors",
        "4-step LoRA",
        *(999, 749, 499, 249),
    ),
    "dmd2_1step": _dmd2(
        "DMD2, 1 step", "unet", "dmd2_sdxl_1step_unet_fp16.bin", "1-step UNet", 399
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
        seen_in=_seen(
            "diffusers' guide to LCM (docs v0.27)", *_SAMPLING, "embedded_guidance_scale"
        ),
    ),
    "lcm_lora": StudentWeights(
        "LCM-LoRA SDXL, 4 steps",
        backend="sdxl",
        format="lora",
        repository="latent-consistency/lcm-lora-sdxl",
        revision="e4f4bc876032ad70aa9d241af2a2f33db0f3f048",
        file="pytorch_lora_weights.safetensors",
        sampling=Sampling("lcm", 4),
        seen_in=_seen("card of latent-consistency/lcm-lora-sdxl"),
    ),
    "sdxl_turbo": _turbo(4),
    "sdxl_turbo_1step": _turbo(1),
    "lightning": _lightning(4, "unet"),
    "lightning_2step": _lightning(2, "unet"),
    "lightning_8step": _lightning(8, "unet"),
    "lightning_lora": _lightning(4, "lora"),
    "lightning_2step_lora": _lightning(2, "lora"),
    "lightning_8step_lora": _lightning(8, "lora"),
    "hyper_sd_lora": _hyper_sd(4, _LISTING),
    "hyper_sd_2step_lora": _hyper_sd(2),
    "hyper_sd_8step_lora": _hyper_sd(8),
    "hyper_sd_1step_lora": StudentWeights(
        "Hyper-SD, 1 step, LoRA",
        backend="sdxl",
        format="lora",
        repository="ByteDance/Hyper-SD",
        revision="1e2dd89c425351bcdd1ad22c4d73c0b97da4f5df",
        file="Hyper-SDXL-1step-lora.safetensors",
        sampling=Sampling("tcd", 1),  # its eta of 1 acts on nothing in a single step
        seen_in=_seen(f'{_HYPER_CARD}"Unified LoRA"', revision=_HYPER_LISTINGS),
    ),
    "hyper_sd_1step": StudentWeights(
        "Hyper-SD, 1 step",
        backend="sdxl",
        format="unet",
        repository="ByteDance/Hyper-SD",
        revision="1e2dd89c425351bcdd1ad22c4d73c0b97da4f5df",
        file="Hyper-SDXL-1step-Unet.safetensors",
        sampling=Sampling("lcm", 1, timesteps=(800,)),
        seen_in=_seen(f'{_HYPER_CARD}"1-step SDXL Unet"', *_SAMPLING, "timesteps"),
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
        seen_in={
            **_seen("card of jasperai/flash-sdxl", "scheduler", "num_inference_steps"),
            "guidance_scale": "README of gojasper/flash-diffusion (GitHub)",
        },
    ),
    "pcm": _pcm(4, "smallcfg"),
    "pcm_2step": _pcm(2, "smallcfg"),
    "pcm_8step": _pcm(8, "smallcfg"),
    "pcm_normalcfg": _pcm(4, "normalcfg"),
    "pcm_normalcfg_8step": _pcm(8, "normalcfg"),
    "senseflow_flux": StudentWeights(
        "SenseFlow-FLUX, 4 steps",
        backend=PIPELINE,
        format=PIPELINE,
        repository="domiso/SenseFlow",
        file="SenseFlow-FLUX",
        base="black-forest-labs/FLUX.1-dev",
        base_revision="3de623fc3c33e44ffbe2bad470d0f45bccf2eb21",
        component="transformer",
        # Their students of SDXL are not published: the repository has FLUX and SD 3.5 alone.
        sampling=Sampling("own", 4),
        resolution=1024,
        seen_in={
            **_seen(
                f"{_SENSEFLOW_CARD}Euler, 4 to 8 steps",
                "scheduler",
                revision="none: of its commits only the first seven digits were seen",
            ),
            # FLUX.1 dev's scheduler gives the same four at 1024 pixels.
            "num_inference_steps": f"{_SENSEFLOW_TRAINER}: at timesteps 1000, 904, 759, 512",
            # The card's own line was not seen; public code that samples it has guidance_scale 0.
            "guidance_scale": f"{_SENSEFLOW_TRAINER}: its network has guidance_embeds false, so no "
            "input for it",
            "resolution": f"{_SENSEFLOW_TRAINER}: 1024",
            "base_revision": _FLUX_DEV,
        },
    ),
    "z_image_turbo": StudentWeights(
        "Z-Image-Turbo, 8 steps",
        backend=PIPELINE,
        format=PIPELINE,
        repository="Tongyi-MAI/Z-Image-Turbo",
        revision="f332072aa78be7aecdf3ee76d5c247082da564a6",
        base=None,
        # 8 in a diffusers whose pipeline makes sigmas from 1 to 1/8; older ones need 9, of which
        # the last does nothing.
        sampling=Sampling("own", 8),
        resolution=1024,
        seen_in=_seen(
            _Z_IMAGE,
            *_SAMPLING,
            "resolution",
            revision="public code that loads the pipeline of that commit, and a public log of the "
            "Hub's answer of 2026-09-24: its newest commit, weights unchanged since its release",
        ),
    ),
    "flux_schnell": StudentWeights(
        "FLUX.1-schnell, 4 steps",
        backend=PIPELINE,
        format=PIPELINE,
        repository="black-forest-labs/FLUX.1-schnell",
        revision="741f7c3ce8b383c54771c7003378a50191e9efe9",
        base=None,
        sampling=Sampling("own", 4),
        resolution=1024,
        max_sequence_length=256,
        seen_in={
            **_seen("example of FluxPipeline in diffusers 0.42", revision=_OF_ITS_CACHE),
            "resolution": "what FluxPipeline draws where no size is asked for (diffusers 0.42)",
            "max_sequence_length": "diffusers' documentation of FLUX (v0.31): 256 at most for this "
            "one, where the call takes 512 by itself",
        },
    ),
    "flux2_klein": StudentWeights(
        "FLUX.2-klein 4B, 4 steps",
        backend=PIPELINE,
        format=PIPELINE,
        repository="black-forest-labs/FLUX.2-klein-4B",
        revision="e7b7dc27f91deacad38e78976d1f2b499d76a294",
        base=None,
        sampling=Sampling("own", 4),
        resolution=1024,
        seen_in=_seen(
            "public code that calls the pipeline so (backend/tarun_diffusion/run.py of "
            "yashy10/golden-gate-quest, GitHub), and other that pins the same: 4 steps, guidance 1",
            *_SAMPLING,
            "resolution",
            revision=_OF_ITS_CACHE,
        ),
    ),
    "sd35_large_turbo": StudentWeights(
        "Stable Diffusion 3.5 Large Turbo, 4 steps",
        backend=PIPELINE,
        format=PIPELINE,
        repository="stabilityai/stable-diffusion-3.5-large-turbo",
        revision="ec07796fc06b096cc56de9762974a28f4c632eda",
        base=None,
        sampling=Sampling("own", 4),
        resolution=1024,
        seen_in=_seen(
            "app.py of the Space stabilityai/stable-diffusion-3.5-large-turbo (commit 69b5899)",
            *_SAMPLING,
            "resolution",
            revision="public code that names the Hub's cache of that commit, and downloads the "
            "pipeline's files into it",
        ),
    ),
    "sana_sprint": _sana_sprint(
        "1.6B",
        "19683c58b7ea290e55cedd8950ae1d86ada7ef96",
        "public code that pins that commit beside 2 steps, guidance 4.5 and 1024 pixels",
    ),
    "sana_sprint_600m": _sana_sprint(
        "0.6B", "a7d9fc31dd5c3f5e22dbfd78360777ceed56ae97", _OF_ITS_CACHE
    ),
    "qwen_image_lightning": _qwen_lightning(4, "2.0", _LIGHTNING_V2, _LISTING),
    "qwen_image_lightning_8step": _qwen_lightning(
        8, "2.0", _LIGHTNING_V2, f"{_LISTING}, which is the one that added it"
    ),
    "qwen_image_lightning_v1": _qwen_lightning(4, "1.0", _LIGHTNING_V1, _LISTING),
    "qwen_image_lightning_v1_8step": _qwen_lightning(
        8, "1.1", _LIGHTNING_V1, "public code that takes the file of that commit, with its sha256"
    ),
    "qwen_image_flash": StudentWeights(
        "Qwen-Image-Flash, 4 steps",
        backend=PIPELINE,
        format=PIPELINE,
        repository="nvidia/Qwen-Image-Flash",
        base=None,
        sampling=Sampling("own", 4),
        resolution=1024,
        seen_in={
            **_seen(
                "card of nvidia/Qwen-Image-Flash: DMD2, a packaged scheduler for four steps",
                "scheduler",
                "num_inference_steps",
                revision=_NO_COMMIT,
            ),
            "guidance_scale": "public code whose settings are the card's example by its own words: "
            "true_cfg_scale=1.0",
            "resolution": _FLASH_RECIPE,
        },
    ),
    "dp_dmd": StudentWeights(
        "DP-DMD of Stable Diffusion 3.5 Medium, 4 steps",
        backend=PIPELINE,
        format=PIPELINE,
        repository="TianheWu/dpdmd",
        file="DPDMD-SD35M-4NFE-natural.pt",
        base="stabilityai/stable-diffusion-3.5-medium",
        base_revision="b940f670f0eda2d07fbb75229e779da1ad11eb80",
        component="transformer",
        sampling=Sampling("own", 4),
        resolution=1024,
        seen_in={
            **_seen(_DP_DMD, *_SAMPLING, "resolution", revision=_NO_COMMIT),
            "base_revision": _OF_ITS_CACHE,
        },
    ),
    "cdm": StudentWeights(
        "CDM of Stable Diffusion 3 Medium, 4 steps",
        backend=PIPELINE,
        format=PIPELINE,
        repository="byliutao/stable-diffusion-3-medium-turbo",
        base=None,
        sampling=Sampling("own", 4, sigmas=(1.0, 0.75, 0.5, 0.25)),
        resolution=1024,
        seen_in=_seen(_CDM, *_SAMPLING, "sigmas", "resolution", revision=_NO_COMMIT),
    ),
}
