"""The pages of the app. Each module has a `VIEW`: what stands in its address, and a function that shows it."""

from __future__ import annotations

from solutions.app.views import compare, features, reading, runs, steer
from solutions.app.views.view import View

#: All pages, in the order of the menu; the first is the front page.
VIEWS: dict[str, View] = {
    module.VIEW.name: module.VIEW for module in (reading, features, compare, steer, runs)
}
