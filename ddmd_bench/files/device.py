"""Where networks run: on the GPU where there is one."""

from __future__ import annotations

import os
from pathlib import Path

# Without one of these no GPU can be used, which is known without loading torch.
DRIVERS = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
# How torch's allocator of a CPU, CUDA outside torch's allocator, cuBLAS and cuDNN say it.
OUT_OF_MEMORY = (
    "can't allocate memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)
# How CUDA, ROCm, cuBLAS and cuDNN begin what they say of anything; after some the GPU does nothing
# more for the process.
OF_GPU = ("CUDA error", "HIP error", "CUBLAS_STATUS", "CUDNN_STATUS", "cuDNN error")


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given == "" or not any(Path(driver).exists() for driver in DRIVERS):
        return []
    import torch

    num = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return (given.split(",") if given else [str(k) for k in range(num)])[:num]


def gpu_memory() -> int | None:
    """Bytes of this process's GPU in all, None where there is none."""
    if not visible_gpus():
        return None
    import torch

    return int(torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory)


def default_device() -> str:
    """'cuda' or 'cpu', as torch names it."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def device_name() -> str:
    """The GPU's name, or 'cpu'."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"


def cuda_versions() -> dict[str, str]:
    """What a GPU computes with; nothing where there is none."""
    import torch

    if not torch.cuda.is_available():
        return {}
    return {"cuda": str(torch.version.cuda), "cudnn": str(torch.backends.cudnn.version())}


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error, or the one that it came from, says that memory ran out."""
    import torch

    own = isinstance(error, torch.OutOfMemoryError | MemoryError)
    # What torch and the libraries below it raise as a plain RuntimeError.
    own = own or (isinstance(error, RuntimeError) and any(s in str(error) for s in OUT_OF_MEMORY))
    return own or (error.__cause__ is not None and is_out_of_memory(error.__cause__))


def is_of_machine(error: BaseException) -> bool:
    """Whether an error is of memory or of the GPU: it says nothing of what was computed."""
    of_gpu = isinstance(error, RuntimeError) and any(s in str(error) for s in OF_GPU)
    return of_gpu or is_out_of_memory(error)


def memory_shown(device: str | None = None) -> str:
    """How much memory a device has, in words, and how much of it is free."""
    import torch

    device = device or default_device()
    if torch.device(device).type != "cuda":
        return "this machine"
    free, total = torch.cuda.mem_get_info(device)
    name = torch.cuda.get_device_name(device)
    return f"the GPU ({name}, {total / 1e9:.1f} GB, {free / 1e9:.1f} GB of them free)"
