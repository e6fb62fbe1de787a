"""The two predictions of lab 3. The measurement decides which choice is right, on every target."""

from __future__ import annotations

from labs.checks.prediction import Prediction

BELOW_THE_TOP = Prediction(
    number="3.A",
    question="Take the latents whose ten strongest tokens all, or nearly all, share one concept. In the "
    "weakest quarter of their active tokens, on which share does the concept hold?",
    choices={
        "a": "nearly all of them (over 0.8)",
        "b": "most of them (0.5 to 0.8)",
        "c": "less than half of them",
    },
    outcome=lambda share: "a" if share > 0.8 else "b" if share >= 0.5 else "c",
    unit="in the weakest quarter the concept holds on a share of {} of the tokens",
    explain={
        "a": "For these latents the top spoke for the whole. That is good news about them, and you know it "
        "only because you looked below the top. Elsewhere it is often otherwise (Bolukbasi et al. 2021).",
        "b": "The top ten are the clearest cases, not typical ones. Lower down, the latent fires on other "
        "things as well, and no list of top examples would have shown it: an interpretability illusion "
        "(Bolukbasi et al. 2021).",
        "c": "A label that fits all of the top ten fails on most of the weak activations. They belong to "
        "the latent as much as the strong ones, and the top examples hide them: an interpretability "
        "illusion (Bolukbasi et al. 2021).",
    },
    tempting={
        "a": "Ten of ten looks like proof. But the ten were chosen for their strength, and so they are not "
        "a sample of what the latent does.",
        "b": "Between clean and random there is a middle, and many latents lie there. How far down one has "
        "to go to see it differs.",
        "c": "Weak activations have a bad name. For some latents they are as much to the point as strong "
        "ones.",
    },
)

RANDOM_DIRECTIONS = Prediction(
    number="3.B",
    question="Random directions, made as sparse as the SAE's latents, are scored by the purity of their 50 "
    "strongest tokens. How does their median compare with the median latent of the SAE?",
    choices={
        "a": "far behind: less than half as pure",
        "b": "behind: between half and three quarters as pure",
        "c": "close: more than three quarters as pure",
    },
    outcome=lambda ratio: "a" if ratio < 0.5 else "b" if ratio <= 0.75 else "c",
    unit="the random directions' median purity is {} of the SAE's",
    explain={
        "a": "Here the top examples alone separate the SAE from chance. It is worth knowing that you "
        "checked.",
        "b": "Nothing about a random direction was learned, and still its top tokens often share a "
        "concept: the nearest neighbours of any point in activation space resemble one another. A good "
        "part of what looks like meaning comes from there.",
        "c": "Nothing about a random direction was learned, and its top tokens look nearly as meaningful. "
        "The strongest tokens along *any* direction resemble one another. So a clean top fifty is no "
        "evidence that the SAE found something; count all of the activation, and the two come apart.",
    },
    tempting={
        "a": "Random sounds like meaningless. But the activations are not random: whatever direction you "
        "choose, its extremes lie in some corner of the text.",
        "b": "Some advantage for what was trained is a fair guess. How large it is depends on the yardstick.",
        "c": "You may have heard that top examples flatter anything. They do, more or less: each model has "
        "to be measured.",
    },
)

PREDICTIONS = (BELOW_THE_TOP, RANDOM_DIRECTIONS)
