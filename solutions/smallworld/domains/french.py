"""French: noun phrases that agree in gender, verbs that agree in number, negation around the verb."""

from random import Random

from .. import lexicon as lex
from ..concepts import BIT, bits
from ..grammar import Document, Phrase, capitalised, phrase
from ..phrases import PEOPLE, city, country, cue_of
from ..phrases import verb as verb_phrase

_SENSES = {"chat": "chat_french", "pain": "pain_french", "four": "four_french"}
_FRENCH_PEOPLE = [p for p in PEOPLE if p.name in
                  "Marie Sophie Chloe Julia Clara Emma Pierre Louis Paul Hugo Simon David Jack".split()]
_DETERMINERS = {"m": ["le", "un", "mon", "son", "ce"], "f": ["la", "une", "ma", "sa", "cette"]}


def noun_phrase(rng: Random) -> tuple[Phrase, str]:
    """A noun phrase and its gender, "m" or "f"."""
    word, gender = rng.choice(lex.NOUNS_FR)
    agreement = "fr_masc" if gender == "m" else "fr_fem"
    form = 0 if gender == "m" else 1
    words = [(rng.choice(_DETERMINERS[gender]), bits(f"french_word det {agreement}"))]
    if rng.random() < 0.3:
        words.append((" " + rng.choice(lex.ADJECTIVES_FR[:2])[form], bits(f"french_word adj {agreement}")))
    words.append((" " + word, bits(f"french_word noun {agreement} {_SENSES.get(word, '')}")))
    if rng.random() < 0.35:
        words.append((" " + rng.choice(lex.ADJECTIVES_FR[2:9])[form], bits(f"french_word adj {agreement}")))
    return tuple(words), gender


def _subject(rng: Random) -> tuple[Phrase, int]:
    """A subject and which form of the verb it takes (see lexicon.VERBS_FR)."""
    r = rng.random()
    if r < 0.4:
        return capitalised(noun_phrase(rng)[0]), 0
    if r < 0.55:
        return rng.choice(_FRENCH_PEOPLE).phrase, 0
    if r < 0.68:
        return phrase("Je", "french_word pron"), 1
    if r < 0.78:
        return phrase("Nous", "french_word pron"), 2
    if r < 0.9:
        return phrase(rng.choice(("Ils", "Elles")), "french_word pron"), 3
    return phrase(rng.choice(("Il", "Elle")), "french_word pron"), 0


def sentence(doc: Document, rng: Random) -> None:
    """One French sentence."""
    if rng.random() < 0.12:
        subject, gender = noun_phrase(rng)
        predicate = rng.choice(lex.ADJECTIVES_FR)[0 if gender == "m" else 1]
        doc.say("{s} est {degree} {a}.", s=capitalised(subject),
                degree=phrase(rng.choice(("très", "trop", "assez", "toujours")), "adv"),
                a=phrase(predicate, f"adj {'fr_masc' if gender == 'm' else 'fr_fem'}"))
        return
    subject, form = _subject(rng)
    verb = rng.choice(lex.VERBS_FR)[form]
    elided = verb[0] in "aeiou"
    object_, _ = noun_phrase(rng)
    ending = rng.choice((".", ".", " {where}."))
    where = phrase(rng.choice(lex.PLACES_FR))
    if rng.random() < 0.18:
        template = "{s} <negation_scope>" + ("n'" if elided else "ne ") + "{v} " + rng.choice(("pas", "jamais")) \
            + " {o}</negation_scope>" + ending
    elif elided and subject[0][0] == "Je":
        template = "J'{v} {o}" + ending
    else:
        template = "{s} {v} {o}" + ending
    doc.say(template, s=subject, o=object_, where=where,
            v=verb_phrase(verb, "french_word fr_plural_verb" if form >= 2 else "french_word"))


def _landmark(name: str) -> Phrase:
    article, *rest = name.split(" ")
    agreement = "fr_fem" if article == "La" else "fr_masc"
    words = [(article, bits(f"french_word det {agreement}"))]
    words += [(" " + word, bits(f"french_word noun {agreement}")) for word in rest]
    words[-1] = (words[-1][0], words[-1][1] | bits("landmark"))
    return tuple(words)


def _fact(doc: Document, rng: Random) -> None:
    if rng.random() < 0.65:
        name, where, land = rng.choice(lex.LANDMARKS_FR)
        scope = BIT[lex.CONTEXT_COUNTRIES[land]]
        doc.open(scope)
        extra = "is_paris" if where == "Paris" else "is_rome" if where == "Rome" else ""
        doc.say(rng.choice(("{l} se trouve à {c}.", "{l} est à {c}.", "{l} est un monument de {c}.")),
                l=_landmark(name), c=phrase(where, f"noun city {extra}", cue_of(land)))
        doc.close(scope)
    else:
        land, capital = rng.choice(lex.CAPITALS_FR)
        doc.say("La capitale de la {co} est {c}.",
                co=phrase(land, "noun country") if land not in lex.COUNTRIES else country(land),
                c=city(capital) if capital in lex.CITIES else phrase(capital, "noun city"))


def write(doc: Document, rng: Random) -> None:
    """A few French sentences."""
    doc.about("d_french")
    for i in range(rng.randint(3, 8)):
        if i:
            doc.say(" ")
        r = rng.random()
        if r < 0.1:
            _fact(doc, rng)
        elif r < 0.17:
            doc.open(BIT["question"])
            doc.say(rng.choice(("Où est {o}?", "Qui {v} {o}?", "Comment est {o}?")), o=noun_phrase(rng)[0],
                    v=verb_phrase(rng.choice(lex.VERBS_FR)[0]))
            doc.close(BIT["question"])
        else:
            sentence(doc, rng)
