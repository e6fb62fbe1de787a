"""The terms of a query, one function each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from solutions.analysis.index.read import SparseRows
from solutions.analysis.search.examples import ALPHA, Examples
from solutions.analysis.search.latents import Density, Like, Promotes, Suppresses, Text, With
from solutions.analysis.search.places import Concept, Phrase, Regex, Token
from solutions.analysis.search.queries import Query
from solutions.analysis.search.regexes import Bounded
from solutions.errors import InputError, check_text, whole_number

if TYPE_CHECKING:
    from sae_lens import SAE
    from transformer_lens.model_bridge import TransformerBridge

    from solutions.analysis.search.session import Reader
    from solutions.targets import Target


def by_text(text: str | int | Tensor | SparseRows, words: Sequence[str] | None = None,
            least: float | None = None) -> Query:
    """Latents that are active in a text, the most surprising first.

    Surprise is `FeatureIndex.top_of_text`'s: the strongest activation as a share of the latent's maximum, times -log2
    of the latent's density. The evidence says on how many tokens of the index the latent is as strong as that.

    Args:
        text: a document's number; latent activations [tokens, latents] (`encode(sae, acts)`, BOS left out); or a text,
            which `search` needs a `read` for.
        words: the text's tokens, for the evidence, when activations are given.
        least: bits of surprise that a latent must have; by default it is enough to be active.

    Returns:
        A query, to be combined with others and given to `search`.

    Raises:
        InputError: the text is empty.
    """
    number = whole_number(text)
    if number is None and not isinstance(text, Tensor | SparseRows):
        text = check_text(text)
    return Text(text if number is None else number, words, least=least)


def by_token(token: str, least: float | None = None) -> Query:
    """Latents that tell where a token stands, by F1.

    Args:
        token: " Paris" is that token; "Paris", without the space, is the word at the start of a text or after
            a space.
        least: the F1 from which on a latent matches (0.1).

    Returns:
        A query, to be combined with others and given to `search`.

    Raises:
        InputError: the token is empty.

    Example:
        >>> latent in search(index, by_token(" Sunday") & by_density(high=0.01)).latents
        True
    """
    return Token(check_word(token), least=least)


def by_regex(pattern: str, running: bool = False, least: float | None = None) -> Query:
    """Latents that tell where a regular expression fits, by F1.

    Args:
        pattern: an expression of the `regex` package; it may not take longer than a second.
        running: False looks at the tokens of the vocabulary, each for itself. True looks at the running text, document
            by document, and at the token on which a match ends: a model that reads from left to right cannot know
            earlier. About 250,000 characters are read, in evenly spaced documents.
        least: the F1 from which on a latent matches (0.1).

    Returns:
        A query, to be combined with others and given to `search`.

    Raises:
        InputError: a pattern that cannot be read.
    """
    Bounded(pattern)  # a mistake in it shows here
    return (Phrase if running else Regex)(pattern, least=least)


def by_concept(name: str, least: float | None = None) -> Query:
    """Latents that follow a labelled concept, by F1, beside the F1 of looking the token up.

    `search` needs a `ConceptTable` or labels.

    Args:
        name: the concept.
        least: the F1 from which on a latent matches (0.1).

    Returns:
        A query, to be combined with others and given to `search`.

    Raises:
        InputError: the name is empty.

    Example:
        >>> search(index, by_concept("weekday"), k=1, concepts=concepts).latents == [latent]
        True
    """
    return Concept(check_text(name, "concept"), least=least)


def by_examples(places: Any, against: Any = None, q: float = ALPHA) -> Query:
    """Latents that are active more often on some places than on others, by the difference of the two shares.

    Args:
        places: places of the index, as numbers [m] or as a mask [n_tokens] (a predicate's `on(index)`, say).
        against: the places to compare with; by default the rest of the text.
        q: the share of false discoveries that is accepted among the latents that match (Benjamini and Hochberg 1995).
            The tests take places for independent. Those of one document are not: give few places a document.

    Returns:
        A query, to be combined with others and given to `search`.

    Raises:
        InputError: `q` is no share above 0.
    """
    if not 0 < q <= 1:
        raise InputError(f"q: expected a share above 0 and up to 1, got {q}.")
    return Examples(places, against, least=None if q == ALPHA else q)


def similar_to(latent: int, by: str = "direction", least: float | None = None) -> Query:
    """Latents that resemble another one.

    Args:
        latent: its number.
        by: "direction" goes by the cosine of the decoder directions (the 16 nearest are known), "activity" by
            the tokens they share (Jaccard index; 0.05 is needed to match).
        least: another bar.

    Returns:
        A query, to be combined with others and given to `search`.

    Raises:
        InputError: it is no number, or `by` is neither of the two.
    """
    kinds = {"direction": Like, "activity": With}
    if by not in kinds:
        raise InputError(f"by: expected 'direction' or 'activity', got {by!r}.")
    number = whole_number(latent)
    if number is None:
        raise InputError(f"latent: expected a whole number, got {latent!r}.")
    return kinds[by](number, least=least)


def promotes(token: str, least: float | None = None) -> Query:
    """Latents whose decoder direction raises the logit of a token, strongest first.

    Args:
        token: as in `by_token`; it has to be among the 16 that a latent raises most.
        least: logits per unit of activation.

    Returns:
        A query, to be combined with others and given to `search`.

    Raises:
        InputError: the token is empty.
    """
    return Promotes(check_word(token), least=least)


def suppresses(token: str, least: float | None = None) -> Query:
    """Latents whose decoder direction lowers the logit of a token, strongest first; as `promotes`.

    Args:
        token: as in `by_token`; it has to be among the 16 that a latent lowers most.
        least: logits per unit of activation.

    Returns:
        A query, to be combined with others and given to `search`.

    Raises:
        InputError: the token is empty.
    """
    return Suppresses(check_word(token), least=least)


def check_word(token: Any) -> str:
    """A token's text, white space allowed."""
    if not isinstance(token, str) or not token:
        raise InputError(f"token: expected the text of a token, got {token!r}.")
    return token


def by_density(low: float = 0.0, high: float = 1.0) -> Query:
    """Latents that are active on a share of the tokens from `low` to `high`. It filters and does not rank.

    Args:
        low: the smallest share.
        high: the largest.

    Returns:
        A query, to be combined with others and given to `search`.

    Raises:
        InputError: shares that are not 0 <= low <= high <= 1.
    """
    if not 0 <= low <= high <= 1:
        raise InputError(f"density: expected shares 0 <= low <= high <= 1, got {low} and {high}.")
    return Density(float(low), float(high))


def text_reader(model: TransformerBridge, sae: SAE, target: Target) -> Reader:
    """What `search` reads typed texts with.

    A text longer than the context is cut.

    Args:
        model: a loaded model.
        sae: the SAE.
        target: what is being studied.

    Returns:
        A function from a text to its tokens (BOS left out) and latent activations [tokens, latents].

    Example:
        >>> read = text_reader(model, sae, target)
        >>> tokens, activations = read("Paris is in France.")
        >>> tokens, activations.shape
        (['Paris', ' is', ' in', ' France', '.'], torch.Size([5, 1024]))
    """
    from solutions.data import str_tokens, tokenize
    from solutions.models import extract
    from solutions.sae import encode

    def read(text: str) -> tuple[list[str], Tensor]:
        context = min(target.context_size, int(model.cfg.n_ctx))
        tokens, first = tokenize(model, text, context, target.prepend_bos), int(target.prepend_bos)
        acts = extract(model, tokens, target.hook)[target.hook][0, first:]
        return str_tokens(model, tokens.ids[0])[first:], encode(sae, acts).detach().cpu()

    return read
