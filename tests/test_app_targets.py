"""The app on other targets than the embedded one: a model of another kind, one's own description, one that is not here.

Every page runs in Streamlit's AppTest, as in `test_app`.
"""

import dataclasses
import json
import os
import time
from types import SimpleNamespace

import pytest
from hub_cache import tiny_target
from test_app import alerts, html_of, page

import solutions
from solutions import hub
from solutions.app import launching, opening
from solutions.app.views import VIEWS
from solutions.errors import NotAvailable
from solutions.targets import TARGETS, Target, get_target

TEXTS = 40
OWN = ["the cat sat on the mat", "a dog saw the cat and ran", "cats and dogs sat", "the mat ran on", "an old dog"]


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A target as one describes it oneself, in a file, with texts in another."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in OWN))
    told = {"name": "<b>my</b> own", "text": str(folder / "texts.jsonl"), "processing": {}, "description": "*tiny*"}
    (folder / "own.json").write_text(json.dumps(dataclasses.asdict(tiny_target()) | told))
    return str(folder / "own.json")


@pytest.fixture(scope="module", params=["smallworld-llama", "own.json"])
def started(request, own, tmp_path_factory):
    """The app as it is after `--target`, its index made."""
    name = own if request.param == "own.json" else request.param
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(opening.CACHE_VARIABLE, str(tmp_path_factory.mktemp("cache")))
        patch.setenv(launching.TEXTS_VARIABLE, str(TEXTS))
        patch.setenv(solutions.TARGET_VARIABLE, name)
        opening.opening_of.clear()
        target = get_target()
        opened = opening.opening_of(target.name, TEXTS)
        assert opened.wait(300) and opened.error == ""
        yield SimpleNamespace(target=target, room=opened.room)
        opening.opening_of.clear()


@pytest.mark.parametrize("name", list(VIEWS))
def test_every_page_opens(started, name):
    test = page(name, **({"tokens": "5"} if name == "steer" else {}))
    assert not test.exception and alerts(test) == []
    assert test.sidebar.selectbox[0].value == started.target.name
    assert "<b>my" not in html_of(test) and "<em>" not in html_of(test)


def test_a_text_is_read_and_steered_by_the_targets_own_model(started):
    room = started.room
    reading = room.read("the cat sat")
    assert reading.features.shape[-1] == started.target.d_sae and bool((reading.features > 0).any())
    test = page("steer", prompt="the cat", latent=str(room.strong_writer), tokens="6", temperature="0")
    table = room.steer("the cat", room.strong_writer, 0.5, 6, 0.0, 0)
    assert f"{table.loc['steered', 'loss']:.2f} nats" in html_of(test) and not test.exception
    last = started.target.d_sae - 1
    assert not page("features", latent=str(last)).exception
    assert "latent" in alerts(page("features", latent=str(last + 1)))[0]


def test_texts_of_ones_own_are_what_the_index_is_made_of(started, own):
    """And not, without a word, the embedded ones: their concepts would be named, too."""
    mine = started.target.text != "smallworld"
    assert started.room.index.n_documents == (len(OWN) if mine else TEXTS)
    assert (started.room.concepts is None) == mine
    headings = set(page("features").dataframe[0].value.columns)
    assert ("F1" in headings) != mine and "density" in headings
    assert bool(alerts(page("features", q="concept:city"))) == mine


# ---- what is not here


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """No network, nothing in the hub's cache, and the app started on the embedded target."""
    for name, value in ((opening.CACHE_VARIABLE, str(tmp_path)), (launching.TEXTS_VARIABLE, "9")):
        monkeypatch.setenv(name, value)
    monkeypatch.delenv(solutions.TARGET_VARIABLE, raising=False)
    monkeypatch.setattr(hub, "cached", lambda repo, name: None)
    monkeypatch.setattr(hub, "hub_answers", lambda: False)
    monkeypatch.setattr(hub, "is_switched_off", lambda: False)
    opening.opening_of.clear()
    yield monkeypatch
    opening.opening_of.clear()


def test_a_model_that_is_not_here_is_said_at_once_and_another_target_can_be_chosen(offline):
    began = time.monotonic()
    test = page("read", target="gpt2-small")
    (said,) = alerts(test)
    assert "the model &#x27;gpt2&#x27; is not on this machine" in said and "cannot be reached" in said
    assert "choose it in the side bar" in said and "↵" not in said and not test.exception
    assert time.monotonic() - began < 60  # libraries left to themselves try for half a minute and more, three times
    assert [button.label for button in test.button][-1] == "Try again" and os.sep + "hub" not in said


def test_texts_that_are_not_here_are_not_replaced_by_others(offline):
    """The index would be kept, under the name of a text that nobody has read."""
    with pytest.raises(NotAvailable, match='"text" is "smallworld"'):
        opening.texts_of(TARGETS["gpt2-small"], 5)
    here: Target = dataclasses.replace(tiny_target(), text="nobody/knows-this")
    opened = opening.Opening(here, 5)
    assert opened.wait(120) and opened.room is None and "'nobody/knows-this' has to be downloaded" in opened.error
    assert not [path for path in opening.cache_folder().rglob("*") if path.is_dir()]


def test_the_embedded_texts_are_those_of_the_chapters():
    from solutions.data import load_texts

    assert opening.texts_of(TARGETS["smallworld"], 3) == load_texts(TARGETS["smallworld"], 3)
