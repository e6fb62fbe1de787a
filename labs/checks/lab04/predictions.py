"""The two predictions of lab 4. The measurement decides which choice is right, on every target."""

from __future__ import annotations

from labs.checks.prediction import Prediction

SHRINKAGE = Prediction(
    number="4.A",
    question="An L1 penalty presses on every active latent. If you multiply all latents of the trained "
    "SAE by one common factor, which factor gives the best reconstruction?",
    choices={
        "a": "about 1: training has found the best strengths (below 1.03)",
        "b": "a little more than 1 (1.03 to 1.15)",
        "c": "much more than 1 (above 1.15)",
    },
    outcome=lambda factor: "a" if factor < 1.03 else "b" if factor <= 1.15 else "c",
    unit="the best common factor is {}",
    explain={
        "a": "Here the penalty was weak beside the error, so it left the strengths nearly where they "
        "belong. A larger `l1` would show what it does otherwise: shrink.",
        "b": "The penalty paid for making every latent a little too weak: *shrinkage*. It came with the "
        "sparsity, and nobody asked for it. TopK, Gated and JumpReLU SAEs were made to get one without the "
        "other (Wright and Sharkey 2024; Rajamanoharan et al. 2024).",
        "c": "With a penalty this strong, latents are far too weak: *shrinkage*. Part of the lost "
        "reconstruction is not missing features at all, only features turned down (Wright and Sharkey "
        "2024).",
    },
    tempting={
        "a": "Training minimises a loss, so its strengths are best. Best for that loss, though, and half "
        "of the loss wants them small.",
        "b": "Some shrinkage there must be. How much depends on `l1`: it has to be measured.",
        "c": "The penalty does press on everything. But the error pushes back, and the more the stronger "
        "the latent.",
    },
)

FROZEN = Prediction(
    number="4.B",
    question="A TopK SAE is trained, and beside it one whose decoder rows are frozen at random "
    "directions, so that only the encoder learns. Which share of the trained SAE's explained variance "
    "does the frozen one reach?",
    choices={
        "a": "next to nothing: less than 0.3",
        "b": "about half: 0.3 to 0.7",
        "c": "nearly as much: above 0.7",
    },
    outcome=lambda share: "a" if share < 0.3 else "b" if share <= 0.7 else "c",
    unit="the frozen decoder reaches a share of {} of the explained variance",
    explain={
        "a": "Random directions are of little use here, so most of the explained variance was earned by "
        "learning the dictionary. It is worth knowing that you checked.",
        "b": "A good part of the explained variance needs no dictionary at all: with many random "
        "directions, a few of them always lie near a given token. So an explained variance is to be read "
        "beside this control, not beside 0.",
        "c": "Most of the explained variance needs no dictionary at all. With so many directions a few "
        "always lie near a token, and the encoder learns to pick them. Whatever a trained decoder is good "
        "for, this number does not show it.",
    },
    tempting={
        "a": "Random sounds useless. But there are several times as many directions as dimensions, "
        "and the encoder may choose.",
        "b": "Half of it from learning, half for free, is a fair guess. It depends on the width, on k and "
        "on how long one trains.",
        "c": "Many random directions do span everything. But a token gets only k of them.",
    },
)

PREDICTIONS = (SHRINKAGE, FROZEN)
