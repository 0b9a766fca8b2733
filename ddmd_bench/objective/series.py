"""The series that training records of every update, by name; what makes them: `diagnostics`."""

from __future__ import annotations

SERIES = {
    "x0_std": "standard deviation of the student's images",
    "x0_mean": "mean of the student's images",
    "x0_beyond_1": "share of x0's values outside [-1, 1]",
    "dm_norm": "size of the Distribution Matching direction",
    "ca_norm": "size of the CFG Augmentation direction",
    "loss_fake_score": "loss of the fake score",
    "loss_student": "loss of the student",
    "loss_mean_variance": "mean-variance KL, weighted",
    "loss_gan_student": "student's GAN loss, weighted",
    "loss_gan_fake_score": "discriminator's loss, weighted",
    "grad_norm_student": "size of the student's gradient",
    "dm_ca_cosine": "cosine between the two directions",
}
