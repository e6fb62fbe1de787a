"""The kinds of text of the embedded world: one module each, with a function `write(doc, rng)`."""

from . import animals, code, copying, food, french, geography, history, legal, review, sport, story

WRITERS = {
    "geography": geography.write, "french": french.write, "code": code.write, "legal": legal.write,
    "review": review.write, "history": history.write, "animals": animals.write, "food": food.write,
    "sport": sport.write, "story": story.write, "copying": copying.write,
}
