"""Files of weights as their authors publish them. Loads no torch.

No revision is pinned that was not verified: the sha256 of what is found goes into every key.
"""

from __future__ import annotations

from ddmd_bench.scorers.weights import Weights

# Where hpsv2 keeps its files, beside the Hub's cache.
_HPS_FOLDERS = ("$HPS_ROOT", "~/.cache/hpsv2")

HPS_V21 = Weights("HPS v2.1", ("HPS_v2.1_compressed.pt",), "xswu/HPSv2", elsewhere=_HPS_FOLDERS)
HPS_V20 = Weights("HPS v2.0", ("HPS_v2_compressed.pt",), "xswu/HPSv2", elsewhere=_HPS_FOLDERS)
CLIP_VIT_G_14 = Weights(
    "LAION's CLIP ViT-g-14",
    ("open_clip_pytorch_model.bin",),
    "laion/CLIP-ViT-g-14-laion2B-s12B-b42K",
)
CLIP_VIT_L_14 = Weights(
    "OpenAI's CLIP ViT-L-14",
    ("open_clip_model.safetensors",),
    "timm/vit_large_patch14_clip_224.openai",  # where open_clip takes it from
)
CLIP_VIT_L_14_336 = Weights(
    "OpenAI's CLIP ViT-L-14 at 336 px",
    ("open_clip_model.safetensors",),
    "timm/vit_large_patch14_clip_336.openai",  # where open_clip takes it from
)
PICK_SCORE = Weights("PickScore v1", ("model.safetensors",), "yuvalkirstain/PickScore_v1")
AESTHETIC = Weights(
    "LAION aesthetic predictor",
    ("sac+logos+ava1-l14-linearMSE.pth",),
    url="https://github.com/christophschuhmann/improved-aesthetic-predictor/raw/"
    "6934dd81792f086e613a121dbce43082cb8be85e/sac%2Blogos%2Bava1-l14-linearMSE.pth",
    # As several public projects that fetch it state it.
    sha256="21dd590f3ccdc646f0d53120778b296013b096a035a2718c9cb0d511bff0f1e0",
)
IMAGE_REWARD = Weights(
    "ImageReward v1.0",
    ("ImageReward.pt", "med_config.json"),
    "zai-org/ImageReward",
    elsewhere=("~/.cache/ImageReward",),  # where image-reward keeps them
)
BERT_VOCABULARY = Weights("BERT's vocabulary", ("vocab.txt",), "google-bert/bert-base-uncased")
HPS_V3 = Weights("HPS v3", ("HPSv3.safetensors",), "MizzenAI/HPSv3")
QWEN2_TOKENIZER = Weights("Qwen2-VL's tokenizer", ("tokenizer.json",), "Qwen/Qwen2-VL-7B-Instruct")
# torch.hub's folder of downloads, wherever the environment puts it.
_TORCH_HUB = (
    "$TORCH_HOME/hub/checkpoints",
    "$XDG_CACHE_HOME/torch/hub/checkpoints",
    "~/.cache/torch/hub/checkpoints",
)
ALEXNET = Weights(
    "torchvision's AlexNet",
    ("alexnet-owt-7be5be79.pth",),
    url="https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
    sha256="7be5be79",  # its beginning, which torchvision's names state
    elsewhere=_TORCH_HUB,
)
DINOV2 = Weights(
    "DINOv2 ViT-L/14",
    ("model.safetensors",),
    "timm/vit_large_patch14_dinov2.lvd142m",
    instead=Weights(
        "DINOv2 ViT-L/14",
        ("dinov2_vitl14_pretrain.pth",),
        url="https://dl.fbaipublicfiles.com/dinov2/dinov2_vitl14/dinov2_vitl14_pretrain.pth",
        elsewhere=_TORCH_HUB,  # where dgm-eval's torch.hub keeps it
    ),
)
SSCD = Weights(
    "SSCD's ResNet-50",
    ("sscd_disc_mixup.torchvision.pt",),
    url="https://dl.fbaipublicfiles.com/sscd-copy-detection/sscd_disc_mixup.torchvision.pt",
    elsewhere=_TORCH_HUB,
)
INCEPTION = Weights(
    "FID's Inception-v3",
    ("inception-2015-12-05.pt",),
    url="https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/"
    "inception-2015-12-05.pt",
    # To load TorchScript may run code, so that no other file is loaded. As k-diffusion and other
    # public projects that fetch it state it.
    sha256="f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4",
    elsewhere=_TORCH_HUB,  # not where clean-fid keeps it: anyone may put a file into /tmp
    instead=Weights(
        "FID's Inception-v3",
        ("weights-inception-2015-12-05-6726825d.pth",),
        url="https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
        "weights-inception-2015-12-05-6726825d.pth",
        sha256="6726825d",
        elsewhere=_TORCH_HUB,
    ),
)
