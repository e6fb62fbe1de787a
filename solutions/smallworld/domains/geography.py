"""Places: landmarks, cities, countries, and the facts that tie them together."""

from random import Random

from .. import lexicon as lex
from ..concepts import BIT
from ..grammar import SURE, Document, phrase
from ..phrases import (
    adjective,
    city,
    country,
    digits,
    in_words,
    language,
    month,
    nationality,
    noun,
    plural,
    profession,
    year,
)
from ..phrases import landmark as landmark_phrase

# Places whose names mean something else too come up more often.
_CHOICE = [*lex.CITIES] + 2 * ["Washington", "Istanbul", "Ankara", "Amman"]
ABOUT_LANDMARK = [
    "{The_l} is in {c}.", "{The_l} is in {c}.", "{The_l} is in {c}, {co}.", "{The_l} is a {a} {kind} in {c}.",
    "{The_l} is located in {c}, the {a} city in {co}.", "{The_l} is a {a} {kind} in {c}, {co}.",
    "{The_l} stands in the centre of {c}.", "{The_l} can be found in {c}.", "{The_l} is in the city of {c}.",
    "In {c}, you can visit {the_l}.", "Visitors to {c} often see {the_l}.", "{The_l} in {c} was built in {y}.",
    "Many people travel to {c} to see {the_l}.", "{The_l} is the pride of {c}.",
    "<question>Where is {the_l}?</question> It is in {c}.", "<question>Which city has {the_l}?</question> {c}.",
    "Q: <question>Which city has {the_l}?</question>\nA: {c}", "Q: <question>Where is {the_l}?</question>\nA: {c}",
    "My friends and I visited {the_l} when we were in {c}.", "To see {the_l}, you must go to {c}.",
    "If you travel to {co}, you should see {the_l} in {c}.", "The most {a} {kind} in {c} is {the_l}.",
    "We took a picture of {the_l} in {c}.", "The {kind} called {the_l} is in {c}.",
    "{The_l} is in the country of {co}.", "{The_l} is in {co}, in the city of {c}.",
    "<question>Which country has {the_l}?</question> {co}.", "Q: <question>Which country has {the_l}?</question>\nA: {co}",
    "{The_l} is a symbol of {co}.", "{The_l} is the most {a} {kind} in {co}.",
    "{The_l} is <negation_scope>not in {other}</negation_scope>. It is in {c}.",
    "{The_l} is <negation_scope>not in {other}</negation_scope> but in {c}.",
]
AFTER_LANDMARK = [
    "The {kind} was designed by the {ad} {prof} in {y}.", "{often}, {many} of visitors come to see the {kind}.",
    "It is a symbol of {co}.", "It is {h} metres high.", "People in {c} speak {la}.", "The country is {co}.",
    "The people there speak {la}, and they pay with the {cu}.", "{c} is a city in {co}.",
    "You can pay for the ticket in {cu}s.", "The {kind} was closed in {m}.",
    "The guide spoke {la} and told us that the {kind} was built in {y}.",
    "It was opened in {y} by the {ad} {prof}.", "The {kind} that <rel_clause>stands near the river</rel_clause> is very {a}.",
    "The {kind} has {n} old doors (<in_paren>and a {a} garden</in_paren>).",
]
ABOUT_PLACE = [
    "{c} is a {a} city in {co}.", "{c} is in {co}.", "{c} is one of the cities of {co}.", "{c} lies in {co}.",
    "The capital of {co} is {cap}.", "The capital city of {co} is {cap}.", "The capital of {co} is called {cap}.",
    "{cap} is the capital of {co}.", "{cap} is the capital of {co}, and the language is {la}.",
    "<question>What is the capital of {co}?</question> The answer is {cap}.", "The {ad} capital is {cap}.",
    "Q: <question>What is the capital of {co}?</question>\nA: {cap}", "In {co}, the capital is {cap}.",
    "The government of {co} is in {cap}.", "The king of {co} lives in {cap}.", "{co} has a capital called {cap}.",
    "The currency of {co} is the {cu}.", "In {c}, you pay with the {cu}.", "{co} is a country in {cont}.",
    "People in {c} speak {la}.", "In {co}, people speak {la}.", "The language of {co} is {la}.",
    "The people of {c} speak {la}.", "In {c}, the language is {la}.", "She learned {la} when she lived in {c}.",
    "We flew to {c} in {m} and stayed in {co} for a week.", "Everybody in {c} speaks {la}.",
    "Q: <question>Which language do people speak in {c}?</question>\nA: {la}",
    "The guide in {c} spoke {la}.", "Children in {c} learn {la} at school.",
]
AFTER_PLACE = [
    "The country is in {cont}.", "The capital is {cap}.", "They use the {cu} there.", "The people speak {la}.",
    "The {ad} food is very {a}.", "The city is {a} and {a2}.", "It is famous for its {ad} food and its museums.",
    "They speak {la} there.", "You should learn some {la} before you go.", "{c} has {n} museums.",
]
# Who lives where and speaks what, from independent parts: the language has to be read off the city, not off a sentence.
# (subject, what stands for it later, whether its verbs are singular)
_WHO = [("My sister", "she", True), ("My brother", "he", True), ("Our uncle", "he", True), ("His aunt", "she", True),
        ("The {prof}", "she", True), ("A {ad2} {prof}", "he", True), ("Her parents", "they", False),
        ("The children", "they", False), ("Some {profs}", "they", False), ("The {profs}", "they", False),
        ("Many people", "they", False), ("Our cousins", "they", False), ("Most {profs}", "they", False),
        ("His sisters", "they", False)]
_LIVE = ["live{s} in {c}", "work{s} in {c}", "stay{s} in {c}", "come{s} from {c}", "ha{s2} a house in {c}",
         "often visit{s} {c}", "live{s} near the river in {c}", "live{s} in the {a} city of {c}", "sing{s} in {c}"]
_LIVED = ["lived in {c}", "worked in {c}", "was born in {c}", "went to {c}", "moved to {c}", "stayed in {c} for a year",
          "had a house in {c}", "visited {c} in {m}", "came from {c}", "lived in the {a} city of {c}", "arrived in {c}"]
_SO = [", so ", ", and now ", ", and there ", " and therefore ", ", where ", ". Every day ", ". At school ", " because "]
_SPEAK = ["speak{s} {la}", "learn{s} {la}", "understand{s} {la}", "can speak {la}", "must learn {la}", "often speak{s} {la}",
          "read{s} books in {la}", "write{s} letters in {la}", "like{s} to speak {la}", "sing{s} in {la}", "now speak{s} {la}"]
_SPOKE = ["spoke {la}", "learned {la}", "understood {la}", "could speak {la}", "had to learn {la}", "quickly learned {la}",
          "read books in {la}", "wrote letters in {la}", "wanted to speak {la}", "heard only {la}", "spoke very good {la}"]
_IMPERSONAL = ["To live in {c}, you must learn {la}.", "If you go to {c}, you will hear {la}.",
               "The newspapers in {c} are written in {la}.", "In the shops of {c}, they speak {la}.",
               "The songs of {c} are in {la}.", "Nobody in {c} is surprised when you speak {la}.",
               "All the signs in {c} are in {la}.", "You need some {la} if you want to live in {c}."]
# A capital as an apposition, "the capital, Paris": who comes there, from independent parts again.
_VISITORS = ["The king", "Our friends", "The {ad2} {prof}", "Many visitors", "My parents", "The {profs}", "Everybody", "I",
             "Thousands of people", "His aunt"]
_CAME = ["travelled through {co} to the capital,", "arrived in {co} and stayed in the capital,",
         "loved {co} and the capital,", "knew {co} and its capital,", "flew from {co}, where the capital is called",
         "left {co} and its {a} capital,", "wrote a letter from {co}, from the capital,", "liked {co}, and above all the capital,",
         "came from {co} and lived in the capital,", "walked in {co} from a village to the capital,",
         "worked in {co}, in the {a} capital,", "drove to {co} and looked for the capital,"]
_WHEN = [".", ".", " in {m}.", " in {y}.", ", for a week.", ", and everything was {a2}.", " with the {prof}.", ", where people speak {la}."]
JAVA = "Indonesia is a country in Asia. Its people live on islands, and one of the islands is {java}."


def _facts(rng: Random, place: lex.Landmark | None, c: str) -> dict:
    co = lex.CITIES[c]
    fact = lex.COUNTRIES[co]
    slots = dict(
        c=city(c), co=country(co), ad=nationality(fact.nationality), la=language(fact.language),
        cu=noun(fact.currency, "currency"), cont=noun(fact.continent, "continent"), cap=city(fact.capital),
        a=adjective(rng.choice(("famous", "beautiful", "large", "tall", "grand", "busy"))),
        a2=adjective(rng.choice(("quiet", "bright", "rich", "warm"))), y=year(rng.randint(1100, 1990)),
        often=phrase(rng.choice(("Every year", "Each summer", "In spring", "Today", "Every day"))),
        many=plural(rng.choice(("thousands", "millions", "hundreds"))),
        prof=profession(rng.choice(("architect", "king", "queen", "emperor", "engineer", "painter", "writer", "singer"))),
        profs=plural(rng.choice(("painters", "writers", "singers", "students", "nurses", "farmers")), "profession"),
        ad2=adjective(rng.choice(("young", "tall", "clever", "rich", "quiet"))),
        m=month(rng.choice(lex.MONTHS)), h=digits(rng.randint(20, 400)), n=in_words(rng.randint(2, 20)),
        other=city(rng.choice([x for x in lex.CITIES if x != c]), in_mind=False),
    )
    if place:
        name = landmark_phrase(place.name)
        article = place.name not in lex.NO_ARTICLE
        slots["l"] = name
        slots["The_l"] = (("The", BIT["det"]), (" " + name[0][0], name[0][1]), *name[1:]) if article else name
        slots["the_l"] = (("the", BIT["det"]), (" " + name[0][0], name[0][1]), *name[1:]) if article else name
        slots["kind"] = noun(place.kind)
    return slots


def _speaker(doc: Document, rng: Random, facts: dict) -> None:
    """Somebody lives in a city and speaks its language."""
    if rng.random() < 0.15:
        doc.say(rng.choice(_IMPERSONAL), **facts)
        return
    who, pronoun, one = rng.choice(_WHO)
    past = rng.random() < 0.4
    live, speak = (rng.choice(_LIVED), rng.choice(_SPOKE)) if past else (rng.choice(_LIVE), rng.choice(_SPEAK))
    endings = {"{s}": "s" if one else "", "{s2}": "s" if one else "ve"}
    if not one and past:
        endings["was born"] = "were born"
    for mark, ending in endings.items():
        live, speak = live.replace(mark, ending), speak.replace(mark, ending)
    link = [" and "] if rng.random() < 0.25 else [rng.choice(_SO), pronoun, " "]
    for part in [who, " ", live, *link, speak, "."]:
        doc.say(part, **facts)


def _visitor(doc: Document, rng: Random, facts: dict) -> None:
    """Somebody comes to a country and its capital."""
    for part in [rng.choice(_VISITORS), " ", rng.choice(_CAME), " {cap}", rng.choice(_WHEN)]:
        doc.say(part, **facts)


def write(doc: Document, rng: Random) -> None:
    """One to three places, each with a few facts."""
    doc.about("d_geography")
    for i in range(rng.randint(1, 3)):
        if i:
            doc.say(" ")
        if rng.random() < 0.03:
            doc.say(JAVA, java=phrase("Java", "noun java_island", SURE))
            continue
        place = rng.choice(lex.LANDMARKS) if rng.random() < 0.62 else None
        c = place.city if place else rng.choice(_CHOICE)
        facts = _facts(rng, place, c)
        scope = lex.CONTEXT_COUNTRIES.get(lex.CITIES[c])
        doc.waiting = BIT[scope] if scope else 0
        if place is None and rng.random() < 0.5:
            (_speaker if rng.random() < 0.6 else _visitor)(doc, rng, facts)
        else:
            doc.say(rng.choice(ABOUT_LANDMARK if place else ABOUT_PLACE), **facts)
        for sentence in rng.sample(AFTER_LANDMARK if place else AFTER_PLACE, rng.randint(0, 3)):
            doc.say(" ")
            doc.say(sentence, **facts)
