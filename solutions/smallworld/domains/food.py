"""Meals and recipes. A recipe lists its ingredients and then uses them, mostly in the order listed."""

from random import Random

from .. import lexicon as lex
from ..concepts import BIT
from ..grammar import CUE, SURE, Document, capitalised, phrase
from ..phrases import colour, digits, in_words, nationality, noun
from ..phrases import food as food_phrase

_STEPS = ["Chop the {i}.", "Add the {i} and stir.", "Wash the {i} carefully.", "Cook the {i} for {n} minutes.",
          "Put the {i} in the {pot}.", "Then add the {i}.", "Cut the {i} into small pieces.", "Mix the {i} well.",
          "Fry the {i} in oil.", "Heat the {i} slowly."]
_ENDINGS = ["Serve the {dish} hot.", "Serve the {dish} with {x}.",
            "Do <negation_scope>not add the {x}</negation_scope> too early.", "The {dish} is ready in {n} minutes."]
_MEALS = [
    "We ate {a} and {b} with {c}.", "The {ad} restaurant serves {a} with {b}.", "{A} and {b} are cheap at the market.",
    "I would like some {a}, please.", "She drank a cup of {drink} and ate {b}.", "The {roast} was roasted with {a} and {b}.",
    "He <negation_scope>does not eat {a}</negation_scope>, but he likes {b}.", "Fresh {a} taste better in the {spring}.",
    "The {ad} cook put {a} on the {b}.", "The {b} comes from the farm, and the water comes from a {spring_water}.",
    "He lit the stove with a {match} and cooked the {a}.", "Add {n} {a} to the {b}.", "The {a} were {col}.",
    "The {b} was too {light} for dinner.", "She peeled the {orange_fruit} and ate it with {b}.",
    "<question>Do you want {a} with your {b}?</question>", "They bought {n} {a} and some {b} for dinner.",
]


def _recipe(doc: Document, rng: Random) -> None:
    dish = rng.choice(lex.DISHES)
    counted = rng.sample(lex.FOODS_PLURAL, rng.randint(2, 4))
    loose = rng.sample(lex.FOODS[2:], rng.randint(1, 2))
    doc.say(rng.choice(("Recipe for {x} {dish}.\nIngredients: ", "How to make {x} {dish}.\nYou need: ",
                        "{X} {dish}\nIngredients: ")),
            x=food_phrase(flavour := rng.choice(lex.FOODS)), X=capitalised(food_phrase(flavour)), dish=noun(dish))
    for i, name in enumerate(counted):
        doc.emit((" " if i else "") + str(rng.randint(2, 9)), BIT["number_digit"])
        doc.emit(" " + name, food_phrase(name)[0][1] | BIT["list_item"])
        doc.emit(",")
    for i, name in enumerate(loose):
        doc.emit(" " + name, food_phrase(name)[0][1] | BIT["list_item"])
        doc.emit("," if i < len(loose) - 1 else ".", 0 if i < len(loose) - 1 else BIT["sent_end"])
    doc.emit("\n")
    order = counted + loose if rng.random() < 0.5 else counted
    for i, name in enumerate(order):
        if i:
            doc.say(" ")
        doc.say(rng.choice(_STEPS), i=((name, food_phrase(name)[0][1] | BIT["ingredient_again"]),),
                n=digits(rng.randint(2, 60)), pot=noun(rng.choice(("pan", "pot", "bowl", "oven"))))
    doc.say(" ")
    doc.say(rng.choice(_ENDINGS), dish=noun(dish), n=digits(rng.randint(5, 90)),
            x=((loose[0], food_phrase(loose[0])[0][1] | BIT["ingredient_again"]),))


def _meal(doc: Document, rng: Random) -> None:
    sense = rng.choice(("coffee", "tea", "Java", "Java"))
    roast = rng.choice(("turkey", "chicken", "duck"))
    doc.say(
        rng.choice(_MEALS), a=food_phrase(a := rng.choice(lex.FOODS_PLURAL)), A=capitalised(food_phrase(a)),
        b=food_phrase(rng.choice(lex.FOODS)), c=food_phrase(rng.choice(lex.FOODS)),
        ad=nationality(rng.choice(list(lex.COUNTRIES.values())).nationality), n=in_words(rng.randint(2, 12)),
        drink=phrase(sense, "noun food" + (" java_coffee" if sense == "Java" else ""), SURE),
        roast=phrase(roast, "noun food" if roast == "chicken" else "noun animal", CUE["d_food"]),
        spring=phrase("spring", "noun spring_season", SURE), spring_water=phrase("spring", "noun spring_water", SURE),
        match=phrase("match", "noun match_fire", SURE), light=phrase("light", "adj light_weight", SURE),
        orange_fruit=phrase("orange", "noun food orange_fruit", SURE), col=colour(rng.choice(lex.COLOURS)))


def write(doc: Document, rng: Random) -> None:
    """A recipe, or a few sentences about meals."""
    doc.about("d_food")
    if rng.random() < 0.55:
        _recipe(doc, rng)
        return
    for i in range(rng.randint(2, 4)):
        if i:
            doc.say(" ")
        _meal(doc, rng)
