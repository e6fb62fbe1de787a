// Shows the definition of a glossary term while the pointer is on it or the keyboard has reached it. Escape closes it.
(() => {
  const terms = window.glossaryTerms || {};
  const tip = document.createElement("div");
  tip.id = "term-tip";
  tip.setAttribute("role", "tooltip");
  tip.hidden = true;
  document.body.append(tip);
  let current = null;

  const place = (link) => {
    const box = link.getBoundingClientRect(), gap = 8, edge = 12;
    tip.style.left = "0px"; // measure at full width first
    const width = tip.offsetWidth, height = tip.offsetHeight;
    const left = Math.min(Math.max(edge, box.left), document.documentElement.clientWidth - width - edge);
    const above = box.top - height - gap;
    tip.style.left = `${Math.max(edge, left)}px`;
    tip.style.top = `${above > edge ? above : box.bottom + gap}px`;
  };

  const show = (link) => {
    tip.textContent = terms[link.hash.slice(1)];
    tip.hidden = false;
    link.setAttribute("aria-describedby", tip.id);
    current = link;
    place(link);
  };

  const hide = () => {
    tip.hidden = true;
    if (current) current.removeAttribute("aria-describedby");
    current = null;
  };

  for (const link of document.querySelectorAll("a.reference:has(.std-term)")) {
    if (!(link.hash.slice(1) in terms)) continue;
    link.classList.add("term");
    link.addEventListener("mouseenter", () => show(link));
    link.addEventListener("focus", () => show(link));
    link.addEventListener("mouseleave", hide);
    link.addEventListener("blur", hide);
  }
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
  document.addEventListener("scroll", () => { if (current) place(current); }, { passive: true });
})();
