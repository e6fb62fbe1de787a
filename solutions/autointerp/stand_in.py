"""A stand-in for a language model: a small server on this machine that speaks the protocol and understands nothing.

It lists the words that are marked in the passages, and looks for the words of an explanation in other passages. With it
the whole way can be tried out, and tested, without a key and without a network: prompts, costs, cache, scores. What it
scores says nothing about language models.

It can misbehave, too, as endpoints do.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from solutions.autointerp.prompts import CLOSE, OPEN
from solutions.errors import unknown_name

#: What it can do instead of answering.
FAULTS = ("slow", "429", "500", "cut", "not json", "broken json", "no choices", "empty", "chatter", "wrong number",
          "refuses", "says no", "too long", "echoes the key", "401", "404")
#: Seconds that a slow answer takes, and that a 429 asks for.
SLOW, RETRY_AFTER = 1.5, 0.05


class StandIn:
    """A server that runs. `base_url` is its address, `seen` counts the requests, `faults` are those still to come."""

    def __init__(self, faults: Sequence[str] = ()):
        for fault in faults:
            if fault and fault not in FAULTS:
                raise unknown_name("fault", fault, FAULTS)
        self.faults = list(faults)
        self.seen = 0
        self.requests: list[dict[str, Any]] = []
        self._lock = threading.Lock()
        stand_in = self

        class Handler(_Handler):
            server_of = stand_in

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.base_url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def next_fault(self, request: dict[str, Any]) -> str:
        """What to do with this request: one of `FAULTS`, or "" for a proper answer.

        Args:
            request: its JSON.
        """
        with self._lock:
            self.seen += 1
            self.requests.append(request)
            return self.faults.pop(0) if self.faults else ""

    def close(self) -> None:
        """Stop it."""
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def stand_in(faults: Sequence[str] = ()) -> Iterator[StandIn]:
    """Run a stand-in for a language model on this machine, as long as the block lasts.

    Args:
        faults: what it does with the first requests, one after the other, instead of answering: of "slow", "429",
            "500", "cut", "not json", "broken json", "no choices", "empty", "chatter", "wrong number", "refuses",
            "says no", "too long", "echoes the key", "401" and "404"; "" is a proper answer.

    Yields:
        The server.

    Raises:
        InputError: there is no such fault.

    Example:
        >>> with stand_in() as server:
        ...     explained = explain(index, [latent], Endpoint("stand-in", server.base_url))
        Endpoint('stand-in' at http://127.0.0.1:.../v1): 1 requests to send, 0 of 1 already answered; ...
    """
    server = StandIn(faults)
    thread = threading.Thread(target=server._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.close()
        thread.join(5)


class _Handler(BaseHTTPRequestHandler):
    server_of: StandIn
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        fault = self.server_of.next_fault(request)
        if fault == "slow":
            time.sleep(SLOW)
        if fault == "cut":
            self.close_connection = True
            self.connection.close()
        elif fault in ("429", "500", "401", "404"):
            key = self.headers.get("Authorization", "")
            self._reply(int(fault), {"error": {"message": f"no, not with {key}"}}, retry=fault in ("429", "500"))
        elif fault == "not json":
            self._send(200, b"<html>the proxy says hello</html>", "text/html")
        elif fault == "broken json":
            self._send(200, b'{"choices": [', "application/json")
        else:
            self._reply(200, self._completion(request, fault))

    def _completion(self, request: dict[str, Any], fault: str) -> dict[str, Any]:
        """A proper answer, or one that only looks proper."""
        asked = request["messages"][-1]["content"]
        content = {
            "empty": "", "chatter": "What a nice question! It could be many things.",
            "wrong number": '{"answers": [1]}',
            "says no": "I'm sorry, but I can't help with that.", "too long": '{"explanation": "it is about',
            "refuses": None, "echoes the key": json.dumps({"explanation": self.headers.get("Authorization")}),
        }.get(fault, "") if fault not in ("", "slow") else answer(asked)
        message = {"role": "assistant", "content": content, "refusal": "I will not do that." if fault == "refuses" else
                   None}
        choice = {"index": 0, "message": message, "finish_reason": "length" if fault == "too long" else "stop"}
        words = [len(str(text).split()) for text in (asked, content)]
        usage = {"prompt_tokens": words[0], "completion_tokens": words[1], "total_tokens": sum(words)}
        return {"id": "stand-in", "object": "chat.completion", "created": 0, "model": request["model"],
                "choices": [] if fault == "no choices" else [choice], "usage": usage}

    def _reply(self, status: int, content: dict[str, Any], retry: bool = False) -> None:
        self._send(status, json.dumps(content).encode(), "application/json", retry)

    def _send(self, status: int, body: bytes, kind: str, retry: bool = False) -> None:
        try:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            if retry:
                self.send_header("Retry-After", str(RETRY_AFTER))
            self.end_headers()
            self.wfile.write(body)
        except OSError:  # whoever asked has stopped waiting
            self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        """Quietly: a page would show what is written to the terminal."""


def answer(asked: str) -> str:
    """What the stand-in says: the marked words, or whether the words of an explanation are in a passage.

    Args:
        asked: the user's part of a prompt of ours.

    Returns:
        JSON, as the prompt wants it.
    """
    first, *lines = asked.splitlines()
    if not first.startswith("Explanation: "):
        marked = Counter(re.findall(f"{OPEN}(.*?){CLOSE}", asked))
        words = [word for word, _ in marked.most_common(8)]
        return json.dumps({"explanation": "the words " + " | ".join(words)})
    words = set(json.loads(first.partition(": ")[2]).removeprefix("the words ").split(" | "))
    answers = []
    for line in lines:
        passage = json.loads(line.partition(": ")[2])
        marked = re.findall(f"{OPEN}(.*?){CLOSE}", passage)
        answers.append(int(marked[0].strip() in {w.strip() for w in words} if marked else
                           any(w and w in passage for w in words)))
    return json.dumps({"answers": answers})
