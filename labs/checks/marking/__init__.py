"""Grading notebooks that somebody else has worked in: one, or a whole class.

    python -m labs.checks grade anna.ipynb ben.ipynb
    python -m labs.checks grade handed_in/ --csv marks.csv

Each notebook is run from top to bottom in a Python of its own, on a copy, with a limit on its time. What `check` says
there is collected; nothing is written into the learner's file.

`running` runs a notebook, `marks` makes a mark of what was said, `tables` writes the marks down.
"""

from labs.checks.marking.marks import Mark, mark_notebook, mark_notebooks, notebooks_in
from labs.checks.marking.running import Limits
from labs.checks.marking.tables import as_csv, as_json, as_text

__all__ = ["Limits", "Mark", "as_csv", "as_json", "as_text", "mark_notebook", "mark_notebooks", "notebooks_in"]
