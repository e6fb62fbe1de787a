"""The live page in a real browser: the numbers of torch, the tokens of Python, and a page one can use."""

import random
import re
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from browsing import PHONE, SITE, axe_complaints, chromium_path, launch, serve, visit
from live_page import PACK, READY, markup, press_start, unpacked, write_page

from solutions.data import load_texts, tokenize
from solutions.interventions import Push, push_vector, steered_logits, steered_text
from solutions.models import extract
from solutions.sae import encode

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(chromium_path() is None, reason="no Chromium on the path (chromium, google-chrome)"),
]
CLOSE = 1e-3  # what is promised; single precision on both sides comes much closer
NEWER = "in\u088fto the\ua7ceme x\U00032400y"  # letters to a browser of today, and not yet to the tokenizer
ODD = ["", " ", NEWER, "it'Sam 'Real", "Ça coûte 3 €.", "👩‍👩‍👧‍👦 and 🇫🇷", "e\u0301te\u0301 \u200d\u202e x",
       "\n\n\tif x:\n    return -1", "The <|bos|> token", "مرحبا שלום 你好 नमस्ते", "don't I'll we'VE it''s", "a" * 300,
       "\x00\x1b[31m\x7f\ufeff\u2028"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("live")
    write_page(folder, n_texts=60, n_candidates=4)
    return folder


@pytest.fixture(scope="module")
def base(folder):
    with serve(folder) as address:
        yield address


@pytest.fixture(scope="module")
def browser():
    with launch() as running:
        yield running


@pytest.fixture(scope="module")
def loaded(browser, base):
    """One page with the model in it, for tests that only ask for numbers."""
    with visit(browser, base, "index.html") as seen:
        press_start(seen.page)
        yield seen.page
        assert seen.errors == [] == seen.elsewhere


@contextmanager
def opened(browser, base, **options):
    """A page of its own, with the model in it."""
    with visit(browser, base, "index.html", **options) as seen:
        press_start(seen.page)
        yield seen
        assert seen.errors == [] == seen.elsewhere


@pytest.fixture(scope="module")
def texts(target):
    """A text of every kind, and some that nobody expects."""
    return [text.text for text in load_texts(target, 24, split="probe")] + ODD[2:]


# ---- numbers


MEASURE = f"""(texts) => {{
    const pack = {PACK}, {{ model, tokenizer }} = live;
    return texts.map((text) => {{
        const ids = [model.config.bos, ...tokenizer.encode(text)].slice(0, model.config.context);
        const activations = model.activations(model.below(), ids);
        const final = model.finish(model.above(), activations);
        return {{ ids, activations: pack(activations), before: pack(model.encoded(activations)),
            features: model.features(activations), logits: ids.map((_, i) => i)
                .filter((i) => i % 16 === 0 || i === ids.length - 1).map((i) => [i, pack(model.logits(final, i))]) }};
    }});
}}"""


def test_activations_latents_and_logits_are_those_of_torch(loaded, model, sae, target, texts):
    measured = loaded.evaluate(MEASURE, texts)
    largest = {"activations": 0.0, "before": 0.0, "features": 0.0, "logits": 0.0}
    undecided = 0

    def note(name, difference):
        largest[name] = max(largest[name], float(np.abs(difference).max()))

    for text, ours in zip(texts, measured, strict=True):
        tokens = tokenize(model, text)
        assert ours["ids"] == tokens.ids[0].tolist()
        n = len(ours["ids"])
        acts = extract(model, tokens, target.hook)[target.hook][0]
        with torch.no_grad():
            logits = model(tokens.ids)[0].numpy()
            before = ((acts - sae.b_dec) @ sae.W_enc + sae.b_enc).numpy()
            features = encode(sae, acts).numpy()
        note("activations", unpacked(ours["activations"], n, target.d_in) - acts.numpy())
        note("before", unpacked(ours["before"], n, target.d_sae) - before)
        for place, packed in ours["logits"]:
            note("logits", unpacked(packed, -1) - logits[place])
        dense = np.zeros_like(features)
        for place, active in enumerate(ours["features"]):
            for latent, value in active:
                dense[place, latent] = value
        order = np.sort(before, axis=1)
        decided = order[:, -sae.cfg.k] - order[:, -sae.cfg.k - 1] > 1e-4  # else rounding chooses the last latent
        undecided += int((~decided).sum())
        note("features", (dense - features)[decided])
    assert max(largest.values()) < CLOSE, largest
    assert undecided < 0.02 * sum(len(ours["ids"]) for ours in measured)


def test_one_token_at_a_time_gives_the_same_as_all_at_once(loaded):
    difference = loaded.evaluate("""(text) => {
        const { model, tokenizer } = live, ids = [model.config.bos, ...tokenizer.encode(text)];
        const whole = model.finish(model.above(), model.activations(model.below(), ids), model.direction(7, 3));
        const below = model.below(), above = model.above();
        let last;
        for (const id of ids) last = model.finish(above, model.activations(below, [id]), model.direction(7, 3));
        const d = model.config.width;
        return Math.max(...last.map((x, j) => Math.abs(x - whole[(ids.length - 1) * d + j])));
    }""", "The language of Portugal is")
    assert difference < 1e-5


STEER = f"""([text, latent, amount, seed, everywhere]) => {{
    const pack = {PACK}, {{ model, tokenizer }} = live, ids = [model.config.bos, ...tokenizer.encode(text)];
    const activations = model.activations(model.below(), ids), push = model.direction(latent, amount);
    const random = model.randomLike(push, seed);
    const last = (push) => pack(model.logits(model.finish(model.above(), activations, push), ids.length - 1));
    if (everywhere) for (let j = 0; j < push.length; j++) activations[j] += push[j];
    return {{ push: pack(push), random: pack(random), steered: last(push), control: last(random) }};
}}"""


def test_steered_logits_are_those_of_torch(loaded, model, sae, target):
    maxima = torch.linspace(5.0, 30.0, target.d_sae)
    for text, push in [("The capital of France is", Push(3, 1.0)), ("def run(data):\n", Push(700, -2.5)),
                       ("Il ne mange pas", Push(55, 3.0))]:
        amount = push.strength * maxima[push.latent].item()
        ours = loaded.evaluate(STEER, [text, push.latent, amount, 4, False])
        vector = push_vector(sae, [push], maxima)
        assert np.abs(unpacked(ours["push"], -1) - vector.numpy()).max() < 1e-4
        random_vector = torch.from_numpy(unpacked(ours["random"], -1).copy())
        assert random_vector.norm().item() == pytest.approx(vector.norm().item(), rel=1e-5)
        for name, added in (("steered", vector), ("control", random_vector)):
            expected = steered_logits(model, text, target.hook, added)[0, -1].numpy()
            assert np.abs(unpacked(ours[name], -1) - expected).max() < CLOSE
        # To push BOS as well is another experiment: the comparison must be able to tell.
        wrong = loaded.evaluate(STEER, [text, push.latent, amount, 4, True])
        assert np.abs(unpacked(wrong["steered"], -1) - unpacked(ours["steered"], -1)).max() > 10 * CLOSE


def test_random_directions_differ_with_the_seed_and_point_everywhere(loaded):
    rows = loaded.evaluate(f"""() => {{
        const pack = {PACK}, push = live.model.direction(0, 1);
        return Array.from({{ length: 200 }}, (_, seed) => pack(live.model.randomLike(push, seed)));
    }}""")
    directions = np.stack([unpacked(row, -1) for row in rows])
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    cosines = (directions @ directions.T)[~np.eye(len(rows), dtype=bool)]
    assert abs(cosines.mean()) < 0.01 and cosines.max() < 0.5
    assert abs(cosines.std() - directions.shape[1] ** -0.5) < 0.01


# ---- tokens


def odd_strings(n, seed=0):
    """Strings of everything that could go wrong: scripts, emoji, accents, controls, spaces, contractions, BOS."""
    dice = random.Random(seed)
    family, flag = "👩\u200d👩\u200d👧", "🇫🇷"
    pools = [
        "abcdefghij XYZ", "éüñçßœ", "0123456789²½Ⅷ٣", "!?.,;:'\"()[]{}<>|/\\@#$%^&*~`_-+=",
        " \t\n\r\u00a0\u2003\u3000\u0085\u1680",
        "你好世界こんにちは안녕", "مرحباשלוםनमस्तेไทย", ["\u0301", "\u0308", "e\u0301", "n\u0303", "\u0489", "क\u094d"],
        ["😀", "👍🏽", family, flag, "❤\ufe0f", "\U0001f9d1\u200d🚀"],
        ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "'S", "’s"],
        ["<|bos|>", "<|", "|>"], [" the", " Paris", "def ", "    return", "\n\n"],
        ["\x00", "\x1b", "\x7f", "\u200b", "\u202e", "\ufeff", "\u2028", "\ufffd", "\u1c80"],
    ]

    def one():
        chosen = dice.sample(pools, dice.randint(1, 4))
        return "".join(dice.choice(dice.choice(chosen)) for _ in range(dice.randint(1, 40)))

    def anywhere():  # any characters at all, of any plane
        codes = (dice.choice([dice.randrange(0x250), dice.randrange(0xD800), dice.randrange(0xE000, 0x40000),
                              dice.randrange(0x110000 - 0xE000) + 0xE000]) for _ in range(30))
        return "".join(dice.choice(["", " ", "a", "1"]) + chr(code) for code in codes)

    return [one() if i % 3 else anywhere() for i in range(n)]


def test_tokens_are_those_of_python_on_a_thousand_strings(loaded, model, target):
    strings = [*ODD, *odd_strings(900), *(text.text for text in load_texts(target, 100, split="probe"))]
    assert len(strings) >= 1000
    ours = loaded.evaluate("(strings) => strings.map((text) => live.tokenizer.encode(text))", strings)
    expected = model.tokenizer(strings, add_special_tokens=False)["input_ids"]
    assert [(s, a, b) for s, a, b in zip(strings, ours, expected, strict=True) if a != b] == []
    # The pieces that no token may cross, too: a vocabulary can hide that they are wrong.
    cut = model.tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str
    pieces = [[text[start:end] for _, (start, end) in cut(text)] for text in strings]
    assert loaded.evaluate("(strings) => strings.map((text) => live.tokenizer.pieces(text))", strings) == pieces
    back = loaded.evaluate("(rows) => rows.map((ids) => live.tokenizer.decode(ids))", expected)
    assert back == [model.tokenizer.decode(ids, clean_up_tokenization_spaces=False) for ids in expected]


def test_every_token_shows_its_text_or_its_bytes(loaded, model):
    shown = loaded.evaluate("live.tokenizer.tokens.map((_, id) => live.view.tokenText(live.tokenizer, id))")
    for i, text in enumerate(shown):
        decoded = model.tokenizer.decode([i], clean_up_tokenization_spaces=False)
        assert text == decoded or ("\ufffd" in decoded and re.fullmatch(r"⟨[0-9A-F]{2}( [0-9A-F]{2})*⟩", text))


# ---- the page


def write_text(page, text):
    """Type a text, and wait until it has been read."""
    before = page.evaluate("Number(document.getElementById('live').dataset.reads)")
    page.locator("#live-text").fill(text)
    page.wait_for_function("(n) => Number(document.getElementById('live').dataset.reads) > n", arg=before)


def continued(page, runs):
    """The continuations on the page, once all `runs` of them are there."""
    page.wait_for_function(f"document.querySelectorAll('.live-continuations small').length === {runs}")
    return [text.replace("↵\n", "\n") for text in page.locator(".live-written").all_text_contents()]


def test_nothing_is_loaded_until_asked_and_the_page_says_what_it_does(browser, base):
    with visit(browser, base, "index.html") as seen:
        page, asked, said = seen.page, [], []
        page.on("request", lambda request: asked.append(request.url))
        page.wait_for_load_state("networkidle")
        assert asked == [] and "MB" in page.locator(".live-start").inner_text()
        page.evaluate("""() => {
            const status = document.querySelector('#live [role=status]'); window.said = [];
            new MutationObserver(() => said.push([status.textContent, !document.querySelector('progress').hidden]))
                .observe(status, { childList: true });
        }""")
        press_start(page)
        said = page.evaluate("said")
        assert len(asked) == page.evaluate("live.manifest.parts.length")
        assert sum("Loading" in text and shown for text, shown in said) == len(asked)
        assert any("Unpacking" in text for text, _ in said)
        assert re.search(r"Ready after .* s\..* tokens in .* ms", said[-1][0])
        assert not page.locator("progress").is_visible()
        assert seen.errors == [] == seen.elsewhere


def test_a_part_that_does_not_come_is_named_and_can_be_asked_for_again(browser, base):
    with visit(browser, base, "index.html") as seen:
        page = seen.page
        page.route("**/part-3-*.js", lambda route: route.abort())
        press_start(page)
        assert page.evaluate("document.getElementById('live').dataset.state") == "failed"
        assert "part-3-" in page.locator("#live [role=status]").inner_text()
        page.unroute("**/part-3-*.js")
        press_start(page)
        assert page.evaluate("document.getElementById('live').dataset.state") == "ready"


def test_it_works_straight_from_the_disk(browser, folder):
    page = browser.new_page()
    page.goto((folder / "index.html").as_uri())
    press_start(page)
    assert "Ready" in page.locator("#live [role=status]").inner_text()
    page.close()


def test_without_javascript_there_is_an_explanation(browser, base):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{base}/index.html")
    assert "needs JavaScript" in page.locator("#live").inner_text()
    context.close()
    with visit(browser, base, "index.html") as seen:
        assert "needs JavaScript" not in seen.page.locator("#live").inner_text()
    assert "needs JavaScript" in markup()


def test_the_keyboard_does_everything(browser, base):
    with visit(browser, base, "index.html") as seen:
        page, press = seen.page, seen.page.keyboard.press

        def focused(expression):
            return page.evaluate(f"(e => {expression})(document.activeElement)")

        press("Tab")
        assert focused("e.className") == "live-start"
        press("Enter")
        page.wait_for_function(READY)
        assert focused("e.id") == "live-text"
        write_text(page, "The capital of France is")
        press("Tab")
        assert focused("e.id") == "live-example"
        press("Tab")
        assert focused("e.getAttribute('role')") == "option" and focused("e.textContent").startswith(" is")
        press("ArrowLeft")
        assert focused("e.textContent").startswith(" France")
        assert "France" in page.locator(".live-active caption").inner_text()
        assert "France" in page.locator(".live-next caption").inner_text()
        press("Home")
        assert focused("e.textContent").startswith("BOS")
        press("End")
        press("Tab")
        press("Tab")  # the second active latent
        wanted = focused("Number(e.dataset.latent)")
        press("Enter")
        assert page.evaluate("live.state.latent") == wanted == focused("Number(e.dataset.latent)")
        assert page.locator("#live-number").input_value() == str(wanted)
        assert page.locator(".live-tokens .t[class*=' p']").count() > 0
        page.locator("#live-strength").focus()
        for _ in range(5):
            press("ArrowRight")
        assert page.locator(".live-strength").inner_text() == "+0.5"
        assert page.locator(".live-next thead th").count() == 4
        press("Tab")
        before = page.locator(".live-next").inner_text()
        press("Enter")  # another random direction
        assert page.locator(".live-next").inner_text() != before
        assert seen.errors == []


def test_what_the_page_shows_is_what_torch_computes(browser, base, model, sae, target):
    text = "The capital of France is"
    with opened(browser, base) as seen:
        page = seen.page
        write_text(page, text)
        latent = page.evaluate("Number(document.querySelectorAll('#live-steering option')[1].value)")
        maximum = page.evaluate(f"live.state && {latent} >= 0 && Number(live.words.latents[{latent}].max)")
        page.select_option("#live-steering", str(latent))
        tokens = tokenize(model, text)
        features = encode(sae, extract(model, tokens, target.hook)[target.hook])[0, -1]
        strongest = features.topk(10).indices.tolist()
        listed = page.eval_on_selector_all(".live-latent", "rows => rows.map(row => Number(row.dataset.latent))")
        assert listed == strongest
        with torch.no_grad():
            likeliest = model.tokenizer.decode([int(model(tokens.ids)[0, -1].argmax())])
        assert page.locator(".live-next tbody th").first.inner_text().replace("␣", " ") == likeliest
        maxima = torch.zeros(target.d_sae)
        maxima[latent] = maximum
        vector = push_vector(sae, [Push(latent, 1.0)], maxima)
        plain, steered, _ = continued(page, 3)
        for ours, push in ((plain, torch.zeros_like(vector)), (steered, vector)):
            assert text + ours == steered_text(model, text, target.hook, push, 24, temperature=0)


def test_the_slider_at_zero_and_a_latent_by_number(browser, base):
    with opened(browser, base) as seen:
        page = seen.page
        page.select_option("#live-steering", index=1)
        assert page.locator(".live-strength").inner_text() == "+1.0"
        page.locator("#live-strength").fill("0")
        assert page.locator(".live-next thead th").count() == 2
        assert page.get_by_role("button", name="Another random direction").is_disabled()
        assert len(continued(page, 1)) == 1
        for written, chosen in (("17", 17), ("99999", page.evaluate("live.model.config.latents") - 1), ("-5", 0)):
            page.locator("#live-number").fill(written)
            page.locator("#live-number").press("Enter")
            assert page.evaluate("live.state.latent") == chosen


HOSTILE = ["<img src=x onerror=alert(1)><script>alert(2)</script>", "x" * 100_000, "wo\u0301 " * 400]


@pytest.mark.parametrize("text", [*ODD, *HOSTILE])
def test_any_text_can_be_typed(loaded, model, text):
    write_text(loaded, text)
    assert loaded.locator("#live img, #live script").count() == 0
    n = 1 + len(model.tokenizer(text[:1000], add_special_tokens=False)["input_ids"])
    assert loaded.locator(".live-tokens [role=option]").count() == min(n, model.cfg.n_ctx)
    assert ("tokens, BOS included: the last" in loaded.locator("#live").inner_text()) == (n > model.cfg.n_ctx)
    assert loaded.evaluate("document.getElementById('live').dataset.state") == "ready"
    shown = loaded.locator(".live-tokens").inner_text()
    assert not re.search("[\x00-\x08\x0b-\x1f\u202e\u200b\ufeff]", shown)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_page_is_accessible_with_the_model_in_it(browser, base, theme):
    with opened(browser, base, theme=theme) as seen:
        seen.page.select_option("#live-steering", index=1)
        continued(seen.page, 3)
        assert axe_complaints(seen.page) == []


def test_the_page_fits_a_phone_with_the_model_in_it(browser, base):
    with opened(browser, base, viewport=PHONE) as seen:
        seen.page.select_option("#live-steering", index=1)
        write_text(seen.page, "pneumonoultramicroscopicsilicovolcanoconiosis " * 4)
        continued(seen.page, 3)
        assert seen.page.evaluate("document.scrollingElement.scrollWidth") <= PHONE["width"]


@pytest.mark.skipif(not (SITE / "book" / "live.html").exists(), reason="the site has not been built (make book)")
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_page_on_the_built_site(browser, theme):
    with serve() as base, visit(browser, base, "book/live.html", theme) as seen:
        page = seen.page
        press_start(page)
        write_text(page, "Il ne parle pas français.")
        page.select_option("#live-steering", index=1)
        assert len(continued(page, 3)) == 3
        assert seen.errors == [] == seen.elsewhere  # before axe, which asks for the theme's style sheets a second time
        assert axe_complaints(page, "#live") == []
