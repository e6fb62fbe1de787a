"""The course as a web app: type a text, look through the latents, compare texts, steer, see training runs.

    python -m solutions.app                     # then open the address it prints
    monosemantic app --port 8502                # the same, once the package is installed

`launch` starts Streamlit on `main.py`. `opening` loads a model, its SAE and a feature index, once for all visitors;
`room` answers their questions, one at a time; `address` keeps in the address what one sees, so that it can be passed
on; `words` turns errors and tokens into text that is safe to show; `views` are the pages.
"""

from solutions.app.launching import launch

__all__ = ["launch"]
