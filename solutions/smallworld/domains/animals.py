"""Animals: what they are, eat, do; subjects in the singular and plural with an attractor between."""

from random import Random

from .. import lexicon as lex
from ..grammar import SURE, Document, capitalised, phrase
from ..phrases import adjective, animal, article, colour, in_words, noun

# Animals whose names mean something else too come up more often, so that both senses are learned.
_CHOICE = [*lex.ANIMALS] + 2 * ["python", "bat", "turkey", "fly", "seal", "mouse"]
_OPENINGS = [
    "The {a} is {an} {kind} that <rel_clause>lives in the {home}</rel_clause>.", "{A} {a} is {an} {kind}.",
    "{Plural} live in the {home} and eat {food}.", "The {colour} {a} eats {food}.",
    "<subj_plural>The {plural} near the {b}</subj_plural> are {adj}.",
    "<subj_singular>The {a} near the {b_plural}</subj_singular> is {adj}.",
    "<subj_plural>The {plural} next to the {b}</subj_plural> were {adj}.",
    "<subj_singular>The {a} next to the {b_plural}</subj_singular> was {adj}.",
    "<subj_plural>The {plural} that <rel_clause>saw the {b}</rel_clause></subj_plural> are {adj}.",
    "<subj_singular>The {a} that <rel_clause>saw the {b_plural}</rel_clause></subj_singular> is {adj}.",
    "<subj_plural>The {plural} in the {home} of the {b}</subj_plural> have {food}.",
    "<subj_singular>The {a} in the {home} of the {b_plural}</subj_singular> has {food}.",
    "{Plural} can {does}, but they <negation_scope>cannot speak</negation_scope>.",
    "The {a} was sleeping near the river, on the {bank}.", "In the {spring}, the {plural} come back to the {home}.",
    "Look at that {adj} {a}! It is {colour} and {colour2}.", "<question>Where do {plural} live?</question> In the {home}.",
    "<question>What do {plural} eat?</question> They eat {food}.",
]
_FOLLOWING = [
    "It eats {food}.", "It lives in the {home}.", "{Plural} {does} very well.", "The {a} is a {adj} animal.",
    "The {a} likes to {does} every day.", "We saw {n} {plural} in the {home}.", "It has {legs} legs.",
    "The {a} is <negation_scope>not {adj}</negation_scope>.", "It is <negation_scope>not {an_b} {b}</negation_scope>.",
    "{Plural} are {adj}.", "The {plural} have {legs} legs.",
]


def write(doc: Document, rng: Random) -> None:
    """One to three animals."""
    doc.about("d_animals")
    for i in range(rng.randint(1, 3)):
        if i:
            doc.say(" ")
        name, other = rng.choice(_CHOICE), rng.choice(_CHOICE)
        fact = lex.ANIMALS[name]
        slots = dict(
            a=animal(name), plural=animal(name, True), Plural=capitalised(animal(name, True)), kind=noun(fact.kind),
            an=article(fact.kind),
            A=capitalised(article(name)), food=noun(fact.food), home=noun(fact.home),
            does=phrase(fact.does, "verb" + (" fly_verb" if fact.does == "fly" else ""), SURE),
            legs=in_words(fact.legs) if fact.legs else phrase("no", "det negation"),
            b=animal(other), an_b=article(other), b_plural=animal(other, True), colour=colour(rng.choice(lex.COLOURS)),
            colour2=colour(rng.choice(lex.COLOURS)), n=in_words(rng.randint(2, 20)),
            adj=adjective(rng.choice("big small fast slow dangerous quiet strong wild clever".split())),
            spring=phrase("spring", "noun spring_season", SURE), bank=phrase("bank", "noun bank_river", SURE))
        doc.say(rng.choice(_OPENINGS), **slots)
        following = [*_FOLLOWING, lex.KIND_FACTS[fact.kind]]
        for sentence in rng.sample(following, rng.randint(0, 3)):
            doc.say(" ")
            doc.say(sentence, **slots)
