"""Short narratives: who did what, who gave what to whom, pronouns, quotations, agreement, ambiguous words.

Scenes of giving have a module of their own, `giving`.
"""

from random import Random

from .. import lexicon as lex
from ..concepts import BIT
from ..grammar import SURE, Document, phrase
from ..phrases import (
    PEOPLE,
    Person,
    adjective,
    animal,
    city,
    colour,
    in_words,
    noun,
    past,
    plural,
    profession,
    weekday,
)
from . import french, giving

_EVENTS = [
    "{A} {v} the {ad} {o}.", "{She} {v} the {o} and {v2} the {o2}.", "{She} was {glad} because {she} {v} the {o}.",
    "{A} was {upset} because {B} {v} {her_} {o}.", "{She} put the {o} in {her_} {ad} {o2}.",
    "On {day}, {A} met a {ad} {prof} in the {pl}.", "{B} <negation_scope>did not like the {ad} {o}</negation_scope>.",
    "{A} <negation_scope>never {v} the {o}</negation_scope>.", "The {o} was {col}, and {A} {v} it.",
    "{A} loved {her_} {col} {an}.", "{A} looked for the {o}, but {she} <negation_scope>could not find it</negation_scope>.",
    "There was <negation_scope>no {o} in the {pl2}</negation_scope>.",
    "{B} {v} the {o} (<in_paren>a {ad} one</in_paren>) and {v2} the {o2}.",
    "{A} saw {n} {plural} near the {pl}.", "{She} gave {B} a {o}, and {B} {v} it.",
    "{A} {v} {her_} {o} and {v2} the {o2}.", "{A} (<in_paren>the {prof}</in_paren>) {v} the {o}.",
]
_PRONOUNS = [
    "{A} said that {she} {v} the {o}.", "{A} lost {her_} {o}.", "{A} loved {her_} {ad} {o}.",
    "{A} was late because {she} {v} the {o}.", "{A} thinks {she} is {ad}.", "{A} was a {prof}, and {she} lived in {c}.",
    "When {A} was young, {she} lived in {c}.", "{A} was tired, so {she} went home.", "{A} is a {ad} {prof}. {She} lives in {c}.",
    "{A} opened the {o}. {She} was {ad}.", "{A} came to the {pl}. {Her_} {o} was {ad}.", "{A} told {B} about {her_} {o}.",
    "The {prof} saw {A} and gave {her} a {o}.", "{A} knew that {she} was {ad}.", "{A} forgot {her_} {o}, so {she} went back.",
    "{A} {v} the {o} before {she} went to the {pl}.", "{A} wanted a {o}, but {she} had <negation_scope>no money</negation_scope>.",
    "{A} hurt {her_} hand when {she} {v} the {o}.",
]
_QUOTES = [
    "{A} said, \"<in_quote>I {v} the {o} in the {pl}.</in_quote>\"", "\"<in_quote>Where is my {o}?</in_quote>\" asked {A}.",
    "\"<in_quote>It is <negation_scope>not in the {pl}</negation_scope>,</in_quote>\" {B} answered.",
    "{B} asked, \"<in_quote>Did you see the {ad} {o2}?</in_quote>\"", "\"<in_quote>You {may} take the {o},</in_quote>\" said {B}.",
    "{A} whispered, \"<in_quote>The {o} is {col} and {ad}.</in_quote>\"",
    "{B} cried, \"<in_quote>{A} has my {o}!</in_quote>\"",
]
_AGREEMENT = [
    "<subj_plural>The {profs} near the {pl}</subj_plural> were {ad}.", "<subj_plural>The {plural} behind the {o}</subj_plural> were {ad}.",
    "<subj_plural>The {profs} who <rel_clause>followed the {prof}</rel_clause></subj_plural> were {ad}.",
    "<subj_plural>The {os} on the {o2}</subj_plural> were {col}.", "<subj_plural>The {profs} with the {prof}</subj_plural> are {ad}.",
    "<subj_singular>The {prof} near the {plural}</subj_singular> was {ad}.", "<subj_singular>The {an} behind the {profs}</subj_singular> was {ad}.",
    "<subj_singular>The {prof} who <rel_clause>followed the {profs}</rel_clause></subj_singular> was {ad}.",
    "<subj_singular>The {o} of the {profs}</subj_singular> was {col}.", "<subj_singular>The {prof} with the {profs}</subj_singular> is {ad}.",
]
_SENSES = [
    "{A} needed {money}, so {she} went to the {bank_money}.", "{A} took {her_} {money} to the {bank_money}.",
    "The river was wide, and {A} sat on its {bank_river}.", "They walked along the river, and its {bank_river} was {ad}.",
    "{A} talked to {B}, and they had a long {chat}.", "{A} fell, and the {pain} in {her_} leg was terrible.",
    "The winter was over, and in the {spring_season} {A} met {B}.", "{A} drank water from the {spring_water} in the mountains.",
    "{A} looked at the calendar and forgot the {date} of the party.", "It was dark, so {A} turned on the {light_lamp}.",
    "The box was empty and {light_weight}, so {A} carried it.", "{A} wanted to make a fire, but {she} had <negation_scope>no {match_fire}</negation_scope>.",
    "{A} wore a coat that was {orange_colour}.", "{A} bought a computer, but its {mouse_computer} was broken.",
    "The plane was ready to {fly_verb}.", "{B} said that {A} {may} stay.",
]
# Somebody did something, and a pronoun takes the name up again. The clauses are chosen independently of each other
# and of what joins them, so that it is the name, not the sentence, that tells "she" from "he".
_DID = [
    "{v} the {o}", "{v2} the {o2}", "lost {her_} {o}", "opened the {ad} {o2}", "came to the {pl}", "went home", "was {ad}",
    "was a {prof}", "met a {ad} {prof}", "had <negation_scope>no {o}</negation_scope>", "sat near the {pl}",
    "looked for the {o}", "forgot the {o2}", "saw {n} {plural}", "lived in {c}", "bought the {col} {o}", "worked in the {pl2}",
    "was {glad}", "was {upset}", "talked to {B}", "wanted a {ad} {o2}", "followed {B}", "put the {o} in {her_} {o2}",
    "waited for the {prof}", "walked to the {pl2}", "loved {her_} {an}", "ran to the {pl}", "had {her_} {col} {o2}",
]
_SUBORDINATE = ["When", "While", "Because", "Before", "Although", "Once", "If"]
_JOINED = [" when ", " because ", " while ", " before ", " after ", " although ", " until ", ", but ", ", so ", ", and then ",
           ", and yesterday ", ", but soon ", ", and often ", " and said that ", " and knew that ", ", and every day "]
_STOPS = [". {She} ", ". {She} ", ". Then {she} ", ". Yesterday {she} ", ". On {day} {she} ", ". Soon {she} ",
          ". {Her_} {o2} was {ad}, and {she} "]


def _taken_up(doc: Document, rng: Random, slots: dict) -> None:
    """Two clauses about the same person, the second with a pronoun."""
    first, second = rng.sample(_DID, 2)
    r = rng.random()
    if r < 0.3:
        parts = [rng.choice(_SUBORDINATE), " {A} ", first, ", {she} ", second]
    elif r < 0.7:
        parts = ["{A} ", first, rng.choice(_JOINED), "{she} ", second]
    else:
        parts = ["{A} ", first, rng.choice(_STOPS), second]
    for part in [*parts, "."]:  # part by part: whole templates are too many to be kept compiled
        doc.say(part, **slots)


def _plural_of(word: str) -> str:
    return word + ("es" if word[-1] in "xhs" else "s")


def _slots(rng: Random, a: Person, b: Person, thing: str, where: str) -> dict:
    return dict(
        A=a.phrase, B=b.phrase, She=a.pronoun("She"), she=a.pronoun("she"), her=a.pronoun("her"), her_=a.pronoun("her_"),
        Her_=a.pronoun("Her_"), o=noun(thing), os=plural(_plural_of(thing)), o2=noun(rng.choice(lex.OBJECTS)),
        pl=noun(where), pl2=noun(rng.choice(lex.PLACES)), ad=adjective(rng.choice(lex.ADJECTIVES)),
        v=past(rng.choice(lex.PAST_VERBS)), v2=past(rng.choice(lex.PAST_VERBS)), col=colour(rng.choice(lex.COLOURS)),
        prof=profession(job := rng.choice(lex.PROFESSIONS)), profs=plural(_plural_of(rng.choice(
            [p for p in lex.PROFESSIONS if p != job])), "profession"), n=in_words(rng.randint(2, 12)),
        an=animal(rng.choice(list(lex.ANIMALS))), plural=animal(rng.choice(list(lex.ANIMALS)), True),
        day=weekday(rng.choice(lex.WEEKDAYS)), c=city(rng.choice(list(lex.CITIES))),
        glad=adjective(rng.choice(lex.POS_MOODS)),
        upset=adjective(rng.choice(lex.NEG_MOODS)),
        money=noun(rng.choice(("money", "cash", "coins"))), may=phrase("may", "verb may_modal", SURE),
        bank_money=phrase("bank", "noun bank_money", SURE), bank_river=phrase("bank", "noun bank_river", SURE),
        chat=phrase("chat", "noun chat_english", SURE), pain=phrase("pain", "noun pain_english neg_word", SURE),
        spring_season=phrase("spring", "noun spring_season", SURE), spring_water=phrase("spring", "noun spring_water", SURE),
        date=phrase("date", "noun date_calendar", SURE), light_lamp=phrase("light", "noun light_lamp", SURE),
        light_weight=phrase("light", "adj light_weight", SURE), match_fire=phrase("match", "noun match_fire", SURE),
        orange_colour=phrase("orange", "adj colour orange_colour", SURE),
        mouse_computer=phrase("mouse", "noun mouse_computer", SURE), fly_verb=phrase("fly", "verb fly_verb", SURE))


def _speech_in_french(doc: Document, rng: Random, person: Person) -> None:
    doc.say("{A} said in {f}, \"", A=person.phrase, f=phrase("French", "noun language"))
    doc.open(BIT["in_quote"])
    doc.domain_waiting |= BIT["d_french"]
    french.sentence(doc, rng)
    doc.close(BIT["in_quote"])
    doc.close(BIT["d_french"])
    doc.domain_waiting &= ~BIT["d_french"]
    doc.emit('"')


def write(doc: Document, rng: Random) -> None:
    """One to six sentences about the same two people, or scenes of giving."""
    doc.about("d_story")
    if rng.random() < 0.5:
        for i in range(rng.randint(1, 4)):
            if i:
                doc.say(" ")
            giving.scene(doc, rng)
            doc.open(BIT["d_story"])
        return
    a, b = rng.sample(PEOPLE, 2)
    thing, where = rng.choice(lex.OBJECTS), rng.choice(lex.PLACES)
    for i in range(rng.randint(1, 6)):
        if i:
            doc.say(" ")
            doc.open(BIT["d_story"])
        r = rng.random()
        if r < 0.04:
            _speech_in_french(doc, rng, a)
            continue
        slots = _slots(rng, a, b, thing, where)
        if r < 0.36:
            _taken_up(doc, rng, slots)
            continue
        kind = (_QUOTES if r < 0.48 else _AGREEMENT if r < 0.58 else _SENSES if r < 0.66 else
                _PRONOUNS if r < 0.78 else _EVENTS)
        doc.say(rng.choice(kind), **slots)
