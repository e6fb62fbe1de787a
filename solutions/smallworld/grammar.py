"""A document that is written word by word, each word with the concepts that hold on it.

`Document.say("The {landmark} is in {city}.", landmark=..., city=...)` appends a sentence. In a template

* `{slot}` is replaced by a phrase: words, each with a set of concepts (see `phrase`);
* `<negation_scope> … </negation_scope>` switches a concept on and off for what lies between.

What keeps labels causal is that a scope does not begin where its tag stands, but at its *evidence*: negation after
the negating word, a country's context after one of its places has been named, a domain after its first telling
word. Until then the scope waits.
"""

import re
from functools import cache

from .concepts import BIT, CONCEPTS, SENSE_CONCEPTS, bits
from .lexicon import (
    ADJECTIVES,
    COLOURS,
    CONTEXT_COUNTRIES,
    FOODS,
    GIVING,
    NEG_ADJ,
    NEG_MOODS,
    OBJECTS,
    PAST_VERBS,
    PLACES,
    POS_ADJ,
    POS_MOODS,
    WORD_CLASSES,
    WORD_CLASSES_FR,
)

Phrase = tuple[tuple[str, int], ...]

# Evidence bits live above the concepts: they start scopes and never become labels.
_FIRST_EVIDENCE = len(CONCEPTS)
_EVIDENCE = [*CONTEXT_COUNTRIES.values(), *(f"d_{name}" for name in (
    "review", "history", "legal", "food", "copying"))]
CUE = {name: 1 << (_FIRST_EVIDENCE + i) for i, name in enumerate(_EVIDENCE)}
OTHER_PLACE = 1 << (_FIRST_EVIDENCE + len(CUE))  # a place in a country whose context is not labelled
ANY = 2 << (_FIRST_EVIDENCE + len(CUE))  # on every word
SURE = 4 << (_FIRST_EVIDENCE + len(CUE))  # the words before settle which sense is meant
LABEL_MASK = (1 << _FIRST_EVIDENCE) - 1

# scope -> any one of these on a word starts it, from the next word on
_WAITS = {
    "negation_scope": BIT["negation"],
    "subj_singular": BIT["noun"],
    "subj_plural": BIT["noun_plural"],
    "question": ANY,
    **{scope: CUE[scope] for scope in CONTEXT_COUNTRIES.values()},
}
# domain -> any one of these on a word starts it, that word included, but never within the first MINIMUM words:
# too many kinds of text begin alike.
MINIMUM = 4
_DOMAIN_STARTS = {
    "d_geography": bits("landmark city country"),
    "d_french": bits("french_word"),
    "d_code": bits("keyword variable operator comment function_name string"),
    "d_legal": CUE["d_legal"] | bits("party section_ref modal_shall"),
    "d_review": CUE["d_review"] | bits("pos_word neg_word"),
    "d_history": CUE["d_history"] | bits("year month weekday"),
    "d_animals": bits("animal"),
    "d_food": CUE["d_food"] | bits("food"),
    "d_sport": bits("team sport"),
    "d_copying": CUE["d_copying"] | bits("list_item"),
}
WAITS = {BIT[scope]: mask for scope, mask in _WAITS.items()}
DOMAIN_STARTS = {BIT[scope]: mask for scope, mask in _DOMAIN_STARTS.items()}

# A sense is labelled when its own domain has been recognised, or when the template is SURE.
_SENSE_DOMAINS = {
    "python_animal": "d_animals", "python_code": "d_code", "bat_animal": "d_animals", "bat_sport": "d_sport",
    "java_code": "d_code", "java_coffee": "d_food", "turkey_country": "d_geography", "turkey_bird": "d_animals d_food",
    "date_fruit": "d_food", "pain_french": "d_french", "chat_french": "d_french", "four_french": "d_french",
    "court_law": "d_legal", "court_tennis": "d_sport", "fly_insect": "d_animals", "jordan_country": "d_geography",
    "match_sport": "d_sport", "orange_fruit": "d_food", "seal_animal": "d_animals", "seal_legal": "d_legal",
    "mouse_animal": "d_animals", "washington_city": "d_geography", "pain_english": "d_review d_story",
    "chat_english": "d_story", "jordan_name": "d_story d_sport d_history",
}
SENSES = bits(" ".join(SENSE_CONCEPTS))
SENSE_DOMAIN = {BIT[name]: bits(_SENSE_DOMAINS.get(name, "")) | SURE for name in SENSE_CONCEPTS}

_PLACE_CUES = OTHER_PLACE
_CONTEXTS = 0
for _scope in CONTEXT_COUNTRIES.values():
    _PLACE_CUES |= CUE[_scope]
    _CONTEXTS |= BIT[_scope]
_SENT_START, _SENT_END = BIT["sent_start"], BIT["sent_end"]
_WORD = re.compile(r"\s*[A-Za-zÀ-ÿ]+|\s*[^A-Za-zÀ-ÿ\s]|\s+")
_TAG = re.compile(r"(\{\w+\}|</?[a-z_]+>)")
_TEXT, _SLOT, _OPEN, _CLOSE = range(4)


def _word_table(classes: dict[str, str]) -> dict[str, int]:
    table: dict[str, int] = {}
    for name, words in classes.items():
        for word in words.split():
            table[word] = table.get(word, 0) | BIT[name]
    return table


ENGLISH = _word_table({
    "adj": " ".join(ADJECTIVES + POS_ADJ + NEG_ADJ + COLOURS + POS_MOODS + NEG_MOODS),
    "pos_word": " ".join(POS_ADJ + POS_MOODS), "neg_word": " ".join(NEG_ADJ + NEG_MOODS), "colour": " ".join(COLOURS),
    "noun": " ".join(OBJECTS + PLACES + FOODS), "food": " ".join(FOODS),
    "verb": " ".join(PAST_VERBS + GIVING), "verb_past": " ".join(PAST_VERBS + GIVING),
}) | _word_table(WORD_CLASSES)
for _word in WORD_CLASSES["verb_past"].split():
    ENGLISH[_word] |= BIT["verb"]
FRENCH = _word_table(WORD_CLASSES_FR)


@cache
def phrase(text: str, concepts: str = "", extra: int = 0, last_only: str = "") -> Phrase:
    """The words of `text`, each with the same concepts; `last_only` hold on the last word alone.

    A name of several words is what it is only when it has been read to its end: before "City", "Mexico" is a
    country. That is what `last_only` is for.
    """
    mask = bits(concepts) | extra
    words = re.findall(r"\s*\S+", text)
    return (*((word, mask) for word in words[:-1]), (words[-1], mask | bits(last_only)))


def capitalised(words: Phrase) -> Phrase:
    """The phrase with a capital at its start."""
    (first, mask), *rest = words
    return ((first[0].upper() + first[1:], mask), *rest)


def joined(*phrases: Phrase) -> Phrase:
    """Phrases one after the other, with spaces between."""
    out = list(phrases[0])
    for words in phrases[1:]:
        out.append((" " + words[0][0], words[0][1]))
        out.extend(words[1:])
    return tuple(out)


@cache
def _compiled(template: str, french: bool) -> tuple:
    table = FRENCH if french else ENGLISH
    operations = []
    for part in filter(None, _TAG.split(template)):
        if part[0] == "{":
            operations.append((_SLOT, part[1:-1], 0))
        elif part[0] == "<" and len(part) > 2:
            closing = part[1] == "/"
            operations.append((_CLOSE if closing else _OPEN, BIT[part.strip("</>")], 0))
        else:
            for word in _WORD.findall(part):
                mask = table.get(word.strip(), 0)
                if french and word.strip().isalpha():
                    mask |= BIT["french_word"]
                if word.strip() in (".", "!", "?"):
                    mask |= _SENT_END
                operations.append((_TEXT, word, mask))
    return tuple(operations)


class Document:
    """A text under construction, and its labels.

    Attributes:
        domain: which generator wrote it.
        ends: for each piece of the text, the character offset at which it ends.
        masks: for each piece, the set of concepts that hold on it (bits of `CONCEPTS`).
        scopes: for each piece, those that held before it was read.
    """

    __slots__ = ("domain", "parts", "ends", "masks", "scopes", "length", "words", "scope", "waiting", "domain_waiting",
                 "evidence", "pending_space", "at_start", "names")

    def __init__(self, domain: str):
        self.domain = domain
        self.parts: list[str] = []
        self.ends: list[int] = []
        self.masks: list[int] = []
        self.scopes: list[int] = []
        self.length = 0
        self.new_section()

    def new_section(self) -> None:
        """Forget every scope: what follows has nothing to do with what came before."""
        self.scope = self.waiting = self.domain_waiting = self.evidence = 0
        self.pending_space = ""
        self.at_start = True
        self.words = 0
        self.names: set[str] = set()

    @property
    def text(self) -> str:
        """What has been written so far."""
        return "".join(self.parts)

    def about(self, domain: str) -> None:
        """Announce the domain; its label begins with the first word that gives it away."""
        self.domain_waiting |= BIT[domain]

    def open(self, scope: int) -> None:
        """Switch a concept on, at once or, if it needs evidence, as soon as that has been read."""
        if scope in WAITS:
            self.waiting |= scope
        else:
            self.scope |= scope

    def close(self, scope: int) -> None:
        """Switch a concept off."""
        self.scope &= ~scope
        self.waiting &= ~scope

    def emit(self, text: str, mask: int = 0) -> None:
        """Append one word or mark. White space is held back and goes before the next word."""
        if self.pending_space:
            text = self.pending_space + text
            self.pending_space = ""
        if text.isspace() and "\n" not in text:
            self.pending_space = text
            return
        self.words += 1
        self.scopes.append(self.scope & LABEL_MASK)
        if mask & _PLACE_CUES:
            self.scope &= ~_CONTEXTS
        self.evidence |= mask
        if self.domain_waiting and self.words >= MINIMUM:
            for scope, evidence in DOMAIN_STARTS.items():
                if self.domain_waiting & scope and self.evidence & evidence:
                    self.scope |= scope
                    self.domain_waiting &= ~scope
        if mask & SENSES:
            for sense, settled_by in SENSE_DOMAIN.items():
                if mask & sense and not (self.scope | mask) & settled_by:
                    mask &= ~sense
        label = (mask | self.scope) & LABEL_MASK
        if self.at_start and not text.isspace():
            label |= _SENT_START
            self.at_start = False
        if mask & _SENT_END:
            self.at_start = True
        self.parts.append(text)
        self.length += len(text)
        self.ends.append(self.length)
        self.masks.append(label)
        if self.waiting:
            mask |= ANY
            for scope, evidence in WAITS.items():
                if self.waiting & scope and mask & evidence:
                    self.scope |= scope
                    self.waiting &= ~scope

    def emit_all(self, words: Phrase, extra: int = 0) -> None:
        """Append a phrase, its words sharing the concepts `extra`; a name met again is marked as such."""
        for text, mask in words:
            if mask & _NAMES:
                name = text.strip()
                if name in self.names:
                    mask |= _NAME_AGAIN
                self.names.add(name)
            self.emit(text, mask | extra)

    def say(self, template: str, /, **slots: Phrase) -> None:
        """Append a sentence; every `{slot}` of the template must be given.

        Raises:
            KeyError: the template has a slot that was not given.
        """
        french = (self.scope | self.domain_waiting) & _FRENCH
        extra = _FRENCH_WORD & -bool(self.scope & _FRENCH)
        for operation, value, mask in _compiled(template, bool(french)):
            if operation == _TEXT:
                self.emit(value, mask)
            elif operation == _SLOT:
                self.emit_all(slots[value], extra)
            elif operation == _OPEN:
                self.open(value)
            else:
                self.close(value)


_NAMES = bits("name_f name_m")
_NAME_AGAIN = BIT["name_again"]
_FRENCH = BIT["d_french"]
_FRENCH_WORD = BIT["french_word"]
