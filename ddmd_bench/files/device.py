"""Where networks run: on the GPU where there is one."""

from __future__ import annotations


def default_device() -> str:
    """'cuda' or 'cpu', as torch names it."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def device_name() -> str:
    """The GPU's name, or 'cpu'."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
