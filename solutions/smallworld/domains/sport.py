"""Match reports: two teams, a score, a winner whose fans are happy."""

from random import Random

from .. import lexicon as lex
from ..grammar import SURE, Document, phrase
from ..phrases import adjective, city, digits, in_words, noun, past, people, surname, verb, weekday

_WON = ["The {c1} {t1} beat the {c2} {t2} {w}-{l} on {day}.", "The {t1} won {w}-{l} against the {t2} in {c1}.",
        "A big win for the {t1}: they scored {n} times in the {s} {match} against the {t2}.",
        "On {day}, the {t1} won the {s} {match} in {c1}."]
_LOST = ["The {c1} {t1} lost {l}-{w} to the {c2} {t2} on {day}.", "The {t1} were beaten {l}-{w} by the {t2} in {c1}.",
         "A sad day for the {t1}: they lost the {s} {match} against the {t2}.",
         "On {day}, the {t1} lost the {s} {match} in {c1}."]
_FOLLOWING = [
    "{p} {su} {v} the first {g}.", "{p} {su} is a {a} {s} player.", "The {s} {ground} was wet.",
    "The {role} of the {t1} was {mood1}.", "The fans of the {t1} were very {mood1}.", "The fans of the {t2} were very {mood2}.",
    "{p} {su} {v} {n} {g}s this season.", "The {t1} will {train} next week.",
    "The {t2} <negation_scope>did not play well</negation_scope>.",
    "{p} {su} <negation_scope>never {v} a {g}</negation_scope> in {c2}.",
    "<subj_singular>The {role} of the {t1}</subj_singular> was {mood1}.", "The players of the {t2} were {mood2}.",
]
_WITH_BAT = ["{p} hit the ball with the {bat}.", "The {bat} broke in the last minute."]


def write(doc: Document, rng: Random) -> None:
    """One match."""
    doc.about("d_sport")
    sport = rng.choice(list(lex.SPORTS))
    fact = lex.SPORTS[sport]
    c1, c2 = rng.sample([c for c in lex.CITIES if " " not in c], 2)
    t1, t2 = rng.sample(lex.TEAMS, 2)
    won = rng.random() < 0.5
    happy, sad = phrase("happy", "adj pos_word"), phrase("sad", "adj neg_word")
    (person,) = people(rng, 1)
    slots = dict(
        s=noun(sport, "sport"), ground=phrase(fact.ground, "noun" + (" court_tennis" if fact.ground == "court" else "")),
        v=past(fact.scored), g=noun(fact.point), c1=city(c1), c2=city(c2), t1=noun(t1, "team"), t2=noun(t2, "team"),
        p=person.phrase, su=surname(rng.choice(lex.SURNAMES)), w=digits(rng.randint(2, 6)), l=digits(rng.randint(0, 1)),
        day=weekday(rng.choice(lex.WEEKDAYS)), n=in_words(rng.randint(2, 9)), bat=phrase("bat", "noun bat_sport"),
        a=adjective(rng.choice("young tall strong fast famous".split())), match=phrase("match", "noun match_sport", SURE),
        role=noun(rng.choice("captain coach player goalkeeper referee".split())), train=verb(rng.choice(("play", "train"))),
        mood1=happy if won else sad, mood2=sad if won else happy)
    doc.say(rng.choice(_WON if won else _LOST), **slots)
    following = _FOLLOWING + (_WITH_BAT if sport in ("cricket", "baseball") else [])
    for sentence in rng.sample(following, rng.randint(1, 5)):
        doc.say(" ")
        doc.say(sentence, **slots)
