"""The app without a browser: what an address says, what visitors are told, one visitor at a time, and every page.

Pages run in Streamlit's AppTest, as they do for a visitor, on a small index of the embedded text.
"""

import dataclasses
import json
import logging
import os
import re
import subprocess
import sys
import threading
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlencode

import pytest
import torch
from streamlit import config
from streamlit.testing.v1 import AppTest
from streamlit.util import calc_hash

import solutions
from solutions import app, visualization
from solutions.app import address, launching, opening, room, words
from solutions.app.__main__ import main
from solutions.app.views import VIEWS
from solutions.errors import InputError, ModelNotAvailable, NotAvailable
from solutions.targets import get_target
from solutions.visualization.page_style import INKS, PAPER, scheme_style

MAIN = Path(app.__file__).with_name("main.py")
TEXTS = 60
HOSTILE = {
    "empty": "", "blank": " \n\t ", "html": "<script>alert(1)</script><img src=x onerror=alert(1)>",
    "closing": "</div></style><style>*{display:none}</style>", "control": "\x00\x07\x1b[31m\x7f",
    "direction": "\u202eabc\u2066", "emoji": "👩‍👩‍👧 ☕ é\u0301\u0301",
    "markdown": "![x](https://example.org/x.png) [a](javascript:b) :red[c]",
    "formula": "$\\frac{1}{0}$ ~~a~~ **b**", "braces": "{0} {{}} %s {target.name}", "long": "word " * 20_000,
    "one word": "w" * 100_000, "paths": "../../../../etc/passwd; $(touch x) `id`",
}  # fmt: skip


# ---- the target, opened once


@pytest.fixture(scope="module")
def cache(tmp_path_factory, model, sae):
    """A cache of its own for this file, few texts, and the model that is loaded already."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv(opening.CACHE_VARIABLE, str(folder))
        patch.setenv(launching.TEXTS_VARIABLE, str(TEXTS))
        patch.setattr("solutions.models.load_model", lambda *_: model)
        patch.setattr("solutions.sae.load_sae", lambda *_: sae)
        collects = config.get_option("runner.postScriptGC")
        config.set_option("runner.postScriptGC", False)  # as the server is started
        opening.opening_of.clear()
        yield folder
        opening.opening_of.clear()
        config.set_option("runner.postScriptGC", collects)


@pytest.fixture(scope="module")
def opened(cache):
    """The opening that the pages use."""
    found = opening.opening_of("smallworld", TEXTS)
    assert found.wait(300) and found.error == ""
    return found


@pytest.fixture(scope="module")
def here(opened):
    return opened.room


def page(name, **query):
    """A page, run once, as somebody sees it who has followed a link."""
    test = AppTest.from_file(str(MAIN), default_timeout=120)
    if name != next(iter(VIEWS)):
        test._page_hash = calc_hash(name)
    for key, value in query.items():
        test.query_params[key] = value
    return test.run()


def html_of(test):
    """All HTML of a page but the style."""
    bodies = [element.proto.body for element in test.html]
    return "\n".join(body for body in bodies if not body.startswith("<style>"))


def alerts(test):
    return re.findall(r'role="alert"[^>]*>(.*?)</p>', html_of(test))


# ---- the address


class Params(dict):
    """Streamlit's query_params, as far as they are used."""

    def from_dict(self, values):
        self.clear()
        self.update(values)


@pytest.fixture
def visitor(monkeypatch):
    """A session without Streamlit."""
    found = SimpleNamespace(session_state={}, query_params=Params())
    monkeypatch.setattr(address, "st", found)
    return found


SHARED = address.choice_field("target", ["one", "two"], shared=True)
FIELDS = (SHARED, address.text_field("text", "hello"), address.number_field("latent", -1, -1, 99),
          address.number_field("strength", 0.5, -3.0, 3.0), address.switch_field("map"))  # fmt: skip


def run(visitor, name="read", fields=FIELDS, **changed):
    """One run of a page in which the visitor has changed some widgets."""
    for field, value in changed.items():
        visitor.session_state[field if field == "target" else f"{name}.{field}"] = value
    complaints = address.arrive(name, fields)
    address.leave(name, fields)
    return complaints


def values(visitor, name="read"):
    return [visitor.session_state[address.key(name, field)] for field in FIELDS]


def test_an_address_without_anything_shows_the_defaults_and_stays_as_it_is(visitor):
    assert run(visitor) == [] and values(visitor) == ["one", "hello", -1, 0.5, False]
    assert visitor.query_params == {}


def test_what_a_visitor_changes_stands_in_the_address_and_shows_another_visitor_the_same(visitor, monkeypatch):
    run(visitor)
    run(visitor, text="a & b = ü", latent=7, strength=-1.25, map=True, target="two")
    link = dict(visitor.query_params)
    assert link == {"target": "two", "text": "a & b = ü", "latent": "7", "strength": "-1.25", "map": "True"}
    other = SimpleNamespace(session_state={}, query_params=Params(link))
    monkeypatch.setattr(address, "st", other)
    assert run(other) == [] and values(other) == values(visitor) == ["two", "a & b = ü", 7, -1.25, True]


def test_going_back_shows_what_the_address_said_then(visitor):
    run(visitor)
    run(visitor, text="first")
    then = dict(visitor.query_params)
    run(visitor, text="second", latent=3)
    visitor.query_params.from_dict(then)  # the browser's button
    run(visitor)
    assert values(visitor)[1:3] == ["first", -1]
    visitor.query_params.clear()
    run(visitor)
    assert values(visitor)[1] == "hello"


def test_a_widget_that_has_just_been_touched_is_right_even_if_the_address_is_still_the_old_one(visitor):
    run(visitor)
    run(visitor, text="first")
    visitor.query_params.clear()  # sent by the browser before it heard of the new address
    run(visitor, text="second")
    assert values(visitor)[1] == "second" and visitor.query_params == {"text": "second"}


def test_every_page_remembers_what_it_showed_and_all_share_the_target(visitor):
    run(visitor, "read")
    run(visitor, "read", text="mine")
    run(visitor, "read", target="two")
    visitor.query_params.clear()  # as the menu does
    run(visitor, "steer")
    assert values(visitor, "steer")[:2] == ["two", "hello"] and visitor.query_params == {"target": "two"}
    for name in ("read.text", "read.latent"):  # Streamlit forgets the widgets of a page that is not shown
        del visitor.session_state[name]
    visitor.query_params.clear()
    run(visitor, "read")
    assert values(visitor)[:2] == ["two", "mine"]
    visitor.query_params.from_dict({"text": "from a link"})
    run(visitor, "steer")
    assert values(visitor, "steer")[1] == "from a link"


@pytest.mark.parametrize("given", [
    {"latent": "100"}, {"latent": "-2"}, {"latent": "3.5"}, {"latent": "seven"}, {"latent": ""}, {"latent": "1" * 5000},
    {"strength": "nan"}, {"strength": "inf"}, {"strength": "1e999"}, {"target": "/etc/passwd"}, {"target": "three"},
])  # fmt: skip
def test_nonsense_in_an_address_is_said_and_left_out(visitor, given):
    visitor.query_params.update(given)
    (complaint,) = run(visitor)
    assert next(iter(given)) in complaint and len(complaint) < 200
    assert values(visitor) == ["one", "hello", -1, 0.5, False] and visitor.query_params == {}


def test_unknown_parts_of_an_address_do_nothing(visitor):
    visitor.query_params.update({"text": "a", "_memory": "x", "read.text": "y", "page": "../main.py"})
    assert run(visitor) == [] and values(visitor)[1] == "a"
    assert visitor.query_params == {"text": "a"}


def test_a_long_text_is_shown_but_not_written_into_the_address(visitor):
    run(visitor)
    run(visitor, text="x" * (address.LONGEST + 1), latent=4)
    assert visitor.query_params == {"latent": "4"}
    run(visitor)
    assert len(values(visitor)[1]) == address.LONGEST + 1
    run(visitor, text="\ud800")
    assert visitor.query_params["text"] == "?"


def test_what_a_page_chooses_itself_does_not_make_the_address_grow(visitor):
    run(visitor)
    address.own("read", FIELDS[2], 42)
    assert run(visitor) == [] and values(visitor)[2] == 42 and visitor.query_params == {}
    address.own("read", FIELDS[2], 43)  # of another text, say
    assert run(visitor) == [] and values(visitor)[2] == 43 and visitor.query_params == {}
    run(visitor, latent=41)
    address.own("read", FIELDS[2], 44)
    run(visitor)
    assert values(visitor)[2] == 41 and visitor.query_params == {"latent": "41"}


def test_a_limit_may_depend_on_what_stands_before_it(visitor):
    size = {"one": 10, "two": 100}
    latent = address.number_field("latent", 0, 0, lambda: size[visitor.session_state["target"]])
    visitor.query_params.update({"target": "two", "latent": "50"})
    assert run(visitor, fields=(SHARED, latent)) == []
    (complaint,) = run(visitor, fields=(SHARED, latent), target="one")
    assert "latent was 50" in complaint and visitor.session_state["read.latent"] == 0


# ---- what visitors are told


def test_a_label_is_never_markdown():
    assert words.markdown("a![x](y)") == r"a\!\[x\]\(y\)"
    assert words.markdown(":red[a] $b$ **c** <d> `e` \\") == r"\:red\[a\] \$b\$ \*\*c\*\* \<d\> \`e\` \\"
    assert words.token(" Paris") == "“␣Paris”" and words.token("x" * 99).endswith("x…”")
    assert "\u202e" not in words.markdown("\u202e") and "\n" not in words.markdown("a\nb")


@pytest.mark.parametrize("text, shown", [
    ("no model in /srv/someone/models/tiny: a folder", "no model in tiny: a folder"),
    (r"cannot read D:\models\tiny\x.json", "cannot read x.json"),
    ("expected and/or, blocks.2/3, 1/2", "expected and/or, blocks.2/3, 1/2"),
    ("see https://www.neuronpedia.org/gpt2-small/6", "see https://www.neuronpedia.org/gpt2-small/6"),
])  # fmt: skip
def test_messages_name_no_folders_of_the_machine(text, shown):
    assert words.pathless(text) == shown


def test_messages_for_people_with_python_are_told_as_the_app_needs_them(monkeypatch):
    """The longest of them: a model that is not on this machine, with the network switched off by us."""
    monkeypatch.setattr(solutions, "SWITCHED_OFFLINE", True)
    monkeypatch.setattr(solutions.hub, "is_switched_off", lambda: True)
    why = solutions.hub._how_to_get("gpt2", ["config.json"], False, ["*.json"], "the model 'gpt2'",
                                    solutions.hub._why_offline())
    told = words.for_visitors(why)
    assert "start it with --target gpt2-small to go online" in told and "hf download gpt2" in told
    assert told.endswith("choose it in the side bar.") and "get_target" not in told and "it goes to" not in told
    said = []
    monkeypatch.setattr(words, "st", SimpleNamespace(html=said.append))
    words.say(told + "\n<b>", "alert")
    assert said[0].count("<br>") == told.count("\n") + 1 and "&lt;b&gt;" in said[0] and "↵" not in said[0]


def test_an_error_of_ours_is_said_and_any_other_is_only_logged(monkeypatch, caplog):
    said = []
    monkeypatch.setattr(words, "st", SimpleNamespace(html=said.append))
    with words.guarded():
        raise InputError("give <b>one</b> text, not /srv/a/secret")
    with caplog.at_level(logging.ERROR), words.guarded():
        raise RuntimeError("the password is hunter2")
    assert 'role="alert"' in said[0] and "give &lt;b&gt;one&lt;/b&gt; text, not secret" in said[0]
    assert "not your fault" in said[1] and "hunter2" not in said[1] and "hunter2" in caplog.text


# ---- starting it


def options_of(arguments):
    return [argument.removeprefix("--").split("=", 1) for argument in arguments if argument.startswith("--")]


def test_it_serves_this_machine_alone_and_switches_off_what_it_does_not_need():
    arguments, surroundings = launching.command("localhost", 8501, None, 1500)
    options = dict(options_of(arguments))
    assert arguments[:4] == [sys.executable, "-m", "streamlit", "run"] and Path(arguments[4]) == MAIN
    assert options["server.address"] == "localhost" and options["server.port"] == "8501"
    off = ("browser.gatherUsageStats", "server.enableStaticServing", "client.showErrorLinks", "runner.magicEnabled")
    assert {options[name] for name in off} == {"false"}
    assert {options[f"server.{name}"] for name in ("enableXsrfProtection", "enableCORS", "headless")} == {"true"}
    assert options["client.showErrorDetails"] == options["server.fileWatcherType"] == "none"
    hosts = [value for name, value in options_of(arguments) if name == "server.allowedHosts"]
    assert hosts == ["localhost", "127.0.0.1", "[::1]"]
    own = {"MONOSEMANTIC_TARGET": "smallworld", launching.TEXTS_VARIABLE: "1500"}
    assert own.items() <= surroundings.items() and surroundings["PATH"] == os.environ["PATH"]


def test_every_option_is_one_that_streamlit_knows():
    known = set(config.get_config_options())
    assert set(launching.OPTIONS) | {"server.address", "server.port", "server.allowedHosts"} <= known


def test_it_serves_others_only_when_told_to():
    hosts = [v for name, v in options_of(launching.command("0.0.0.0", 80, None, 1)[0]) if name == "server.allowedHosts"]
    assert hosts == ["*"]
    assert launching.is_local("127.0.0.1") and launching.is_local("::1") and not launching.is_local("192.168.1.7")


@pytest.mark.parametrize("given, message", [
    ({"address": "localhost; rm -rf /"}, "host name"), ({"address": ""}, "host name"), ({"port": 70_000}, "1 to 65535"),
    ({"port": 0}, "at least 1"), ({"target": "smallwrld"}, "Did you mean 'smallworld'"), ({"texts": 0}, "texts"),
    ({"target": "nowhere.json"}, "no target description"),
])  # fmt: skip
def test_what_cannot_be_is_refused_before_anything_starts(given, message):
    with pytest.raises(InputError, match=re.escape(message)):
        launching.command(**({"address": "localhost", "port": 8501, "target": None, "texts": 9} | given))


def test_without_streamlit_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(launching.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(NotAvailable, match=r"pip install \"monosemantic\[app\]\""):
        app.launch()


def test_the_exit_code_is_the_servers_and_the_shell_hears_of_mistakes(monkeypatch, capsys):
    assert main(["--port", "70000"]) == 1 and "InputError: port must be 1 to 65535" in capsys.readouterr().err
    seen = []

    def server(*given):
        seen.append(given)
        code = "import os, sys; sys.exit(int(os.environ['CODE']))"
        return [sys.executable, "-c", code], launching.surroundings_of({"CODE": "3"})

    monkeypatch.setattr(launching, "command", server)
    assert main(["--address", "::1", "--port", "9000", "--texts", "1,000"]) == 3
    assert seen == [("::1", 9000, None, 1000)]
    assert "http://localhost:9000" in capsys.readouterr().err


@pytest.mark.parametrize("ours, target, offline", [
    (True, "gpt2-small", False), (True, "smallworld-llama", True), (False, "gpt2-small", True),
])  # fmt: skip
def test_the_server_decides_for_its_own_target_whether_the_hub_may_be_asked(ours, target, offline, monkeypatch):
    """Begun on the embedded target, this process has switched the hub off for itself. Only what the reader has switched
    off goes on to the server."""
    monkeypatch.setattr(solutions, "SWITCHED_OFFLINE", ours)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    surroundings = launching.command("localhost", 8501, target, 9)[1]
    code = "import os, sys, solutions; sys.exit(os.environ.get('HF_HUB_OFFLINE') == '1')"
    assert subprocess.run([sys.executable, "-c", code], cwd=MAIN.parents[2], env=surroundings).returncode == offline
    assert os.environ["HF_HUB_OFFLINE"] == "1"


@pytest.mark.skipif(sys.platform == "win32", reason="there, a process is ended without a word to it")
def test_ending_it_ends_the_server_too(tmp_path):
    """A server that goes on alone would hold the port."""
    code = (
        "import sys; from solutions.app import launching\n"
        "server = [sys.executable, '-c', 'import os, time; print(os.getpid(), flush=True); time.sleep(100)']\n"
        "launching.command = lambda *_: (server, None)\n"
        "sys.exit(-launching.launch())"
    )
    launcher = subprocess.Popen([sys.executable, "-c", code], cwd=MAIN.parents[2], stdout=subprocess.PIPE, text=True)
    server = int(launcher.stdout.readline())
    launcher.terminate()
    assert launcher.wait(60) == 15  # what ended the server
    with pytest.raises(ProcessLookupError):
        os.kill(server, 0)


def test_help_is_there_without_loading_anything():
    code = ("import sys; from solutions.app.__main__ import parser; parser().format_help(); "
            "sys.exit('streamlit' in sys.modules or 'sae_lens' in sys.modules)")
    assert subprocess.run([sys.executable, "-c", code], cwd=MAIN.parents[2]).returncode == 0


# ---- opening a target


def test_the_index_is_made_once_and_then_read(opened, cache, monkeypatch):
    folders = [path for path in cache.iterdir() if path.is_dir()]
    assert len(folders) == 1 and opened.room.index.n_documents == TEXTS
    assert opened.room.latents.loc[5, "latent"] == 5 and "concept" in opened.room.latents
    monkeypatch.setattr(opening.Opening, "_build", lambda *_: pytest.fail("it was made again"))
    again = opening.Opening(get_target("smallworld"), TEXTS)
    assert again.wait(60) and again.error == ""
    assert torch.equal(again.room.maxima, opened.room.maxima)


def test_a_damaged_index_is_made_again(cache, opened, tmp_path, monkeypatch):
    monkeypatch.setenv(opening.CACHE_VARIABLE, str(tmp_path))
    steps = []
    monkeypatch.setattr(opening.Opening, "_at", _listed(opening.Opening._at, steps))
    first = opening.Opening(get_target("smallworld"), 12)
    assert first.wait(120) and first.room.index.n_documents == 12
    assert [share for _, share in steps] == sorted(share for _, share in steps) and len(steps) == 5
    (folder,) = (path for path in tmp_path.iterdir() if path.is_dir())
    (folder / "by_token.safetensors").write_bytes(b"cut off")
    second = opening.Opening(get_target("smallworld"), 12)
    assert second.wait(120) and second.error == "" and torch.equal(second.room.maxima, first.room.maxima)


def _listed(method, steps):
    def at(self, step):
        method(self, step)
        steps.append((self.step, self.share))
    return at


def test_the_bar_moves_while_texts_are_read():
    texts = opening.Opening._watched(found := SimpleNamespace(share=0.25), list("abcd"), 0.65)
    assert [round(found.share, 2) for _ in texts] == [0.25, 0.35, 0.45, 0.55]


def test_what_cannot_be_opened_says_why_and_can_be_tried_again(cache, monkeypatch):
    def fails(*_):
        raise ModelNotAvailable("no weights in /srv/someone/models/tiny")

    with monkeypatch.context() as patch:
        patch.setattr(room.Room, "__init__", fails)
        opening.opening_of.clear()
        test = page("read")
        assert alerts(test) == ["no weights in tiny"] and not test.exception
        patch.setattr(room.Room, "__init__", lambda *_: 1 / 0)
        opening.opening_of.clear()
        (said,) = alerts(page("read"))
        assert "opening 'smallworld' failed: ZeroDivisionError" in said.replace("&#x27;", "'")
    (again,) = (button for button in test.button if button.label == "Try again")
    assert alerts(again.click().run()) == [] and test.radio


def test_only_known_targets_can_be_chosen(monkeypatch, tmp_path):
    names = list(opening.known_targets())
    assert names[0] == "smallworld" and "gpt2-small" in names
    own = tmp_path / "mine.json"
    fields = dataclasses.asdict(get_target("smallworld")) | {"name": "mine"}
    own.write_text(json.dumps(fields), encoding="utf-8")
    monkeypatch.setenv("MONOSEMANTIC_TARGET", str(own))
    assert list(opening.known_targets())[0] == "mine"


def test_the_cache_is_the_users_own(monkeypatch):
    monkeypatch.delenv(opening.CACHE_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere/cache")
    monkeypatch.setattr(sys, "platform", "linux")
    assert opening.cache_folder() == Path("/somewhere/cache/monosemantic")
    monkeypatch.setenv(opening.CACHE_VARIABLE, "elsewhere")
    assert opening.cache_folder() == Path("elsewhere")


# ---- one visitor at a time


def test_nobody_reads_with_a_model_that_somebody_else_steers(here, monkeypatch):
    """The lock is what makes it so: without it, the same reading is another one."""
    alone = here.read("The Eiffel Tower is in Paris.").features
    found = read_while_steering(here, monkeypatch)
    assert torch.equal(found, alone)
    monkeypatch.setattr(room.Room, "turn", lambda self: torch.no_grad())  # a block that holds nobody up
    assert not torch.equal(read_while_steering(here, monkeypatch), alone)


def read_while_steering(here, monkeypatch):
    """Features of a text that is read by one visitor while the model is being steered for another."""
    from solutions import interventions
    steering, done = threading.Event(), threading.Event()

    def compare_steering(model, sae, target, *_, **__):
        vector = 50 * sae.W_dec[0].detach()
        with interventions.steering(model, "blocks.0.hook_resid_pre", vector):
            steering.set()
            done.wait(2)

    monkeypatch.setattr(interventions, "compare_steering", compare_steering)
    monkeypatch.setattr(here, "_readings", room.Recent(1))
    monkeypatch.setattr(here, "_steered", room.Recent(1))
    first = threading.Thread(target=here.steer, args=("a", 1, 1.0, 5, 0.0, 0))
    first.start()
    assert steering.wait(60)
    features = here.read("The Eiffel Tower is in Paris.").features
    done.set()
    first.join()
    return features


def test_whoever_waits_too_long_is_told_to_come_back(here, monkeypatch):
    monkeypatch.setattr(room, "PATIENCE", 0.05)
    with here.turn(), pytest.raises(room.Busy, match="Try again"):
        here.read("another text, which nobody has asked for")
    assert here.read("another text, which nobody has asked for").words


def test_only_the_latest_answers_are_remembered_and_no_errors():
    recent, asked = room.Recent(2), []

    def ask(question):
        return recent.get(question, lambda: asked.append(question) or len(asked))

    assert [ask("a"), ask("b"), ask("a"), ask("c"), ask("a"), ask("b")] == [1, 2, 1, 3, 1, 4] and len(recent) == 2
    with pytest.raises(ZeroDivisionError):
        recent.get("d", lambda: 1 / 0)
    assert recent.get("d", lambda: "now") == "now"


def test_a_latent_is_named_by_what_is_known_of_it(here, monkeypatch):
    table = here.latents.head(5).copy()
    table["n_active"] = [0, 5, 5, 5, 5]
    table["concept"], table["f1"] = ["city", "city", "city", None, None], [0.9, 0.9, 0.1, 0.0, 0.0]
    table["token"] = [" a", " a", " b", None, " \n"]
    monkeypatch.setattr(here, "latents", table)
    names = ["never active", "city (F1 0.90)", "most on “b”", "no typical token", "most on “␣↵”"]
    assert [here.name(j) for j in range(5)] == names


# ---- the pages


@pytest.mark.parametrize("name", list(VIEWS))
def test_every_page_opens_and_leaves_the_address_alone(here, name):
    test = page(name)
    assert not test.exception and alerts(test) == []
    assert [title.value for title in test.title] == [VIEWS[name].title] and test.query_params == {}


def test_a_text_is_read_and_its_latents_can_be_chosen(here):
    test = page("read")
    test.text_area[0].set_value("The Colosseum is in Rome.")
    test.button[0].click().run()
    features = here.read("The Colosseum is in Rome.").features
    expected = here.index.top_of_text(features, 12, "surprise")["latent"].tolist()
    choice = test.radio[0]
    assert choice.options[0].startswith(f"**{expected[0]}**") and len(choice.options) == len(expected)
    assert test.query_params == {"text": "The Colosseum is in Rome."}
    choice.set_value(expected[2]).run()
    assert test.query_params["latent"] == str(expected[2]) and f"Latent {expected[2]} on your text" in html_of(test)
    test.button_group[0].set_value("activation").run()
    by_strength = here.index.top_of_text(features, 12, "activation")["latent"]
    assert test.radio[0].options[0].startswith(f"**{by_strength.iloc[0]}**") and test.query_params["by"] == "activation"
    test.toggle[0].set_value(True).run()
    assert not test.exception and "The figure in words" in html_of(test)
    again = page("read", **test.query_params)
    assert html_of(again) == html_of(test)


def test_the_shading_is_the_latents_activation(here):
    test = page("read", text="The Colosseum is in Rome.", by="activation")
    reading, latent = here.read("The Colosseum is in Rome."), int(re.search(r"Latent (\d+) on your", html_of(test))[1])
    strip = re.search(r'<div class="ms-text">(.*?)</div>', html_of(test))[1]
    assert strip.count("<mark") == int((reading.features[:, latent] > 0).sum())
    peak = reading.features[:, latent].max().item()
    assert f"({peak:.3g})" in strip


def test_a_search_finds_what_the_index_finds_and_says_where_a_query_is_wrong(here):
    test = page("features", q='token:" Paris"')
    expected = here.search('token:" Paris"', 12)
    assert [option.split("**")[1] for option in test.radio[0].options] == [str(j) for j in expected.latents]
    assert test.number_input[0].value == expected.latents[0] and expected.heading.split()[0] in html_of(test)
    test.radio[0].set_value(expected.latents[-1]).run()
    last = expected.latents[-1]
    assert test.number_input[0].value == last and test.query_params["latent"] == str(last)
    test.text_input[0].set_value("tokn:a").run()
    (said,) = alerts(test)
    assert "Did you mean token:?" in said and '<mark title="here">tokn</mark>' in html_of(test) and not test.exception
    test.text_input[0].set_value("density:>99.9%").run()
    assert "Nothing for" in html_of(test) and not test.radio


def test_one_can_walk_from_latent_to_latent(here):
    test = page("features", latent="0")
    assert test.button[0].disabled and "Latent 0:" in html_of(test)
    test.button[1].click().run()
    assert test.number_input[0].value == 1 and test.query_params == {"latent": "1"}
    test.button[2].click().run()
    assert here.latents.loc[test.number_input[0].value, "n_active"] > 0
    neighbours = test.button_group[0]
    wanted = neighbours.options[0].content if hasattr(neighbours.options[0], "content") else neighbours.options[0]
    neighbours.set_value(int(wanted.split()[0])).run()
    assert test.number_input[0].value == int(wanted.split()[0])
    last = here.index.n_latents - 1
    assert page("features", latent=str(last)).button[1].disabled
    beyond = page("features", latent=str(last + 1))
    assert "latent" in alerts(beyond)[0] and not beyond.exception


def test_all_latents_stand_in_a_table(here):
    table = page("features").dataframe[0].value
    assert len(table) == here.index.n_latents and table["F1"].dropna().is_monotonic_decreasing
    first = here.latents.loc[int(table["latent"].iloc[0])]
    assert table["density"].iloc[0] == pytest.approx(first["density"], rel=0.01)
    assert table["strongest in"].iloc[0] == visualization.printable(first["example"])


def test_two_texts_are_compared_on_one_scale(here):
    test = page("compare", a="The Eiffel Tower is in Paris.", b="The Colosseum is in Rome.")
    pair = [here.read(text).features for text in ("The Eiffel Tower is in Paris.", "The Colosseum is in Rome.")]
    expected = here.index.compare(*pair, 12)["latent"].tolist()
    assert [option.split("**")[1] for option in test.radio[0].options] == [str(j) for j in expected]
    scales = re.findall(r"Full colour: ([\d.]+)", html_of(test))
    assert len(set(scales)) == 1
    same = page("compare", a="Paris.", b="Paris.")
    assert "No latent tells these two texts apart" in html_of(same)
    (said,) = alerts(page("compare", b="   "))
    assert said.startswith("Second text: ")


def test_steering_stands_beside_the_model_as_it_is_and_beside_a_random_direction(here):
    query = {"prompt": "The cat", "latent": "3", "strength": "1.5", "tokens": "6", "temperature": "0", "seed": "2"}
    test = page("steer", **query)
    expected = here.steer("The cat", 3, 1.5, 6, 0.0, 2)
    said = html_of(test)
    headings = {"unsteered": "As it is", "steered": "Steered", "random direction": "A random direction"}
    for run_, heading in headings.items():
        after = expected.loc[run_, "text"].removeprefix("The cat")
        shown = f'<span class="ms-app-prompt">The cat</span>{visualization.shaded.text_html(after)}</div>'
        assert heading in said and shown in said and f"{expected.loc[run_, 'loss']:.2f} nats" in said
    test.slider[0].set_value(0.0).run()
    texts = re.findall(r'<span class="ms-app-prompt">The cat</span>(.*?)</div>', html_of(test))
    assert len(set(texts)) == 1 and test.query_params["strength"] == "0"
    assert "Shorten it" in alerts(page("steer", prompt="x" * 3000))[0]
    assert "Shorten the prompt" in alerts(page("steer", prompt="the cat " * 150))[0]


def test_training_runs_need_no_model(monkeypatch):
    monkeypatch.setattr(opening, "opening_of", lambda *_: pytest.fail("a model was opened"))
    for query in ({}, {"show": "knobs"}, {"show": "failed"}, {"show": "failed", "run": "BOS left in"}):
        test = page("runs", **query)
        assert not test.exception and alerts(test) == [] and len(test.dataframe) == 1
        assert test.query_params == query and "The figure in words" in html_of(test)
    assert "every one&#x27;s BOS token was trained on" in html_of(test)


# ---- whatever is typed


class Elements(HTMLParser):
    """All elements and attributes of a piece of HTML."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes = set(), set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attributes}


#: The kinds that are tried on every page; the others only on the first.
MEANEST = ("empty", "html", "markdown", "long")
OURS = {"article", "b", "br", "caption", "code", "dd", "details", "div", "dl", "dt", "h1", "h2", "h3", "h4", "li",
        "mark", "ol", "p", "small", "span", "summary", "table", "tbody", "td", "th", "thead", "tr"}  # fmt: skip
THEIRS = {"class", "style", "title", "tabindex", "role", "scope", "aria-label", "aria-hidden"}


@pytest.mark.parametrize("kind", list(HOSTILE))
def test_no_text_breaks_a_page_or_becomes_part_of_it(here, kind):
    text = HOSTILE[kind]
    everywhere = {"read": ["text"], "compare": ["a", "b"], "features": ["q"], "steer": ["prompt"]}
    for name, fields in list(everywhere.items())[:None if kind in MEANEST else 1]:
        test = page(name, **({"tokens": "5"} if name == "steer" else {}))
        typed = [*test.text_area, *test.text_input]
        for field, widget in zip(fields, typed, strict=True):
            assert widget.key == f"{name}.{field}"
            widget.set_value(text)
        test = (test.button[0].click() if test.text_area else test).run()
        assert not test.exception, name
        assert "not your fault" not in html_of(test), name
        found = Elements(html_of(test))
        assert found.tags <= OURS and found.attributes <= THEIRS, name
        for radio in test.radio:
            assert not re.search(r"(?<!\\)[\[<$`]", "".join(radio.options)), name
        if not text.strip() and name != "features":
            assert "at least one visible character" in " ".join(alerts(test)), name
        if len(text) > 50_000 and name == "read":
            assert "as much as fits into the context" in html_of(test) and "text" not in test.query_params
        assert len(urlencode(test.query_params, errors="replace")) < 20_000


@pytest.mark.parametrize("query", [
    {"latent": "99999999999999999999"}, {"latent": "-5"}, {"by": "<script>"}, {"target": "../../etc/passwd"},
    {"target": "/tmp/evil.json"}, {"text": "\x00"}, {"q": "(" * 500}, {"q": 'regex:"(a+)+$"'}, {"map": "[]"},
    {"show": "__import__('os')"}, {"run": "failed/../../x"}, {"strength": "NaN"}, {"seed": "1e5"}, {"nonsense": "1"},
])  # fmt: skip
def test_no_address_breaks_a_page(here, query):
    for name, view in VIEWS.items():
        if {field.name for field in view.fields} & set(query) or name == "read":
            test = page(name, **query)
            assert not test.exception and "not your fault" not in html_of(test), name
            assert Elements(html_of(test)).tags <= OURS, name


def test_both_sets_of_colours_are_in_the_style():
    style = scheme_style()
    assert f"--ms-text:light-dark({INKS['light']['text']},{INKS['dark']['text']});" in style
    assert f"--ms-paper:light-dark({PAPER['light']},{PAPER['dark']});" in style
    assert "prefers-color-scheme" not in style and style.count("light-dark(") == 40
