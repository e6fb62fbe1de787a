"""Texts from anywhere: the embedded world, datasets, folders, lists; and what is said when it cannot be read."""

import json
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
from hub_cache import tiny_target

from solutions.data import Text, TextStream, load_texts, open_texts
from solutions.errors import InputError, NotAvailable

# ---- the embedded world


def test_the_embedded_text_is_that_of_load_texts():
    target = tiny_target()
    for split in ("train", "probe", "test"):
        assert list(open_texts("smallworld", 6, split)) == load_texts(target, 6, split=split)
    assert list(open_texts("smallworld", 3)) == load_texts(target, 3, split="train")
    assert list(open_texts(target, 3)) == list(open_texts("smallworld", 3))


def test_the_embedded_text_never_ends_and_is_not_made_in_advance():
    stream = open_texts("smallworld")
    assert isinstance(stream, TextStream) and len(list(islice(stream, 300))) == 300
    assert stream.n_given == 300 and "300 given" in repr(stream)


def test_a_target_may_have_texts_of_its_own_in_a_file(tmp_path):
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in ("one", "two", "three")))
    target = replace(tiny_target(), text=str(tmp_path / "mine.jsonl"))
    assert [text.text for text in load_texts(target, 2)] == ["one", "two"]
    assert [text.text for text in load_texts(target, 9)] == ["one", "two", "three"]
    with pytest.raises(InputError, match=r"unknown file or folder 'mein.jsonl'. Did you mean 'mine.jsonl'"):
        load_texts(replace(target, text=str(tmp_path / "mein.jsonl")), 2)


def test_unknown_splits_of_it():
    with pytest.raises(InputError, match="Known: train, probe, test"):
        open_texts("smallworld", 3, split="dev")


# ---- lists


def test_strings_texts_and_rows():
    assert list(open_texts(["one", " two "])) == [Text("one", "text"), Text(" two ", "text")]
    assert list(open_texts((Text("a", "x"), Text("b", "y")))) == [Text("a", "x"), Text("b", "y")]
    assert [t.text for t in open_texts([{"body": "a"}, {"body": None}, {"body": "b"}], column="body")] == ["a", "b"]


def test_a_generator_is_read_no_further_than_needed():
    read = []

    def texts():
        for i in range(100):
            read.append(i)
            yield f"text {i}"

    assert [t.text for t in open_texts(texts(), 3)] == ["text 0", "text 1", "text 2"]
    assert read == [0, 1, 2]


def test_empty_texts_are_left_out_and_counted_and_do_not_use_up_n():
    stream = open_texts(["", "one", "  \n", "two", "", "three"], 2)
    assert [t.text for t in stream] == ["one", "two"]
    assert (stream.n_given, stream.n_empty) == (2, 2)


def test_nothing_but_empty_texts_is_an_error():
    with pytest.raises(InputError, match="no text in the texts given: 2 empty ones"):
        list(open_texts(["", " "]))
    with pytest.raises(InputError, match="0 empty ones"):
        list(open_texts([]))


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (b"bytes", "got bytes"),
        (3, "got int"),
        (None, "got NoneType"),
        ({"train": ["a"]}, "mapping with train"),
    ],
)
def test_what_is_no_source(source, said):
    with pytest.raises(InputError, match=said):
        open_texts(source)


def test_what_is_no_text_in_a_list():
    stream = open_texts(["fine", 7])
    assert next(stream).text == "fine"
    with pytest.raises(InputError, match="text 1 of the list must be a string, got int"):
        next(stream)
    with pytest.raises(InputError, match="no splits"):
        open_texts(["a"], split="train")
    for n in (0, -1, "3", 2.5):
        with pytest.raises(InputError, match="n must be a whole number"):
            open_texts(["a"], n)


# ---- folders of .txt files


def write(root: Path, files: dict[str, bytes | str]) -> Path:
    for name, content in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return root


def test_a_folder_is_read_in_order_and_all_the_way_down(tmp_path):
    write(tmp_path, {"b.txt": "second\r\nline\n", "a/z.txt": "first", "c/d/e.TXT": "third: café", "empty.txt": " \n"})
    write(tmp_path, {".git/hidden.txt": "no", "notes.md": "no"})
    stream = open_texts(tmp_path)
    assert list(stream) == [Text("first", "a"), Text("second\nline", tmp_path.name), Text("third: café", "c")]
    assert stream.n_empty == 1
    assert list(open_texts(str(tmp_path), 1)) == [Text("first", "a")]


def test_a_file_is_one_text(tmp_path):
    write(tmp_path, {"play.txt": "\ufeffTo be, or not to be\n"})
    assert list(open_texts(tmp_path / "play.txt")) == [Text("To be, or not to be", tmp_path.name)]


def test_files_are_opened_when_their_turn_comes(tmp_path):
    write(tmp_path, {"a.txt": "good", "b.txt": b"caf\xe9", "c.txt": "never reached"})
    stream = open_texts(tmp_path)
    assert next(stream).text == "good"
    with pytest.raises(InputError, match=r"b\.txt is not utf-8: it cannot be decoded at byte 3.*latin-1"):
        next(stream)
    assert [t.text for t in open_texts(tmp_path, 2, encoding="latin-1")] == ["good", "café"]


def test_a_binary_file_is_refused_by_name(tmp_path):
    write(tmp_path, {"a.txt": b"PNG\x00\x01\x02", "b.txt": "never reached"})
    with pytest.raises(InputError, match=r"a\.txt is not a text file: it has a zero byte at 3"):
        list(open_texts(tmp_path))
    write(tmp_path, {"a.txt": "wide".encode("utf-16"), "b.txt": "wide too".encode("utf-16")})
    with pytest.raises(InputError, match="encoding='utf-16'"):
        list(open_texts(tmp_path))
    assert [t.text for t in open_texts(tmp_path, encoding="utf-16")] == ["wide", "wide too"]


def test_folders_without_text_say_what_they_hold(tmp_path):
    with pytest.raises(InputError, match="found no files"):
        open_texts(tmp_path)
    write(tmp_path, {"a.pdf": b"x", "b.pkl": b"x"})
    with pytest.raises(InputError, match=r"wanted \.txt, .*found \.pdf, \.pkl"):
        open_texts(tmp_path)
    write(tmp_path, {"a.txt": "x", "b.jsonl": "{}"})
    with pytest.raises(InputError, match="1 .txt files and 1 data files"):
        open_texts(tmp_path)


def test_bad_requests_for_folders(tmp_path):
    write(tmp_path, {"a.txt": "x"})
    with pytest.raises(InputError, match="no splits"):
        open_texts(tmp_path, split="train")
    with pytest.raises(InputError, match="unknown encoding 'utf-9'"):
        open_texts(tmp_path, encoding="utf-9")


def test_a_path_that_is_not_there_suggests_its_neighbours(tmp_path):
    write(tmp_path, {"stories.txt": "x"})
    with pytest.raises(InputError, match="Did you mean 'stories.txt'"):
        open_texts(str(tmp_path / "storys.txt"))
    with pytest.raises(InputError, match="there is no .*nowhere"):
        open_texts(tmp_path / "nowhere" / "x.txt")


# ---- datasets on this machine


def rows(n, **more):
    return [{"text": f" text {i}\n", "id": i} | more for i in range(n)]


def jsonl(content):
    return "\n".join(json.dumps(row) for row in content)


def test_a_jsonl_file_and_a_folder_of_them(tmp_path):
    write(tmp_path, {"one.jsonl": jsonl(rows(2)), "two.jsonl": jsonl(rows(1))})
    assert [t.text for t in open_texts(tmp_path / "one.jsonl")] == ["text 0", "text 1"]
    assert [t.text for t in open_texts(tmp_path)] == ["text 0", "text 1", "text 0"]
    assert {t.kind for t in open_texts(tmp_path)} == {tmp_path.name}


def test_splits_are_read_off_file_names(tmp_path):
    write(tmp_path, {"train-0.jsonl": jsonl(rows(3)), "train-1.jsonl": jsonl(rows(2)), "test.jsonl": jsonl(rows(1))})
    assert len(list(open_texts(tmp_path))) == len(list(open_texts(tmp_path, split="train"))) == 5
    assert len(list(open_texts(tmp_path, split="test"))) == 1
    with pytest.raises(InputError, match="unknown split of .* 'tset'.*Did you mean 'test'.*Known: test, train"):
        open_texts(tmp_path, split="tset")


def test_the_only_split_need_not_be_named(tmp_path):
    write(tmp_path, {"validation/a.jsonl": jsonl(rows(2)), "validation/b.jsonl": jsonl(rows(2))})
    assert len(list(open_texts(tmp_path))) == 4
    write(tmp_path, {"test/a.jsonl": jsonl(rows(1))})
    with pytest.raises(InputError, match="Known: test, validation"):  # two, and none of them is train
        open_texts(tmp_path)


def test_parquet_and_csv(tmp_path):
    import pandas as pd

    table = pd.DataFrame({"body": ["one", None, "", "two"], "label": [0, 1, 0, 1]})
    table.to_parquet(tmp_path / "x.parquet")
    stream = open_texts(tmp_path, column="body")
    assert [t.text for t in stream] == ["one", "two"] and stream.n_empty == 2
    table.to_csv(tmp_path / "x.csv", index=False)
    assert [t.text for t in open_texts(tmp_path / "x.csv", column="body")] == ["one", "two"]
    with pytest.raises(InputError, match="several kinds"):
        open_texts(tmp_path)


def test_a_missing_column_lists_the_columns_at_once(tmp_path):
    write(tmp_path, {"a.jsonl": jsonl([{"id": 1, "body": "hello"}])})
    with pytest.raises(InputError, match=r"no column 'text' .* columns: id, body\. .*column='body'"):
        open_texts(tmp_path)
    with pytest.raises(InputError, match="column 'id' .* must hold text, found int in row 0"):
        open_texts(tmp_path, column="id")
    with pytest.raises(InputError, match="no column 'text'.*None of them holds text"):
        list(open_texts([{"id": 1}]))


def test_a_damaged_file_is_named_after_what_could_be_read(tmp_path):
    good = jsonl(rows(2000, filler="x" * 2000))  # several blocks: the first is read before the damage
    write(tmp_path, {"a.jsonl": good, "b.jsonl": good[:-40]})
    stream = open_texts(tmp_path)
    with pytest.raises(InputError, match=r"broke off after \d[\d,]* rows"):
        list(stream)
    assert stream.n_given >= 2000


def test_an_empty_dataset_is_named(tmp_path):
    write(tmp_path, {"x.csv": "text,label\n", "a.jsonl": ""})
    with pytest.raises(InputError, match="the split 'train' of 'x.csv' has no rows"):
        open_texts(tmp_path / "x.csv")
    with pytest.raises(InputError, match=r"a\.jsonl"):
        open_texts(tmp_path / "a.jsonl")


def test_a_dataset_in_memory():
    from datasets import Dataset

    data = Dataset.from_dict({"text": ["one", "two"], "n": [1, 2]})
    assert [t.text for t in open_texts(data)] == ["one", "two"]
    assert [t.text for t in open_texts(data.to_iterable_dataset(), 1)] == ["one"]


# ---- datasets of the hub


@pytest.fixture
def offline(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.mark.parametrize("name", ["smalworld", "SmallWorld"])
def test_a_name_typed_wrongly_is_suggested(offline, name):
    with pytest.raises(NotAvailable, match="Did you mean 'smallworld'.*no file or folder of that name"):
        open_texts(name, 3)


def test_offline_a_hub_dataset_is_refused_at_once(offline):
    with pytest.raises(NotAvailable, match="the text 'roneneldan/TinyStory' .*mean 'roneneldan/TinyStories'"):
        open_texts("roneneldan/TinyStory")
    with pytest.raises(NotAvailable) as caught:
        open_texts("roneneldan/TinyStories")
    assert "mean" not in str(caught.value)  # the name is right: nothing to suggest
    with pytest.raises(NotAvailable):
        open_texts(replace(tiny_target(), text="someone/web-pages"), 3)


@pytest.mark.parametrize("text", ["The Eiffel Tower is in Paris.", "word " * 2000, "zero \0 byte"])
def test_a_text_taken_for_a_name_gets_a_hint(text):
    with pytest.raises(InputError, match=r"A text of your own goes in a list: \[text\]") as caught:
        open_texts(text)
    assert len(str(caught.value)) < 300


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub with one dataset of two splits, and one that comes in variants. Returns what was asked of it."""
    import datasets
    from datasets.exceptions import DatasetNotFoundError

    write(tmp_path, {"train.jsonl": jsonl(rows(9)), "test.jsonl": jsonl(rows(2))})
    real, asked = datasets.load_dataset, []

    def load_dataset(name, config=None, streaming=False):
        asked.append((name, config, streaming))
        if name == "some/variants" and config is None:
            raise ValueError("Config name is missing.\nPlease pick one")
        if name not in ("some/texts", "some/variants"):
            raise DatasetNotFoundError(f"Dataset '{name}' doesn't exist on the Hub")
        files = {split: str(tmp_path / f"{split}.jsonl") for split in ("train", "test")}
        return real("json", data_files=files, streaming=streaming)

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("solutions.hub.hub_answers", lambda: True)
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(datasets, "get_dataset_config_names", lambda name: ["small", "large"])
    return asked


def test_a_hub_dataset_is_streamed(hub):
    stream = open_texts("some/texts", 4)
    assert hub == [("some/texts", None, True)]
    assert list(stream) == [Text(f"text {i}", "some/texts") for i in range(4)]
    assert len(list(open_texts("some/texts", split="test"))) == 2
    assert list(open_texts(replace(tiny_target(), text="some/texts"), 1)) == [Text("text 0", "some/texts")]
    with pytest.raises(InputError, match="Known: train, test"):
        open_texts("some/texts", split="dev")
    with pytest.raises(InputError, match="columns: text, id"):
        open_texts("some/texts", column="body")


def test_variants_are_asked_for(hub):
    with pytest.raises(InputError, match="config=… of small, large"):
        open_texts("some/variants")
    assert len(list(open_texts("some/variants", config="small"))) == 9
    assert hub[-1] == ("some/variants", "small", True)


def test_a_dataset_the_hub_does_not_have(hub):
    with pytest.raises(NotAvailable, match="no dataset 'NeelNanda/pile10k'.*mean 'NeelNanda/pile-10k'"):
        open_texts("NeelNanda/pile10k")


def test_a_connection_that_breaks_off(hub, monkeypatch):
    def breaking():
        yield {"text": "one"}
        raise ConnectionError("reset by peer\nand forty more lines")

    monkeypatch.setattr("datasets.load_dataset", lambda *a, **k: {"train": breaking()})
    stream = open_texts("some/texts")
    assert next(stream).text == "one"
    with pytest.raises(NotAvailable, match="broke off after 1 rows: ConnectionError: reset by peer$"):
        next(stream)


def test_pickles_are_no_data_files(tmp_path):
    write(tmp_path, {"data.pkl": b"anything"})
    for source in (tmp_path, tmp_path / "data.pkl"):
        with pytest.raises(InputError, match="found .pkl"):
            open_texts(source)
