"""Lines of a suite that bring an exported student back as it was."""

from __future__ import annotations

from typing import Any

import yaml

from ddmd_bench.backends import PipelineForm
from ddmd_bench.students.catalogue import PIPELINE
from ddmd_bench.students.seeded import SeededStudent
from ddmd_bench.suite.schema import Suite
from ddmd_bench.suite.settings import TrainSettings

HERE = "path/to/this/folder"  # of the export, in a card


def suite_lines(
    student: SeededStudent,
    settings: TrainSettings,
    suite: Suite,
    form: PipelineForm,
) -> dict[str, str]:
    """YAML by the format that it names: each way in which suites can load the student."""
    sampled = {**form.schedule(settings.t_list), "resolution": form.resolution}
    whole = {
        PIPELINE: {"scheduler": "own"},
        form.network: {
            "file": f"{form.network}/diffusion_pytorch_model.safetensors",
            "scheduler": form.scheduler,
        },
    }
    lora = {"lora": {"file": "pytorch_lora_weights.safetensors", "scheduler": form.scheduler}}
    ways = whole if settings.lora_rank is None else lora
    return {
        kind: _lines(
            suite, form, student.name, {"repository": HERE, "format": kind, **ways[kind], **sampled}
        )
        for kind in ways
    }


def _lines(suite: Suite, form: PipelineForm, name: str, checkpoint: dict[str, Any]) -> str:
    model = suite.model.model_dump(mode="json", exclude_unset=True)
    lines = {
        "backend": suite.backend,
        "model": {**model, "resolution": form.resolution, "dtype": form.dtype},
        "students": {name: {"source": "checkpoint", "checkpoint": checkpoint}},
    }
    return yaml.safe_dump(lines, sort_keys=False, default_flow_style=None)
