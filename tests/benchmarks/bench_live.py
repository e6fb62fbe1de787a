"""The live page: how long a reader waits, measured in a headless Chromium on this machine.

Promised is less than 100 ms for 32 tokens, from the text to tokens, activations, latents and the probabilities of the
next token. Also measured: the same at the full context, one move of the steering slider (two more runs of the layers
above the hook point), a continuation of 24 tokens, and the time from pressing the button to a page that answers.

    python -m tests.benchmarks live [--quick]
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path

LIMIT_MS = 100.0
LIMIT_MB = 5.0  # "a few MB"

# Milliseconds of each of `repeats` runs, after some that let the browser compile.
MEASURE = """([n, repeats]) => {
    const { model, tokenizer, words } = live, text = Object.values(words.examples).join(" ").repeat(3);
    const ids = tokenizer.encode(text), short = tokenizer.decode(ids.slice(0, n - 1));
    const times = (task) => Array.from({ length: repeats + 8 }, () => {
        const began = performance.now();
        task();
        return performance.now() - began;
    }).slice(8);
    let activations, below, above, final, read;
    const forward = () => {
        tokenizer.seen.clear(); // as if the words were new
        read = [model.config.bos, ...tokenizer.encode(short)];
        [below, above] = [model.below(), model.above()];
        activations = model.activations(below, read);
        model.features(activations);
        final = model.finish(above, activations);
        live.softmax(model.logits(final, read.length - 1));
    };
    const push = model.direction(words.steering[0].latent, 10);
    const steer = () => [push, model.randomLike(push, 1)].forEach((vector) =>
        live.softmax(model.logits(model.finish(model.above(), activations, vector), read.length - 1)));
    const goOn = () => {
        const lower = model.copy(below), upper = model.copy(above);
        for (let i = 0, id = read[1]; i < 24; i++) {
            const logits = model.logits(model.finish(upper, model.activations(lower, [id])), 0);
            id = logits.indexOf(Math.max(...logits));
        }
    };
    const found = { forward: times(forward), steer: times(steer) };
    if (n + 24 <= model.config.context) found.goOn = times(goOn);
    return { n: read.length, ...found };
}"""


def row(name: str, value: float | None, unit: str, limit: float | None = None, note: str = "") -> dict:
    """One line of the table; what has a limit must not be above it."""
    ok = None if limit is None or value is None else bool(value <= limit)
    return {"name": f"live: {name}", "value": value, "unit": unit, "limit": limit, "ok": ok, "note": note}


def run(quick: bool) -> list[dict]:
    """All rows of this bench: name, value, unit, limit, ok, note."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from browsing import chromium_path, launch, serve, visit
    from live_page import READY, write_page

    if chromium_path() is None:
        return [row("text of 32 tokens", None, "ms", LIMIT_MS, "no Chromium on the path")]
    with tempfile.TemporaryDirectory(prefix="bench-live-") as folder:
        manifest = write_page(Path(folder), n_texts=40, n_candidates=2)  # what is measured does not depend on these
        with serve(Path(folder)) as base, launch() as browser:
            started = []
            for _ in range(2 if quick else 5):
                with visit(browser, base, "index.html") as seen:
                    started.append(seen.page.evaluate(f"""() => new Promise((done) => {{
                        const began = performance.now();
                        const wait = () => (({READY})() ? done(performance.now() - began) : setTimeout(wait, 1));
                        document.querySelector(".live-start").click();
                        wait();
                    }})"""))
            with visit(browser, base, "index.html") as seen:
                seen.page.locator(".live-start").click()
                seen.page.wait_for_function(READY)
                repeats = 10 if quick else 60
                short, long = (seen.page.evaluate(MEASURE, [n, repeats]) for n in (32, manifest["context"]))
            version = browser.version
    rows = [row("what is loaded", manifest["bytes"] / 1e6, "MB", LIMIT_MB, "weights, tokenizer, names"),
            row("from the button to the first answer", statistics.median(started), "ms", None,
                f"median of {len(started)}, from a local server")]
    for what, found, limit in (("text", short, LIMIT_MS), ("text", long, None)):
        for name, task in (("forward", what), ("steer", "slider"), ("goOn", "continuation of 24")):
            if name in found:
                times = sorted(found[name])
                note = f"median of {len(times)}; 95% below {times[int(0.95 * len(times))]:.0f} ms; Chromium {version}"
                rows.append(row(f"{task}, {found['n']} tokens", statistics.median(times), "ms",
                                limit if name == "forward" else None, note))
    return rows
