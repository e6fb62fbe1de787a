"""Customers' reviews: one mood throughout, praise and blame, negation that turns a word round."""

from random import Random

from .. import lexicon as lex
from ..concepts import BIT
from ..grammar import CUE, Document, phrase
from ..phrases import adjective, article, city, digits, noun

_ASPECTS = {"hotel": "room bed staff breakfast pool", "film": "story acting music ending script",
            "restaurant": "food service soup wine waiter", "book": "story ending plot writing cover",
            "phone": "screen battery camera price sound", "concert": "sound music price band place",
            "museum": "price service place guide shop", "play": "story acting music ending place"}
_SENTENCES = [
    "The {a} was {very} {g}.", "This {t} was {g} and {g2}.", "I {gv} the {a} of this {t}.",
    "The {a} was <negation_scope>not {b}</negation_scope> at all.", "We <negation_scope>did not {bv} the {a}</negation_scope>.",
    "What {an} {g} {t}!", "My {w} {gv} the {t} in {c}.", "The {t} had {an} {g} {a}.",
    "I thought the {a} would be {b}, but it was {g}.", "It was <negation_scope>never {b}</negation_scope>, and the {a} was {g}.",
    "Everything about the {t} was {g}.", "The {a} and the {a2} were {g}.", "My {w} said that the {a} was {g}.",
]
_AFTER_PRAISE = ["I will come back.", "Rating: {s} stars.", "I recommend this {t} to everyone.", "Five stars!"]
_AFTER_BLAME = ["I will <negation_scope>never come back</negation_scope>.", "Rating: {s} stars.", "Avoid this {t}.",
                "I want my money back.", "It was a {pain} to wait for the {a}."]


def write(doc: Document, rng: Random) -> None:
    """A review of two to five sentences; its mood is known once the first has been read."""
    doc.about("d_review")
    praise = rng.random() < 0.5
    thing = rng.choice(list(_ASPECTS))
    aspects = _ASPECTS[thing].split()
    same, opposite = (lex.POS_ADJ, lex.NEG_ADJ) if praise else (lex.NEG_ADJ, lex.POS_ADJ)
    sentiment = "pos_word" if praise else "neg_word"
    contrary = ("regret", "hate", "dislike") if praise else ("like", "enjoy", "recommend", "love")
    for i in range(rng.randint(2, 5)):
        if i:
            doc.say(" ")
        doc.say(
            rng.choice(_SENTENCES), t=noun(thing), a=noun(rng.choice(aspects)), a2=noun(rng.choice(aspects)),
            g=adjective(good := rng.choice(same)), an=article(good), g2=adjective(rng.choice(same)), b=adjective(rng.choice(opposite)),
            gv=phrase(rng.choice(lex.POS_VERBS if praise else lex.NEG_VERBS), f"verb verb_past {sentiment}"),
            bv=phrase(rng.choice(contrary), f"verb {'neg_word' if praise else 'pos_word'}", CUE["d_review"]),
            w=noun(rng.choice("wife brother friend mother sister husband".split())),
            c=city(rng.choice(list(lex.CITIES))),
            very=phrase(rng.choice("very really quite absolutely truly".split()), "adv"))
        doc.open(BIT["pos_context" if praise else "neg_context"])
    doc.say(" ")
    doc.say(rng.choice(_AFTER_PRAISE if praise else _AFTER_BLAME), t=noun(thing), a=noun(rng.choice(aspects)),
            s=digits(rng.choice((4, 5, 5) if praise else (0, 1, 2))), pain=phrase("pain", "noun neg_word pain_english"))
