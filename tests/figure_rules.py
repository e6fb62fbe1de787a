"""What holds for every figure of the course, as checks that a test calls with a figure."""

import json
import re


def describes_itself(figure) -> None:
    """It says in words what it shows, and leaves background and width to the page."""
    layout = figure.layout
    assert len(layout.meta["alt"]) > 30 and "nan" not in re.findall(r"\w+", layout.meta["alt"])
    assert layout.paper_bgcolor == layout.plot_bgcolor == "rgba(0,0,0,0)"
    assert layout.width is None and layout.height > 50


def travels_light(figure) -> None:
    """Its numbers are short and its JSON is valid: neither NaN, nor arrays in base64, nor 17 digits."""
    text = json.dumps(figure.to_plotly_json()["data"], default=list, allow_nan=False)
    assert "bdata" not in text
    assert max(map(len, re.findall(r"\d+\.\d+", text)), default=0) <= 8


def takes_no_name_for_html(figure, names: str) -> None:
    """What is called <so> is not HTML, wherever it is shown. names: those between the brackets, separated by |."""
    shown = json.dumps(figure.to_plotly_json(), default=list)
    description = json.dumps(figure.layout.meta)
    assert not re.search(rf"<({names})>", shown.replace(description, ""))
