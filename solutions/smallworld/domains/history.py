"""Lives and events, and the calendar: dates, orders of days and months, small sums."""

from random import Random

from .. import lexicon as lex
from ..concepts import BIT
from ..grammar import CUE, SURE, Document, capitalised, phrase
from ..phrases import (
    adjective,
    city,
    country,
    digits,
    in_words,
    language,
    month,
    noun,
    past,
    people,
    profession,
    surname,
    weekday,
    year,
)

_DEEDS = "discovered painted invented wrote founded built".split()
_WORKS = "bridge theory machine school book novel ship map tower hospital".split()
_EVENTS = "war battle siege treaty revolution empire".split()
_OPENINGS = [
    "{p} {s} was born in {c} in {y}.", "{p} {s} was a {a} {prof} from {co}.",
    "On {d} {m} {y}, {p} {s} {v} the {a} {o} in {c}.", "In {y}, the {prof} {p} {s} {v} a {o}.",
    "The {event} began in {m} {y} near {c}, and {p} {s} was there.", "General {s} arrived in {c} on {d} {m} {y}.",
    "The {event} of {y} ended in {c}.", "The {prof} {p} {s} was born on {d} {m} {y}.",
]
_FOLLOWING = [
    "{She} died in {c} in {y2}.", "{She} spoke {la} and lived in {co}.", "{She} was a {a} {prof}.",
    "In {y2}, {she} {v} the {o}.", "{Her_} {o} was {a}.", "People remember {her_} {a} {o}.",
    "{She} was <negation_scope>not a {prof}</negation_scope>.", "{She} {v} a {o}, and {her_} {o} is in {c}.",
]


def _sequence(doc: Document, words: list) -> None:
    for i, word in enumerate(words):
        doc.emit((" " if i else "") + word[0][0], word[0][1] | (BIT["list_item"] if i > 1 else 0))
        doc.emit("," if i < len(words) - 1 else ".", BIT["sent_end"] if i == len(words) - 1 else 0)


def _calendar(doc: Document, rng: Random) -> None:
    kind = rng.randrange(4)
    if kind == 0:
        start = rng.randint(0, 6)
        _sequence(doc, [weekday(lex.WEEKDAYS[(start + i) % 7]) for i in range(rng.randint(3, 6))])
    elif kind == 1:
        start = rng.randint(0, 11)
        _sequence(doc, [phrase(lex.MONTHS[(start + i) % 12], "noun month") for i in range(rng.randint(3, 6))])
    elif kind == 2:
        start = rng.randint(1, 12)
        _sequence(doc, [in_words(start + i) for i in range(rng.randint(4, 7))])
    else:
        day = rng.randint(0, 6)
        doc.say(rng.choice((
            "Today is {a}, so tomorrow is {b}.", "If today is {a}, tomorrow will be {b}.",
            "Yesterday was {a}, so today is {b}.",
            "It was {d} {m}. The {date} of the meeting was a {a}, and the party was on {b}.")),
            a=weekday(lex.WEEKDAYS[day]), b=weekday(lex.WEEKDAYS[(day + 1) % 7]), d=digits(rng.randint(1, 30)),
            m=month(rng.choice(lex.MONTHS)), date=phrase("date", "noun date_calendar", SURE))


def _sum(doc: Document, rng: Random) -> None:
    a, b = rng.randint(0, 10), rng.randint(0, 10)
    if rng.random() < 0.5:
        doc.say("{a} plus {b} is {c}.", a=capitalised(in_words(a)), b=in_words(b), c=in_words(a + b))
    else:
        a, b = max(a, b), min(a, b)
        doc.say("{a} minus {b} is {c}.", a=capitalised(in_words(a)), b=in_words(b), c=in_words(a - b))


def _life(doc: Document, rng: Random) -> None:
    (person,) = people(rng, 1)
    born, c = rng.randint(1400, 1960), rng.choice(list(lex.CITIES))
    co = lex.CITIES[c]
    slots = dict(
        p=person.phrase, s=surname(rng.choice(lex.SURNAMES)), She=person.pronoun("She"), she=person.pronoun("she"),
        her_=person.pronoun("her_"), Her_=person.pronoun("Her_"), y=year(born), y2=year(born + rng.randint(20, 60)),
        c=city(c), co=country(co), la=language(lex.COUNTRIES[co].language), d=digits(rng.randint(1, 30)),
        m=month(rng.choice(lex.MONTHS)), prof=profession(rng.choice(lex.PROFESSIONS)), v=past(rng.choice(_DEEDS)),
        o=noun(rng.choice(_WORKS)), a=adjective(rng.choice(lex.ADJECTIVES)),
        event=phrase(rng.choice(_EVENTS), "noun", CUE["d_history"]))
    opening = rng.choice(_OPENINGS)
    doc.say(opening, **slots)
    if "{p}" not in opening:
        return
    for sentence in rng.sample(_FOLLOWING, rng.randint(0, 3)):
        doc.say(" ")
        doc.say(sentence, **slots)


def write(doc: Document, rng: Random) -> None:
    """One to four lives, dates or sums."""
    doc.about("d_history")
    for i in range(rng.randint(1, 4)):
        if i:
            doc.say(" ")
        r = rng.random()
        (_calendar if r < 0.3 else _sum if r < 0.38 else _life)(doc, rng)
