"""The concepts that the embedded world labels: what is true of a token, given everything read so far.

A set of concepts is one Python integer with a bit for each concept, so that joining two sets is a single
`|`. Labels are *causal*: a concept may hold on a token only if the text up to and including that token is
enough to know it. "python" at the start of a document is neither the snake nor the language; after
"The snake in the zoo, a" it is the snake.
"""

from typing import NamedTuple


class Concept(NamedTuple):
    """One labelled concept."""

    name: str         #: what labels call it
    group: str        #: the concepts it belongs with
    description: str  #: when it holds, in words


# group -> "name: description" lines. The order fixes the bit numbers: append, never insert.
_TABLE = {
    "domain": """
        d_geography: a text about places, once a place has been named
        d_french: a text in French, once a French word has been read
        d_code: Python source code, once a piece of code has been read
        d_legal: a contract or judgment, once a legal term has been read
        d_review: a customer's review, once an opinion has been read
        d_history: a biography or chronicle, once a date, a historic event or a calendar list has been read
        d_animals: a text about animals, once an animal has been named
        d_food: a recipe or a meal, once a food has been named
        d_sport: a match report, once a team or a sport has been named
        d_story: a short narrative, once its first sentence has ended
        d_copying: lists, codes and sentences that are repeated, once the first item has been read""",
    "word class": """
        det: determiner (the, a, this, her, …)
        prep: preposition
        pron: pronoun
        conj: conjunction
        noun: noun or name
        noun_plural: plural noun
        verb: verb
        verb_past: verb in the past tense
        be_form: a form of "be"
        adj: adjective
        adv: adverb
        number_word: number written as a word
        number_digit: number written in digits
        year: a year""",
    "French": """
        french_word: a word of a French sentence
        fr_masc: a word of a masculine French noun phrase
        fr_fem: a word of a feminine French noun phrase
        fr_plural_verb: a French verb in the plural""",
    "kind of thing": """
        landmark: a famous building or place
        city: a city
        country: a country
        language: a language, named as such
        nationality: an adjective of nationality
        currency: a currency
        continent: a continent
        month: a month
        weekday: a day of the week
        colour: a colour
        profession: a profession
        animal: an animal
        food: a food or drink
        sport: a sport
        team: the name of a team
        name_f: a woman's first name
        name_m: a man's first name
        surname: a surname
        party: a party to a contract""",
    "place in mind": """
        ctx_france: the text is about a place in France
        ctx_england: the text is about a place in England
        ctx_italy: the text is about a place in Italy
        ctx_germany: the text is about a place in Germany
        ctx_japan: the text is about a place in Japan
        ctx_america: the text is about a place in America
        is_eiffel: the words "Eiffel Tower"
        is_paris: the word "Paris"
        is_london: the word "London"
        is_rome: the word "Rome"
        is_tokyo: the word "Tokyo" """,
    "sentiment": """
        pos_word: a word of praise
        neg_word: a word of blame or distress
        pos_context: the review has turned out to be favourable
        neg_context: the review has turned out to be unfavourable""",
    "logic": """
        negation: a negating word
        negation_scope: inside what a negating word denies
        question: inside a question, once its first word has been read""",
    "structure": """
        sent_start: first word of a sentence
        sent_end: the mark that ends a sentence
        in_quote: inside quotation marks
        in_paren: inside round brackets in prose
        rel_clause: inside a relative clause, after its pronoun
        subj_singular: between a singular subject and its verb
        subj_plural: between a plural subject and its verb
        list_item: an item of an enumeration""",
    "reference": """
        pron_f: a pronoun for a woman
        pron_m: a pronoun for a man
        name_again: a first name that the text has used before""",
    "copying": """
        copied: part of a sequence that stands earlier in the text
        io_name: the receiver in "B gave it to A"
        s_name: the giver, named a second time
        key_answer: the value looked up for a key
        ingredient_again: an ingredient that the recipe has listed""",
    "code": """
        keyword: a Python keyword
        variable: a variable
        variable_seen: a variable that the code has used before
        function_name: the name of a function or class
        string: inside a string
        comment: inside a comment or docstring
        indent: the white space at the start of an indented line
        code_number: a number in code
        operator: an operator or assignment
        def_line: the line that defines a function
        in_brackets: inside brackets in code
        nested_brackets: inside two or more pairs of brackets""",
    "legal": """
        modal_shall: the "shall" of an obligation
        section_ref: a reference to a section""",
    "sense": """
        python_animal: "python", the snake
        python_code: "Python", the language
        bank_money: "bank", for money
        bank_river: "bank", of a river
        bat_animal: "bat", the animal
        bat_sport: "bat", for hitting a ball
        spring_season: "spring", the season
        spring_water: "spring", of water
        java_code: "Java", the language
        java_island: "Java", the island
        java_coffee: "Java", the coffee
        turkey_country: "Turkey", the country
        turkey_bird: "turkey", the bird
        may_month: "May", the month
        may_modal: "may", the verb
        washington_person: "Washington", a surname
        washington_city: "Washington", the city
        date_fruit: "dates", the fruit
        date_calendar: "date", of a calendar
        pain_english: "pain", that hurts
        pain_french: "pain", French for bread
        chat_english: "chat", a talk
        chat_french: "chat", French for cat
        court_law: "court", of law
        court_tennis: "court", for tennis or basketball
        fly_insect: "fly", the insect
        fly_verb: "fly", the verb
        jordan_name: "Jordan", a first name
        jordan_country: "Jordan", the country
        four_english: "four", the number
        four_french: "four", French for oven
        match_sport: "match", a game
        match_fire: "match", that lights a fire
        orange_fruit: "orange", the fruit
        orange_colour: "orange", the colour
        seal_animal: "seal", the animal
        seal_legal: "seal", on a document
        mouse_animal: "mouse", the animal
        mouse_computer: "mouse", of a computer
        light_lamp: "light", that shines
        light_weight: "light", not heavy""",
}

CONCEPTS: tuple[Concept, ...] = tuple(
    Concept(*(part.strip() for part in (line.split(":", 1)[0], group, line.split(":", 1)[1])))
    for group, lines in _TABLE.items()
    for line in lines.strip().splitlines()
)
BIT: dict[str, int] = {concept.name: 1 << i for i, concept in enumerate(CONCEPTS)}


def bits(names: str) -> int:
    """The set of the concepts named in `names`, separated by spaces, as one integer.

    Raises:
        KeyError: a name is not a concept.
    """
    total = 0
    for name in names.split():
        if name not in BIT:
            raise KeyError(f"{name!r} is not a concept; see solutions.smallworld.concepts.CONCEPTS")
        total |= BIT[name]
    return total


DOMAIN_CONCEPTS = tuple(c.name for c in CONCEPTS if c.group == "domain")
SENSE_CONCEPTS = tuple(c.name for c in CONCEPTS if c.group == "sense")
