"""Contracts and judgments: obligations, parties, references to sections."""

from random import Random

from .. import lexicon as lex
from ..concepts import bits
from ..grammar import CUE, SURE, Document, Phrase, phrase
from ..phrases import country, digits, month, noun, plural, verb, year

_ACTIONS = "pay deliver return disclose transfer notify terminate sell inspect repair provide".split()
_THINGS = """goods property rent documents information agreement deposit services payment notice shares
loan""".split()
_SENTENCES = [
    "The {a} {shall} {v} the {o} to the {b} within {n} {days}.",
    "The {a} {shall} <negation_scope>not {v} the {o}</negation_scope> without the written consent of the {b}.",
    "Pursuant to {s}, the {b} {shall} {v} the {o}.", "The {a} {may} {v} the {o} under {s} of this {Agreement}.",
    "This {Agreement} is governed by the laws of {co}.",
    "If the {a} fails to {v} the {o}, the {b} {may} terminate this {Agreement}.",
    "The {court} held that the {a} was liable for the {o} under {s}.",
    "This {Agreement} is made on {day} {m} {y} between the {a} and the {b}.",
    "The {b} {shall} pay {sum} dollars to the {bank} of the {a} before the {date} of delivery.",
    "<negation_scope>Nothing in {s} {shall} limit the rights of the {b}</negation_scope>.",
    "The {a} (<in_paren>the \"<in_quote>First {Party}</in_quote>\"</in_paren>) and the {b} "
    "(<in_paren>the \"<in_quote>Second {Party}</in_quote>\"</in_paren>) agree as follows.",
    "Any dispute between the {a} and the {b} {shall} be settled by the {Court} of {co}.",
    "<negation_scope>Neither the {a} nor the {b} {shall} be liable</negation_scope> for the {o}.",
    "The {b}, who <rel_clause>received the {o} on {day} {m} {y}</rel_clause>, {shall} notify the {a}.",
    "The {a} {shall} {v} the {o} (<in_paren>as defined in {s}</in_paren>) to the {b}.",
    "The {a} {shall} put its {seal} on the {o} and {v} it.", "The {o} (<in_paren>see {s}</in_paren>) {shall} be returned.",
    "The {b} agrees to pay {sum} dollars for the {o}.", "The {a} <negation_scope>{may} not {v} the {o}</negation_scope>.",
    "As stated in {s}, the {a} is the owner of the {o}.",
]


def _section(rng: Random) -> Phrase:
    words = [("Section", bits("section_ref")), (" " + str(rng.randint(1, 30)), bits("section_ref number_digit"))]
    if rng.random() < 0.4:
        words += [("(", bits("section_ref")), (rng.choice("abcde"), bits("section_ref in_paren")),
                  (")", bits("section_ref"))]
    return tuple(words)


def write(doc: Document, rng: Random) -> None:
    """Two to five clauses about the same two parties."""
    doc.about("d_legal")
    a, b = rng.sample(lex.PARTIES, 2)
    cue = CUE["d_legal"]
    for i in range(rng.randint(2, 5)):
        if i:
            doc.say(" ")
        doc.say(
            rng.choice(_SENTENCES), a=noun(a, "party"), b=noun(b, "party"), s=_section(rng),
            v=verb(rng.choice(_ACTIONS)), o=noun(rng.choice(_THINGS)), n=digits(rng.randint(2, 90)),
            days=plural(rng.choice(("days", "months", "weeks", "years"))), shall=phrase("shall", "verb modal_shall"),
            may=phrase("may", "verb may_modal", SURE), co=country(rng.choice(list(lex.COUNTRIES))),
            day=digits(rng.randint(1, 28)), m=month(rng.choice(lex.MONTHS)), y=year(rng.randint(1990, 2024)),
            sum=digits(rng.randint(1, 90) * 100), court=phrase("court", "noun court_law", SURE),
            Court=phrase("Court", "noun court_law", SURE), bank=phrase("bank", "noun bank_money", SURE),
            date=phrase("date", "noun date_calendar", SURE), Agreement=phrase("Agreement", "noun", cue),
            Party=phrase("Party", "noun party"), seal=phrase("seal", "noun seal_legal"))
