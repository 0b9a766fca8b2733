"""Whether weights that are here fit their base: once they do, it is remembered.

Looking loads diffusers and reads LoRAs whole, which takes longer than all else that a plan does.
"""

from __future__ import annotations

from contextlib import suppress

from ddmd_bench.backends import Backend
from ddmd_bench.errors import BenchError
from ddmd_bench.files.provenance import package_version, source_sha256
from ddmd_bench.files.records import cache_folder, content_key, write_whole
from ddmd_bench.hub import remote_identity
from ddmd_bench.hub.cache import find
from ddmd_bench.students.catalogue import PIPELINE, StudentWeights
from ddmd_bench.students.checkpoints import (
    inputs_of,
    lora_paths,
    lora_remotes,
    remote_of,
    weights_of,
)
from ddmd_bench.students.pipeline_calls import read_files


def weights_problem(row: StudentWeights, backend: Backend) -> str | None:
    """Why a student's weights do not fit its base; None where they do, or are not all here."""
    if row.format == PIPELINE:
        return _pipeline_problem(row) if row.adapters else None
    if backend.check_student is None or backend.without_network is None:
        return None
    (shell, *_) = backend.without_network.remotes
    if any(find(one).missing for one in (shell, remote_of(row), *lora_remotes(row))):
        return None
    key = content_key(
        [
            inputs_of(row),
            remote_identity(shell),
            source_sha256("backends/**/*.py", "students/*.py"),
            [package_version(name) for name in ("torch", "diffusers", "peft")],
        ]
    )
    path = cache_folder() / "fitting" / key
    if path.is_file():
        return None
    try:
        backend.check_student(*weights_of(row, backend))
    except BenchError as error:
        return str(error)
    with suppress(OSError):  # a home that cannot be written costs time, not results
        write_whole(path, "")
    return None


def _pipeline_problem(row: StudentWeights) -> str | None:
    """Of LoRAs on a whole pipeline, what its class and the files' keys say."""
    files = read_files(row)
    if files is None or any(find(one).missing for one in lora_remotes(row)):
        return None
    import diffusers

    from ddmd_bench.students.pipeline_loras import check_pipeline_loras

    kind = getattr(diffusers, files.class_name, None)
    try:
        if kind is not None:
            check_pipeline_loras(kind, files.network, lora_paths(row))
    except BenchError as error:
        return str(error)
    return None
