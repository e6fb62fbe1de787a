"""Text that repeats itself: lists read out twice, codes, sentences that somebody echoes, values looked up by key.

Predicting the second time round needs induction (Olsson et al. 2022, arXiv:2209.11895): find where the present
token stood before, and say what came next there.
"""

from random import Random

from .. import lexicon as lex
from ..concepts import BIT, bits
from ..grammar import CUE, ENGLISH, LABEL_MASK, Document
from ..phrases import LIST_WORDS, PEOPLE, listed, people
from . import animals, food, geography, history, review, sport, story

COPIED, ITEM, ANSWER, END = BIT["copied"], BIT["list_item"], BIT["key_answer"], BIT["sent_end"]
_HEADINGS = [("List: ", "Again: "), ("Remember: ", "Repeat: "), ("", ""), ("First: ", "Copy: "), ("Once: ", "Twice: "),
             ("She wrote: ", "He wrote: "), ("Words: ", "The same words: "), ("Original: ", "Copy: ")]
_SHOPPING = [("{A} went to the shop for", "At home, {she} found"), ("{A} had in {her_} bag:", "In the kitchen, {she} put down"),
             ("{A} bought", "Later {she} counted"), ("The list of {A} was", "Then {A} read it again:"),
             ("{A} packed", "At the hotel, {she} took out"), ("{A} wanted", "The shop had")]
_ECHOES = [('{A} said, "', '{B} repeated, "'), ('"', '{B} said it again: "'), ('{A} wrote: "', '{B} copied: "'),
           ('{A} read, "', 'Then {A} read it again: "'), ('The letter said: "', 'The second letter said: "')]
_KEYS = ["The code of {k} is {v}.", "{k} likes {v}.", "{k} has number {v}.", "The word for {k} is {v}.", "{k}: {v};"]
_SYLLABLES = [a + b for a in "bdfgklmnprstvz" for b in "aeiou"]
_SENTENCE_DOMAINS = (animals, food, geography, history, review, sport, story)
_SCOPES = bits("sent_start in_quote in_paren rel_clause subj_singular subj_plural question negation_scope "
               "pos_context neg_context name_again ctx_france ctx_england ctx_italy ctx_germany ctx_japan ctx_america "
               "d_geography d_french d_code d_legal d_review d_history d_animals d_food d_sport d_story d_copying")


def _nonsense(rng: Random) -> str:
    """A made-up word or code."""
    if rng.random() < 0.5:
        return rng.choice("BCDEFGHKMNPRTVXZ") + str(rng.randint(1, 99))
    return "".join(rng.choice(_SYLLABLES) for _ in range(rng.randint(2, 3)))


def _items(rng: Random, n: int) -> list[tuple[str, int]]:
    if rng.random() < 0.25:
        return [(_nonsense(rng), 0) for _ in range(n)]
    words = rng.sample(LIST_WORDS, n) if rng.random() < 0.7 else [rng.choice(LIST_WORDS) for _ in range(n)]
    return [listed(word)[0] for word in words]


def _enumerate(doc: Document, items: list[tuple[str, int]], separator: str, extra: int, last: str = ".") -> None:
    for i, (word, mask) in enumerate(items):
        doc.emit((" " if i else "") + word, mask | extra | (ITEM if i > 1 or extra else 0))
        if i < len(items) - 1:
            if separator:
                doc.emit(separator, extra | ENGLISH.get(separator.strip(), 0))
        else:
            doc.emit(last, extra | END)


def _list_twice(doc: Document, rng: Random) -> None:
    items = _items(rng, rng.randint(3, 10))
    separator = rng.choice((",", ",", ",", " and", ";", "", " then"))
    first, again = rng.choice(_HEADINGS)
    for i in range(rng.randint(2, 3)):
        if i:
            doc.emit(rng.choice(("\n", "\n", " ")))
        doc.say(again if i else first)
        _enumerate(doc, items, separator, COPIED if i else 0)


def _sequence_twice(doc: Document, rng: Random) -> None:
    """Words in a row, without marks, from the start again (and again)."""
    items = _items(rng, rng.randint(4, 16))
    for i in range(rng.randint(2, 3)):
        for j, (word, mask) in enumerate(items):
            doc.emit((" " if i or j else "") + word, mask | (ITEM if i or j > 1 else 0) | (COPIED if i else 0))
    doc.emit(".", END)


def _shopping(doc: Document, rng: Random) -> None:
    items = [listed(w)[0] for w in rng.sample(lex.FOODS + lex.FOODS_PLURAL if rng.random() < 0.6 else lex.OBJECTS,
                                              rng.randint(3, 6))]
    (person,) = people(rng, 1)
    slots = dict(A=person.phrase, she=person.pronoun("she"), her_=person.pronoun("her_"))
    for i, template in enumerate(rng.choice(_SHOPPING)):
        doc.say((" " if i else "") + template + " ", **slots)
        _enumerate(doc, items, ",", COPIED if i else 0)


def _sentence(rng: Random) -> list[tuple[str, int]]:
    """The first sentence (or two) of some other text: its words and what they are by themselves."""
    other = Document("quoted")
    rng.choice(_SENTENCE_DOMAINS).write(other, rng)
    words = []
    for i, mask in enumerate(other.masks):
        if '"' in other.parts[i] or "\n" in other.parts[i] or len(words) > 30:
            break
        words.append((other.parts[i], mask & ~_SCOPES & LABEL_MASK & ~END))
        if mask & END and rng.random() < 0.7:
            break
    return words


def _echo(doc: Document, rng: Random) -> None:
    words = _sentence(rng)
    while len(words) < 4:
        words = _sentence(rng)
    a, b = people(rng, 2)
    for i, template in enumerate(rng.choice(_ECHOES)):
        doc.say((" " if i else "") + template, A=a.phrase, B=b.phrase)
        doc.open(BIT["in_quote"])
        for word, mask in words:
            doc.emit(word, mask | CUE["d_copying"] | (COPIED if i else 0))
        doc.close(BIT["in_quote"])
        doc.emit('"')


def _look_up(doc: Document, rng: Random) -> None:
    n = rng.randint(2, 5)
    keys = [p.phrase[0] for p in rng.sample(PEOPLE, n)] if rng.random() < 0.6 else \
        [listed(w)[0] for w in rng.sample(lex.OBJECTS, n)]
    values = [listed(rng.choice(LIST_WORDS))[0] for _ in keys] if rng.random() < 0.5 else \
        [(str(rng.randint(10, 99)), BIT["number_digit"]) for _ in keys]
    template = rng.choice(_KEYS)
    pairs = list(zip(keys, values, strict=True))
    for again in (False, True):
        if again:
            rng.shuffle(pairs)
            doc.emit("\n")
        for i, (key, (value, mask)) in enumerate(pairs):
            if i:
                doc.say(" ")
            doc.say(template, k=(key,), v=((value, mask | ITEM | (ANSWER if again else 0)),))


def write(doc: Document, rng: Random) -> None:
    """One text that repeats itself."""
    doc.about("d_copying")
    r = rng.random()
    (_list_twice if r < 0.34 else _sequence_twice if r < 0.54 else _shopping if r < 0.67 else
     _echo if r < 0.93 else _look_up)(doc, rng)
