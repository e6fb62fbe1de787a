"""Scenes of giving: two people are named, one of them acts, the other one receives.

This is the indirect-object task of Wang et al. 2022 (arXiv:2211.00593). A model that meets the same few sentences again
and again learns the sentences; what it should learn is the rule "the one who has not been named twice". So a scene is
put together from independent parts: a time or place, how the two are named, what stands between, who acts, what is
given. Each part is chosen by itself, and hardly any scene is ever written twice.
"""

from random import Random

from .. import lexicon as lex
from ..concepts import BIT
from ..grammar import Document, Phrase, joined, phrase
from ..phrases import adjective, animal, colour, in_words, noun, past, people, profession, weekday

_WHEN = ["", "", "", "", "On {day}, ", "Last {day}, ", "One day, ", "In the morning, ", "In spring, ", "That evening, ",
         "After school, ", "Yesterday, ", "In the {p2}, ", "Near the {p2}, ", "Long ago, ", "Every {day}, "]
# The two are named together, and then did something somewhere ...
_TOGETHER = ["were", "met", "sat", "worked", "waited", "played", "stood", "ate", "talked", "walked", "had lunch", "slept",
             "danced", "lived", "stayed", "arrived", "had a long walk", "looked at the {o2}", "found {n} {plural}",
             "{v} the {o2}", "had a {ad} {o2}", "bought a {o2}"]
_WHERE = ["in the {p}", "at the {p}", "near the {p}", "behind the {p}", "in the {ad} {p}", "at the {ad} {p}",
          "with the {prof}", "together", "for an hour", "on {day}", "near the {ad} {p}", "in the {p} near the {p2}"]
_GOING = ["went to the {p}", "came to the {p}", "walked to the {p}", "came home from the {p}", "went home from the {p}",
          "were {ad}", "were friends", "were {ad} and {ad2}", "came back with the {prof}", "went to the {ad} {p}"]
# ... or one after the other.
_APART = ["{x} met {y} {where}", "{x} saw {y} {where}", "{x} followed {y} to the {p}", "{x} visited {y}",
          "{x} came with {y} to the {p}", "{x} lived with {y} {where}", "{x} was in the {p} when {y} came in",
          "the {prof} saw {x} and {y} {where}", "{x} found {y} {where}", "{x} worked with {y} {where}",
          "{x} watched {y} {where}", "{x} was the {prof} of {y}", "{x} was a friend of {y}", "{x} sat with {y} {where}",
          "{x} told {y} about the {o2}", "{x} went to the {p} with {y}", "a {prof} called {x} and {y} to the {p}",
          "{x} got home from the {p} and {y} was there", "{x} wanted to see {y} {where}"]
_OPENERS = ["When", "After", "While", "Because", "Before", "Although"]
_THEN = [", and ", ", so ", ", but ", ", and then ", ". ", ". ", ". Then ", ". Soon ", ". One day ", ". After an hour ",
         ". In the evening ", ". Finally ", ". Suddenly ", ". On {day} ", ". There ", ". At home ", ". Near the {p2} "]
_BETWEEN = ["It was {day}.", "It was {ad}.", "The {o2} was {col}.", "The {p2} was {ad}.", "They were {ad}.",
            "They talked about the {o2}.", "There was a {ad} {an} near the {p2}.", "The {prof} {v} the {o2}.",
            "They saw {n} {plural}.", "The {an} was {col} and {ad2}.", "They {v} the {o2}."]
_HOW = ["", "", "", "", "", "quickly ", "quietly ", "carefully ", "also ", "soon ", "finally ", "often "]
_ACTS = ["{g} {o} to {I}", "{g} {o} to {I}", "{g} {o} to {I}", "{g} {o} to {I}", "decided to give {o} to {I}",
         "found {o} and {g} it to {I}", "wanted to give {o} to {I}", "had {o} and {g} it to {I}", "said hello to {I}",
         "said thank you to {I}", "read {o} to {I}", "took {o} and {g} it to {I}", "talked to {I}", "bought {o} for {I}",
         "opened the door for {I}", "made {o} for {I}", "smiled at {I}", "looked at {I}", "sat next to {I}",
         "went home with {I}", "played with {I}", "showed {o} and {o_too} to {I}", "forgot to give {o} to {I}",
         "{g} {o} back to {I}", "came back with {o} for {I}"]
_LAST = [".", ".", ".", " yesterday.", " and left.", " again.", " on {day}.", " in the {p2}."]
_AFTER = ["{I} was happy.", "{I} thanked {S}.", "{She_I} thanked {S}.", "{I} put it in {her_I} bag.",
          "Then {I} looked at {S}.", "{She_I} was {ad}.", "{I} {v} the {o2}, and {S} was {ad2}."]


def _thing(rng: Random, word: str, possessive: str) -> Phrase:
    """Something to give: "a key", "the red key", "her key"."""
    if rng.random() < 0.25:
        return joined(phrase("the", "det"), adjective(rng.choice(lex.ADJECTIVES)), noun(word))
    return joined(phrase(rng.choice(("a", "the", "the", possessive)), "det"), noun(word))


def _named(rng: Random) -> list[str]:
    """The clause that names the two, in parts."""
    if rng.random() < 0.4:
        before, where, after = rng.choice(_APART).partition("{where}")
        return [before, rng.choice(_WHERE) if where else "", after]
    if rng.random() < 0.5:
        return ["{x} and {y} ", rng.choice(_GOING)]
    return ["{x} and {y} ", rng.choice(_TOGETHER), " ", rng.choice(_WHERE)]


def _template(rng: Random) -> list[str]:
    """All parts of one scene up to its full stop."""
    named = _named(rng)
    r = rng.random()
    if r < 0.3:
        link = ["{S} "]
        parts = [rng.choice(_OPENERS), " ", *named, ", ", *link]
    else:
        parts = [rng.choice(_WHEN), *named]
        if r < 0.5:
            parts += [". ", rng.choice(_BETWEEN), rng.choice((" ", " Then ", " Soon ", " Finally ")), "{S} "]
        else:
            parts += [rng.choice(_THEN), "{S} "]
    return [*parts, rng.choice(_HOW), rng.choice(_ACTS), rng.choice(_LAST)]


def scene(doc: Document, rng: Random) -> None:
    """One scene, and sometimes what came of it."""
    x, y = people(rng, 2)
    giver, receiver = (y, x) if rng.random() < 0.5 else (x, y)
    thing, other, third = rng.sample(lex.OBJECTS, 3)
    if rng.random() < 0.3:
        thing = other  # what is given has been mentioned before
    prof = profession(rng.choice(lex.PROFESSIONS))
    place, place2 = rng.sample(lex.PLACES, 2)
    ad, ad2 = rng.sample(lex.ADJECTIVES, 2)
    possessive = giver.pronoun("her_")[0][0]
    slots = dict(
        x=x.phrase, y=y.phrase, p=noun(place), p2=noun(place2), day=weekday(rng.choice(lex.WEEKDAYS)),
        o=_thing(rng, thing, possessive), o_too=_thing(rng, third, possessive), o2=noun(other), prof=prof,
        S=((giver.name, giver.phrase[0][1] | BIT["s_name"]),), I=((receiver.name, receiver.phrase[0][1] | BIT["io_name"]),),
        g=past(rng.choice(lex.GIVING)), v=past(rng.choice(lex.PAST_VERBS)), ad=adjective(ad), ad2=adjective(ad2),
        col=colour(rng.choice(lex.COLOURS)), n=in_words(rng.randint(2, 12)), an=animal(rng.choice(list(lex.ANIMALS))),
        plural=animal(rng.choice(list(lex.ANIMALS)), True), She_I=receiver.pronoun("She"), her_I=receiver.pronoun("her_"))
    parts = [part for part in _template(rng) if part]
    parts[0] = parts[0][0].upper() + parts[0][1:]
    for part in parts:  # part by part: whole templates are too many to be kept compiled
        doc.say(part, **slots)
    if rng.random() < 0.35:
        doc.say(" ")
        slots["I"], slots["S"] = receiver.phrase, giver.phrase
        doc.say(rng.choice(_AFTER), **slots)
