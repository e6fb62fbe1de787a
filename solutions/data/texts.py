"""Where text comes from: the embedded world, a dataset of the hub or of this machine, a folder, a list."""

from __future__ import annotations

import codecs
import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

from solutions.errors import (
    InputError,
    NotAvailable,
    check_count,
    first_line,
    unknown_name,
)
from solutions.targets import Target, check_target


class Text(NamedTuple):
    """One text and what kind of text it is (for the embedded world: its domain)."""

    text: str  #: what it says
    kind: str  #: its domain, the sub-folder or dataset it comes from, else "text"


def load_texts(target: Target, n: int, split: str = "test", kinds: Sequence[str] | None = None) -> list[Text]:
    """The first `n` texts of the target's text.

    A text that lives on the hub and cannot be reached is replaced by the embedded one, with a warning that
    says so.

    Args:
        target: what is being studied.
        n: how many texts.
        split: "train", "probe" or "test"; the embedded text of one split never depends on the others.
        kinds: only these kinds. Only the embedded text has kinds, so asking for them reads it whatever the
            target.

    Returns:
        `n` texts, the same ones every time; fewer where the target's own files hold fewer.

    Raises:
        InputError: for an unknown split or kind, or a file or folder that is not there.

    Example:
        >>> for one in load_texts(target, 2):
        ...     print(one.kind, "|", one.text[:40])
        french | Je vois son petit chat content. Ce roi c
        animals | The duck was sleeping near the river, on
    """
    check_target(target)
    check_count(n, "n")
    if split not in SPLITS:
        raise unknown_name("split", split, SPLITS)
    if target.text == EMBEDDED or kinds is not None:
        return _smallworld_texts(n, split, kinds)
    if _as_path(target.text) is not None:
        return list(open_texts(target.text, n))
    try:
        return _hub_texts(target.text, n)
    except NotAvailable as error:
        print(f"{error} Reading the embedded text instead.")
        return _smallworld_texts(n, split, None)


EMBEDDED = "smallworld"
SPLITS = ("train", "probe", "test")


def _smallworld_texts(n: int, split: str, kinds: Sequence[str] | None) -> list[Text]:
    from solutions.smallworld import corpus

    kinds = [kinds] if isinstance(kinds, str) else kinds
    for kind in kinds or ():
        if kind not in corpus.DOMAINS:
            raise unknown_name("kind of text", kind, corpus.DOMAINS)
    documents = corpus.documents(seed=corpus.SEEDS[split], n=n, domains=kinds)
    return [Text(document.text, document.domain) for document in documents]


def _hub_texts(name: str, n: int) -> list[Text]:
    """Texts of a Hugging Face dataset with a "text" column, read as a stream."""
    from solutions.hub import require_connection

    require_connection(f"the text {name!r}")
    from datasets import load_dataset

    try:
        rows: Iterable[Mapping[str, str]] = load_dataset(name, split="train", streaming=True)
        texts = (row["text"].strip() for row in rows)
        found = [Text(text, name) for text in islice(filter(None, texts), n)]
    except Exception as error:  # datasets raises a dozen kinds; the reader needs one
        raise NotAvailable(f"could not read the text {name!r} ({type(error).__name__}: {error}).") from error
    return found


# ---- any source, as a stream


class TextStream(Iterator[Text]):
    """Texts one after the other; `open_texts` makes it.

    Attributes:
        name: where they come from, in words.
        n_given: texts given out so far.
        n_empty: texts left out so far because there is nothing visible in them.
    """

    def __init__(self, texts: Iterator[Text], name: str, n: int | None = None):
        self._texts, self._n = texts, n
        self.name, self.n_given, self.n_empty = name, 0, 0

    def __next__(self) -> Text:
        if self.n_given == self._n:
            raise StopIteration
        for text in self._texts:
            if text.text.strip():
                self.n_given += 1
                return text
            self.n_empty += 1
        if not self.n_given:
            raise InputError(f"there is no text in {self.name}: {self.n_empty} empty ones and nothing else.")
        raise StopIteration

    def __repr__(self) -> str:
        return f"TextStream of {self.name}: {self.n_given:,} given, {self.n_empty:,} empty ones left out"


def open_texts(
    source: str | Path | Target | Iterable[Any],
    n: int | None = None,
    split: str | None = None,
    column: str = "text",
    *,
    config: str | None = None,
    encoding: str = "utf-8",
) -> TextStream:
    """Texts from anywhere, one after the other. Nothing but the text at hand is kept in memory.

    Args:
        source: one of

            * "smallworld", the embedded world. It never ends: give `n`. The kind of a text is its domain.
            * a dataset of the Hugging Face hub by its name, e.g. "roneneldan/TinyStories", downloaded as it is read.
            * a .parquet, .jsonl, .json or .csv file, or a folder of such.
            * a .txt file, or a folder of such: in the order of their names, sub-folders included. One file is one
              text, its kind the sub-folder it lies in.
            * strings, Texts or rows (mappings with `column`): a list, a generator, a dataset in memory.
            * a target: the text that belongs to it.
        n: stop after this many texts; None reads to the end.
        split: which part, for sources that have parts; by default "train", or the only one there is.
        column: where the text stands in the rows of a dataset.
        config: which variant of a hub dataset, for those that have several.
        encoding: of .txt files.

    Returns:
        An iterator of `Text`. White space around texts from files and datasets is taken off; empty texts are
        left out and counted in `.n_empty`.

    Raises:
        InputError: when it is opened, for an unknown name, file, split or column; while reading, for a file that
            is not text or not in this encoding, or a row without text. The message names it.
        NotAvailable: the hub cannot be reached, or has no such dataset.

    Example:
        >>> [one.text for one in open_texts(["A text.", "", "Another."])]
        ['A text.', 'Another.']
    """
    if n is not None:
        check_count(n, "n")
    if isinstance(source, Target):
        source = source.text
    if isinstance(source, str) and source == EMBEDDED:
        return TextStream(_embedded_stream(split), "the embedded text", n)
    if isinstance(source, str | Path):
        path = _as_path(source)
        if path is None:
            return TextStream(_hub_stream(str(source), split, column, config), repr(str(source)), n)
        return TextStream(_path_stream(path, split, column, encoding), str(path), n)
    if isinstance(source, Mapping):
        known = ", ".join(map(str, source))
        raise InputError(f"source is a mapping with {known}: give one of its entries, source[…].")
    if isinstance(source, bytes) or not isinstance(source, Iterable):
        raise InputError(f"source must be a name, a path or a list of strings, got {type(source).__name__}.")
    if split is not None:
        raise InputError(f"a list of texts has no splits: leave split={split!r} out.")
    return TextStream(_items(source, column), "the texts given", n)


def _embedded_stream(split: str | None) -> Iterator[Text]:
    from solutions.smallworld import corpus

    split = split or "train"
    if split not in SPLITS:
        raise unknown_name("split of the embedded text", split, SPLITS)
    return (Text(document.text, document.domain) for document in corpus.documents(corpus.SEEDS[split]))


def _items(source: Iterable[Any], column: str) -> Iterator[Text]:
    """Strings, Texts or rows, as they come."""
    for i, item in enumerate(source):
        if isinstance(item, Mapping):
            yield Text(_cell(item, column, "the texts given", i), "text")
        elif isinstance(getattr(item, "text", item), str):
            yield item if isinstance(item, Text) else Text(getattr(item, "text", item), "text")
        else:
            raise InputError(f"text {i} of the list must be a string, got {type(item).__name__}.")


# ---- datasets


#: Names a reader may have meant. Any other dataset of the hub can be read just as well.
WELL_KNOWN = (
    "Skylion007/openwebtext",
    "monology/pile-uncopyrighted",
    "NeelNanda/pile-10k",
    "roneneldan/TinyStories",
    "HuggingFaceFW/fineweb",
    "Salesforce/wikitext",
    "wikimedia/wikipedia",
    "allenai/c4",
    "stanfordnlp/imdb",
)


def _hub_stream(name: str, split: str | None, column: str, config: str | None) -> Iterator[Text]:
    """The texts of a dataset of the hub."""
    from solutions.hub import require_connection

    known = {known.split("/")[-1].lower(): known for known in WELL_KNOWN} | {EMBEDDED: EMBEDDED}
    close = difflib.get_close_matches(name.split("/")[-1].lower(), known, n=1, cutoff=0.6)
    meant = f" Did you mean {known[close[0]]!r}?" if close and known[close[0]] != name else ""
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name):
        shown = name if len(name) < 60 else name[:60] + "…"
        raise InputError(f"no file, folder or dataset {shown!r}.{meant} A text of your own goes in a list: [text].")
    try:
        require_connection(f"the text {name!r}")
    except NotAvailable as error:
        raise NotAvailable(f"{error}{meant} There is no file or folder of that name either.") from error
    from datasets import get_dataset_config_names, load_dataset
    from datasets.exceptions import DatasetNotFoundError

    try:
        parts = load_dataset(name, config, streaming=True)
    except DatasetNotFoundError as error:
        raise NotAvailable(f"no dataset {name!r} on the hub, or it asks you to log in.{meant}") from error
    except ValueError as error:
        if "onfig" in str(error):  # "Config name is missing", "BuilderConfig 'x' not found"
            variants = ", ".join(get_dataset_config_names(name))
            raise InputError(f"{name!r} comes in variants, say which: config=… of {variants}.") from error
        raise NotAvailable(f"could not open {name!r}: {first_line(error)}") from error
    except Exception as error:  # datasets raises a dozen kinds; the reader needs one
        raise NotAvailable(f"could not open {name!r}: {first_line(error)}") from error
    return _rows(parts, name, split, column, NotAvailable)


#: Kinds of data files that are read, and what the datasets library calls them. Never a pickle: it can run code.
FORMATS = {".parquet": "parquet", ".jsonl": "json", ".json": "json", ".csv": "csv"}

#: Words in a file's or folder's name that say which split it belongs to.
SPLIT_WORDS = {"train": "train", "training": "train", "test": "test", "eval": "test"} | dict.fromkeys(
    ("validation", "valid", "val", "dev"), "validation"
)


def _data_stream(files: list[Path], root: Path, split: str | None, column: str) -> Iterator[Text]:
    """The texts of data files below `root`; which split a file belongs to is read off its name."""
    from datasets import load_dataset

    kinds = {FORMATS[file.suffix.lower()] for file in files}
    if len(kinds) > 1:
        raise InputError(f"{root} holds data files of several kinds ({', '.join(sorted(kinds))}): name one file.")
    parts: dict[str, list[str]] = {}
    for file in files:
        words = re.split(r"[^a-z]+", str(file.relative_to(root) if file != root else file.name).lower())
        which = next((SPLIT_WORDS[word] for word in words if word in SPLIT_WORDS), "train")
        parts.setdefault(which, []).append(str(file))
    try:
        opened = load_dataset(kinds.pop(), data_files=parts, streaming=True)
    except Exception as error:
        raise InputError(f"could not open {root}: {first_line(error)}") from error
    return _rows(opened, root.name, split, column, InputError)


def _rows(
    parts: Mapping[str, Any], name: str, split: str | None, column: str, broken: type[Exception]
) -> Iterator[Text]:
    """The texts of one split. Its first row is read at once, so that a wrong column is noticed here."""
    if split is None:
        split = "train" if "train" in parts else next(iter(parts)) if len(parts) == 1 else ""
    if split not in parts:
        raise unknown_name(f"split of {name!r}:", split, parts)
    rows = _reading(parts[split], name, broken)
    first = next(rows, None)
    if first is None:
        raise InputError(f"the split {split!r} of {name!r} has no rows.")
    _cell(first, column, repr(name), 0)
    return (
        Text(_cell(row, column, repr(name), i).strip(), name) for i, row in enumerate(chain([first], rows))
    )


def _reading(dataset: Iterable, name: str, broken: type[Exception]) -> Iterator[Mapping[str, Any]]:
    """The rows, and one message when reading breaks off."""
    count = 0
    try:
        for row in dataset:
            yield row
            count += 1
    except Exception as error:  # a damaged file, a connection that is gone
        raise broken(f"reading {name!r} broke off after {count:,} rows: {first_line(error)}") from error


def _cell(row: Mapping[str, Any], column: str, name: str, i: int) -> str:
    """The text of a row; nothing (None) is an empty text."""
    if column not in row:
        texts = [key for key, value in row.items() if isinstance(value, str)]
        advice = f"Say which holds the text, e.g. column={texts[0]!r}." if texts else "None of them holds text."
        raise InputError(f"no column {column!r} in {name}. Its columns: {', '.join(map(str, row))}. {advice}")
    if row[column] is not None and not isinstance(row[column], str):
        raise InputError(
            f"column {column!r} of {name} must hold text, found {type(row[column]).__name__} in row {i}. "
            f"Its columns: {', '.join(map(str, row))}."
        )
    return row[column] or ""


# ---- files


def _as_path(source: str | Path) -> Path | None:
    """The file or folder that is meant; None when it must be a name of the hub."""
    path, text = Path(source).expanduser(), str(source)
    try:
        if path.exists():
            return path
    except (OSError, ValueError):  # too long for a name, or a zero byte in it: somebody's text
        return None
    suffixes = (".txt", *FORMATS)
    if isinstance(source, Path) or text.startswith((".", "/", "~")) or text.lower().endswith(suffixes):
        parent = path.parent
        if not parent.is_dir():
            raise InputError(f"no file or folder {text!r}: there is no {str(parent)!r} either.")
        raise unknown_name("file or folder", path.name, [p.name for p in parent.iterdir()], f"Looked in {parent}.")
    return None


def _path_stream(path: Path, split: str | None, column: str, encoding: str) -> Iterator[Text]:
    files = [path] if path.is_file() else _files_below(path)
    data = [file for file in files if file.suffix.lower() in FORMATS]
    texts = [file for file in files if file.suffix.lower() == ".txt"]
    if data and texts:
        raise InputError(
            f"{path} holds {len(texts)} .txt files and {len(data)} data files ({data[0].name}, …): "
            "give a sub-folder or a single file."
        )
    if data:
        return _data_stream(data, path, split, column)
    if not texts:
        found = sorted({file.suffix or file.name for file in files})
        wanted = ", ".join((".txt", *FORMATS))
        raise InputError(f"no text in {path}: wanted {wanted}, found {', '.join(found[:12]) or 'no files'}.")
    if split is not None:
        raise InputError(f".txt files have no splits: leave split={split!r} out, or give the sub-folder itself.")
    try:
        codecs.lookup(encoding)
    except (LookupError, TypeError) as error:
        raise InputError(f"unknown encoding {encoding!r}. Try 'utf-8' or 'latin-1'.") from error
    return (_read_text(file, path, encoding) for file in texts)


def _files_below(folder: Path) -> list[Path]:
    """All files below a folder, in the order of their paths; hidden ones (.git, .ipynb_checkpoints) left out."""
    files = [p for p in folder.rglob("*") if p.is_file()]
    shown = [p for p in files if not any(part.startswith(".") for part in p.relative_to(folder).parts)]
    return sorted(shown, key=lambda p: p.relative_to(folder).as_posix())


def _read_text(file: Path, root: Path, encoding: str) -> Text:
    try:
        raw = file.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {file}: {first_line(error)}") from error
    wide = codecs.lookup(encoding).name.startswith(("utf-16", "utf-32"))
    if b"\0" in raw and not wide:
        raise InputError(
            f"{file} is not a text file: it has a zero byte at {raw.index(0):,}. Move it away; "
            "if it is text saved as UTF-16, say encoding='utf-16'."
        )
    plain = "utf-8-sig" if codecs.lookup(encoding).name == "utf-8" else encoding  # without a byte-order mark
    try:
        text = raw.decode(plain)
    except UnicodeError as error:
        where = f"byte {error.start:,}" if isinstance(error, UnicodeDecodeError) else "the beginning"
        raise InputError(
            f"{file} is not {encoding}: it cannot be decoded at {where}. Say which encoding it has, e.g. "
            "encoding='latin-1', or save it as UTF-8."
        ) from error
    kind = file.relative_to(root).parts[0] if file.parent != root and file != root else file.parent.name
    return Text(text.replace("\r\n", "\n").strip(), kind)
