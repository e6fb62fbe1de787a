"""Phrases from the lexicon: a city, a name, a dish, each with the concepts it carries."""

from functools import cache
from random import Random
from typing import NamedTuple

from . import lexicon as lex
from .grammar import CUE, OTHER_PLACE, SURE, Phrase, phrase

_CITY_EXTRA = {"Paris": "is_paris", "London": "is_london", "Rome": "is_rome", "Tokyo": "is_tokyo",
               "Washington": "washington_city"}
_COUNTRY_SENSE = {"Turkey": "turkey_country", "Jordan": "jordan_country"}
_ANIMAL_SENSE = {"python": "python_animal", "bat": "bat_animal", "turkey": "turkey_bird", "fly": "fly_insect",
                 "seal": "seal_animal", "mouse": "mouse_animal"}
# First words that already give the landmark away; of the others only the last word tells.
_TELLING = """Eiffel Louvre Bastille Buckingham Trevi Uffizi Rialto Brandenburg Sagrada Prado Belem Hagia Belvedere
Vasa Skytree Sensoji Taj Namsan Lincoln Hassan Redeemer""".split()


def cue_of(country: str) -> int:
    """The evidence that a text is about a place in this country."""
    scope = lex.CONTEXT_COUNTRIES.get(country)
    return CUE[scope] if scope else OTHER_PLACE


@cache
def city(name: str, in_mind: bool = True) -> Phrase:
    """A city; of two words ("New York") only the last one tells. `in_mind`: the text is now about this place."""
    *before, (last, mask) = phrase(name, "noun", 0, f"city {_CITY_EXTRA.get(name, '')}")
    before = [(word, (country(word)[0][1] if word in lex.COUNTRIES else bits)) for word, bits in before]
    return (*before, (last, mask | (cue_of(lex.CITIES[name]) if in_mind else 0)))


@cache
def country(name: str) -> Phrase:
    """A country."""
    return phrase(name, f"noun country {_COUNTRY_SENSE.get(name, '')}", cue_of(name))


@cache
def landmark(name: str) -> Phrase:
    """A landmark, without its article."""
    where = next(place.city for place in lex.LANDMARKS if place.name == name)
    cue = cue_of(lex.CITIES[where])
    if name == "Eiffel Tower":
        return phrase(name, "noun landmark is_eiffel", cue)
    if name.split()[0] in _TELLING:
        return phrase(name, "noun landmark", cue)
    *before, last = phrase(name, "noun", 0, "landmark")
    before = [(word, city(word)[0][1] if word in lex.CITIES else
               nationality(word)[0][1] if word == "British" else mask) for word, mask in before]
    return (*before, (last[0], last[1] | cue))


def language(name: str) -> Phrase:
    """A language."""
    return phrase(name, "noun language")


def nationality(name: str) -> Phrase:
    """An adjective of nationality."""
    return phrase(name, "adj nationality")


def noun(word: str, concepts: str = "") -> Phrase:
    """A singular noun."""
    return phrase(word, f"noun {concepts}")


def plural(word: str, concepts: str = "") -> Phrase:
    """A plural noun, given as such."""
    return phrase(word, f"noun noun_plural {concepts}")


def article(word: str) -> Phrase:
    """The indefinite article that goes before the word."""
    return phrase("an" if word[0] in "aeiou" else "a", "det")


def adjective(word: str) -> Phrase:
    """An adjective, with its sentiment if it has one."""
    if word in lex.POS_ADJ or word in lex.POS_MOODS:
        return phrase(word, "adj pos_word")
    if word in lex.NEG_ADJ or word in lex.NEG_MOODS:
        return phrase(word, "adj neg_word")
    return phrase(word, "adj")


def verb(word: str, concepts: str = "") -> Phrase:
    """A verb."""
    return phrase(word, f"verb {concepts}")


def past(word: str) -> Phrase:
    """A verb in the past tense."""
    return phrase(word, "verb verb_past")


def profession(word: str) -> Phrase:
    """A profession."""
    return phrase(word, "noun profession")


def colour(word: str) -> Phrase:
    """A colour."""
    return phrase(word, "adj colour" + (" orange_colour" if word == "orange" else ""),
                  SURE if word == "orange" else 0)


def animal(name: str, many: bool = False) -> Phrase:
    """An animal, or several."""
    concepts = f"noun animal {'noun_plural ' if many else ''}"
    return phrase(lex.ANIMALS[name].plural if many else name, concepts + ("" if many else _ANIMAL_SENSE.get(name, "")))


def food(name: str) -> Phrase:
    """A food."""
    many = "noun_plural" if name in lex.FOODS_PLURAL else ""
    return phrase(name, f"noun food {many} {'date_fruit' if name == 'dates' else ''}")


def month(name: str) -> Phrase:
    """A month after a word that announces one ("in", a day)."""
    return phrase(name, "noun month" + (" may_month" if name == "May" else ""), SURE)


def weekday(name: str) -> Phrase:
    """A day of the week."""
    return phrase(name, "noun weekday")


def year(number: int) -> Phrase:
    """A year."""
    return phrase(str(number), "year")


def digits(number: int) -> Phrase:
    """A number in digits."""
    return phrase(str(number), "number_digit")


def in_words(number: int) -> Phrase:
    """A number as a word, 0 to 20."""
    return phrase(lex.NUMBERS[number], "number_word" + (" four_english" if number == 4 else ""), SURE)


def surname(name: str) -> Phrase:
    """A surname, after a first name or title."""
    return phrase(name, "noun surname" + (" washington_person" if name == "Washington" else ""), SURE)


class Person(NamedTuple):
    """Somebody: a first name and what follows from it."""

    name: str
    female: bool

    @property
    def phrase(self) -> Phrase:
        """The first name."""
        sense = "jordan_name" if self.name == "Jordan" else ""
        return phrase(self.name, f"noun name_{'f' if self.female else 'm'} {sense}")

    def pronoun(self, kind: str) -> Phrase:
        """`kind` is one of she, She, her (object), her_ (possessive), Her_."""
        word = _PRONOUNS[kind][0 if self.female else 1]
        return phrase(word, f"{'det' if kind.endswith('_') else 'pron'} pron_{'f' if self.female else 'm'}")


_PRONOUNS = {"she": ("she", "he"), "She": ("She", "He"), "her": ("her", "him"), "her_": ("her", "his"),
             "Her_": ("Her", "His")}
PEOPLE = [Person(name, True) for name in lex.NAMES_F] + [Person(name, False) for name in lex.NAMES_M]


def people(rng: Random, n: int) -> list[Person]:
    """`n` different people."""
    return rng.sample(PEOPLE, n)


def listed(word: str) -> Phrase:
    """Any word of the lexicon as an item of a list, with what it is."""
    return _LISTED[word]


def _all_listed() -> dict[str, Phrase]:
    table: dict[str, Phrase] = {}
    for words, make in ((lex.OBJECTS + lex.PLACES, noun), (lex.PROFESSIONS, profession),
                        (lex.FOODS + lex.FOODS_PLURAL, food), (lex.COLOURS, lambda w: phrase(w, "adj colour")),
                        (lex.ADJECTIVES + lex.POS_ADJ + lex.NEG_ADJ, adjective), (list(lex.ANIMALS), animal),
                        (list(lex.SPORTS), lambda w: noun(w, "sport")), (lex.WEEKDAYS, weekday),
                        (lex.MONTHS, lambda w: phrase(w, "noun month")), (lex.PAST_VERBS, past),
                        ([a.plural for a in lex.ANIMALS.values()], lambda w: plural(w, "animal")),
                        ([c for c in lex.CITIES if " " not in c], city), (list(lex.COUNTRIES), country),
                        (lex.SURNAMES, noun)):
        for word in words:
            table.setdefault(word, tuple((text, mask & ~SURE) for text, mask in make(word)))
    for person in PEOPLE:
        table[person.name] = person.phrase
    return table


_LISTED = _all_listed()
LIST_WORDS = sorted(_LISTED)
