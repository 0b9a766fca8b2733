"""In which numbers networks compute: the one place that sets it, round every stage and command.

with numerics(): ...
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

from ddmd_bench.files.device import default_device
from ddmd_bench.files.memory import keep_freed_memory

# cuBLAS repeats itself only with a workspace of a fixed size (PyTorch, Reproducibility).
CUBLAS_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG", ":4096:8"


@contextmanager
def numerics() -> Iterator[None]:
    """Float32 is float32, and an operation is the same kernel each time; as it was afterwards.

    Without TensorFloat-32, which torch allows convolutions on CUDA: 10 bits of the mantissa where
    float32 has 23. Kernels are not chosen by timing them, and where torch has a deterministic one
    it is taken. So on one CPU and with as many threads a computation gives the same bits each time.
    On CUDA so does one of the same batches on the same kind of GPU with the same versions, but for
    what torch has no such kernel for (some backward passes of attention); all else rounds anew.
    """
    import torch

    cudnn, filling = torch.backends.cudnn, cast(Any, torch.utils.deterministic)
    # The names that all versions of torch have; those of 2.9 (fp32_precision) do not mix with them.
    matmul, tf32 = torch.get_float32_matmul_precision(), cudnn.allow_tf32
    benchmark, filled = cudnn.benchmark, filling.fill_uninitialized_memory
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    workspace = os.environ.get(CUBLAS_WORKSPACE[0])
    os.environ.setdefault(*CUBLAS_WORKSPACE)
    if default_device() == "cpu":
        keep_freed_memory()
    torch.set_float32_matmul_precision("highest")
    cudnn.allow_tf32, cudnn.benchmark = False, False
    torch.use_deterministic_algorithms(True, warn_only=True)
    filling.fill_uninitialized_memory = False  # a debugging aid that costs a write of each tensor
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*does not have a deterministic implementation")
            yield
    finally:
        torch.set_float32_matmul_precision(matmul)
        cudnn.allow_tf32, cudnn.benchmark = tf32, benchmark
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        filling.fill_uninitialized_memory = filled
        if workspace is None:
            os.environ.pop(CUBLAS_WORKSPACE[0], None)
