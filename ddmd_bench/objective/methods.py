"""Methods are rows: which terms drive the student, and where each re-noises (Tab. 1, Sec. 4).

The axis is ours: noise level tau in [0, 1], 1 = pure noise. The paper's axis is reversed, so its
"tau > t" (cleaner than the student's input) is `BELOW_T` here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Schedule = Literal["full", "below_t"]
FULL: Schedule = "full"  # tau over the whole range
BELOW_T: Schedule = "below_t"  # cleaner than the student's input: tau < t


@dataclass(frozen=True)
class Method:
    """One row. A term whose schedule is None is absent and costs nothing.

    `shared_draw`: CA is evaluated at the very x_tau of DM, level and noise (Coupled-Shared).
    `mean_variance` and `gan`: regularizers beside the terms (Eq. 7; DMD2).
    """

    title: str
    tau_ca: Schedule | None
    tau_dm: Schedule | None
    shared_draw: bool = False
    mean_variance: bool = False
    gan: bool = False


METHODS: dict[str, Method] = {
    "dmd": Method("DMD (Coupled-Shared)", FULL, FULL, shared_draw=True),
    "ca_only": Method("CA only", FULL, None),
    "dm_only": Method("DM only", None, FULL),
    "decoupled_full": Method("Decoupled-Full", FULL, FULL),
    "decoupled_constrained": Method("Decoupled-Constrained", BELOW_T, BELOW_T),
    "decoupled_hybrid": Method("Decoupled-Hybrid", BELOW_T, FULL),
    "ca_mean_variance": Method("CA + mean-variance KL", FULL, None, mean_variance=True),
    "ca_gan": Method("CA + GAN", FULL, None, gan=True),
    "dmd2": Method("DMD2 (Coupled-Shared + GAN)", FULL, FULL, shared_draw=True, gan=True),
    "decoupled_hybrid_gan": Method("Decoupled-Hybrid + GAN", BELOW_T, FULL, gan=True),
}
