// The table of latents: sorts, finds, filters, turns pages and saves what is shown as CSV. It asks nobody for anything.
// The rows stand in the page as JSON; the first of them also as a table, for readers without scripts.
(() => {
  const SIZES = [10, 25, 50, 100];
  const byText = new Intl.Collator("en", { numeric: true });
  let count = 0; // of tables on this page, for names that have to be unique

  // An element with its attributes and what is in it. Text is only ever set as text.
  const make = (tag, attributes = {}, ...inside) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else if (value !== false && value !== null) element.setAttribute(name, value === true ? "" : value);
    }
    element.append(...inside);
    return element;
  };

  const isNumber = (column) => column.kind === "number";
  const plural = (n, word) => `${n.toLocaleString("en")} ${word}${n === 1 ? "" : "s"}`;

  // A number as people read it: a few digits, a power of ten where it is very small or very large, a minus that is one.
  const numeral = (value, digits) => {
    if (!Number.isInteger(value)) {
      value = Math.abs(value) >= 10 ** digits ? Math.round(value) : Number(value.toPrecision(digits));
    }
    const size = Math.abs(value);
    const text = size > 0 && (size < 1e-4 || size >= 1e15) ? value.toExponential() : String(value);
    return text.replaceAll("-", "−");
  };

  // A text in pieces, the token between ** and ** as a mark.
  const marked = (text, column) => {
    const parts = column.marked ? text.split("**") : [text];
    return parts.length === 3 ? [parts[0], make("mark", {}, parts[1]), parts[2]] : [text];
  };

  // What a search compares: without case, and with spaces however they are shown.
  const folded = (value) => String(value ?? "").toLowerCase().replaceAll("␣", " ");

  // One cell of a CSV file. A text that a spreadsheet would take for a formula is marked as text by an apostrophe.
  const csvCell = (value) => {
    if (value === null) return "";
    if (typeof value === "number") return String(value);
    const text = /^[=+\-@\t\r]/.test(value) ? `'${value}` : value;
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };

  const setUp = (root) => {
    root.dataset.ready = "true";
    const data = JSON.parse(root.querySelector("script[type='application/json']").textContent);
    const { columns, rows } = data;
    const table = root.querySelector("table"), body = table.querySelector("tbody");
    const name = `ms-browser-${(count += 1)}`;
    const fresh = () => ({ find: "", filters: new Map(), sort: data.sort, page: 0, size: data.page });
    let state = fresh(), found = [];
    const shown = (value) => (value === null ? "" : typeof value === "number" ? numeral(value, data.digits) : value);
    const hidden = new Set(columns.flatMap((column, i) => (column.hidden ? [i] : [])));
    const haystack = rows.map((row) => row.map((value) => folded(shown(value))).join("\n"));

    // ---- which rows, in which order

    // What a reader has asked for: [in words, test of a row's number], one for each condition.
    const conditions = () => {
      const all = [];
      const wanted = folded(state.find);
      if (wanted) all.push([`“${state.find}” anywhere`, (r) => haystack[r].includes(wanted)]);
      for (const [c, filter] of state.filters) {
        const heading = columns[c].heading;
        if (filter.low !== undefined) {
          all.push([`${heading} at least ${filter.low}`, (r) => rows[r][c] !== null && rows[r][c] >= filter.low]);
        }
        if (filter.high !== undefined) {
          all.push([`${heading} at most ${filter.high}`, (r) => rows[r][c] !== null && rows[r][c] <= filter.high]);
        }
        if (filter.is !== undefined) all.push([`${heading} is ${filter.is || "empty"}`, (r) => rows[r][c] === filter.is]);
        if (filter.has) {
          const part = folded(filter.has);
          all.push([`${heading} contains “${filter.has}”`, (r) => folded(rows[r][c]).includes(part)]);
        }
      }
      return all;
    };

    const compare = (a, b) => {
      const { column, descending } = state.sort;
      const x = rows[a][column], y = rows[b][column];
      const missing = (value) => value === null || value === "";
      if (missing(x) || missing(y)) return missing(x) - missing(y); // at the end, whichever the direction
      const order = isNumber(columns[column]) ? x - y : byText.compare(x, y);
      return descending ? -order : order;
    };

    const search = () => {
      const tests = conditions();
      found = [...rows.keys()].filter((r) => tests.every(([, test]) => test(r)));
      if (state.sort) found.sort((a, b) => compare(a, b) || a - b);
      return tests;
    };

    // Nothing was found: which condition is to blame?
    const excuse = (tests) => {
      if (tests.length < 2) return `No row has ${tests.map(([words]) => words).join("")}.`;
      const without = tests.map(([words], i) => {
        const left = rows.filter((_, r) => tests.every(([, test], j) => i === j || test(r))).length;
        return left ? `without “${words}” there would be ${left}` : "";
      }).filter(Boolean);
      return `No row meets all ${tests.length} conditions; ${without.join(", ") || "no single one is to blame"}.`;
    };

    // ---- what is seen

    const status = make("p", { class: "ms-muted ms-status", role: "status" });
    const place = make("span", {});
    const drawCell = (row, c) => {
      const text = marked(shown(row[c]), columns[c]);
      const kind = columns[c].look || null;
      if (c > 0) return make("td", { class: kind }, ...text);
      const address = data.link && data.link.replace(/\{(\d+)\}/g, (_, i) => encodeURIComponent(row[i] ?? ""));
      const inside = address ? [make("a", { href: address, rel: "noopener noreferrer" }, ...text)] : text;
      return make("th", { scope: "row", class: kind }, ...inside);
    };

    const draw = () => {
      const tests = search();
      const last = Math.max(0, Math.ceil(found.length / state.size) - 1);
      state.page = Math.min(Math.max(state.page, 0), last);
      const from = state.page * state.size, page = found.slice(from, from + state.size);
      const seen = columns.map((_, c) => c).filter((c) => !hidden.has(c));
      body.replaceChildren(...page.map((r) => make("tr", {}, ...seen.map((c) => drawCell(rows[r], c)))));
      table.querySelectorAll("thead th").forEach((head, c) => {
        head.hidden = hidden.has(c);
        const sorted = state.sort && state.sort.column === c;
        head.querySelector(".ms-arrow").textContent = sorted ? (state.sort.descending ? "▼" : "▲") : "";
        if (sorted) head.setAttribute("aria-sort", state.sort.descending ? "descending" : "ascending");
        else head.removeAttribute("aria-sort");
      });
      controls.querySelectorAll("fieldset").forEach((box, c) => { box.hidden = hidden.has(c); });
      status.textContent = summary(from, page.length, tests);
      place.textContent = `Page ${state.page + 1} of ${last + 1}`;
      root.querySelectorAll("[data-step]").forEach((button) => {
        const end = button.dataset.step < 0 ? state.page === 0 : state.page === last;
        button.setAttribute("aria-disabled", end); // a disabled button would lose the focus
      });
      save.textContent = `Save ${plural(found.length, "row")} as CSV`;
    };

    const summary = (from, shownRows, tests) => {
      if (!found.length) return excuse(tests);
      let words = `Rows ${from + 1} to ${from + shownRows} of ${found.length.toLocaleString("en")}`;
      if (tests.length) words += ` that meet: ${tests.map(([said]) => said).join("; ")} (of ${rows.length.toLocaleString("en")})`;
      if (!state.sort) return `${words}.`;
      const column = columns[state.sort.column], down = state.sort.descending;
      const order = isNumber(column) ? (down ? "largest first" : "smallest first") : down ? "Z to A" : "A to Z";
      return `${words}. Sorted by ${column.heading}, ${order}.`;
    };

    // ---- the controls

    const set = (change) => {
      Object.assign(state, { page: 0 }, change);
      draw();
    };
    const filter = (c, key, value) => {
      const now = { ...state.filters.get(c) };
      if (value === undefined || value === "") delete now[key];
      else now[key] = value;
      if (Object.keys(now).length) state.filters.set(c, now);
      else state.filters.delete(c);
      set({});
    };

    const field = (label, ...inputs) => make("label", {}, make("span", {}, label), ...inputs);
    const numberField = (c, key, label) => field(label, make("input", {
      type: "number", step: "any", "data-filter": `${columns[c].name} ${key}`,
      oninput: (e) => filter(c, key, Number.isNaN(e.target.valueAsNumber) ? undefined : e.target.valueAsNumber),
    }));
    const ANY = "any value"; // the first entry of a menu; an empty cell can be asked for, too
    const menu = (c) => {
      const values = [...new Set(rows.map((row) => row[c]))].sort(byText.compare);
      const options = values.map((value) => make("option", {}, value || "(empty)"));
      return field("is", make("select", {
        "data-filter": `${columns[c].name} is`,
        onchange: (e) => {
          const chosen = e.target.selectedIndex - 1;
          const now = { ...state.filters.get(c) };
          delete now.is;
          if (chosen >= 0) now.is = values[chosen];
          state.filters.delete(c);
          if (chosen >= 0) state.filters.set(c, now);
          set({});
        },
      }, make("option", {}, ANY), ...options));
    };
    const filterOf = (column, c) => {
      const parts = isNumber(column) ? [numberField(c, "low", "at least"), numberField(c, "high", "at most")]
        : column.kind === "choice" ? [menu(c)]
        : [field("contains", make("input", {
            type: "text", "data-filter": `${column.name} has`, oninput: (e) => filter(c, "has", e.target.value),
          }))];
      return make("fieldset", {}, make("legend", {}, column.heading), ...parts);
    };

    const chooser = (column, c) => make("label", { class: "ms-check" }, make("input", {
      type: "checkbox", checked: !hidden.has(c), "data-column": column.name, disabled: c === 0,
      onchange: (e) => {
        if (e.target.checked) hidden.delete(c);
        else hidden.add(c);
        draw();
      },
    }), column.heading);

    const write = () => {
      const lines = [columns.map((column) => csvCell(column.name)), ...found.map((r) => rows[r].map(csvCell))];
      const file = new Blob([lines.map((line) => line.join(",")).join("\r\n") + "\r\n"], { type: "text/csv;charset=utf-8" });
      const address = URL.createObjectURL(file);
      const link = make("a", { href: address, download: data.file });
      link.click();
      setTimeout(() => URL.revokeObjectURL(address), 10000);
    };

    const reset = () => {
      state = { ...fresh(), size: state.size };
      controls.querySelectorAll("input:not([type=checkbox])").forEach((input) => { input.value = ""; });
      controls.querySelectorAll("fieldset select").forEach((select) => { select.selectedIndex = 0; });
      draw();
    };

    const step = (label, by) => make("button", {
      type: "button", "data-step": by,
      onclick: (e) => {
        if (e.target.getAttribute("aria-disabled") !== "true") set({ page: by === -Infinity ? 0 : state.page + by });
      },
    }, label);

    const find = make("input", { type: "search", "data-find": true, oninput: (e) => set({ find: e.target.value }) });
    const size = make("select", {
      "data-size": true, onchange: (e) => set({ size: Number(e.target.value) }),
    }, ...[...new Set([...SIZES, data.page])].sort((a, b) => a - b).map(
      (n) => make("option", { value: n, selected: n === data.page }, String(n)),
    ));
    const save = make("button", { type: "button", "data-save": true, onclick: write });
    const controls = make("div", { class: "ms-controls" },
      make("div", { class: "ms-bar-of-controls" }, field("Find in all columns", find), field("Rows a page", size), save,
        make("button", { type: "button", "data-reset": true, onclick: reset }, "Reset")),
      make("details", {}, make("summary", {}, "Filter by column"), make("div", { class: "ms-grid" }, ...columns.map(filterOf))),
      make("details", {}, make("summary", {}, "Choose columns"), make("div", { class: "ms-grid" }, ...columns.map(chooser))));
    const pager = make("nav", { class: "ms-pager", "aria-label": `Pages of the table: ${data.title}` },
      step("First", -Infinity), step("Previous", -1), place, step("Next", 1), step("Last", Infinity));

    table.querySelectorAll("thead th").forEach((head, c) => {
      const turn = () => {
        const again = state.sort && state.sort.column === c;
        set({ sort: { column: c, descending: again ? !state.sort.descending : isNumber(columns[c]) } });
      };
      head.replaceChildren(make("button", { type: "button", onclick: turn }, columns[c].heading,
        make("span", { class: "ms-arrow", "aria-hidden": "true" })));
    });

    // A figure on the same page says that a latent was clicked: show that one.
    const key = columns.findIndex((column) => column.name === "latent");
    document.addEventListener("latent-chosen", (event) => {
      if (key < 0 || !root.isConnected) return;
      reset();
      state.filters.set(key, { low: event.detail, high: event.detail });
      controls.querySelectorAll("[data-filter^='latent ']").forEach((input) => { input.value = event.detail; });
      draw();
      root.scrollIntoView({ block: "nearest" });
    });

    root.querySelector("noscript")?.remove();
    root.querySelector(".ms-scroll").before(controls, status);
    root.querySelector(".ms-scroll").after(pager);
    root.id ||= name;
    draw();
  };

  document.querySelectorAll(".ms-browser:not([data-ready])").forEach(setUp);
})();
