"""The two predictions of lab 1. The measurement decides which choice is right, on every target."""

from __future__ import annotations

from labs.checks.prediction import Prediction

BOS = Prediction(
    number="1.A",
    question="How long is the activation at BOS, compared with the other tokens of a sentence?",
    choices={
        "a": "shorter, or about as long (less than twice the median)",
        "b": "a few times as long (2 to 10 times the median)",
        "c": "far longer (more than 10 times the median)",
    },
    outcome=lambda ratio: "a" if ratio < 2 else "b" if ratio <= 10 else "c",
    unit="the activation at BOS is {} times as long as the median token's",
    explain={
        "a": "This model treats BOS much like another token. Larger models often do not: attention heads "
        "that have nothing to do look at BOS (an attention sink, Xiao et al. 2023), and its "
        "activation grows huge (Sun et al. 2024). Leave BOS out all the same: it holds no text.",
        "b": "BOS comes first in every text, so a model can give it a role of its own: attention heads "
        "with nothing to do look at it (an attention sink, Xiao et al. 2023). Its activation grows, "
        "and would pull every mean towards it.",
        "c": "Attention heads with nothing to do look at BOS (an attention sink, Xiao et al. 2023), and "
        "the model makes its activation huge (Sun et al. 2024). One such vector a sentence outweighs"
        " all the others: it would decide every mean, every variance and every top example.",
    },
    tempting={
        "a": "A token is a token, one may think; but BOS is the same in every text, and a model makes use "
        "of that.",
        "b": "A middle answer often seems safe. Here there is nothing for it but to measure.",
        "c": "You may have heard that BOS has a huge norm. In many models it has; each model has to be "
        "measured.",
    },
)

AVERAGING = Prediction(
    number="1.B",
    question="Somebody averages the features over the tokens of a sentence, and counts those above zero. "
    "Compared with the L0 of a single token, what do they get?",
    choices={
        "a": "less: what fires rarely is averaged away",
        "b": "about the same (within a factor of 1.5)",
        "c": "much more (over 1.5 times as many)",
    },
    outcome=lambda ratio: "a" if ratio < 1 / 1.5 else "b" if ratio <= 1.5 else "c",
    unit="the count after averaging is {} times the L0",
    explain={
        "a": "That should not happen with features that are never negative: a mean is zero only if every "
        "entry is. Look for a negative feature or a wrong mask.",
        "b": "The tokens of these sentences mostly share their latents, or the sentences are very short. On"
        " longer texts the count grows with every token.",
        "c": "Features are never negative, so a mean is above zero as soon as *one* token fired. Averaging "
        "and then counting counts every latent that was used anywhere in the sentence, and the longer "
        "the text, the more.",
    },
    tempting={
        "a": "Averaging makes rare things small, which is true. But small is still above zero, and above "
        "zero is what was counted.",
        "b": "If every token used the same latents this would be so. Different tokens use different ones.",
        "c": "The reasoning is sound for features that are zero or positive, and tokens that differ.",
    },
)

PREDICTIONS = (BOS, AVERAGING)
