"""What asking costs: estimated before anything is sent, counted while it is spent, and never more than allowed."""

from __future__ import annotations

from typing import NamedTuple

from solutions.errors import CourseError, InputError

#: Characters to a token, for what is likely; for what is possible a token is a byte (as in byte-level BPE).
CHARACTERS = 3.5
#: Tokens that a server may put around each message.
AROUND = 16


class BudgetError(CourseError, ValueError):
    """Asking would cost more than was allowed, so it was not done."""


class Prices(NamedTuple):
    """What a model costs, in dollars for a million tokens. Look it up where you have your key from."""

    input: float   #: for what it reads
    output: float  #: for what it writes

    def of(self, n_input: float, n_output: float) -> float:
        """Dollars for so many tokens.

        Args:
            n_input: tokens read.
            n_output: tokens written.
        """
        return (self.input * n_input + self.output * n_output) / 1e6


#: A server of your own.
FREE = Prices(0.0, 0.0)


def check_prices(prices: object) -> Prices:
    """Return `prices` if it is a pair of prices.

    Args:
        prices: what the caller was given.

    Returns:
        The prices.

    Raises:
        InputError: it is something else, or a price is below zero or not finite.
    """
    numbers = tuple(prices) if isinstance(prices, tuple | list) else ()
    if len(numbers) != 2 or not all(isinstance(p, int | float) and 0 <= p < float("inf") for p in numbers):
        raise InputError(f"prices: expected Prices(input, output) in dollars for a million tokens, got {prices!r:.80}.")
    return Prices(*map(float, numbers))


class Estimate(NamedTuple):
    """What a number of requests will cost, before they are sent."""

    n_prompts: int       #: requests in all
    n_cached: int        #: of these, how many have been answered before and cost nothing
    input_tokens: int    #: what is likely to be read
    output_tokens: int   #: what is written if every answer is as long as it may be
    dollars: float       #: the likely cost of these
    at_most: float       #: the cost if every byte were a token, without repetitions of requests

    def __str__(self) -> str:
        new = self.n_prompts - self.n_cached
        cost = f"about ${self.dollars:.4f}, at most ${self.at_most:.4f}" if self.at_most else "free of charge"
        return (f"{new} requests to send, {self.n_cached} of {self.n_prompts} already answered; about "
                f"{self.input_tokens:,} tokens to read and up to {self.output_tokens:,} to write: {cost}")


def likely_tokens(text: str) -> int:
    """About how many tokens a text has.

    Args:
        text: any text.

    Returns:
        The number.
    """
    return int(len(text) / CHARACTERS) + AROUND


def possible_tokens(text: str) -> int:
    """How many tokens a text has at most.

    Args:
        text: any text.

    Returns:
        The number.
    """
    return len(text.encode()) + AROUND
