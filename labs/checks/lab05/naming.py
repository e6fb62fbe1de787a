"""Exercise 5.14: ten latents to be named. What counts is the score on other texts, never the wording."""

from __future__ import annotations

from collections.abc import Callable

from labs.checks.exercise import Exercise, Property, Wrong
from labs.checks.lab05.gallery import LATENTS, Scored, score
from solutions.analysis import Predicate, concept, position, previous, token, token_matches

MONTHS = "January February March April May June July August September October November December".split()
CITIES = (
    "Paris Rome Berlin London Istanbul Moscow Cairo Amman Athens Vienna Venice Madrid Shanghai Tokyo Ankara "
    "Sydney Kyoto York Lisbon Agra Granada Osaka Rabat Cologne Delhi Stockholm Seoul Toronto Bangkok "
    "Brussels Florence Budapest Chicago Boston Nairobi Ottawa Canberra Edinburgh Washington"
).split()
LANGUAGES = (
    "English Italian Arabic Turkish Spanish German Portuguese Hindi Greek Russian Japanese Polish Norwegian "
    "Korean Danish Thai Chinese"
).split()
FRENCH = (
    "mon ma son sa le une un ce cette petit petite grande Je Il Elle est dans Mon Ma Son Sa Ce Une Cette"
).split()
FOODS = (
    "grapes tomatoes bananas nuts cherries berries peppers lemons dates onions potatoes olives mushrooms "
    "eggs carrots oranges beans apples"
).split()
NAMES = (
    "Jane Henry Diana Sophie Grace Mark Lily Sarah Simon Ellen Samuel Mary Clara Daniel Thomas Louis James "
    "Helen Julia Susan Chloe Marie Anna Robert Felix Emma Jack Peter Tom Ruth Irene Rosa Lucy Victor Max "
    "Adam Martin"
).split()


def again(words: list[str], within: int) -> Predicate:
    """One of the words, when the same one stands in the tokens before it."""
    found = [token(word) & previous(token(word), within=within) for word in words]
    both = found[0]
    for one in found[1:]:
        both = both | one
    return both


def name_feature(number: int) -> Predicate:
    return (
        token(*MONTHS),
        token("is", "est"),
        token("shall", "would", "may"),
        token("not", "may", "into"),
        token(*CITIES),
        token(*LANGUAGES),
        token("="),
        previous(token(*FRENCH), within=4) | token(*FRENCH),
        again(FOODS, 60),
        again(NAMES, 30),
    )[number]


def draw_number(generator) -> dict:
    """The ten features one after the other."""
    return {"number": generator.initial_seed() % len(LATENTS)}


def try_it(answer: Callable, args: dict):
    """The score of a hypothesis; what is no predicate comes back as it is."""
    return _scored(args["number"], answer(args["number"]))


def _scored(number: int, hypothesis):
    if isinstance(hypothesis, Predicate):
        return score(number, hypothesis)
    return None if isinstance(hypothesis, Scored) else hypothesis


def _only_for(number: int, other: Predicate):
    return lambda n: other if n == number else name_feature(n)


def _can_be_scored(answer, args, output: Scored) -> str | None:
    return f"Feature {output.number}: {output.problem}" if output.problem else None


def _reaches_the_bar(answer, args, output: Scored) -> str | None:
    if output.f1 >= output.bar:
        return None
    return (
        f'For feature {output.number} yours, "{output.hypothesis:.120}", reaches an F1 of {output.f1:.2f}, and '
        f"{output.bar:.2f} is asked for. It is true on {output.precision:.0%} of the tokens on which the feature is "
        f"active, and the feature is active on {output.recall:.0%} of those on which it is true. What speaks against "
        f"it: {output.against}."
    )


NAMING = Exercise(
    number="5.14",
    name="name_feature",
    returns="Predicate",
    draw=draw_number,
    reference=name_feature,
    run=try_it,
    unique=False,
    cases=len(LATENTS),
    wrong=(
        Wrong(
            "labels asked",
            _only_for(4, concept("city")),
            "You asked the labels (`concept` or `kind`). They are the answers: say what a reader can see in "
            "the text, with `token`, `token_matches`, `text_matches`, `previous`, `next_to`, `in_document`, "
            "`position`.",
            recognise=lambda answer, args, output: output.needs_labels,
        ),
        Wrong(
            "true nowhere",
            _only_for(0, token("July") & token("June")),
            "One of your hypotheses is true on no token at all. A token cannot be two words at once: `|` "
            "says or. And a token has a space before it more often than not; `token('July')` takes both.",
            recognise=lambda answer, args, output: output.n_true == 0,
        ),
        Wrong(
            "true nearly everywhere",
            _only_for(7, position(first=3) | position(beyond=3)),
            "One of your hypotheses is true on more than half of all tokens. Of course it fits every "
            "example. No feature here is active on even a tenth of the text.",
            recognise=lambda answer, args, output: output.n_true > output.n_tokens / 2,
        ),
        Wrong(
            "one for all",
            lambda number: token("the"),
            "You give the same hypothesis for several features. `number` says which one is asked for: 0 to "
            "9.",
            recognise=lambda answer, args, output: str(answer(0)) == str(answer(5)),
        ),
        Wrong(
            "the first example only",
            _only_for(0, token("July")),
            "One of your hypotheses is right where it is true, and true on less than a tenth of the "
            "feature's tokens. It fits one example. Read the others: what do they share?",
            recognise=lambda answer, args, output: output.precision < 0.1 and output.recall > 0.5,
        ),
        Wrong(
            "far too broad",
            _only_for(0, token_matches(r"^ ?[A-Z]")),
            "One of your hypotheses fits most of the feature's tokens, and on more than nine tenths of the "
            "tokens on which it is true the feature is silent. The page does not show those: narrow it down.",
            recognise=lambda answer, args, output: output.precision > 0.35 and output.recall < 0.1,
        ),
    ),
    properties=(
        Property("A hypothesis has to fit the model's tokens.", _can_be_scored),
        Property("A hypothesis has to tell where the feature is active on other texts.", _reaches_the_bar),
    ),
    look_at="`token('a', 'b')` takes several words; `previous(token('x'), within=5)` looks back; combine "
    "with `&`, `|`, `~`. A word that is no token of the model is refused.",
    saw="ten hypotheses that were held against text you had not read. Some beat the best set of words: "
    "there you have said something about the context.",
)

EXERCISES = (NAMING,)
