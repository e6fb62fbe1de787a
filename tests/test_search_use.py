"""Search as people use it: from the shell and in the explorer's window."""

import copy
import html
import json
import re

import ipywidgets as widgets
import pytest
import torch
from hub_cache import tiny_model, tiny_sae, tiny_target
from test_explorer import HOSTILE, areas, part

from labs.explorer import search_explorer
from solutions import search as shell
from solutions.analysis import build_index, concept_table, labelled_texts, place_labels
from solutions.analysis.search import parse, search
from solutions.data import load_texts, str_tokens
from solutions.errors import InputError
from solutions.models import harvest

N = 24


@pytest.fixture(scope="module")
def parts():
    return tiny_model(), tiny_sae(), tiny_target()


@pytest.fixture(scope="module")
def world(parts, tmp_path_factory):
    """An index of the embedded world's first texts, read by the tiny model, and its concept table."""
    model, sae, target = parts
    folder = tmp_path_factory.mktemp("use")
    texts = labelled_texts(model, N)
    store = harvest(model, load_texts(target, N), target.hook, folder / "store", progress=False, test_share=0.3)
    words = str_tokens(model, torch.arange(model.cfg.d_vocab))
    unembed = torch.randn(model.cfg.d_model, model.cfg.d_vocab, generator=torch.Generator().manual_seed(0))
    index = build_index(store, sae, target.hook, folder / "index", vocabulary=words, unembed=unembed, progress=False)
    return index, concept_table(index, place_labels(index, texts), texts.concepts)


@pytest.fixture
def run(world, parts, monkeypatch, capsys):
    """The shell's main on the index of the tiny target: (exit code, what it printed, what it complained of)."""
    monkeypatch.setattr(shell, "get_target", lambda name: parts[2])
    monkeypatch.setattr("solutions.models.load_model", lambda *_: parts[0])

    def call(*arguments, index=None):
        code = shell.main(["--index", str(index or world[0].path), *arguments])
        return code, *capsys.readouterr()

    return call


# ---- the shell

def test_the_shell_prints_latents_with_their_evidence(run, world):
    code, out, complaint = run('token:" t" & density:<50%', "-k", "3")
    found = search(world[0], 'token:" t" & density:<50%', 3)
    assert code == 0 and out.count("latent ") >= 3 and f"1. latent {found.latents[0]} " in out
    assert "precision" in out and "‹" in out and complaint == ""


def test_json_is_one_object_with_all_of_it(run, world):
    code, out, _ = run("--json", 'token:" t"')
    answer = json.loads(out)
    assert code == 0 and answer["query"] == 'token:" t"'
    assert [row["latent"] for row in answer["results"]] == search(world[0], answer["query"], 10).latents


def test_nothing_found_has_an_exit_code_of_its_own_and_a_reason(run):
    code, out, _ = run("density:>0.999")
    assert code == 3 and out.startswith("Nothing for density:>0.999: no latent has such a density")
    code, out, _ = run("--json", "density:>0.999")
    assert code == 3 and json.loads(out)["results"] == [] and json.loads(out)["empty_reason"]


@pytest.mark.parametrize("query, says", [
    ("tokn:x", "Did you mean token:"), ("token:x &", "a term is missing here"), ("like:99999", "from 0 to 31"),
    ("concept:citty", "Did you mean 'city'"),
])
def test_mistakes_are_said_on_the_error_stream_with_the_place(run, query, says):
    code, out, complaint = run(query)
    assert code == 1 and out == "" and says in complaint and "^" in complaint and "Traceback" not in complaint


def test_a_missing_or_a_wrong_index_is_said(run, tmp_path):
    code, _, complaint = run("density:0", index=tmp_path / "none")
    assert code == 1 and "no feature index at" in complaint and "--build" in complaint
    (tmp_path / "none").mkdir()
    assert run("density:0", index=tmp_path / "none")[0] == 1


@pytest.mark.parametrize("arguments", [[], ["--index", "x"], ["--index", "x", "q", "-k", "0"], ["--what"]])
def test_wrong_options_are_a_usage_error(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        shell.main(arguments)
    assert stop.value.code == 2 and "usage:" in capsys.readouterr().err


def test_help_explains_every_kind_of_term(capsys):
    with pytest.raises(SystemExit) as stop:
        shell.main(["--help"])
    shown = capsys.readouterr().out
    assert stop.value.code == 0 and all(example in shown for _, example, _ in parse.KINDS.values())
    assert "exit code" in shown and "%%" not in shown


def test_the_shell_builds_an_index_labels_it_once_and_reads_texts(run, world, parts, tmp_path, monkeypatch):
    code, out, told = run("--build", str(N), 'concept:noun>0.01', index=tmp_path / "new" / "index")
    assert code == 0 and "looking the token up" in out and "loading the model" in told and "labelling" in told
    names = sorted(path.name for path in (tmp_path / "new").iterdir())
    assert names == ["index", "index.concepts.safetensors"]  # nothing else is left
    monkeypatch.setattr(shell, "labels_of", lambda *_: 1 / 0)  # not needed again
    code, out, told = run("concept:noun>0.01", "--quiet", index=tmp_path / "new" / "index")
    assert code == 0 and told == "" and "best concept" in out
    code, out, _ = run('text:"the cat sat on the mat"', index=tmp_path / "new" / "index")
    assert code == 0 and re.search(r"on '.*', (as strong as that on 1 token in|stronger than)", out)


def test_an_index_of_other_texts_or_of_another_sae_is_refused(run, parts, tmp_path, monkeypatch):
    model, sae, target = parts
    store = harvest(model, ["one two three", "four five six"], target.hook, tmp_path / "store", progress=False,
                    test_share=0.5)
    build_index(store, sae, target.hook, tmp_path / "other", progress=False,
                vocabulary=str_tokens(model, torch.arange(model.cfg.d_vocab)))
    code, _, complaint = run("concept:noun", index=tmp_path / "other")
    assert code == 1 and "not made from the first texts of the embedded world" in complaint
    changed = copy.deepcopy(sae)
    changed.b_dec.data += 1
    monkeypatch.setattr("solutions.sae.load_sae", lambda *_: changed)
    code, _, complaint = run("text:hello", index=tmp_path / "other")
    assert code == 1 and "another SAE" in complaint and "--target" in complaint


def test_ctrl_c_and_a_reader_that_has_seen_enough(run, monkeypatch):
    def stopped(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(shell, "answer", stopped)
    code, _, complaint = run("density:0")
    assert code == 130 and "Stopped" in complaint


def test_no_control_character_reaches_the_terminal(world, run):
    code, out, _ = run("density:>0", "-k", "32")
    assert code == 0 and not re.search(r"[\x00-\x09\x0b-\x1f\x7f\u202e]", out)


# ---- the window

def shown(widget):
    return html.unescape(areas(widget))


def test_the_window_lists_what_search_finds_and_shows_why_and_the_page(parts, world):
    index, table = world
    widget = search_explorer(*parts, index, table, query='token:" t"', k=5)
    box, choice = part(widget, widgets.Text), part(widget, widgets.Select)
    found = search(index, 'token:" t"', 5, concepts=table)
    assert [latent for _, latent in choice.options] == found.latents
    assert found.heading in shown(widget) and f"Latent {found.latents[0]}<" in shown(widget)
    choice.value = found.latents[1]
    assert found.table["evidence"][1] in shown(widget) and f"Latent {found.latents[1]}<" in shown(widget)
    box.value = "concept:noun>0.01"
    assert "looking the token up has F1" in choice.options[0][0]
    box.value = 'text:"the cat sat"'
    assert " on '" in choice.options[0][0]


def test_a_mistake_is_marked_and_nothing_old_is_left(parts, world):
    widget = search_explorer(*parts, world[0], query='token:" t"')
    box, choice = part(widget, widgets.Text), part(widget, widgets.Select)
    before = areas(widget)
    box.value = 'tokn:" the" & <b>'
    assert "Did you mean token:" in shown(widget) and ">tokn</mark>" in areas(widget) and "<b>" not in areas(widget)
    assert choice.options == () and "Logits" not in areas(widget)
    box.value = "density:>0.999"
    assert "Nothing for density:>0.999" in shown(widget) and choice.options == ()
    box.value = ""
    assert "Nothing" not in shown(widget)
    box.value = 'token:" t"'
    assert areas(widget) == before


def test_the_button_searches_again_and_the_field_reports_when_one_has_finished(parts, world):
    widget = search_explorer(*parts, world[0], query="density:>0")
    assert not part(widget, widgets.Text).continuous_update
    before = areas(widget)
    part(widget, widgets.HTML, number=1).value = ""
    part(widget, widgets.Button, "Search").click()
    assert areas(widget) == before


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_queries_are_shown_and_never_obeyed(parts, world, text):
    widget = search_explorer(*parts, world[0])
    for form in (text, f'token:"{text}"', f'regex:"{text}"', f'text:"{text}"'):
        part(widget, widgets.Text).value = form[:300]
        shown = areas(widget)
        shown.encode("utf-8")
        assert "<script" not in shown and "<style>*" not in shown and "Traceback" not in shown
        assert not re.search(r"[\x00\x1b\u202e]", shown)


def test_an_index_is_needed_and_has_to_fit_and_a_model_only_for_texts(parts, world):
    with pytest.raises(InputError, match="nothing to search"):
        search_explorer(*parts, None)
    widget = search_explorer(None, None, parts[2], world[0], query='text:"the cat"')
    assert "read by the model first" in shown(widget)

    class Other:
        n_latents = 7

    with pytest.raises(InputError, match="7 latents, the SAE has 32"):
        search_explorer(*parts, Other())
