"""Everything that has something to say about a suite: a row for each part."""

from __future__ import annotations

from ddmd_bench.planning.claims import CLAIMS
from ddmd_bench.planning.encoding import ENCODING
from ddmd_bench.planning.evaluation import EVALUATION
from ddmd_bench.planning.generation import GENERATION
from ddmd_bench.planning.literature import LITERATURE
from ddmd_bench.planning.models import MODELS
from ddmd_bench.planning.part import Part
from ddmd_bench.planning.prompts import PROMPTS
from ddmd_bench.planning.reference import REFERENCE
from ddmd_bench.planning.scoring import SCORING
from ddmd_bench.planning.settling import SETTLING
from ddmd_bench.planning.training import TRAINING

# In the order of a run: a part's tasks may need the keys of those before.
PARTS: dict[str, Part] = {
    "prompts": PROMPTS,
    "models": MODELS,
    "encoding": ENCODING,
    "reference": REFERENCE,
    "training": TRAINING,
    "evaluation": EVALUATION,
    "settling": SETTLING,
    "generation": GENERATION,
    "scoring": SCORING,
    "claims": CLAIMS,
    "literature": LITERATURE,
}
