"""The command `monosemantic`: what it says, what it makes, how it fails, and that a stopped run goes on."""

import dataclasses
import json
import os
import re
import shlex
import subprocess
import sys
from importlib import import_module
from types import SimpleNamespace

import pytest
import torch
from hub_cache import make_model, make_sae, tiny_model, tiny_sae, tiny_target
from test_repository import ROOT

import solutions
from solutions import command
from solutions.analysis import FeatureIndex
from solutions.analysis.index.layout import MANIFEST
from solutions.command import COMMANDS, dashboard, follow_target, main
from solutions.data import ActivationStore
from solutions.errors import CourseError, InputError
from solutions.models import harvest
from solutions.visualization import feature_page_html

TEXTS = ["the cat sat on the mat", "a dog saw the cat and ran", "cats and dogs sat", "the mat ran on", "an old dog"] * 8


@pytest.fixture(autouse=True)
def surroundings(monkeypatch):
    """What a command changes for the rest of its process is put back."""
    for name in (solutions.TARGET_VARIABLE, "HF_HUB_OFFLINE"):
        monkeypatch.setenv(name, os.environ.get(name, ""))  # so that it is restored whatever happens
        if not os.environ[name]:
            monkeypatch.delenv(name)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A store and an index of the tiny target, and the target as a file, as one describes a target of one's own."""
    folder, target = tmp_path_factory.mktemp("command"), tiny_target()
    described = folder / "tiny.json"
    described.write_text(json.dumps(dataclasses.asdict(target) | {"processing": {}}))
    harvest(tiny_model(), TEXTS, target.hook, folder / "store", progress=False, test_share=0.3)
    world = SimpleNamespace(target=str(described), store=str(folder / "store"), index=str(folder / "index"))
    asked = ["index", "--store", world.store, "--out", world.index, "--target", world.target, "--quiet"]
    assert main(asked) == 0
    return world


# ---- what it says


def test_help_names_every_command_and_exit_code(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    shown = capsys.readouterr().out
    assert stop.value.code == 0 and all(f"\n  {name} " in shown for name in COMMANDS)
    assert "130 Ctrl-C" in shown
    assert main([]) == 2 and "usage: monosemantic COMMAND" in capsys.readouterr().err


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself_by_its_own_name(name, capsys):
    with pytest.raises(SystemExit) as stop:
        main([name, "--help"])
    shown = capsys.readouterr().out
    assert stop.value.code == 0 and shown.startswith(f"usage: monosemantic {name} ")
    assert "python -m solutions" not in shown and len(shown.splitlines()) > 4


@pytest.mark.parametrize("arguments", [
    ["indexx"], ["--what"], ["--", "train"], ["train"], ["harvest"], ["index", "--store", "x"], ["search"],
    ["dashboard"], ["app", "--port", "many"], ["version", "now"], ["train", "--out", "x", "--target"],
    ["dashboard", "--index", "x", "--out", "y", "--latents", "1", "--query", "density:0"],
])
def test_wrong_options_are_a_usage_error(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2 and "usage: monosemantic" in capsys.readouterr().err


def test_it_answers_before_torch_is_imported():
    code = "import sys; from solutions.command import main; main(['version']); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.endswith("False\n") and re.search(r"^torch +\d", done.stdout, re.MULTILINE), done.stderr


def examples():
    """Every line that begins with the command, in the README and in the command's own texts."""
    texts = [(ROOT / "README.md").read_text("utf8"), command.__doc__]
    texts += [import_module(f"solutions.command.{name}").__doc__ for name in ("index", "dashboard")]
    return [line.strip() for text in texts for line in text.splitlines() if line.startswith("    monosemantic ")]


@pytest.mark.parametrize("line", dict.fromkeys(examples()))
def test_the_lines_we_show_can_be_typed(line):
    """They are read down to the last option; what they would do is left out."""
    name, *rest = shlex.split(line, comments=True)[1:]
    asked = COMMANDS[name]
    import_module(asked.module).parser(asked.program).parse_args([*asked.first, *rest])


# ---- how it fails


@pytest.mark.parametrize("error, code, says", [
    (CourseError("what to do about it"), 1, "CourseError: what to do about it"),
    (InputError("expected, found"), 1, "InputError: expected, found"),
    (PermissionError(13, "Permission denied", "/there"), 1, "PermissionError: [Errno 13] Permission denied"),
    (KeyboardInterrupt(), 130, "Stopped. Nothing was changed.\n"),
])
def test_what_one_can_do_something_about_is_one_line(error, code, says, monkeypatch, capsys):
    def fails(arguments, program):
        raise error

    monkeypatch.setattr("solutions.command.version.main", fails)
    assert main(["version"]) == code
    complaint = capsys.readouterr().err
    assert says in complaint and "Traceback" not in complaint


def test_advice_is_given_as_one_types_it(world, capsys, tmp_path):
    """The same messages tell a caller in Python which argument to pass."""
    harvested = ["harvest", "--out", world.store, "--texts", "smallworld", "--documents", "3", "--target", world.target]
    assert main([*harvested, "--quiet", "--dtype", "float16"]) == 1
    assert "--start-over" in (told := capsys.readouterr().err) and "resume=" not in told
    harvest(tiny_model(), TEXTS[:7], tiny_target().hook, tmp_path / "store", progress=False, test_share=0.3)
    assert main(["index", "--store", str(tmp_path / "store"), "--out", world.index, "--target", world.target]) == 1
    assert "--overwrite replaces it" in (told := capsys.readouterr().err) and "overwrite=" not in told


def test_a_mistake_of_ours_is_not_hidden(monkeypatch):
    monkeypatch.setattr("solutions.command.version.main", lambda arguments, program: {}["no such key"])
    with pytest.raises(KeyError):
        main(["version"])


def test_a_reader_that_has_seen_enough_is_no_error():
    code = "import sys; from solutions.command import main; sys.exit(main(['version']))"
    line = f"{shlex.quote(sys.executable)} -c {shlex.quote(code)}; echo $? >&2"
    done = subprocess.run(["sh", "-c", f"( {line} ) | true"], cwd=ROOT, capture_output=True, text=True)
    assert "Traceback" not in done.stderr and done.stderr.strip()[-1:] == "0"


# ---- the target


@pytest.mark.parametrize("arguments, online", [
    (["--target", "gpt2-small"], True), (["--target=mine.json"], True), (["--target", "smallworld-llama"], False),
    (["--target-hook", "gpt2-small"], False), ([], False),
])
def test_the_target_decides_whether_the_hub_may_be_asked(arguments, online, monkeypatch):
    monkeypatch.delitem(sys.modules, "huggingface_hub", raising=False)  # as at the start of a process
    monkeypatch.setattr(solutions, "SWITCHED_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv(solutions.TARGET_VARIABLE, raising=False)
    follow_target(arguments)
    assert (os.environ.get("HF_HUB_OFFLINE") is None) == online == (not solutions.SWITCHED_OFFLINE)


def test_whoever_chose_to_be_offline_stays_offline(monkeypatch):
    monkeypatch.delitem(sys.modules, "huggingface_hub", raising=False)
    monkeypatch.setattr(solutions, "SWITCHED_OFFLINE", False)  # it was the reader who set it
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    follow_target(["--target", "gpt2-small"])
    assert os.environ["HF_HUB_OFFLINE"] == "1" and os.environ[solutions.TARGET_VARIABLE] == "gpt2-small"


# ---- harvest and index


def test_harvest_writes_the_store_that_its_module_writes(world, tmp_path, capsys):
    (tmp_path / "texts.txt").write_text("the cat sat on the mat\n\na dog ran\n")
    asked = ["--out", tmp_path / "store", "--texts", tmp_path / "texts.txt", "--target", world.target, "--quiet"]
    assert main(["harvest", *map(str, asked)]) == 0 and "<ActivationStore 'store'" in capsys.readouterr().out
    assert ActivationStore(tmp_path / "store").is_complete


def test_an_index_holds_what_the_sae_says_on_the_store(world, capsys):
    index, store = FeatureIndex(world.index), ActivationStore(world.store)
    index.check_sae(tiny_sae())
    with torch.no_grad():
        dense = tiny_sae().encode(store.read(index.hook, 0, 20))
    kept = (dense > 0) & ~store.is_bos[:20, None]
    assert torch.equal(index.tokens(0, 20).dense() > 0, kept)
    assert index.vocabulary[5] and index.logits(0)[0]  # and what the model adds: tokens as text, logits
    asked = ["index", "--store", world.store, "--out", world.index, "--target", world.target]
    before = os.stat(index.path / MANIFEST).st_mtime_ns
    assert main(asked) == 0 and "L0" in capsys.readouterr().out  # one that is there is left as it is
    assert os.stat(index.path / MANIFEST).st_mtime_ns == before


def test_an_index_is_refused_where_model_sae_and_store_do_not_fit(world, tmp_path, capsys):
    def says(*arguments):
        line = ["index", "--store", world.store, "--out", tmp_path / "no", "--target", world.target, *arguments]
        assert main(list(map(str, line))) == 1 and not (tmp_path / "no").exists()
        return capsys.readouterr().err

    assert "--hooks blocks.0.hook_resid_pre" in says("--hook", "blocks.0.hook_resid_pre")
    assert "Say --target" in says("--target", "smallworld")
    poor = make_sae(tmp_path / "poor", tiny_target().hook, k=1)
    complaint = says("--sae", poor)
    assert "explained variance of at least 0.5" in complaint and "--allow explained_variance." in complaint
    wanted = ["--sae", str(poor), "--allow", "explained_variance", "--quiet"]
    asked = ["index", "--store", world.store, "--out", str(tmp_path / "poor-index"), "--target", world.target, *wanted]
    assert main(asked) == 0
    sought = ["search", "--index", str(tmp_path / "poor-index"), "--target", world.target, "--quiet", 'text:"the cat"']
    assert main(sought) == 1 and "--sae" in capsys.readouterr().err  # a text is read by the SAE of the index
    assert main([*sought, "--sae", str(poor)]) == 0


def test_a_store_of_a_retrained_model_is_refused(world, tmp_path, capsys):
    """The same name and the same shape, other weights: only the numbers tell."""
    described = json.loads(open(world.target, encoding="utf8").read())
    make_model(tmp_path / "model")
    weights = tmp_path / "model" / "model.safetensors"
    changed = {"model": str(tmp_path / "model")}
    (tmp_path / "changed.json").write_text(json.dumps(described | changed))
    asked = ["--texts", tmp_path / "texts.txt", "--target", tmp_path / "changed.json", "--quiet"]
    (tmp_path / "texts.txt").write_text("the cat sat on the mat\n\na dog ran\n")
    assert main(list(map(str, ["harvest", "--out", tmp_path / "store", *asked]))) == 0
    from safetensors.torch import load_file, save_file

    save_file({name: w * 1.5 for name, w in load_file(weights).items()}, weights, {"format": "pt"})
    asked = ["index", "--store", tmp_path / "store", "--out", tmp_path / "no", "--target", tmp_path / "changed.json"]
    assert main(list(map(str, asked))) == 1 and "other weights" in capsys.readouterr().err


def test_an_unfinished_store_is_refused(world, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(ActivationStore, "is_complete", False)
    assert main(["index", "--store", world.store, "--out", str(tmp_path / "no"), "--target", world.target]) == 1
    assert "unfinished" in capsys.readouterr().err


# ---- dashboard


@pytest.fixture
def pages(world, tmp_path, capsys):
    """Write pages into a folder: (exit code, what was printed, what was complained of)."""
    def write(*arguments, out=tmp_path / "pages", index=world.index):
        line = ["dashboard", "--index", index, "--out", out, "--target", world.target, "--quiet", *arguments]
        return main(list(map(str, line))), *capsys.readouterr()

    return SimpleNamespace(write=write, folder=tmp_path / "pages")


def links_in(path):
    """The files that a page leads to."""
    found = re.findall(r'href="([^"#:]+)"', path.read_text("utf8"))
    return {(path.parent / link).resolve() for link in found}


def test_pages_are_those_of_the_index_and_every_link_leads_somewhere(world, pages):
    code, out, _ = pages.write("--latents", "3", "5-7", "3")
    assert code == 0 and "4 written, 4 in all" in out and str(pages.folder / "index.html") in out
    index, files = FeatureIndex(world.index), sorted((pages.folder / "latents").iterdir())
    assert [path.name for path in files] == ["3.html", "5.html", "6.html", "7.html"]
    expected = feature_page_html(
        index.page(5), target_note=f"{index.hook}, on {index.n_content:,} tokens", overview="../index.html",
        links={latent: f"{latent}.html" for latent in (3, 5, 6, 7)},
    )
    assert (pages.folder / "latents/5.html").read_text("utf8") == expected
    overview = (pages.folder / "index.html").read_text("utf8")
    assert set(re.findall(r'href="latents/(\d+).html"', overview)) == {"3", "5", "6", "7"}
    for path in files:
        assert pages.folder.resolve() / "index.html" in links_in(path)
        assert all(target.is_file() for target in links_in(path))


def test_a_dashboard_that_was_stopped_goes_on(pages, monkeypatch):
    written, save = [], dashboard.save_page

    def stopped_at_the_third(page, path, **options):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(path.name)
        return save(page, path, **options)

    monkeypatch.setattr(dashboard, "save_page", stopped_at_the_third)
    code, _, complaint = pages.write("--latents", "0-4")
    assert code == 130 and "goes on" in complaint and not (pages.folder / "index.html").exists()

    def noted(page, path, **options):
        written.append(path.name)
        return save(page, path, **options)

    monkeypatch.setattr(dashboard, "save_page", noted)
    assert pages.write("--latents", "0-4")[0] == 0
    assert written == ["0.html", "1.html", "2.html", "3.html", "4.html"]  # nothing twice
    assert "0 written, 5 in all" in pages.write("--latents", "1")[1]
    assert "5 written, 5 in all" in pages.write("--latents", "0-4", "--start-over")[1]


def test_pages_of_what_a_search_finds(pages, world):
    code, out, _ = pages.write("--query", "density:>0", "-k", "2")
    assert code == 0 and "2 written" in out
    code, _, complaint = pages.write("--query", "density:>0.9999")
    assert code == 1 and "no latent has such a density" in complaint


def test_without_a_choice_every_latent_has_a_page(pages, world):
    assert "32 written, 32 in all" in pages.write()[1]
    assert len(links_in(pages.folder / "latents/5.html")) > 1  # beside the overview, latents that point the same way


def test_a_folder_of_something_else_is_left_alone(pages, world, tmp_path):
    pages.folder.mkdir()
    (pages.folder / "thesis.txt").write_text("mine")
    for extra in ((), ("--start-over",)):
        code, _, complaint = pages.write("--latents", "3", *extra)
        assert code == 1 and "holds no dashboard" in complaint
    assert [path.name for path in pages.folder.iterdir()] == ["thesis.txt"]
    assert pages.write("--latents", "3", out=pages.folder / "thesis.txt")[0] == 1


def test_pages_of_another_index_are_not_mixed_in(pages, world, tmp_path):
    harvest(tiny_model(), TEXTS[:9], tiny_target().hook, tmp_path / "store", progress=False, test_share=0.3)
    other = ["--store", tmp_path / "store", "--out", tmp_path / "other", "--target", world.target, "--quiet"]
    assert main(["index", *map(str, other)]) == 0 and pages.write("--latents", "3")[0] == 0
    code, _, complaint = pages.write("--latents", "4", index=tmp_path / "other")
    assert code == 1 and "--start-over" in complaint and not (pages.folder / "latents/4.html").exists()
    code, out, _ = pages.write("--latents", "4", "--start-over", index=tmp_path / "other")
    assert code == 0 and "1 written, 1 in all" in out and not (pages.folder / "latents/3.html").exists()


@pytest.mark.parametrize("piece, says", [
    ("5-", "ranges such as 100-120"), ("-5", "ranges such as"), ("five", "ranges such as"), ("7-5", "ends before"),
    ("32", "0 to 31"), ("4-400", "0 to 31"), ("²", "ranges such as"),
])
def test_latents_that_do_not_exist_are_refused_before_anything_is_written(pages, piece, says):
    code, _, complaint = pages.write("--latents", piece)
    assert code == 1 and says in complaint
    assert not pages.folder.exists()


# ---- app


def test_the_app_is_told_what_the_command_line_says(monkeypatch):
    asked = []
    monkeypatch.setattr("solutions.app.__main__.launch", lambda *given, **more: asked.append(given) or 7)
    assert main(["app"]) == 7
    assert main(["app", "--address", "0.0.0.0", "--port", "8600", "--target", "smallworld-llama"]) == 7
    assert asked == [("localhost", 8501, None), ("0.0.0.0", 8600, "smallworld-llama")]


def test_without_streamlit_it_says_what_brings_it(monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["app"]) == 1 and "monosemantic[app]" in capsys.readouterr().err
