"""A prediction of lab 7: does a fact outlive its best latent? The measurement decides, on every target."""

from __future__ import annotations

from labs.checks.prediction import Prediction

BEST_LATENT = Prediction(
    number="7.B",
    question="Some facts that the model knows. Of each we take out the latent that costs its answer most. In which "
    "share of the facts is another answer likelier then?",
    choices={
        "a": "most of them: at least half",
        "b": "some: at least one in five",
        "c": "few: fewer than one in five",
    },
    outcome=lambda share: "a" if share >= 0.5 else "b" if share >= 0.2 else "c",
    unit="a share of {} of the facts is broken",
    explain={
        "a": "Here one latent is enough to break most facts: the margin between the answers was small, or the latent "
        "carries what nothing else does. Look at the share of the logit difference that it took.",
        "b": "Some facts hang on one latent and some do not. Look at the share of the logit difference that it took: "
        "an answer goes when that share is larger than its margin.",
        "c": "The best latent may take half of the logit difference with it, and the other half still wins. A name is "
        "written into several latents, and what the SAE leaves out is still there. So an answer that holds does not "
        "say that a latent is unimportant. Report the drop, and take several out together (7.7).",
    },
    tempting={
        "a": "If one latent stands for a fact, the fact should go with it. But the largest effect among many is still "
        "a part, and the answer needs only to stay ahead.",
        "b": "A part of the facts might hang on one latent. It depends on the margin and on how many others say the "
        "same.",
        "c": "With so many latents active, one more or less should not matter. Here it did: most of what tells the "
        "answers apart went through one.",
    },
)

PREDICTIONS = (BEST_LATENT,)
