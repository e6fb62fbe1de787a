// Numbers as HTML. Everything a reader types goes through `textContent`: it is shown, never taken for HTML.
(() => {
  const LEVELS = 8; // shades of orange, as on the pages of latents

  // element("p", { class: "x" }, "text", child, ...); a property that starts with "on" is a listener.
  const element = (name, properties = {}, ...children) => {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(properties)) {
      if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
      else if (value === true) made.setAttribute(key, "");
      else if (value !== false && value != null) made.setAttribute(key, value);
    }
    made.append(...children);
    return made;
  };

  const number = (value) => Number(value.toPrecision(3)).toString().replace("-", "−");
  const percent = (share) => (share < 0.0005 ? "<0.1 %" : `${(100 * share).toFixed(1)} %`);

  const hex = (code, digits) => code.toString(16).toUpperCase().padStart(digits, "0");

  // Text whose invisible characters are spelled out, so that none can break the page or reorder what is read.
  const printable = (text) => Array.from(text, (character, place) => {
    const code = character.codePointAt(0);
    if (character === "\n") return "↵";
    if (character === "\t") return "→";
    if (code < 0x20 || code === 0x7f) return code === 0x7f ? "␡" : String.fromCharCode(0x2400 + code);
    if (/^[\p{C}\p{Zl}\p{Zp}]$/u.test(character)) return `⟨U+${hex(code, 4)}⟩`;
    return /^\p{M}$/u.test(character) && place === 0 ? `◌${character}` : character; // an accent without its letter
  }).join("");

  // A token's text; of a token that is only a piece of a character, its bytes.
  const tokenText = (tokenizer, id) => tokenizer.text(id)
    ?? `⟨${Array.from(tokenizer.bytes(id), (byte) => hex(byte, 2)).join(" ")}⟩`;

  // White space that stands alone, so that one can see it; other text as it is.
  const seen = (text) => (text.trim() ? printable(text) : printable(text).replaceAll(" ", "␣"));

  // A token that stands alone, its leading space visible.
  const token = (text) => element("code", {}, seen(text).replace(/^ /, "␣") || "∅");

  const level = (value, largest) =>
    (value > 0 && largest > 0 ? Math.max(1, Math.round(LEVELS * Math.min(value / largest, 1))) : 0);

  // The tokens of the text as choices, each shaded by one latent's activation. The first is BOS.
  const tokens = (texts, values, largest, chosen) => texts.map((text, i) => {
    const shade = level(values[i], largest), lines = text.includes("\n") && i > 0;
    const shown = i === 0 ? "BOS" : seen(text);
    return element("span", {
      role: "option", class: `t${shade ? ` p${shade}` : ""}${i === 0 ? " live-bos" : ""}`,
      "aria-selected": String(i === chosen), tabindex: i === chosen ? 0 : -1, "data-place": i,
    }, shown + (lines ? "\n" : ""), element("span", { class: "v" }, ` (${number(values[i])})`));
  });

  const bar = (share, kind = "") =>
    element("span", { class: `ms-bar ${kind}`, style: `width: ${Math.max(0, Math.min(1, share)) * 100}%` });

  // A few tokens in running text, each once, whether there is a space before it or not.
  const quoted = (texts) => [...new Set(texts.map((text) => text.trim() || text))].slice(0, 3)
    .map((text) => `“${seen(text)}”`).join(", ");

  // In words: what a latent is called, and how well that is founded.
  const latentName = (latent) => {
    if (latent.concept) return latent.concept;
    if (latent.on.length === 0) return "no name: hardly ever active";
    return `on ${quoted(latent.on)} …`;
  };

  const latentNote = (latent) => (latent.concept
    ? `Called after the concept it follows best: F1 ${latent.f1.toFixed(2)} on unseen text. `
      + `A mere list of tokens follows the same concept with F1 ${latent.lookup.toFixed(2)}.`
    : "It follows none of the labelled concepts well, so it is called after the tokens on which it is active more "
      + "often than chance explains.");

  const listOf = (texts) => (texts.length ? texts.flatMap((text) => [token(text), " "]) : ["nothing"]);

  // The card of the chosen latent.
  const card = (latent) => [
    element("p", {}, element("strong", {}, latentName(latent))),
    element("p", { class: "ms-muted" }, latentNote(latent)),
    element("dl", {},
      element("dt", {}, "Active on"),
      element("dd", {}, `${percent(latent.density)} of tokens, at most ${number(latent.max)}`),
      element("dt", {}, "Commonest on"), element("dd", {}, ...listOf(latent.on)),
      element("dt", {}, "Promotes"), element("dd", {}, ...listOf(latent.promotes)),
      element("dt", {}, "Suppresses"), element("dd", {}, ...listOf(latent.suppresses))),
  ];

  // Rows of the active latents: a button that chooses it, a bar, its activation.
  const features = (active, latents, chosen, choose) => active.map(([latent, value]) => element("tr", {},
    element("td", {}, element("button", {
      type: "button", class: "live-latent", "aria-pressed": String(latent === chosen), "data-latent": latent,
      onclick: () => choose(latent),
    }, element("small", {}, `${latent}`), " ", latentName(latents[latent]))),
    element("td", { class: "live-bar" }, bar(value / active[0][1], "ms-up")),
    element("td", { class: "ms-number" }, number(value))));

  // Rows of the likeliest next tokens; runs: [[name, probabilities], ...].
  const predictions = (ids, runs, nameOf) => {
    const largest = Math.max(...ids.flatMap((id) => runs.map(([, shares]) => shares[id])));
    return ids.map((id) => element("tr", {}, element("th", { scope: "row" }, token(nameOf(id))),
      ...runs.map(([, shares], run) => element("td", {},
        bar(shares[id] / largest, run === 1 ? "ms-up" : run === 2 ? "live-random" : ""),
        element("span", { class: "live-share" }, percent(shares[id]))))));
  };

  live.view = { element, number, percent, printable, quoted, tokenText, token, tokens, latentName, card, features,
    predictions };
})();
