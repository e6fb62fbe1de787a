"""The explorers, driven as a reader would: by what is typed, chosen and clicked."""

import html
import re

import ipywidgets as widgets
import pytest
import torch
from hub_cache import tiny_model, tiny_sae, tiny_target

from labs.explorer import (
    compare_explorer,
    explorer,
    feature_explorer,
    features_table,
    read_text,
    text_explorer,
    visible,
    workbench,
)
from labs.explorer.compare import differences
from labs.explorer.feature import latents_of_token
from solutions import visualization
from solutions.analysis import FeatureIndex, build_index
from solutions.analysis.reading import LONGEST
from solutions.data import str_tokens
from solutions.errors import InputError
from solutions.models import extract, harvest
from solutions.sae import encode

TEXTS = ["one two three", "the cat sat on the mat", "two cats & <b>dogs</b>", "a tower in Paris", "def add(x, y):"]
HOSTILE = [
    "<script>alert(1)</script>", "\x00\x1b[31m", "\ud800 half", "שלום \u202e rtl", "👩‍👩‍👧 ☕",
    "'; DROP TABLE latents; --",
    "{0} {{}} %s", "w" * 100_000, "word " * 50_000, "\n\n\nx", "</div></table><style>*{display:none}</style>", "\u200b",
]


@pytest.fixture(scope="module")
def parts():
    return tiny_model(), tiny_sae(), tiny_target()


@pytest.fixture(scope="module")
def index(parts, tmp_path_factory):
    model, sae, target = parts
    folder = tmp_path_factory.mktemp("index")
    store = harvest(model, TEXTS, target.hook, folder / "store", progress=False)
    words = str_tokens(model, torch.arange(model.cfg.d_vocab))
    unembed = torch.randn(model.cfg.d_model, model.cfg.d_vocab, generator=torch.Generator().manual_seed(0))
    return build_index(store, sae, target.hook, folder / "index", vocabulary=words, unembed=unembed, progress=False)


def part(widget, kind, description=None, number=0):
    """The widget of a kind, anywhere inside, with this description."""
    found, queue = [], [widget]
    while queue:
        here = queue.pop(0)
        queue = list(getattr(here, "children", ())) + queue
        if type(here) is kind and description in (None, here.description):
            found.append(here)
    return found[number]


def areas(widget):
    """What all output areas show, as one string."""
    found, queue = [], [widget]
    while queue:
        here = queue.pop(0)
        queue = list(getattr(here, "children", ())) + queue
        if type(here) is widgets.HTML:
            found.append(here.value)
    return "".join(found)


def shaded(area):
    """The values shown in an area, in order."""
    return [float(v) for v in re.findall(r'<span class="v"> \(([\d.e+-]+)\)', area)]


# ---- the table of lab 1


def test_the_table_has_a_row_a_token_and_the_strongest_latent_first(parts):
    model, sae, target = parts
    text = "The <b>cat</b>."
    table = features_table(*parts, text, k=2)
    words = [visible(word) for word in str_tokens(model, text)[1:]]  # BOS has no row
    shown = re.findall(r'<th scope="row"[^>]*><code>(.*?)</code>', table)
    assert [html.unescape(word) for word in shown] == words
    features = encode(sae, extract(model, text, target.hook)[target.hook][0, 1:])
    shown = re.findall(r"</th><td[^>]*>(\d+) <small>([\d.]+)</small>", table)
    assert [int(latent) for latent, _ in shown] == features.argmax(-1).tolist()
    assert [float(value) for _, value in shown] == pytest.approx(features.amax(-1).tolist(), abs=0.006)


def test_the_field_drives_the_table_and_an_empty_text_gets_a_message(parts):
    widget = explorer(*parts, text="one two")
    field, table = widget.children
    first = table.value
    field.value = "three"
    assert table.value != first and "three" not in first
    field.value = "  "
    assert "at least one visible character" in table.value and "<table" not in table.value
    field.value = "one two"
    assert table.value == first


# ---- reading


def test_reading_gives_the_features_of_every_token_without_bos(parts):
    model, sae, target = parts
    reading = read_text(*parts, "one two")
    assert reading.words == str_tokens(model, "one two")[1:] and reading.note == ""
    expected = encode(sae, extract(model, "one two", target.hook)[target.hook])[0, 1:]
    assert torch.allclose(reading.features, expected)


@pytest.mark.parametrize("text", ["word " * 500, "w" * (LONGEST + 5)])
def test_what_does_not_fit_is_cut_and_said_so(parts, text):
    reading = read_text(*parts, text)
    assert len(reading.words) == len(reading.features) <= parts[2].context_size - 1
    assert f"Only the first {len(reading.words)} tokens" in reading.note


# ---- a text


def test_a_text_lists_latents_shades_the_chosen_one_and_shows_its_page(parts, index):
    widget = text_explorer(*parts, index, text="the cat")
    choice, (strip, page) = part(widget, widgets.Select), (part(widget, widgets.HTML, number=i) for i in (0, 1))
    features = read_text(*parts, "the cat").features
    expected = index.top_of_text(features, 12)["latent"].tolist()
    assert [latent for _, latent in choice.options] == expected and choice.value == expected[0]
    assert f"Latent {expected[0]}<" in page.value and "tiny · blocks" in page.value
    choice.value = expected[1]
    values = [v for v in features[:, expected[1]].tolist() if v > 0]
    assert shaded(strip.value) == pytest.approx(values, rel=0.01)
    assert f"Latent {expected[1]}<" in page.value


def test_a_row_can_be_chosen_by_number_since_jupyterlab_keeps_the_arrow_keys_of_lists(parts, index):
    widget = text_explorer(*parts, index, text="the cat")
    choice, row = part(widget, widgets.Select), part(widget, widgets.BoundedIntText, "Row")
    assert (row.value, row.max) == (1, len(choice.options))
    row.value = 3
    assert choice.value == choice.options[2][1] and f"Latent {choice.value}<" in areas(widget)
    choice.index = 1
    assert row.value == 2
    row.value = 99
    assert choice.index == row.value - 1 == len(choice.options) - 1
    part(widget, widgets.Textarea).value = " "
    assert row.disabled


def test_a_new_text_keeps_the_chosen_latent_if_it_is_still_there(parts, index):
    widget = text_explorer(*parts, index, text="the cat", k=32)
    box, choice = part(widget, widgets.Textarea), part(widget, widgets.Select)
    other = index.top_of_text(read_text(*parts, "two dogs").features, 32)["latent"].tolist()
    kept = next(latent for _, latent in choice.options[1:] if latent in other)
    choice.value = kept
    box.value = "two dogs"
    assert choice.value == kept and [latent for _, latent in choice.options] == other


def test_the_order_can_be_changed_and_without_an_index_it_is_by_activation(parts, index):
    widget = text_explorer(*parts, index, text="the cat")
    part(widget, widgets.ToggleButtons).value = "activation"
    features = read_text(*parts, "the cat").features
    peaks = features.amax(0)
    shown = [latent for _, latent in part(widget, widgets.Select).options]
    assert peaks[shown].tolist() == sorted(peaks[peaks > 0].tolist(), reverse=True)[:12]
    plain = text_explorer(*parts, text="the cat")
    assert [latent for _, latent in part(plain, widgets.Select).options] == shown
    assert "Logits" not in areas(plain)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_shown_and_never_obeyed(parts, index, text):
    reader = text_explorer(*parts, index)
    part(reader, widgets.Textarea).value = text
    two = compare_explorer(*parts, index)
    part(two, widgets.Textarea, "First").value = text
    one = feature_explorer(*parts, index, latent=3)
    part(one, widgets.Textarea).value = text
    part(one, widgets.Text).value = text[:100]
    for widget in (reader, two, one):
        shown = areas(widget)
        shown.encode("utf-8")
        assert "<script" not in shown and "<style>*" not in shown and "Traceback" not in shown
        assert not re.search(r"[\x00\x1b\u202e]", shown)


@pytest.mark.parametrize("make, field", [(text_explorer, "Text"), (compare_explorer, "Second")])
def test_an_empty_text_is_said_in_words_and_leaves_nothing_old(parts, index, make, field):
    widget = make(*parts, index)
    before, box, choice = areas(widget), part(widget, widgets.Textarea, field), part(widget, widgets.Select)
    text = box.value
    box.value = "   "
    assert "at least one visible character" in areas(widget) and 'role="alert"' in areas(widget)
    assert "Logits" not in areas(widget) and choice.options == ()
    box.value = text
    assert areas(widget) == before


def test_an_unforeseen_error_is_text_too_and_the_window_goes_on(parts, index, monkeypatch):
    widget = text_explorer(*parts, index)
    before, box = areas(widget), part(widget, widgets.Textarea)
    text = box.value
    with monkeypatch.context() as patch:
        patch.setattr("solutions.analysis.reading.extract", lambda *_: 1 / 0)
        box.value = "boom"
        assert "did not work: ZeroDivisionError: division by zero" in areas(widget)
    box.value = text
    assert areas(widget) == before


def test_a_broken_index_does_not_hide_the_text(parts, index, monkeypatch):
    monkeypatch.setattr(FeatureIndex, "page", lambda *_: (_ for _ in ()).throw(OSError("the disk is gone")))
    widget = text_explorer(*parts, index)
    assert "the disk is gone" in areas(widget)


def test_fields_report_when_one_has_finished_and_the_button_reads_again(parts, index):
    everything = workbench(*parts, index)
    queue, fields = [everything], []
    while queue:
        here = queue.pop()
        queue += getattr(here, "children", ())
        if hasattr(here, "continuous_update"):
            fields.append(here)
    assert len(fields) == 9 and not any(field.continuous_update for field in fields)
    assert all(field.description for field in fields)  # each has a label
    reader = everything.children[0]
    strip = part(reader, widgets.HTML)
    before, strip.value = strip.value, ""
    part(reader, widgets.Button, "Read").click()
    assert strip.value == before


def test_many_quick_changes_end_where_the_last_one_says(parts, index):
    widget = text_explorer(*parts, index)
    box = part(widget, widgets.Textarea)
    for text in ("a", "", "the", "the cat", " ", "the cat sat"):
        box.value = text
    assert areas(widget) == areas(text_explorer(*parts, index, text="the cat sat"))


# ---- a latent


def test_a_latent_can_be_chosen_by_number_and_by_button_within_bounds(parts, index):
    widget = feature_explorer(*parts, index, latent=5)
    number, page = part(widget, widgets.BoundedIntText), part(widget, widgets.HTML, number=1)
    assert "Latent 5<" in areas(widget)
    part(widget, widgets.Button, "Next").click()
    assert number.value == 6 and "Latent 6<" in areas(widget)
    number.value = 10_000
    assert number.value == index.n_latents - 1
    part(widget, widgets.Button, "Next").click()
    assert number.value == index.n_latents - 1
    number.value = 0
    part(widget, widgets.Button, "Previous").click()
    assert number.value == 0 and "Latent 0<" in page.value
    for _ in range(5):
        part(widget, widgets.Button, "Random").click()
        assert index.density()[number.value] > 0


def test_the_first_latent_is_the_strongest_and_an_impossible_one_is_refused(parts, index):
    widget = feature_explorer(*parts, index)
    assert part(widget, widgets.BoundedIntText).value == int(index.maximum().argmax())
    with pytest.raises(InputError, match="expected 0 to 31"):
        feature_explorer(*parts, index, latent=32)
    with pytest.raises(InputError, match="FeatureIndex"):
        feature_explorer(*parts, None)


def test_your_own_text_is_shaded_by_the_chosen_latent(parts, index):
    widget = feature_explorer(*parts, index, text="the cat")
    features = read_text(*parts, "the cat").features
    latent = int(features.amax(0).argmax())
    part(widget, widgets.BoundedIntText).value = latent
    strip = part(widget, widgets.HTML, number=2)
    assert shaded(strip.value) == pytest.approx([v for v in features[:, latent].tolist() if v > 0], rel=0.01)
    silent = int(features.amax(0).argmin())
    if features[:, silent].max() <= 0:
        part(widget, widgets.BoundedIntText).value = silent
        assert "is not active anywhere in this text" in strip.value
    part(widget, widgets.Textarea).value = ""
    assert "at least one visible character" in strip.value and "Logits" in areas(widget)  # the page stays


def test_latents_are_found_by_a_token(parts, index):
    token = next(t for t in str_tokens(parts[0], TEXTS[1])[1:] if t.strip())
    widget = feature_explorer(*parts, index)
    find, choice = part(widget, widgets.Text), part(widget, widgets.Select)
    number = part(widget, widgets.BoundedIntText)
    block = next(child for child in widget.children if choice in getattr(child, "children", ()))
    assert block.layout.display == "none"
    find.value = token.strip()
    found = latents_of_token(index, token.strip())
    assert list(choice.options) == found and block.layout.display == "" and number.value == found[0][1]
    best = index.search_token(token, 1)["f1"][0]
    assert index.search_token(token, 10).query(f"latent == {found[0][1]}")["f1"].max() >= best - 1e-9
    choice.value = found[1][1]
    assert number.value == found[1][1] and f"Latent {found[1][1]}<" in areas(widget)
    find.value = "no-such-token-anywhere"
    assert "unknown token" in areas(widget) and block.layout.display == "none"
    find.value = ""
    assert "unknown token" not in areas(widget) and latents_of_token(index, " ") == []


# ---- two texts


def test_two_texts_are_compared_on_one_scale(parts, index):
    widget = compare_explorer(*parts, index, texts=("the cat", "two dogs"))
    first, second = read_text(*parts, "the cat"), read_text(*parts, "two dogs")
    choice = part(widget, widgets.Select)
    table = index.compare(first.features, second.features, 12)
    assert [latent for _, latent in choice.options] == table["latent"].tolist()
    label, latent = choice.options[0]
    one, other = (float(r.features[:, latent].max()) for r in (first, second))
    assert f"{one:.2f} against {other:.2f}" in label
    winner, where = (first, "first") if one > other else (second, "second")
    word = winner.words[int(winner.features[:, latent].argmax())]
    assert f"“{visualization.visible(word)}” of the {where}" in label
    upper, lower = (part(widget, widgets.HTML, number=i).value for i in (0, 1))
    scales = [re.findall(r"Full colour: ([\d.]+)", area)[0] for area in (upper, lower)]
    assert scales[0] == scales[1] and float(scales[0]) == pytest.approx(max(one, other), rel=0.01)


def test_equal_texts_differ_in_nothing_and_without_an_index_the_plain_difference_counts(parts, index):
    widget = compare_explorer(*parts, index, texts=("the cat", "the cat"))
    assert "No latent tells these two texts apart" in areas(widget)
    first, second = read_text(*parts, "the cat"), read_text(*parts, "two dogs")
    gap = (first.features.amax(0) - second.features.amax(0)).abs()
    assert [j for _, j in differences(first, second, None, 3)] == gap.topk(3).indices.tolist()


def test_an_error_names_the_field(parts):
    widget = compare_explorer(*parts, texts=("the cat", ""))
    assert "Second text: text is empty" in areas(widget)


def test_an_index_of_another_sae_is_refused(parts):
    model, sae, target = parts

    class Other:
        n_latents = 7

    for make in (text_explorer, compare_explorer, feature_explorer):
        with pytest.raises(InputError, match="7 latents, the SAE has 32"):
            make(model, sae, target, Other())
