"""Asking an endpoint that misbehaves in every way we could think of: nothing is lost or paid twice, no key leaks.

The server is on this machine, and misbehaves on demand (`solutions.autointerp.stand_in`).
"""

import errno
import io
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import openai
import pytest
from test_autointerp import TWO, WORD, planted  # noqa: F401

from solutions.autointerp import (
    FREE,
    BudgetError,
    Endpoint,
    EndpointError,
    EndpointJudge,
    Explanation,
    Prices,
    Prompt,
    explain,
    score_explanations,
    stand_in,
)
from solutions.autointerp.stand_in import FAULTS, answer
from solutions.errors import CourseError, InputError, NotAvailable

KEY = "sk-this-must-never-be-seen-0123456789"
PROMPTS = [Prompt("explain", f'"a ⟦word{i}⟧5 b"', 20) for i in range(6)]


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.setattr(openai._base_client, "INITIAL_RETRY_DELAY", 0.02)  # the way it goes on, only quicker


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "answers"


def times(endpoint):
    return dict(endpoint.tally().itertuples(index=False))


# ---------------------------------------------------------------------------------------------- the usual way

def test_a_language_model_explains_and_judges(planted, cache):  # noqa: F811
    with stand_in() as server:
        endpoint = Endpoint("stand-in", server.base_url, cache=cache)
        found = explain(planted, [WORD, TWO], endpoint)
        scores = score_explanations(planted, found, EndpointJudge(endpoint, at_once=4), n=20)
        n_asked = server.seen
        assert [e.source for e in found] == ["stand-in"] * 2 and "w3" in found[0].text
        assert scores.table["accuracy"].tolist() == [1.0, 1.0]
        assert (scores.table["borrowed"] < 0.8).all()
        assert n_asked == 2 + 2 * 2 * 5  # two explanations; two latents, twice (their own and a borrowed one), 20 by 4
        again = Endpoint("stand-in", server.base_url, cache=cache)  # another session, the same folder
        assert explain(planted, [WORD, TWO], again) == found
        repeated = score_explanations(planted, found, EndpointJudge(again, at_once=4), n=20)
        assert repeated.table.equals(scores.table)
        assert server.seen == n_asked and times(again)["from the cache"] == n_asked


def test_a_judge_may_be_wrong_about_the_number_of_questions(planted):  # noqa: F811
    with stand_in(["wrong number", "", "chatter"]) as server:
        endpoint = Endpoint("stand-in", server.base_url)
        found = [Explanation(WORD, "the words  w3", "by hand")]
        row = score_explanations(planted, found, EndpointJudge(endpoint, at_once=5), n=20, borrowed=False).table.iloc[0]
    assert (row["n"], row["unanswered"], row["accuracy"]) == (10, 10, 1.0)
    assert times(endpoint)["malformed"] == 2 and times(endpoint)["ok"] == 2


def test_other_settings_are_other_questions(cache):
    with stand_in() as server:
        for change in ({}, {"model": "other"}, {"options": {"temperature": 1}}, {}):
            settings = {"model": "stand-in", **change}
            Endpoint(settings.pop("model"), server.base_url, cache=cache, **settings).ask(PROMPTS[:1])
        assert server.seen == 3


# -------------------------------------------------------------------------------------------------- faults

@pytest.mark.parametrize("fault", ["429", "500", "cut", "slow"])
def test_a_passing_fault_is_survived(fault, cache):
    with stand_in([fault, fault]) as server:
        endpoint = Endpoint("stand-in", server.base_url, timeout=0.3, cache=cache)
        replies = endpoint.ask(PROMPTS[:2])
        assert [reply.status for reply in replies] == ["ok", "ok"]
        assert server.seen == 4  # two in vain
    found = times(endpoint)
    assert found["requests sent"] == 4
    assert found.get("no answer", 0) == (2 if fault in ("cut", "slow") else 0)
    assert found.get(f"status {fault}", 0) == (2 if fault in ("429", "500") else 0)


def test_a_server_that_asks_for_time_gets_it(monkeypatch):
    waited = []
    monkeypatch.setattr(openai._base_client.time, "sleep", waited.append)
    with stand_in(["429"]) as server:
        Endpoint("stand-in", server.base_url).ask(PROMPTS[:1])
    assert waited == [0.05]  # what the header says, and not the library's own 0.02


@pytest.mark.parametrize(("fault", "status"), [
    ("not json", "malformed"), ("broken json", "malformed"), ("no choices", "malformed"), ("empty", "malformed"),
    ("refuses", "refused"), ("says no", "refused"), ("too long", "cut off"),
])
def test_a_useless_answer_is_called_what_it_is(fault, status, planted):  # noqa: F811
    with stand_in([fault]) as server:
        endpoint = Endpoint("stand-in", server.base_url)
        first, second = explain(planted, [WORD, TWO], endpoint)
        assert server.seen == 2  # asked once: an answer is an answer
    assert (first.status, first.text) == (status, None)
    assert second.status == "ok" and second.text
    assert times(endpoint)[status] == 1 and times(endpoint)["ok"] == 1


def test_chatter_counts_as_malformed(planted):  # noqa: F811
    with stand_in(["chatter"]) as server:
        endpoint = Endpoint("stand-in", server.base_url)
        assert explain(planted, [WORD], endpoint)[0].status == "malformed"
    assert times(endpoint)["malformed"] == 1 and "ok" not in times(endpoint)


def test_refusals_stay_refusals(cache):
    with stand_in(["refuses", "says no"]) as server:
        for _ in range(2):
            replies = Endpoint("stand-in", server.base_url, cache=cache).ask(PROMPTS[:2])
            assert [reply.status for reply in replies] == ["refused", "refused"]
        assert server.seen == 2  # not asked until they give in


def test_who_never_answers_is_left_alone_and_the_rest_is_kept(cache):
    with stand_in(["", "", *["500"] * 6]) as server:
        endpoint = Endpoint("stand-in", server.base_url, retries=1, cache=cache)
        with pytest.raises(EndpointError, match="3 requests in a row failed, each tried 2 times"):
            endpoint.ask(PROMPTS)
        assert server.seen == 8
        replies = Endpoint("stand-in", server.base_url, cache=cache).ask(PROMPTS)  # the server has come to its senses
        assert [reply.cached for reply in replies] == [True, True, False, False, False, False]
        assert server.seen == 12


def test_one_that_fails_is_left_for_the_next_time(cache):
    with stand_in(["500", "500", ""]) as server:
        replies = Endpoint("stand-in", server.base_url, retries=1, cache=cache).ask(PROMPTS[:2])
        assert [reply.status for reply in replies] == ["failed", "ok"]
        assert Endpoint("stand-in", server.base_url, cache=cache).ask(PROMPTS[:2])[0].status == "ok"
        assert server.seen == 4


@pytest.mark.parametrize(("fault", "message"), [
    ("401", "does not accept the key in OPENAI_API_KEY"), ("404", "does not know the model 'stand-in'")])
def test_what_no_repetition_mends_is_said_at_once(fault, message):
    with stand_in([fault]) as server:
        with pytest.raises(EndpointError, match=message) as raised:
            Endpoint("stand-in", server.base_url).ask(PROMPTS)
        assert server.seen == 1
    assert KEY not in str(raised.value) and "[key]" in str(raised.value)  # the server has repeated it
    assert raised.value.__suppress_context__


def test_nobody_there_is_an_error_and_no_hang():
    with stand_in() as server:
        address = server.base_url
    with pytest.raises(EndpointError, match="3 requests in a row failed"):
        Endpoint("stand-in", address, retries=1).ask(PROMPTS)


def test_a_run_that_is_killed_goes_on_where_it_was(cache):
    program = ("import sys; sys.path.insert(0, 'tests')\n"
               "from solutions.autointerp import Endpoint, Prompt\n"
               "assert not {'openai', 'httpx2', 'streamlit'} & set(sys.modules)\n"  # until it is asked
               "prompts = [Prompt('explain', f'\"a ⟦word{i}⟧5 b\"', 20) for i in range(6)]\n"
               "Endpoint('stand-in', sys.argv[1], cache=sys.argv[2]).ask(prompts)\n")
    with stand_in(["", "", "", "slow"]) as server:
        run = subprocess.Popen([sys.executable, "-c", program, server.base_url, str(cache)])
        while server.seen < 4:
            assert run.poll() is None
        run.kill()
        run.wait()
        replies = Endpoint("stand-in", server.base_url, cache=cache).ask(PROMPTS)
    assert [reply.cached for reply in replies] == [True] * 3 + [False] * 3
    assert not list(cache.rglob("*.part"))


# --------------------------------------------------------------------------------------------------- cache

def test_a_damaged_answer_is_asked_again(cache):
    with stand_in() as server:
        Endpoint("stand-in", server.base_url, cache=cache).ask(PROMPTS[:3])
        cut, other, _ = sorted(cache.rglob("*.json"))
        cut.write_text(cut.read_text()[:40])
        other.write_text('{"question": {}, "answer": {"text": "of another question", "status": "ok"}}')
        endpoint = Endpoint("stand-in", server.base_url, cache=cache)
        assert [reply.text.count("word") for reply in endpoint.ask(PROMPTS[:3])] == [2, 2, 2]
        assert server.seen == 5
    assert json.loads(cut.read_text())["answer"]["status"] == "ok"


def test_a_full_disk_is_said_and_the_answers_before_it_are_kept(cache, monkeypatch):
    from solutions.data import store_files

    with stand_in() as server:
        Endpoint("stand-in", server.base_url, cache=cache).ask(PROMPTS[:2])

        def full(*_):
            raise OSError(errno.ENOSPC, "no space")

        with monkeypatch.context() as patch:
            patch.setattr(store_files.os, "replace", full)
            with pytest.raises(CourseError, match="no room for another answer"):
                Endpoint("stand-in", server.base_url, cache=cache).ask(PROMPTS)
        replies = Endpoint("stand-in", server.base_url, cache=cache).ask(PROMPTS)
    assert [reply.cached for reply in replies] == [True] * 2 + [False] * 4 and not list(cache.rglob("*.part"))


def test_the_cache_says_what_was_asked(cache):
    with stand_in() as server:
        Endpoint("stand-in", server.base_url, cache=cache).ask(PROMPTS[:1])
    (file,) = cache.rglob("*.json")
    question = json.loads(file.read_text())["question"]
    assert question["model"] == "stand-in" and question["messages"] == PROMPTS[0].messages()


# --------------------------------------------------------------------------------------------------- money

def test_what_it_costs_by_hand():
    """Bytes are the most tokens there can be; 16 around each message. Dollars for a million tokens."""
    with stand_in() as server:
        endpoint = Endpoint("stand-in", server.base_url, prices=Prices(2.0, 10.0))
        estimate = endpoint.estimate([Prompt("é" * 70, "b" * 140, 50)])
    assert estimate.at_most == pytest.approx((2 * (140 + 16 + 140 + 16) + 10 * 50) / 1e6)
    assert estimate.dollars == pytest.approx((2 * (20 + 16 + 40 + 16) + 10 * 50) / 1e6)
    assert (estimate.n_prompts, estimate.n_cached, estimate.output_tokens) == (1, 0, 50)


def test_nothing_is_sent_without_a_budget(capsys):
    with stand_in() as server:
        endpoint = Endpoint("stand-in", server.base_url, prices=Prices(2.0, 10.0))
        with pytest.raises(BudgetError, match="Nothing was sent. Say how much"):
            endpoint.ask(PROMPTS)
        with pytest.raises(BudgetError, match="more than the budget of"):
            endpoint.ask(PROMPTS, budget=endpoint.estimate(PROMPTS).dollars * 0.9)
        for nonsense in (-1, float("nan"), "a lot"):
            with pytest.raises(InputError, match="amount in dollars"):
                endpoint.ask(PROMPTS, budget=nonsense)
        assert server.seen == 0
    assert "6 requests to send, 0 of 6 already answered" in capsys.readouterr().out  # shown before, every time


def test_the_cost_is_shown_before_it_is_spent(capsys):
    with stand_in(["401"]) as server:
        with pytest.raises(EndpointError):
            Endpoint("stand-in", server.base_url, prices=Prices(2.0, 10.0)).ask(PROMPTS, budget=1.0)
    assert "at most $0.0" in capsys.readouterr().out


def test_what_is_spent_is_what_the_server_counts():
    with stand_in() as server:
        endpoint = Endpoint("stand-in", server.base_url, prices=Prices(2.0, 10.0))
        replies = endpoint.ask([Prompt("x", "one two three", 20)], budget=1.0)
    words = len(replies[0].text.split())
    assert endpoint.spent == replies[0].dollars == pytest.approx((2 * 3 + 10 * words) / 1e6)


def test_the_budget_is_never_passed_even_by_answers_that_were_lost():
    """A request that times out may be charged: it counts as much as it can cost, and is not tried beyond the budget."""
    with stand_in(["slow"] * 9) as server:
        endpoint = Endpoint("stand-in", server.base_url, prices=Prices(2.0, 0.0), timeout=0.2, retries=5)
        most = endpoint.estimate(PROMPTS[:1]).at_most
        assert endpoint.ask(PROMPTS[:1], budget=3.5 * most)[0].status == "failed"
        assert server.seen == 3 and endpoint.spent == pytest.approx(3 * most)


def test_a_budget_that_is_used_up_stops_and_keeps_what_there_is(cache):
    with stand_in(["", "not json", "not json", "not json"]) as server:
        endpoint = Endpoint("stand-in", server.base_url, prices=Prices(2.0, 0.0), cache=cache)
        most = endpoint.estimate(PROMPTS[:1]).at_most
        with pytest.raises(BudgetError, match="4 of 6 requests answered. Those are kept"):
            endpoint.ask(PROMPTS, budget=4.0 * most)
        assert 3 * most < endpoint.spent < 4 * most and server.seen == 4  # what cannot be read counts in full
        assert [reply.cached for reply in endpoint.ask(PROMPTS, budget=9 * most)] == [True] + [False] * 5


def test_what_is_known_costs_nothing(cache):
    with stand_in() as server:
        Endpoint("stand-in", server.base_url, prices=Prices(2.0, 10.0), cache=cache).ask(PROMPTS, budget=1.0)
        replies = Endpoint("stand-in", server.base_url, prices=Prices(2.0, 10.0), cache=cache).ask(PROMPTS)
    assert sum(reply.dollars for reply in replies) == 0 and all(reply.cached for reply in replies)


def test_elsewhere_a_price_has_to_be_given():
    with pytest.raises(InputError, match="may cost something"):
        Endpoint("some-model")
    assert Endpoint("some-model", prices=FREE).prices == FREE
    for nonsense in ((1,), (-1, 2), (float("inf"), 0), "cheap", 3):
        with pytest.raises(InputError, match="prices: expected"):
            Endpoint("some-model", prices=nonsense)


# ------------------------------------------------------------------------------------------------- the key

def test_no_key_ever_in_a_log_a_cache_or_an_output(planted, cache, tmp_path, capfd, monkeypatch):  # noqa: F811
    """Every fault, every log at its loudest, a server that repeats the key; then every file is searched."""
    log = io.StringIO()
    handler = logging.StreamHandler(log)
    root, level = logging.getLogger(), logging.getLogger().level
    loggers = {name: logging.getLogger(name).level for name in ("openai", "httpx2", "httpcore2", "httpx", "httpcore")}
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    for name in loggers:
        logging.getLogger(name).setLevel(logging.DEBUG)
    try:
        with stand_in([f for f in FAULTS if f not in ("401", "404")]) as server:
            endpoint = Endpoint("stand-in", server.base_url, cache=cache, timeout=0.3)
            endpoint.ask([Prompt("explain", f"question {i}", 20) for i in range(len(server.faults))])
            server.faults += ["echoes the key"]
            found = explain(planted, [WORD, TWO], endpoint)
            scores = score_explanations(planted, found, EndpointJudge(endpoint), n=10)
            server.faults += ["401"]
            with pytest.raises(CourseError) as raised:
                Endpoint("other", server.base_url).ask(PROMPTS)
            asked = json.dumps(server.requests)
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
        for name, before in loggers.items():
            logging.getLogger(name).setLevel(before)
    said = [repr(endpoint), str(endpoint.tally()), str(found), str(scores), str(raised.value),
             "".join(raised.value._render_traceback_()), str(raised.value.__cause__), asked, repr(vars(endpoint))]
    (tmp_path / "log.txt").write_text(log.getvalue())
    (tmp_path / "out.txt").write_text("\n".join([*capfd.readouterr(), *said]))
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert len(files) > 5 and len(log.getvalue()) > 1000  # there is something to search
    for file in files:
        assert KEY not in file.read_text() and KEY[3:] not in file.read_text(), file.name
    assert any("[key]" in file.read_text() for file in cache.rglob("*.json"))  # it was repeated, and taken out


def test_no_notebook_or_page_of_ours_holds_a_key():
    root = Path(__file__).parents[1]
    pages = [file for folder in ("book", "labs", "solutions") for file in (root / folder).rglob("*")
             if file.suffix in (".md", ".ipynb", ".py") and file.is_file()]
    assert len(pages) > 50
    for file in pages:
        text = file.read_text(encoding="utf-8")
        assert "api_key=\"" not in text and "OPENAI_API_KEY=sk" not in text, file.name


def test_the_key_does_not_travel_with_the_endpoint():
    with stand_in() as server:
        endpoint = Endpoint("stand-in", server.base_url)
        endpoint.ask(PROMPTS[:1])
        assert KEY not in repr(endpoint.__reduce_ex__(2))  # what would be sent to another process


def test_there_is_no_way_to_pass_a_key(monkeypatch):
    with pytest.raises(TypeError):
        Endpoint("m", "http://localhost:1/v1", api_key=KEY)
    for address in (f"https://me:{KEY}@example.org/v1", f"https://example.org/v1?key={KEY}", f"ftp://a:{KEY}@b.org"):
        with pytest.raises(InputError, match="environment variable") as raised:
            Endpoint("m", address, prices=FREE)
        assert KEY not in str(raised.value)
    with pytest.raises(InputError, match="unencrypted"):
        Endpoint("m", "http://example.org/v1", prices=FREE)
    for local in ("http://localhost:1/v1", "http://127.0.0.1:1/v1", "http://[::1]:1/v1"):
        assert Endpoint("m", local).is_local
    assert not Endpoint("m", "https://localhost.example.org/v1", prices=FREE).is_local


def test_without_a_key_nothing_is_sent(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(NotAvailable, match="OPENAI_API_KEY is not set"):
        Endpoint("m", "https://example.org/v1", prices=FREE).ask(PROMPTS)
    with stand_in() as server:  # a server of one's own needs none
        assert Endpoint("m", server.base_url, key_variable="NO_SUCH_KEY").ask(PROMPTS[:1])[0].status == "ok"


def test_without_the_library_there_is_a_clear_word(monkeypatch):
    monkeypatch.setitem(sys.modules, "openai", None)
    with stand_in() as server, pytest.raises(NotAvailable, match="pip install openai"):
        Endpoint("m", server.base_url).ask(PROMPTS[:1])
    assert "OPENAI_API_KEY" in os.environ


# ------------------------------------------------------------------------------------------- the stand-in

def test_the_stand_in_reads_words_and_nothing_else():
    assert json.loads(answer('"a ⟦cat⟧5 and ⟦cat⟧9 or ⟦dog⟧1"')) == {"explanation": "the words cat | dog"}
    judged = answer('Explanation: "the words cat | dog"\n1: "a dog"\n2: "a cow"\n3: "⟦dog⟧ a cat"\n4: "dog ⟦a⟧"')
    assert json.loads(judged) == {"answers": [1, 0, 1, 0]}


def test_an_unknown_fault_is_refused():
    with pytest.raises(InputError, match="unknown fault"), stand_in(["503"]):
        pass


def test_scores_do_not_depend_on_the_order_of_latents(planted):  # noqa: F811
    with stand_in() as server:
        endpoint = Endpoint("stand-in", server.base_url)
        there, back = (score_explanations(planted, explain(planted, order, endpoint), EndpointJudge(endpoint), n=10,
                                          borrowed=False).table.set_index("latent") for order in ([0, 2], [2, 0]))
    assert np.array_equal(there.loc[[0, 2], "accuracy"], back.loc[[0, 2], "accuracy"])
