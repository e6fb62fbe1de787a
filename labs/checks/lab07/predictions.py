"""A prediction of lab 7: which latents steer? The measurement decides, on every target."""

from __future__ import annotations

from labs.checks.prediction import Prediction

STEERING = Prediction(
    number="7.A",
    question="Ten latents that follow code best, and ten that were chosen by what a push with them does on four "
    "prompts. All pushes are equally long, and made on other prompts. What do the second ten gain, compared with the "
    "first?",
    choices={
        "a": "no more than the detectors: what follows code is what writes it",
        "b": "more, up to three times as much",
        "c": "more than three times as much",
    },
    outcome=lambda times: "a" if times <= 1 else "b" if times <= 3 else "c",
    unit="the steerers gain {} times as much as the detectors",
    explain={
        "a": "Here the latents that notice also act, or the choice by effect was made by chance. It was made on four "
        "prompts: a latent that does something there need not do it elsewhere. Look at the random directions, too.",
        "b": "What a latent notices and what it does are two things, and here they have something to do with each "
        "other. Choosing by effect is the safer way, on prompts that are not those one reports.",
        "c": "What a latent notices and what it does are two things. A detector says where the text is; a steerer "
        "says what comes next, and stands close to the output. Choose steering latents by their effect, on prompts "
        "that are not those you report.",
    },
    tempting={
        "a": "A latent that is active wherever there is code seems to stand for code. But being active *after* code "
        "says nothing about what later layers make of it: many detectors only keep count of where the text is.",
        "b": "The choice by effect ought to help, and one would expect some of the detectors among the chosen. How "
        "much the two lists share is printed above.",
        "c": "Arad et al. 2025 find two to three times on larger models. Here the two choices were closer to each "
        "other than that.",
    },
)

PREDICTIONS = (STEERING,)
