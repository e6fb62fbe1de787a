"""The style sheet of feature pages in HTML: one for a file, a notebook and the site, light and dark.

Tokens are shaded in eight levels of orange (above zero) or blue (below). Each level has its own text colour, so that
what is written reads with a contrast of 4.5 or more everywhere; a test computes it from the tables below.
"""

from __future__ import annotations

from solutions.visualization.style import ink_on, mix

LEVELS = 8
PAPER = {"light": "#FFFFFF", "dark": "#14181E"}
FULL = {  # the colour of the highest level (Okabe and Ito's orange and blue), above and below zero
    "light": {"p": "#E69F00", "n": "#56A8DC"},
    "dark": {"p": "#F0A818", "n": "#62B2E4"},
}
INKS = {
    "light": {"text": "#1E242B", "muted": "#565E68", "line": "#C9CED6", "card": "#F5F6F8", "pos": "#B06A00",
              "neg": "#1F6FA8", "focus": "#0B5CAD"},
    "dark": {"text": "#E2E6EB", "muted": "#A3ABB5", "line": "#3B444F", "card": "#1F252D", "pos": "#E0A030",
             "neg": "#62A8DC", "focus": "#8CC4F5"},
}


def level_of(value: float, maximum: float) -> int:
    """How strongly a value is shaded, 0 (not at all) to 8; what is not zero is never without shade."""
    if not value or value != value or maximum <= 0:
        return 0
    return max(1, round(LEVELS * min(abs(value) / maximum, 1.0)))


def shade(mode: str, sign: str, level: int) -> tuple[str, str]:
    """Background and text colour of a level. mode: "light" or "dark"; sign: "p" above zero, "n" below."""
    background = mix(PAPER[mode], FULL[mode][sign], 0.14 + 0.86 * level / LEVELS)
    return background, ink_on(background)


def _variables(mode: str) -> str:
    """All colours of a mode, as CSS variables."""
    pairs = {"paper": PAPER[mode], **INKS[mode]}
    for sign in "pn":
        for level in range(1, LEVELS + 1):
            pairs[f"{sign}{level}"], pairs[f"{sign}{level}t"] = shade(mode, sign, level)
    return "".join(f"--ms-{name}:{colour};" for name, colour in pairs.items())


_DARK_PAGES = 'html[data-theme="dark"] .ms-page,body[data-jp-theme-light="false"] .ms-page,body.vscode-dark .ms-page'
_NOT_LIGHT = 'html:not([data-theme="light"]) body:not([data-jp-theme-light="true"]):not(.vscode-light) .ms-page'
_SHADES = "".join(
    f".ms-page .{sign}{level}{{background:var(--ms-{sign}{level});color:var(--ms-{sign}{level}t)}}"
    for sign in "pn" for level in range(1, LEVELS + 1)
)
_RULES = """
.ms-page{background:var(--ms-paper);color:var(--ms-text);font:1rem/1.55 system-ui,-apple-system,"Segoe UI",Roboto,
"Noto Sans","DejaVu Sans",sans-serif;padding:.6rem 1rem 1rem;max-width:70rem;overflow-wrap:anywhere;text-align:left}
.ms-page *{box-sizing:border-box}
.ms-page h1,.ms-page h2,.ms-page h3,.ms-page h4,.ms-page h5{color:inherit;line-height:1.3;font-weight:650;
margin:1.1em 0 .35em;padding:0;border:0}
.ms-page .ms-name{font-size:1.5rem;margin-top:.2em}
.ms-page .ms-part{font-size:1.08rem}
.ms-page .ms-range{font-size:.95rem;margin:1em 0 .2em}
.ms-page p{max-width:46rem;margin:.35em 0;color:inherit}
.ms-page .ms-muted,.ms-page small{color:var(--ms-muted);font-size:.88rem;font-weight:400}
.ms-page a{color:var(--ms-neg);text-decoration:underline}
.ms-page dl.ms-facts{display:flex;flex-wrap:wrap;gap:.5rem;margin:.8rem 0;padding:0}
.ms-page dl.ms-facts>div{background:var(--ms-card);border:1px solid var(--ms-line);border-radius:8px;
padding:.35rem .8rem}
.ms-page dl.ms-facts dt,.ms-page dl.ms-facts dd{float:none;display:block;width:auto;min-width:0;overflow-wrap:normal}
.ms-page dl.ms-facts dt{color:var(--ms-muted);font-size:.8rem;font-weight:400;margin:0;padding:0}
.ms-page dl.ms-facts dd{margin:0;padding:0;font-weight:600;font-variant-numeric:tabular-nums;color:var(--ms-text)}
.ms-page .ms-columns{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,19rem),1fr));gap:0 2.2rem}
.ms-page ol.ms-examples{list-style:none;margin:0;padding:0}
.ms-page ol.ms-examples>li{margin:0;padding:.28rem 0;border-bottom:1px solid var(--ms-line);max-width:none;
color:inherit}
.ms-page .ms-text{font:.95rem/1.95 ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;
white-space:pre-wrap;overflow-wrap:anywhere;color:inherit}
.ms-page .t{unicode-bidi:isolate;border-radius:3px;padding:.08em 0;position:relative;background:none;color:inherit}
.ms-page mark.t{display:inline-block;max-width:100%;line-height:1.35}
.ms-page mark.t.ms-lines{display:inline}
.ms-page .t:hover,.ms-page .t:focus{outline:2px solid var(--ms-focus);outline-offset:1px;z-index:2}
.ms-page .pk{box-shadow:0 0 0 1.5px var(--ms-text)}
.ms-page .v{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%);white-space:nowrap;
user-select:none}
.ms-page .t:hover>.v,.ms-page .t:focus>.v{width:auto;height:auto;clip-path:none;left:0;bottom:calc(100% + 4px);
padding:.1rem .45rem;border-radius:5px;background:var(--ms-text);color:var(--ms-paper);
font:600 .8rem/1.4 system-ui,sans-serif;pointer-events:none;z-index:3}
.ms-page table{border-collapse:collapse;margin:.2rem 0 .8rem;width:100%;max-width:34rem;background:none;color:inherit;
font-size:.92rem;border:0;display:table}
.ms-page caption{caption-side:top;text-align:left;color:inherit;font-weight:600;padding:.2rem 0}
.ms-page tr,.ms-page thead,.ms-page tbody{background:none;border:0;color:inherit}
.ms-page th,.ms-page td{padding:.16rem .7rem .16rem 0;border:0;text-align:left;font-weight:400;background:none;
color:inherit;vertical-align:middle}
.ms-page thead th{color:var(--ms-muted);font-size:.82rem}
.ms-page td.ms-number,.ms-page th.ms-number{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
.ms-page td.ms-wide{width:45%;padding-right:.3rem}
.ms-page code{background:none;border:0;padding:0;color:inherit;white-space:pre-wrap;
font:inherit;font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace}
.ms-page .ms-bar{display:block;height:.62rem;border-radius:2px;background:var(--ms-neg);min-width:2px}
.ms-page .ms-bar.ms-up{background:var(--ms-pos)}
.ms-page svg{display:block;width:100%;max-width:34rem;height:auto;font:12px system-ui,sans-serif}
.ms-page svg rect{fill:var(--ms-neg)}
.ms-page svg text{fill:var(--ms-muted)}
.ms-page svg line{stroke:var(--ms-muted)}
.ms-page svg line.ms-edge{stroke:var(--ms-pos);stroke-dasharray:4 3}
.ms-page details{margin:.4rem 0;background:none;border:0;box-shadow:none;padding:0}
.ms-page details[open]>summary{list-style-type:disclosure-open}
.ms-page summary{display:list-item;list-style:inside disclosure-closed;cursor:pointer;
color:var(--ms-text);padding:.2rem 0;background:none}
.ms-page summary:focus-visible,.ms-page a:focus-visible{outline:2px solid var(--ms-focus);outline-offset:2px}
.ms-page .ms-fold{border-top:1px solid var(--ms-line)}
.ms-page .ms-fold>summary{font-weight:600;padding:.45rem 0}
.ms-page .ms-alert{border-left:.35em solid var(--ms-pos);padding:.3em .8em}
.ms-page ul.ms-key{display:flex;flex-wrap:wrap;gap:.2rem 1.2rem;list-style:none;margin:.2rem 0;padding:0}
@media(max-width:30rem){.ms-page{padding:.4rem .6rem .8rem}}
"""
STYLE = (  # the shades last: they have the same weight as the rule for any token
    f"<style>.ms-page{{{_variables('light')}}}"
    f"@media(prefers-color-scheme:dark){{{_NOT_LIGHT}{{{_variables('dark')}}}}}"
    f"{_DARK_PAGES}{{{_variables('dark')}}}{_RULES}{_SHADES}</style>"
)


def scheme_style() -> str:
    """The style for surroundings that say by CSS (`color-scheme`) whether they are light or dark, as Streamlit's do.

    A reader's switch takes effect at once, with no word to a server.
    """
    pairs = [dict(part.split(":") for part in _variables(mode).split(";") if part) for mode in PAPER]
    both = "".join(f"{name}:light-dark({light},{pairs[1][name]});" for name, light in pairs[0].items())
    return f"<style>.ms-page{{{both}}}{_RULES}{_SHADES}</style>"
