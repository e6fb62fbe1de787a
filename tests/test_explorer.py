"""The explorer at the end of a lab: a table made from the SAE's encoding, driven by a text field."""

import html
import re

import pytest
from hub_cache import tiny_model, tiny_sae, tiny_target

from labs.explorer import explorer, features_table, visible
from solutions.data import str_tokens
from solutions.models import extract
from solutions.sae import encode


@pytest.fixture(scope="module")
def parts():
    return tiny_model(), tiny_sae(), tiny_target()


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
