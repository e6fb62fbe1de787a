"""The two predictions of lab 6. The measurement decides which choice is right, on every target."""

from __future__ import annotations

from labs.checks.prediction import Prediction

SANITY = Prediction(
    number="6.A",
    question="A perfect copy scores 1. A copy with some noise scores less, one with more noise less again. How many "
    "of the nine wrong implementations do these three checks catch, on real activations?",
    choices={
        "a": "most of them: six or more",
        "b": "some: two to five",
        "c": "next to none: one at most",
    },
    outcome=lambda caught: "a" if caught >= 6 else "b" if caught >= 2 else "c",
    unit="{} of 9 are caught",
    explain={
        "a": "On these numbers the order alone gives most of them away. Do not count on it: on others, or with "
        "other noise, the same mistakes keep the order.",
        "b": "The order gives some of them away. The others are off and keep the order. A number worked out by "
        "hand leaves them no room.",
        "c": "Nearly every formula that measures likeness at all gives 1 for a copy and less for a worse one. Such "
        "checks find a crash or a sign. They do not ask whether the *number* is right: only a known answer does.",
    },
    tempting={
        "a": "Three checks feel like a net. But they all ask the same question, whether more noise scores less, and "
        "a mistaken formula answers it as the right one does.",
        "b": "Some of the mistakes are gross. But gross mistakes in the scale keep the order, and the order is all "
        "that is asked.",
        "c": "One may well expect that of checks without a number. Here they were luckier.",
    },
)

BATCHES = Prediction(
    number="6.B",
    question="The same activations go through the same SAE, once all together and once one token at a time. For "
    "which share of the tokens are the two codes equal to the last bit?",
    choices={
        "a": "all of them",
        "b": "many of them: at least one in twenty",
        "c": "next to none",
    },
    outcome=lambda share: "a" if share == 1 else "b" if share >= 0.05 else "c",
    unit="a share of {} are equal to the last bit",
    explain={
        "a": "On this machine the products are added up in the same order whatever the batch. On another one, or with "
        "another library, they need not be. Do not build on it: compare with a tolerance.",
        "b": "A sum of floating-point numbers depends on the order of its terms, and a matrix product chooses its "
        "order by the shape. Here the orders are partly the same. Do not build on it: compare with a tolerance.",
        "c": "A sum of floating-point numbers depends on the order of its terms, and a matrix product chooses its "
        "order by the shape: one row is added up in another way than a thousand. So do not ask for `==` between "
        "two runs, and do not make a key of the digest of an activation. Ask whether any conclusion changes: "
        "here, whether a latent goes on or off.",
    },
    tempting={
        "a": "The same numbers go into the same formula. But the formula says nothing about the order of its sums, "
        "and each order rounds in its own way.",
        "b": "Rounding hits some and not others, one would think. But a code has as many numbers as there are "
        "active latents, and one of them that differs is enough.",
        "c": "With many numbers to a code, one that rounds otherwise is enough. Here the order of the sums was the "
        "same more often than that.",
    },
)

PREDICTIONS = (SANITY, BATCHES)
