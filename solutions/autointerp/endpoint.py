"""Asking a language model behind an OpenAI-compatible endpoint, a hosted one or a server of your own.

The client is OpenAI's own library: it knows when to try again (429, 5xx, a time limit, a cut connection), how long to
wait (what the server asks for, or longer each time), and when to give up. Around it stand a price, a budget, a cache
and a count of everything that went wrong.

**The key** is read from the environment when the first request is made, and goes into that client and nowhere else. It
cannot be passed as an argument, where it would end up in a notebook. It is taken out of every message and every answer
before anybody sees them, in case a server repeats it.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pandas as pd

from solutions.autointerp.cache import Cache
from solutions.autointerp.money import (
    FREE,
    BudgetError,
    Estimate,
    Prices,
    check_prices,
    likely_tokens,
    possible_tokens,
)
from solutions.autointerp.prompts import Prompt
from solutions.errors import CourseError, InputError, NotAvailable, check_count, check_text, first_line

#: Where requests go when nothing else is said.
OPENAI = "https://api.openai.com/v1"
#: After so many requests in a row that failed for good, the rest is not tried.
PATIENCE = 3
#: What models say instead of an answer.
REFUSALS = ("i'm sorry", "i’m sorry", "sorry, ", "i can't", "i can’t", "i cannot", "i am unable", "i'm unable",
            "i won't", "as an ai")
#: What `Reply.status` can be.
STATUSES = ("ok", "refused", "cut off", "malformed", "failed")


class EndpointError(CourseError, OSError):
    """The endpoint does not answer, or does not accept us."""


class Reply(NamedTuple):
    """What came back for one request."""

    text: str          #: the answer; empty if there is none
    status: str        #: "ok", "refused", "cut off" (too long), "malformed" (no answer in it) or "failed" (none came)
    cached: bool       #: whether it had been asked before
    dollars: float     #: what it cost now


class Endpoint:
    """A language model that can be asked.

    Args:
        model: its name, as the endpoint calls it.
        base_url: where it is; by default what the variable `OPENAI_BASE_URL` says, else OpenAI.
        key_variable: the environment variable that holds the key. On this machine none is needed.
        prices: dollars for a million tokens. On this machine it is free; anywhere else they have to be given.
        cache: a folder for the answers. By default they are kept as long as this object lives.
        timeout: seconds to wait for an answer.
        retries: how often a request is tried again. The wait grows from half a second to eight, or is what the server
            asks for, up to two minutes.
        limit: what the endpoint calls the longest answer; newer models of OpenAI want "max_completion_tokens".
        options: anything else that goes into a request, and into the cache's key.

    Raises:
        InputError: an address or a price that cannot be, or one that would send the key where all can read it.

    Example:
        >>> endpoint = Endpoint("qwen3:8b", "http://localhost:11434/v1")
        >>> endpoint
        Endpoint('qwen3:8b' at http://localhost:11434/v1)
    """

    def __init__(
        self,
        model: str,
        base_url: str | None = None,
        *,
        key_variable: str = "OPENAI_API_KEY",
        prices: Prices | None = None,
        cache: str | os.PathLike[str] | None = None,
        timeout: float = 60.0,
        retries: int = 5,
        limit: str = "max_tokens",
        options: Mapping[str, Any] | None = None,
    ):
        self.model = check_text(model, "model")
        self.base_url = _checked_address(base_url or os.environ.get("OPENAI_BASE_URL") or OPENAI)
        self.is_local = _is_local(self.base_url)
        self.key_variable = check_text(key_variable, "key_variable")
        if prices is None and not self.is_local:
            raise InputError(f"{self.base_url} is not on this machine, so it may cost something. Say what: "
                             "prices=Prices(input, output), in dollars for a million tokens; FREE if it is free.")
        self.prices = FREE if prices is None else check_prices(prices)
        self.retries = check_count(retries, "retries", 0)
        self.cache = Cache(cache)
        self.timeout, self.limit = timeout, limit
        self.options = {"temperature": 0} if options is None else dict(options)
        self.spent = 0.0            #: dollars, by what the endpoint says it has read and written
        self.counts = Counter()     # what happened to the requests
        self._openai, self._last_error = None, ""

    def __repr__(self) -> str:
        return f"Endpoint({self.model!r} at {self.base_url})"

    def __getstate__(self) -> dict[str, Any]:
        """Without the client, which holds the key."""
        return {**self.__dict__, "_openai": None}

    def tally(self) -> pd.DataFrame:
        """What happened so far: what, and how often. Refusals, malformed answers and repetitions are among it."""
        return pd.DataFrame(sorted((+self.counts).items()), columns=["what", "times"])

    # ------------------------------------------------------------------------------------------- asking

    def estimate(self, prompts: Sequence[Prompt]) -> Estimate:
        """What it would cost to ask; nothing is sent.

        Args:
            prompts: the requests.
        """
        new = [p for p in prompts if self.cache.get(self._question(p)) is None]
        reads = sum(likely_tokens(p.system) + likely_tokens(p.user) for p in new)
        writes = sum(p.max_tokens for p in new)
        return Estimate(len(prompts), len(prompts) - len(new), reads, writes, self.prices.of(reads, writes),
                        sum(map(self._at_most, new)))

    def ask(self, prompts: Sequence[Prompt], budget: float | None = None, progress: bool = False) -> list[Reply]:
        """Ask one after the other. The cost is shown first.

        What has been answered before is not asked again: stopped at any moment, the same call goes on where it was.
        A request that fails for good is left for the next call; refusals and unreadable answers are kept, because
        they were answers.

        Args:
            prompts: the requests.
            budget: dollars that this call may spend. It has to be given where asking is not free, and cover the
                likely cost; and no request is sent that could go beyond it.
            progress: whether to show a bar.

        Raises:
            BudgetError: there is no budget, or it is too small. Nothing more was sent.
            EndpointError: the endpoint refuses the key, the model or the request, or does not answer.
            NotAvailable: there is no key, or the library is not installed.
        """
        from tqdm.auto import tqdm

        estimate = self.estimate(prompts)
        print(f"{self!r}: {estimate}.")
        self._allow(estimate, budget)
        replies, before, failed = [], self.spent, 0
        for prompt in tqdm(prompts, desc="asking", unit="request", disable=not progress):
            reply = self._known(prompt)
            if reply is None:
                tries = self._afford(prompt, budget, self.spent - before, f"{len(replies)} of {len(prompts)}")
                reply = self._send(prompt, tries)
                failed = failed + 1 if reply.status == "failed" else 0
                if failed == PATIENCE:
                    raise EndpointError(f"{self!r}: {PATIENCE} requests in a row failed, each tried "
                                        f"{self.retries + 1} times, so the rest was not tried. What was answered is "
                                        f"kept: run the same again to go on. The last one: {self._last_error}")
            self.counts[reply.status] += 1
            replies.append(reply)
        return replies

    def _allow(self, estimate: Estimate, budget: float | None) -> None:
        if not estimate.at_most:
            return
        if budget is None:
            raise BudgetError(f"Asking costs about ${estimate.dollars:.4f}. Nothing was sent. Say how much you allow: "
                              f"budget={estimate.at_most:.4f} is enough in any case.")
        if not isinstance(budget, int | float) or not 0 <= budget < float("inf"):
            raise InputError(f"budget: expected an amount in dollars, got {budget!r}.")
        if budget < estimate.dollars:
            raise BudgetError(f"Asking costs about ${estimate.dollars:.4f}, more than the budget of ${budget:.4f}. "
                              "Nothing was sent. Allow more, or ask about fewer latents.")

    def _afford(self, prompt: Prompt, budget: float | None, spent: float, answered: str) -> int:
        """How often a request may be tried: each time it may be charged, and all of it has to fit into the budget."""
        if budget is None or self.prices == FREE:
            return self.retries + 1
        tries = int((budget - spent) / self._at_most(prompt) + 1e-9)
        if tries < 1:
            raise BudgetError(f"The budget of ${budget:.4f} might not be enough for the next request: ${spent:.4f} are "
                              f"spent, {answered} requests answered. Those are kept: run the same again to go on.")
        return min(tries, self.retries + 1)

    def _at_most(self, prompt: Prompt) -> float:
        return self.prices.of(possible_tokens(prompt.system) + possible_tokens(prompt.user), prompt.max_tokens)

    def _question(self, prompt: Prompt) -> dict[str, Any]:
        return {"model": self.model, "base_url": self.base_url, "messages": prompt.messages(),
                self.limit: prompt.max_tokens, "options": self.options}

    def _known(self, prompt: Prompt) -> Reply | None:
        answer = self.cache.get(self._question(prompt))
        if answer is None:
            return None
        self.counts["from the cache"] += 1
        return Reply(answer["text"], answer["status"], True, 0.0)

    # ------------------------------------------------------------------------------------------ the wire

    def _send(self, prompt: Prompt, tries: int) -> Reply:
        """One request, tried as often as it takes and is allowed. What was answered is kept, what failed is not."""
        client, unanswered = self._client(), self.counts["no answer"]
        import openai  # here, because `_client` has the words for it when it is missing

        try:
            result = client.with_options(max_retries=tries - 1).chat.completions.create(
                model=self.model, messages=prompt.messages(), **{self.limit: prompt.max_tokens}, **self.options)
            answer = self._read(result)
        except (openai.APIConnectionError, openai.APIStatusError) as error:
            answer = self._failed(error)
        except (openai.OpenAIError, ValueError, TypeError) as error:  # a 200 without the JSON that belongs into it
            self.counts[f"unreadable: {type(error).__name__}"] += 1
            answer = {"text": "", "status": "malformed"}
        cost = self._cost(prompt, answer, self.counts["no answer"] - unanswered)
        self.spent += cost
        if answer.pop("keep", False):
            self.cache.put(self._question(prompt), answer)
        return Reply(answer["text"], answer["status"], False, cost)

    def _failed(self, error: Any) -> dict[str, Any]:
        """The library has tried often enough; or there is nothing that another try could mend, which is an error."""
        status = getattr(error, "status_code", None)
        if status is not None and status not in (408, 409, 429) and status < 500:
            raise self._refused(error) from None
        self._last_error = self._scrubbed(first_line(error))[:300]
        return {"text": "", "status": "failed"}

    def _cost(self, prompt: Prompt, answer: Mapping[str, Any], unanswered: int) -> float:
        """Dollars for a request. What the endpoint does not tell is taken for as much as it can be.

        Who gave no answer in time may have written one all the same, and charge for it.
        """
        dollars = unanswered * self._at_most(prompt)
        if "usage" in answer:
            return dollars + self.prices.of(*answer["usage"])
        return dollars + (0.0 if answer["status"] == "failed" else self._at_most(prompt))

    def _read(self, result: Any) -> dict[str, Any]:
        """What a result says. Servers that are only nearly compatible leave things out."""
        usage = getattr(result, "usage", None)
        numbers = [getattr(usage, name, None) for name in ("prompt_tokens", "completion_tokens")]
        answer: dict[str, Any] = {"usage": numbers} if all(isinstance(n, int) and n >= 0 for n in numbers) else {}
        try:
            choice = result.choices[0]
            text, refusal, why = choice.message.content, getattr(choice.message, "refusal", None), choice.finish_reason
        except (AttributeError, IndexError, TypeError):
            return {**answer, "text": "", "status": "malformed"}
        text = self._scrubbed(text) if isinstance(text, str) else ""
        if refusal or why == "content_filter":
            return {**answer, "text": self._scrubbed(str(refusal or text)), "status": "refused", "keep": True}
        if text.strip().lower().startswith(REFUSALS):
            return {**answer, "text": text, "status": "refused", "keep": True}
        if why == "length":
            return {**answer, "text": text, "status": "cut off", "keep": True}
        return {**answer, "text": text, "status": "ok" if text.strip() else "malformed", "keep": True}

    def _client(self) -> Any:
        """The library's client, made when it is first needed."""
        if self._openai is None:
            try:
                import openai
            except ImportError:
                raise NotAvailable("the package `openai` is not installed. Run `pip install openai`, or use the "
                                   "offline explainer, which needs nothing.") from None
            key = os.environ.get(self.key_variable, "").strip()
            if not key and not self.is_local:
                raise NotAvailable(f"there is no key: the environment variable {self.key_variable} is not set. Set it "
                                   "in the shell from which you start Python or Jupyter; never write it into a "
                                   "notebook.")
            hooks = {"request": [self._on_request], "response": [self._on_response]}
            http = openai.DefaultHttpxClient(event_hooks=hooks, trust_env=not self.is_local)
            self._openai = openai.OpenAI(api_key=key or "none", base_url=self.base_url, timeout=self.timeout,
                                         max_retries=self.retries, http_client=http)
        return self._openai

    def _on_request(self, request: Any) -> None:
        self.counts["requests sent"] += 1
        self.counts["no answer"] += 1  # until there is one

    def _on_response(self, response: Any) -> None:
        self.counts["no answer"] -= 1
        if response.status_code != 200:
            self.counts[f"status {response.status_code}"] += 1

    def _refused(self, error: Any) -> EndpointError:
        """The error for a request that no repetition will help."""
        what = {401: f"does not accept the key in {self.key_variable}", 403: "does not allow this",
                404: f"does not know the model {self.model!r}, or there is no such address"}
        said = what.get(error.status_code, f"refuses the request (status {error.status_code})")
        return EndpointError(f"{self!r} {said}. It says: {self._scrubbed(first_line(error))[:300]}")

    def _scrubbed(self, text: str) -> str:
        """The text without the key, should it be in it."""
        key = os.environ.get(self.key_variable, "").strip()
        held = getattr(self._openai, "api_key", "") or ""
        for secret in {key, held} - {"", "none"}:
            text = text.replace(secret, "[key]")
        return text


def _checked_address(base_url: str) -> str:
    """An address that can be shown and asked: with http or https, without a name, a password or a query."""
    parts = urlsplit(check_text(base_url, "base_url"))
    if parts.username or parts.password or parts.query:
        raise InputError("base_url: an address with a name, a password or a query in it would be shown and stored. Put "
                         "the key into an environment variable instead.")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError(f"base_url: expected an address such as http://localhost:8000/v1, got {base_url!r:.80}.")
    if parts.scheme == "http" and not _is_local(base_url):
        raise InputError(f"base_url: {parts.hostname} is another machine, and http:// would send key and text "
                         "unencrypted. Use https://, or a tunnel to localhost.")
    return base_url.rstrip("/")


def _is_local(base_url: str) -> bool:
    host = urlsplit(base_url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
