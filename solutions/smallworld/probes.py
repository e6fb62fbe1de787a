"""What the language model knows, asked with prompts whose answer is certain.

A probe is a prompt, the answers that count as right, and foils: wrong answers of the same kind.
Two shares are measured on a set of probes:

* ``top1``: a right answer is the most probable continuation out of the whole vocabulary;
* ``ahead``: a right answer is more probable than every foil.

``ahead`` asks for the knowledge alone; ``top1`` also asks that the prompt calls for the answer just there.
Sets named ``….unseen`` use phrasings that the corpus never generates, so rote memory of a sentence does
not help; those named ``….far`` also use words and turns that are foreign to it. `tests/test_quality.py` searches
generated text for both.
"""
import random
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch

from . import lexicon
from .lexicon import ANIMALS, CITIES, COUNTRIES, FOODS_PLURAL, LANDMARKS, NAMES_F, NAMES_M, OBJECTS, PLACES

LISTED = (*OBJECTS, *PLACES, *FOODS_PLURAL, *lexicon.PROFESSIONS, *lexicon.COLOURS)


class Probe(NamedTuple):
    """One question. Answers and foils are continuations, leading space included."""

    prompt: str
    answers: tuple[str, ...]
    foils: tuple[str, ...]


class Result(NamedTuple):
    """Shares of `n` probes answered right, from 0 to 1; `share` is the headline one of the two."""

    n: int
    top1: float
    ahead: float
    share: float


# ------------------------------------------------------------------ phrasings
# {x} is the thing asked about, with its article when it has one.

SEEN = {
    "landmark_city": ("{x} is in", "{x} is located in"),
    "landmark_country": ("{x} is a symbol of",),
    "city_language": ("The people of {x} speak",),
    "capital": ("The capital city of {x} is",),
    "agreement": ("The {a} near the {b}",),
    "pronoun": ("{x} looked for the key, but",),
    "indirect_object": ("When {a} and {b} went to the {place}, {s} gave a {thing} to",),
}

# New sentences made of words the corpus uses, and of turns it knows.
UNSEEN = {
    "landmark_city": ("We saw {x} when we were in", "The guide told us that {x} is in", "She went to see {x} in"),
    "landmark_country": ("Many people travel to see {x} in the country of", "{x} is famous, and it is a symbol of"),
    "city_language": ("My friends live in {x}, and they speak", "The teacher in {x} spoke"),
    "capital": ("She knew that the capital of {x} is", "We went to {x} and saw the capital,"),
    "agreement": ("She said that the {a} near the {b}", "In the park, the {a} next to the {b}"),
    "pronoun": ("After {x} lost the key,", "{x} found a book when"),
    "indirect_object": (
        "At the {place}, {a} and {b} saw a {thing}. Later {s} gave the {thing} to",
        "Only {a} and {b} were still in the {place} when {s} handed the {thing} to",
    ),
}

# Sentences of a kind that the corpus does not have, with words that it never uses.
FAR = {
    "landmark_city": (
        "My friends and I took a photo of {x} in",
        "We walked slowly around {x} in the middle of",
        "If you want to see {x}, you must go to",
    ),
    "landmark_country": ("Everyone who sees {x} thinks of", "A picture of {x} hangs in every school in"),
    "city_language": ("A child who grows up in {x} usually speaks", "The old woman from {x} only spoke"),
    "capital": ("The king of {x} lived in the capital,", "I sent a letter to the capital of {x}, to"),
    "agreement": ("I think that the {a} under the {b}", "You can see that the {a} across the river from the {b}"),
    "pronoun": ("As soon as {x} came home,", "Nobody believed {x} when"),
    "indirect_object": ("Dear {b}, this is {a}: as promised, {s} mailed the {thing} to",
                        "The judge asked why {a} and {b} quarrelled. It seems {s} once lied to"),
}

# ------------------------------------------------------------------ the sets

def facts(phrasings: dict[str, Sequence[str]]) -> dict[str, list[Probe]]:
    """Landmark → city, landmark → country, city → language, country → capital; foils: all others of the kind."""
    city_of = {_named(landmark): landmark.city for landmark in LANDMARKS}
    tables = {
        "landmark_city": city_of,
        "landmark_country": {landmark: CITIES[city] for landmark, city in city_of.items()},
        "city_language": {city: COUNTRIES[country].language for city, country in CITIES.items()},
        "capital": {name: country.capital for name, country in COUNTRIES.items()},
    }
    return {kind: [_fact(phrase, thing, answer, table.values()) for phrase in phrasings[kind]
                   for thing, answer in table.items()] for kind, table in tables.items()}


def _named(landmark: lexicon.Landmark) -> str:
    """The landmark's name inside a sentence, article included."""
    return landmark.name if landmark.name in lexicon.NO_ARTICLE else f"the {landmark.name}"


def _fact(phrase: str, thing: str, answer: str, kind: Iterable[str]) -> Probe:
    prompt = phrase.format(x=thing)
    foils = tuple(f" {other}" for other in dict.fromkeys(kind) if other != answer)
    return Probe(prompt[0].upper() + prompt[1:], (f" {answer}",), foils)


def agreement(phrasings: Sequence[str], rng: random.Random, n: int = 60) -> list[Probe]:
    """The verb agrees with the subject although a noun of the other number stands nearer."""
    nouns = [(singular, animal.plural) for singular, animal in ANIMALS.items() if singular != animal.plural]
    probes = []
    for i in range(n):
        (singular, _), (_, plural) = rng.sample(nouns, 2)
        one, many = (" is", " was"), (" are", " were")
        a, b, right, wrong = ((singular, plural, one, many), (plural, singular, many, one))[i % 2]
        probes.append(Probe(rng.choice(phrasings).format(a=a, b=b), right, wrong))
    return probes


def pronouns(phrasings: Sequence[str]) -> list[Probe]:
    """A name is taken up again by the pronoun of its gender."""
    people = [(name, " she", " he") for name in NAMES_F] + [(name, " he", " she") for name in NAMES_M]
    return [Probe(phrase.format(x=name), (right,), (wrong,))
            for phrase in phrasings for name, right, wrong in people]


def indirect_objects(phrasings: Sequence[str], rng: random.Random, n: int = 100) -> list[Probe]:
    """Two people, one gives: the other one receives (Wang et al. 2022, arXiv 2211.00593)."""
    probes = []
    for i in range(n):
        a, b = rng.sample([*NAMES_F, *NAMES_M], 2)
        giver, receiver = ((a, b), (b, a))[i % 2]
        place, thing = rng.choice(PLACES), rng.choice(OBJECTS)
        prompt = rng.choice(phrasings).format(a=a, b=b, s=giver, place=place, thing=thing)
        probes.append(Probe(prompt, (f" {receiver}",), (f" {giver}",)))
    return probes


def list_copying(rng: random.Random, n: int = 80) -> list[Probe]:
    """A list of five words is said again; the next word of it is asked for."""
    probes = []
    for _ in range(n):
        words = rng.sample(LISTED, 5)
        said = rng.randint(1, 4)
        prompt = f"List: {', '.join(words)}.\nAgain: {', '.join(words[:said])},"
        probes.append(_copied(prompt, words, words[said:said + 1]))
    return probes


def recipe_copying(rng: random.Random, n: int = 80) -> list[Probe]:
    """The steps of a recipe name its ingredients one after the other."""
    probes = []
    for i in range(n):
        foods = rng.sample(FOODS_PLURAL, 3)
        amounts = ", ".join(f"{rng.randint(2, 9)} {food}" for food in foods)
        steps = (f"Wash the {foods[0]} carefully. ", f"Then add the {foods[1]}. ")[: i % 3]
        prompt = f"Recipe for milk soup.\nIngredients: {amounts}, salt.\n{''.join(steps)}Chop the"
        probes.append(_copied(prompt, FOODS_PLURAL, foods[len(steps):]))
    return probes


def _copied(prompt: str, all_words: Sequence[str], right: Sequence[str]) -> Probe:
    return Probe(prompt, tuple(f" {w}" for w in right), tuple(f" {w}" for w in all_words if w not in right))


def brackets(rng: random.Random, n: int = 60) -> list[Probe]:
    """What was opened is closed by its own kind. Only the first character of the next token counts."""
    forms = (("def add(x, {x}", ")"), ("print({x}", ")"), ("items = [1, 2, 3", "]"), ("{x} = len({y}", ")"),
             ("data = [{n}, 12", "]"), ("print(sum({x}", ")"), ('items = ["hello", {n}', "]"), ('print("hello', '"'),
             ("The tower has {n} old doors (and a large garden", ")"), ('{x} = "error', '"'))
    probes = []
    for i in range(n):
        form, right = forms[i % len(forms)]
        x, y = rng.sample(("total", "value", "count", "items", "result", "price"), 2)
        prompt = form.format(x=x, y=y, n=rng.randint(2, 50))
        probes.append(Probe(prompt, (right,), tuple(mark for mark in ')]"' if mark != right)))
    return probes


# The headline of these sets is top1. Elsewhere other continuations are as good ("… is in the city of"), and `ahead`
# counts.
ANSWER_COMES_NOW = {"landmark_country.seen", "city_language.seen", "capital.seen",
                    "indirect_object.seen", "list_copying", "recipe_copying"}
BY_FIRST_CHARACTER = {"brackets"}  # answers are the first characters of a token, not words


def probe_sets(seed: int = 0) -> dict[str, list[Probe]]:
    """All sets of probes by name; `seed` draws the sampled ones."""
    sets: dict[str, list[Probe]] = {}
    for suffix, phrasings in (("seen", SEEN), ("unseen", UNSEEN), ("far", FAR)):
        made: dict[str, list[Probe]] = facts(phrasings)
        made["agreement"] = agreement(phrasings["agreement"], random.Random(seed))
        made["pronoun"] = pronouns(phrasings["pronoun"])
        made["indirect_object"] = indirect_objects(phrasings["indirect_object"], random.Random(seed))
        sets |= {f"{name}.{suffix}": probes for name, probes in made.items()}
    for copying in (list_copying, recipe_copying, brackets):
        sets[copying.__name__] = copying(random.Random(seed))
    return sets


# ------------------------------------------------------------------ scoring

@torch.no_grad()
def score(model, tokenizer, probes: Sequence[Probe], by_first_character: bool = False,
          batch: int = 128) -> tuple[float, float]:
    """(top1, ahead) of a Hugging Face causal language model on `probes`, each asked after one BOS token.

    A word of several tokens is judged by its first; a foil that begins with the same token as a right answer is
    passed over. `by_first_character`: an answer stands for every token that begins with it.
    """
    if not probes:
        raise ValueError("score needs at least one probe; found an empty list.")
    ids_of = _tokens_starting_with(tokenizer) if by_first_character else _first_token(tokenizer)
    rows = [[tokenizer.bos_token_id, *tokenizer.encode(p.prompt, add_special_tokens=False)] for p in probes]
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))  # rows of one length share a batch
    top1 = ahead = 0
    for start in range(0, len(order), batch):
        chosen = order[start:start + batch]
        for i, logits in zip(chosen, _last_logits(model, [rows[i] for i in chosen]), strict=True):
            right = set().union(*map(ids_of, probes[i].answers))
            wrong = set().union(*map(ids_of, probes[i].foils)) - right
            top1 += int(logits.argmax()) in right
            ahead += bool(logits[sorted(right)].max() > logits[sorted(wrong)].max())
    return top1 / len(probes), ahead / len(probes)


def _first_token(tokenizer) -> Callable[[str], set[int]]:
    return lambda word: {tokenizer.encode(word, add_special_tokens=False)[0]}


def _tokens_starting_with(tokenizer) -> Callable[[str], set[int]]:
    texts = [tokenizer.decode([i]) for i in range(len(tokenizer))]
    return lambda start: {i for i, text in enumerate(texts) if text.startswith(start)}


def _last_logits(model, rows: list[list[int]]) -> torch.Tensor:
    """Logits [row, vocab] after each row's last token. Attention is causal: padding on the right is unseen."""
    ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long, device=model.device)
    for i, row in enumerate(rows):
        ids[i, :len(row)] = torch.tensor(row)
    last = torch.tensor([len(row) - 1 for row in rows], device=model.device)
    return model(ids, use_cache=False).logits[torch.arange(len(rows), device=model.device), last].float().cpu()


def ask(model, tokenizer, only: Iterable[str] | None = None, limit: int | None = None,
        seed: int = 0) -> dict[str, Result]:
    """Results of all sets of probes, or of `only` some; of each at most `limit` probes, drawn with `seed`."""
    sets = probe_sets(seed)
    was_training = model.training
    model.eval()
    results = {}
    for name in sets if only is None else only:
        probes = sets[name]
        if limit is not None and len(probes) > limit:
            probes = random.Random(seed).sample(probes, limit)
        top1, ahead = score(model, tokenizer, probes, by_first_character=name in BY_FIRST_CHARACTER)
        results[name] = Result(len(probes), top1, ahead, top1 if name in ANSWER_COMES_NOW else ahead)
    model.train(was_training)
    return results


def probe_table(model, tokenizer, limit: int | None = 64) -> dict[str, float]:
    """The headline share of each set, quickly: cheap enough to steer a training run by."""
    return {name: round(result.share, 3) for name, result in ask(model, tokenizer, limit=limit).items()}
