"""`make lab` asks nobody about news: the settings that it starts JupyterLab with are known to the installed version."""

import json
import re
from pathlib import Path

import pytest
from jsonschema import ValidationError, validate
from jupyterlab.commands import get_app_dir
from jupyterlab.labapp import LabApp
from jupyterlab_server.settings_utils import get_settings

ROOT = Path(__file__).resolve().parents[1]
CONFIG = json.loads((ROOT / "labs/jupyter_lab.json").read_text("utf8"))["LabApp"]
SCHEMAS = Path(get_app_dir()) / "schemas"
NOTIFICATION = "@jupyterlab/apputils-extension:notification"


def setting(name: str, settings_dir: Path, schema=NOTIFICATION) -> object:
    """What a learner's browser is given: their own setting, and without one the default."""
    found, warnings = get_settings(
        str(ROOT / CONFIG["app_settings_dir"]), str(SCHEMAS), str(settings_dir), schema
    )
    assert not any(warnings)
    return found["settings"].get(name, found["schema"]["properties"][name]["default"])


def overrides() -> dict[str, dict]:
    return json.loads((ROOT / CONFIG["app_settings_dir"] / "overrides.json").read_text("utf8"))


def schema_of(plugin: str) -> dict:
    folder, name = plugin.split(":")
    return json.loads((SCHEMAS / folder / f"{name}.json").read_text("utf8"))


def test_nobody_is_asked_about_news_and_nothing_is_fetched(tmp_path):
    assert setting("fetchNews", tmp_path) == "false"  # "none" is what asks
    assert setting("checkForUpdates", tmp_path) is False
    assert CONFIG["news_url"] is None


def test_without_the_course_jupyterlab_would_ask():
    """Once this fails, JupyterLab no longer asks of its own accord, and the setting may go."""
    assert schema_of(NOTIFICATION)["properties"]["fetchNews"]["default"] == "none"


def test_a_learners_own_setting_wins(tmp_path):
    file = tmp_path / NOTIFICATION.replace(":", "/")
    file.parent.mkdir(parents=True)
    file.with_suffix(".jupyterlab-settings").write_text('{"fetchNews": "true"}', "utf8")
    assert setting("fetchNews", tmp_path) == "true"


@pytest.mark.parametrize("plugin", overrides())
def test_every_setting_is_one_that_the_installed_version_knows(plugin):
    validate(overrides()[plugin], schema_of(plugin))
    with pytest.raises(ValidationError):
        validate(overrides()[plugin] | {"noSuchSetting": 1}, schema_of(plugin))


@pytest.mark.parametrize("trait", CONFIG)
def test_every_option_is_one_that_the_installed_version_has(trait):
    assert trait in LabApp.class_traits(config=True)


@pytest.mark.parametrize("file", ["Makefile", "README.md", "labs/README.md"])
def test_whoever_starts_jupyterlab_names_the_settings_and_starts_where_they_are_found(file):
    """The folder of the settings is relative to the course's own: every command starts there."""
    commands = re.findall(r"-m jupyterlab (.*)", (ROOT / file).read_text("utf8"))
    assert commands and all(command.startswith("labs --config=labs/jupyter_lab.json") for command in commands)
