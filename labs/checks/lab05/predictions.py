"""The two predictions of lab 5. The measurement decides which choice is right, on every target."""

from __future__ import annotations

from labs.checks.prediction import Prediction

TOP_TEN = Prediction(
    number="5.A",
    question="Every latent gets the explanation that its ten strongest examples suggest. Of the "
    "explanations that fit nine or ten of the ten, how many hold up on other text, with an F1 of at least "
    "0.5?",
    choices={
        "a": "most of them: above 0.6",
        "b": "about half: 0.3 to 0.6",
        "c": "few: below 0.3",
    },
    outcome=lambda share: "a" if share > 0.6 else "b" if share >= 0.3 else "c",
    unit="a share of {} of them hold up",
    explain={
        "a": "Here the top examples are a fair sample of what the latents do. That is worth having "
        "measured: it is not so in general, and nothing on a page of examples would have told you.",
        "b": "For every explanation that holds there is one that does not, and both look the same on a page "
        "of examples. Only a score on other text tells them apart.",
        "c": "A perfect top ten is cheap. Among ten strong examples *something* is always shared, and there "
        "are many concepts to choose from. What is below the top, and what is missing, decides (Bolukbasi "
        "et al. 2021 call it an interpretability illusion).",
    },
    tempting={
        "a": "Ten examples out of ten look like proof. But all ten come from one end of the latent's range, "
        "and none of them can show where it is silent.",
        "b": "Half is a cautious guess. The explanations were chosen from many concepts to fit the top, and "
        "that fits very easily.",
        "c": "One may well be that suspicious by now. Still, where the top is a fair sample of the latent, "
        "the explanation holds.",
    },
)

WORDS = Prediction(
    number="5.B",
    question="For the concepts of the text: a union of up to ten latents against the best set of words. "
    "Both are chosen on the train split and measured on the test split. For which share of the concepts do "
    "the latents win?",
    choices={
        "a": "for most: above 0.6",
        "b": "for some: 0.2 to 0.6",
        "c": "for few: below 0.2",
    },
    outcome=lambda share: "a" if share > 0.6 else "b" if share >= 0.2 else "c",
    unit="the latents win for a share of {} of the concepts",
    explain={
        "a": "Here the latents know more than the words do, for most things: they have read the context.",
        "b": "It depends on the concept. Where the word decides (a month, a colour), a list of words is "
        "hard to beat. Where the context decides (inside a quotation, a name used before), no list of words "
        "can do it.",
        "c": "Most concepts here can be told by the word alone, and a list of words is as long as it likes "
        "while the union has ten latents. So a good F1 alone says little about what a model has understood: "
        "ask what the words give.",
    },
    tempting={
        "a": "The model reads the context, and a list of words does not. But many concepts *are* lists of "
        "words, and the list may have hundreds of entries.",
        "b": "Some concepts live in the words and some in the context. How many of each is a matter of the "
        "text: it has to be measured.",
        "c": "A list of words is a strong rival, but for a concept that depends on the context it can do "
        "little.",
    },
)

PREDICTIONS = (TOP_TEN, WORDS)
