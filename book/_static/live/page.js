// The live page: what is on it, and what happens when the reader does something.
(() => {
  const { element, number, percent, printable, quoted, tokenText } = live.view;
  const LONGEST = 1000;   // characters that are read; the model's context is shorter than that
  const NEW_TOKENS = 24;  // of a continuation
  const ROWS = 10;        // active latents shown
  const LISTED = 5;       // likeliest next tokens of the model as it is, and as many of the steered one
  const STRONGEST = 3;    // the slider goes so far, in units of a latent's largest activation
  const WAIT = 60;        // milliseconds after the last key before the text is read

  const root = document.getElementById("live");
  if (!root) return;

  // ---- before anything is loaded

  const megabytes = (bytes) => `${(bytes / 1e6).toFixed(1)} MB`;
  const status = element("p", { role: "status", class: "live-status" });
  const progress = element("progress", { "aria-label": "Loading the model", hidden: true });
  const startButton = element("button", { type: "button", class: "live-start", onclick: () => start() },
    `Load the model (${megabytes(live.manifest.bytes)})`);
  root.replaceChildren(startButton, progress, status);
  root.dataset.state = "waiting";

  const start = async () => {
    startButton.disabled = true;
    progress.hidden = false;
    root.dataset.state = "loading";
    const began = performance.now();
    try {
      const loaded = await live.load((what, here, total) => {
        progress.max = total;
        progress.value = here;
        const much = what === "Loading" ? `: ${megabytes(here)} of ${megabytes(total)}` : "";
        status.textContent = `${what}${much} …`;
      });
      show(loaded);
      status.textContent = `Ready after ${((performance.now() - began) / 1000).toFixed(1)} s. ${status.textContent}`;
    } catch (error) {
      root.dataset.state = "failed";
      startButton.disabled = false;
      startButton.textContent = "Try again";
      status.textContent = `This did not work: ${error.message}.`;
      console.warn(error);
    }
    progress.hidden = true;
  };

  // ---- the board

  const show = ({ model, tokenizer, words }) => {
    const { latents } = words;
    const state = { ids: [], active: [], place: 0, latent: null, strength: 0, seed: 1 };
    Object.assign(live, { state, model, tokenizer, words }); // to look at from the browser's console

    const text = element("textarea", { id: "live-text", rows: 3, maxlength: LONGEST, spellcheck: "false",
      oninput: () => later(read) });
    const examples = element("select", { id: "live-example", onchange: () => {
      text.value = words.examples[examples.value];
      read();
    } }, ...Object.keys(words.examples).map((kind) => element("option", { value: kind }, kind)));
    const cut = element("p", { class: "ms-muted" });
    const tokens = element("div", { role: "listbox", class: "ms-text live-tokens", "aria-orientation": "horizontal",
      "aria-label": "Tokens of your text", "aria-describedby": "live-shade",
      onclick: (event) => pick(event.target), onkeydown: (event) => move(event) });
    const shade = element("p", { class: "ms-muted", id: "live-shade" });
    const activeTitle = element("caption");
    const activeRows = element("tbody");
    const latentNumber = element("input", { id: "live-number", type: "number", min: 0, max: latents.length - 1,
      onchange: () => choose(Math.max(0, Math.min(latents.length - 1, Math.round(latentNumber.value) || 0))) });
    const card = element("div", { class: "live-card" });
    const steering = element("select", { id: "live-steering", onchange: () => {
      state.strength = 1;
      choose(Number(steering.value));
    } }, element("option", { value: "" }, "choose …"), ...words.steering.map((row) => element("option",
      { value: row.latent }, `${row.latent}: ${whatItPromotes(row, latents)}`)));
    const slider = element("input", { id: "live-strength", type: "range", min: -STRONGEST, max: STRONGEST, step: 0.1,
      value: 0, "aria-describedby": "live-unit", oninput: () => {
        state.strength = Number(slider.value);
        steer();
      } });
    const strength = element("output", { for: "live-strength", class: "live-strength" });
    const dice = element("button", { type: "button", onclick: () => {
      state.seed += 1;
      steer();
    } }, "Another random direction");
    const nextTitle = element("caption");
    const nextHead = element("tr");
    const nextRows = element("tbody");
    const continuations = element("dl", { class: "live-continuations" });

    // -- reading the text

    let waiting;
    const later = (task) => {
      clearTimeout(waiting);
      waiting = setTimeout(task, WAIT);
    };

    // Text to tokens, activations, active latents and predictions; everything else on the page follows from these.
    const read = () => {
      const began = performance.now();
      const all = [model.config.bos, ...tokenizer.encode(text.value.slice(0, LONGEST))];
      state.ids = all.slice(0, model.config.context);
      state.below = model.below();
      state.activations = model.activations(state.below, state.ids);
      state.active = model.features(state.activations);
      state.active[0] = []; // BOS is left out, as everywhere in this course
      state.place = state.ids.length - 1;
      state.plain = run(null);
      state.plain.next();
      const took = performance.now() - began;
      const left = all.length - state.ids.length;
      cut.textContent = left
        ? `The model reads ${model.config.context} tokens, BOS included: the last ${left} are left out.` : "";
      status.textContent = `${state.ids.length - 1} tokens in ${took < 10 ? took.toFixed(1) : took.toFixed(0)} ms: `
        + "tokenizer, model, SAE and next-token probabilities.";
      if (state.latent === null) state.latent = (state.active[state.place][0] ?? [words.steering[0].latent])[0];
      paint();
      steer();
      root.dataset.reads = Number(root.dataset.reads || 0) + 1;
    };

    // The layers above the hook point with `push` added, and what it says comes after the chosen token.
    const run = (push) => {
      const memory = model.above(), final = model.finish(memory, state.activations, push);
      return { push, memory, final, next: () => live.softmax(model.logits(final, state.place)) };
    };

    // -- showing

    const nameOf = (id) => tokenText(tokenizer, id);
    const chosenToken = () => (state.place ? `“${printable(nameOf(state.ids[state.place]))}”` : "BOS");
    const value = (place) => (state.active[place].find(([latent]) => latent === state.latent) ?? [0, 0])[1];

    const paint = () => {
      const latent = latents[state.latent];
      tokens.replaceChildren(...live.view.tokens(state.ids.map(nameOf), state.ids.map((_, i) => value(i)), latent.max,
        state.place));
      shade.textContent = `Shaded by latent ${state.latent} (${live.view.latentName(latent)}). Full colour: ${
        number(latent.max)}, its largest activation on ${words.measured.tokens.toLocaleString("en")} tokens. `
        + "Choose a token with a click or the arrow keys.";
      const here = state.active[state.place].slice(0, ROWS);
      const nothing = element("tr", {}, element("td", {}, "Nothing: BOS is left out. Choose another token."));
      activeTitle.textContent = `Active on ${chosenToken()}`;
      activeRows.replaceChildren(
        ...(here.length ? live.view.features(here, latents, state.latent, choose) : [nothing]));
      latentNumber.value = state.latent;
      card.replaceChildren(...live.view.card(latent));
    };

    const pick = (target) => {
      const option = target.closest("[role=option]");
      if (!option) return;
      state.place = Number(option.dataset.place);
      paint();
      tokens.children[state.place].focus();
      predict();
    };

    const move = (event) => {
      const last = state.ids.length - 1, steps = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1,
        Home: -last, End: last };
      if (!(event.key in steps)) return;
      event.preventDefault();
      pick(tokens.children[Math.max(0, Math.min(last, state.place + steps[event.key]))]);
    };

    const choose = (latent) => {
      const held = document.activeElement?.dataset?.latent; // painting replaces the button that was pressed
      state.latent = latent;
      paint();
      if (held !== undefined) activeRows.querySelector(`[data-latent="${held}"]`)?.focus();
      steer();
    };

    // -- steering

    const steer = () => {
      const latent = latents[state.latent], by = state.strength * latent.max;
      slider.value = state.strength;
      slider.disabled = latent.max === 0;
      strength.textContent = `${state.strength > 0 ? "+" : ""}${state.strength.toFixed(1).replace("-", "−")}`;
      steering.value = words.steering.some((row) => row.latent === state.latent) ? state.latent : "";
      const push = model.direction(state.latent, by);
      state.runs = [["as it is", state.plain]];
      if (by !== 0) {
        state.runs.push([`latent ${state.latent} pushed`, run(push)]);
        state.runs.push(["random direction", run(model.randomLike(push, state.seed))]);
      }
      dice.disabled = by === 0;
      predict();
      goOn();
    };

    const predict = () => {
      const shares = state.runs.map(([name, one]) => [name, one.next()]);
      const likeliest = (chances) =>
        Array.from(chances.keys()).sort((a, b) => chances[b] - chances[a]).slice(0, LISTED);
      const ids = [...new Set(shares.slice(0, 2).flatMap(([, chances]) => likeliest(chances)))];
      ids.sort((a, b) => shares[0][1][b] - shares[0][1][a]);
      nextTitle.textContent = `What comes after ${chosenToken()}`;
      nextHead.replaceChildren(element("th", { scope: "col" }, "token"),
        ...shares.map(([name]) => element("th", { scope: "col" }, name)));
      nextRows.replaceChildren(...live.view.predictions(ids, shares, nameOf));
      state.shares = shares;
    };

    // Continuations, one run at a time, so that the page stays quick while they are written.
    let writing = 0;
    const goOn = () => {
      const turn = ++writing, runs = [...state.runs];
      const fields = runs.map(([name]) => element("dd", {}, "…"));
      continuations.replaceChildren(...runs.flatMap(([name], i) => [element("dt", {}, name), fields[i]]));
      const next = (i) => {
        if (turn !== writing || i === runs.length) return;
        fields[i].replaceChildren(...continuation(runs[i][1]));
        setTimeout(next, 0, i + 1);
      };
      setTimeout(next, 3 * WAIT, 0);
    };

    // The likeliest token again and again, and what the model as it is thinks of them.
    const continuation = (one) => {
      const below = model.copy(state.below), above = model.copy(one.memory), plain = model.copy(state.plain.memory);
      const rest = model.config.context - state.ids.length, written = [];
      const last = state.ids.length - 1;
      let logits = model.logits(one.final, last), judge = model.logits(state.plain.final, last), loss = 0;
      while (written.length < Math.min(NEW_TOKENS, rest)) {
        const id = logits.indexOf(logits.reduce((a, b) => Math.max(a, b)));
        if (id === model.config.bos) break;
        loss -= Math.log(live.softmax(judge)[id]);
        written.push(id);
        const activation = model.activations(below, [id]);
        logits = model.logits(model.finish(above, activation, one.push), 0);
        judge = model.logits(model.finish(plain, activation), 0);
      }
      if (!rest) return ["There is no room left: the text fills the context."];
      if (!written.length) return ["The text ends here."];
      const shown = printable(tokenizer.decode(written)).replaceAll("↵", "↵\n");
      return [element("span", { class: "live-written" }, shown),
        element("small", {}, ` loss ${(loss / written.length).toFixed(2)} nats per token`)];
    };

    // -- the page itself

    const labelled = (label, control) => element("p", {}, element("label", { for: control.id }, label), " ", control);
    root.append(
      element("p", {}, element("label", { for: "live-text" }, "Your text")), text,
      labelled("or the beginning of a text of the embedded world:", examples), cut,
      element("h2", { class: "ms-part" }, "Tokens, and where one latent is active"), tokens, shade,
      element("div", { class: "ms-columns" },
        element("div", {}, element("h2", { class: "ms-part" }, "Latents"),
          element("table", { class: "live-active" }, activeTitle, activeRows)),
        element("div", {}, element("h2", { class: "ms-part" }, "The chosen latent"),
          labelled("Number", latentNumber), card)),
      element("h2", { class: "ms-part" }, "Next token, and steering"),
      labelled("A latent that steers:", steering),
      element("p", {}, element("label", { for: "live-strength" }, "Push the chosen latent by"), " ", strength),
      element("div", { class: "live-slide" }, slider, dice),
      element("p", { class: "ms-muted", id: "live-unit" },
        "In units of its own largest activation. The vector is added at every token but BOS."),
      element("div", { class: "live-wide" }, element("table", { class: "live-next" }, nextTitle,
        element("thead", {}, nextHead), nextRows)),
      element("h2", { class: "ms-part" }, "How the text goes on"),
      element("p", { class: "ms-muted" }, "The likeliest token each time. Loss: how surprised the model as it is "
        + "would be by these tokens; text that no longer makes sense has a high one."),
      continuations);
    startButton.remove();
    text.value = Object.values(words.examples)[0];
    read(); // the first time the browser is still compiling
    read();
    root.dataset.state = "ready";
    text.focus({ preventScroll: true });
  };

  const whatItPromotes = (row, latents) => `promotes ${quoted(latents[row.latent].promotes)} (${
    percent(row.unsteered)} → ${percent(row.steered)})`;
})();
