"""The two predictions of lab 2. The measurement decides which choice is right, on every target."""

from __future__ import annotations

from labs.checks.prediction import Prediction

DIMENSION = Prediction(
    number="2.A",
    question="An activation has d dimensions. How many of them are really used, by effective dimension?",
    choices={
        "a": "few: less than a tenth of d",
        "b": "some: from a tenth to a half of d",
        "c": "most: more than half of d",
    },
    outcome=lambda share: "a" if share < 0.1 else "b" if share <= 0.5 else "c",
    unit="the effective dimension is {} of d",
    explain={
        "a": "A few directions carry nearly all of the variance. That can be structure, and it can be one "
        "outlier dimension that swamps the rest: plot the spectrum before you believe the number.",
        "b": "The variance is spread over many directions, and unevenly. All d are used a little; a few are "
        "used a lot. An SAE that is scored by explained variance hears the loud ones first.",
        "c": "The variance is spread almost evenly. A model that has learned nothing looks like this, and so "
        "does white noise: compare with a trained model's.",
    },
    tempting={
        "a": "Data often lie near a small subspace, and for images of one object they do. A model that has to "
        "tell thousands of words apart needs more room.",
        "b": "A middle answer often seems safe. Here there is nothing for it but to measure.",
        "c": "The model was free to use all its dimensions, so one may think that it does so evenly. "
        "Frequent things take more room than rare ones.",
    },
)

CORRELATED = Prediction(
    number="2.B",
    question="The mean of a batch is off from the mean of all tokens. How much further off is it for tokens "
    "that stand together in the text than for as many tokens from everywhere?",
    choices={
        "a": "about as far: less than 1.2 times",
        "b": "further: 1.2 to 2 times",
        "c": "much further: more than twice",
    },
    outcome=lambda ratio: "a" if ratio < 1.2 else "b" if ratio <= 2 else "c",
    unit="the batches that stand together are {} times as far off",
    explain={
        "a": "Tokens of one text are hardly more alike than tokens of different texts, in this model and at this "
        "place. Shuffling costs little all the same, and you could not know before you measured.",
        "b": "Tokens that stand together resemble each other: same topic, same language, same words. A batch of "
        "them says less than its size promises, so a gradient made from it is noisier. Shuffling repairs this.",
        "c": "Tokens that stand together are so alike that a batch of them is worth only a small part of its "
        "size: an error that is r times as large is that of a batch r² times smaller. Shuffle.",
    },
    tempting={
        "a": "Each token is a different word, which is true. But its activation also holds the topic and the "
        "language of its text, and those it shares with its neighbours.",
        "b": "The direction of the guess was sound: neighbours are alike. How much so had to be measured.",
        "c": "The reasoning is sound: neighbours share a text. How much they share had to be measured.",
    },
)

PREDICTIONS = (DIMENSION, CORRELATED)
