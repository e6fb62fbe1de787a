"""Python source: definitions, loops and conditions, variables that are used again, brackets that are closed."""

from random import Random

from .. import lexicon as lex
from ..concepts import BIT
from ..grammar import SURE, Document, phrase
from ..phrases import PEOPLE, noun, verb

KEYWORD, VARIABLE, SEEN = BIT["keyword"], BIT["variable"], BIT["variable_seen"]
FUNCTION, NUMBER, STRING, COMMENT = BIT["function_name"], BIT["code_number"], BIT["string"], BIT["comment"]
OPERATOR, INDENT, NEGATION = BIT["operator"], BIT["indent"], BIT["negation"]
IN, NESTED = BIT["in_brackets"], BIT["nested_brackets"]

_TEXTS = "hello error done name value start world red blue Paris cat total end key file user".split()
_DOCSTRINGS = ["{a} the {b}.", "{a} the {b} of the {c}.", "{a} all the {c}s."]
_COMMENTS = [" {a} the {b}", " {a} all the {b}", " check that the {b} is <negation_scope>not empty</negation_scope>",
             " this will {a} the {b}", " TODO: {a} the {b} before the loop", " the mouse moves the {b}"]


class Writer:
    """Writes code into a document, keeping track of variables and of open brackets."""

    def __init__(self, doc: Document, rng: Random):
        self.doc, self.rng, self.depth = doc, rng, 0
        self.seen: set[str] = set()

    def put(self, text: str, mask: int = 0) -> None:
        """One token of code."""
        self.doc.emit(text, mask)

    def name(self, text: str, before: str = "") -> None:
        """A variable, marked if it has been used before."""
        self.put(before + text, VARIABLE | (SEEN if text in self.seen else 0))
        self.seen.add(text)

    def open(self, bracket: str) -> None:
        """An opening bracket; what follows is inside."""
        self.put(bracket)
        self.depth += 1
        self._mark()

    def close(self, bracket: str) -> None:
        """The closing bracket, which is outside again."""
        self.depth -= 1
        self._mark()
        self.put(bracket)

    def _mark(self) -> None:
        self.doc.close(IN | NESTED)
        if self.depth:
            self.doc.open(IN)
        if self.depth > 1:
            self.doc.open(NESTED)

    def newline(self, level: int) -> None:
        """A new line, indented by `level` steps."""
        self.put("\n" + " " * max(0, 4 * level - 1), INDENT if level else 0)
        if level:  # the tokenizer joins the last space to the word that follows
            self.doc.pending_space = " "

    def string(self) -> None:
        """A string literal; its opening quote is not inside it."""
        rng = self.rng
        self.put('"')
        self.put(rng.choice(_TEXTS), STRING)
        if rng.random() < 0.3:
            self.put(" " + rng.choice(("is", "was", "not", "of", "in")), STRING)
            self.put(" " + rng.choice(("found", "ready", "empty", "big", "here")), STRING)
        self.put('"')

    def expression(self, variables: list[str], level: int = 0) -> None:
        """A variable, a number, a sum, a call."""
        rng = self.rng
        r = rng.random()
        if r < 0.25 and level < 2:
            self.expression(variables, level + 1)
            self.put(" " + rng.choice("+-*/%"), OPERATOR)
            self.put(" ")
            self.expression(variables, level + 1)
        elif r < 0.7:
            self.name(rng.choice(variables))
        elif r < 0.82:
            self.put(str(rng.randint(0, 100)), NUMBER)
        elif level < 3:
            self.put(rng.choice(("len", "sum", "max", "min", "abs", "int", "str")), FUNCTION)
            self.open("(")
            self.expression(variables, level + 1)
            self.close(")")
        else:
            self.name(rng.choice(variables))

    def call(self) -> None:
        """print(…)"""
        self.put("print", FUNCTION)
        self.open("(")
        if self.rng.random() < 0.6:
            self.string()
        else:
            self.name(self.rng.choice(sorted(self.seen)))
        if self.rng.random() < 0.5:
            self.put(",")
            self.name(self.rng.choice(sorted(self.seen)), " ")
        self.close(")")

    def comment(self) -> None:
        """# …"""
        rng, doc = self.rng, self.doc
        self.put("#")
        doc.open(COMMENT)
        doc.say(rng.choice(_COMMENTS), a=verb(rng.choice("compute update print sort load check return".split())),
                b=noun(rng.choice("result total list value name file data".split())))
        doc.close(COMMENT)

    def statement(self, variables: list[str], level: int, nesting: int = 0) -> None:
        """One statement, perhaps with a block of its own."""
        rng = self.rng
        r = rng.random()
        if r < 0.3:
            target = rng.choice(lex.VARIABLES)
            self.name(target)
            self.put(" =", OPERATOR)
            self.put(" ")
            self.expression(variables)
            if target not in variables:
                variables.append(target)
        elif r < 0.4:
            self.name(rng.choice(variables))
            self.put(" +=", OPERATOR)
            self.put(" ")
            self.expression(variables, 1)
        elif r < 0.54:
            self.call()
        elif r < 0.6:
            self.comment()
            self.newline(level)
            self.statement(variables, level, nesting)
        elif r < 0.72 and nesting < 2:
            self.loop(variables, level, nesting)
        elif r < 0.88 and nesting < 2:
            self.condition(variables, level, nesting)
        elif r < 0.94:
            self.list(variables)
        else:
            self.name(rng.choice(variables))
            self.put(" =", OPERATOR)
            self.put(" ")
            self.string()

    def loop(self, variables: list[str], level: int, nesting: int) -> None:
        """for … in …:"""
        rng = self.rng
        index = rng.choice(("i", "n", "x", "item"))
        self.put("for", KEYWORD)
        self.name(index, " ")
        self.put(" in", KEYWORD)
        self.put(" ")
        if rng.random() < 0.5:
            self.put("range", FUNCTION)
            self.open("(")
            self.expression(variables, 1)
            self.close(")")
        else:
            self.name(rng.choice(("items", "data", "text")))
        self.put(":")
        for _ in range(rng.randint(1, 2)):
            self.newline(level + 1)
            self.statement([*variables, index], level + 1, nesting + 1)

    def condition(self, variables: list[str], level: int, nesting: int) -> None:
        """if …: else …"""
        rng = self.rng
        self.put("if", KEYWORD)
        if rng.random() < 0.2:
            self.put(" not", KEYWORD | NEGATION)
            self.name(rng.choice(variables), " ")
        else:
            self.name(rng.choice(variables), " ")
            self.put(" " + rng.choice(("==", ">", "<", "!=", ">=")), OPERATOR)
            self.put(" ")
            self.expression(variables, 2)
        self.put(":")
        self.newline(level + 1)
        self.statement(variables, level + 1, nesting + 1)
        if rng.random() < 0.4:
            self.newline(level)
            self.put("else", KEYWORD)
            self.put(":")
            self.newline(level + 1)
            self.statement(variables, level + 1, nesting + 1)

    def list(self, variables: list[str]) -> None:
        """items = […]"""
        rng = self.rng
        target = rng.choice(("items", "data"))
        self.name(target)
        self.put(" =", OPERATOR)
        self.put(" ")
        self.open("[")
        for j in range(rng.randint(2, 4)):
            if j:
                self.put(",")
                self.put(" ")
            if rng.random() < 0.7:
                self.put(str(rng.randint(0, 50)), NUMBER)
            else:
                self.string()
        self.close("]")
        if target not in variables:
            variables.append(target)

    def function(self, level: int) -> None:
        """def …: with a few statements and a return."""
        rng, doc = self.rng, self.doc
        arguments = rng.sample(lex.VARIABLES[:16], rng.randint(1, 3))
        self.seen = set()
        doc.open(BIT["def_line"])
        self.put("def", KEYWORD)
        self.put(" " + rng.choice(lex.FUNCTIONS), FUNCTION)
        self.open("(")
        for j, argument in enumerate((["self"] if level else []) + arguments):
            if j:
                self.put(",")
            self.name(argument, " " if j else "")
        self.close(")")
        self.put(":")
        doc.close(BIT["def_line"])
        if rng.random() < 0.15:
            self.newline(level + 1)
            self.put('"""')
            doc.open(COMMENT)
            doc.say(rng.choice(_DOCSTRINGS), a=verb(rng.choice(("Return", "Compute", "Print", "Count"))),
                    b=noun(rng.choice(("total", "result", "name", "value"))), c=noun(rng.choice(("item", "file"))))
            doc.close(COMMENT)
            self.put('"""')
        variables = list(arguments)
        for _ in range(rng.randint(1, 4)):
            self.newline(level + 1)
            self.statement(variables, level + 1)
        self.newline(level + 1)
        self.put("return", KEYWORD)
        self.put(" ")
        if rng.random() < 0.6:
            self.name(rng.choice(variables[-2:]))
        else:
            self.expression(variables, 1)


def _header(writer: Writer, rng: Random, doc: Document) -> None:
    if rng.random() < 0.35:
        for _ in range(rng.randint(1, 3)):
            if rng.random() < 0.6:
                writer.put("import", KEYWORD)
                writer.name(rng.choice(lex.MODULES), " ")
            else:
                writer.put("from", KEYWORD)
                writer.name(rng.choice(lex.MODULES), " ")
                writer.put(" import", KEYWORD)
                writer.put(" " + rng.choice(lex.FUNCTIONS), FUNCTION)
            writer.newline(0)
    if rng.random() < 0.15:
        writer.put("#", COMMENT)
        doc.open(COMMENT)
        doc.say(rng.choice((" {p} script to {a} the {b}", " written in {p} by {n}", " {p} and {j} code for the {b}",
                            " this {p} program is faster than the {j} program", " move the {mouse} to the {b}")),
                p=phrase(rng.choice(("Python", "python")), "noun python_code"), j=phrase("Java", "noun java_code"),
                a=verb(rng.choice(("compute", "update", "sort"))), b=noun(rng.choice(("total", "list", "data"))),
                n=rng.choice(PEOPLE).phrase, mouse=phrase("mouse", "noun mouse_computer", SURE))
        doc.close(COMMENT)
        writer.newline(0)


def write(doc: Document, rng: Random) -> None:
    """A short program."""
    doc.about("d_code")
    writer = Writer(doc, rng)
    _header(writer, rng, doc)
    level = 0
    if rng.random() < 0.12:
        writer.put("class", KEYWORD)
        writer.put(" " + rng.choice(lex.CLASSES), FUNCTION)
        writer.put(":")
        writer.newline(1)
        level = 1
    for f in range(rng.randint(1, 3)):
        if f:
            writer.put("\n")
            writer.newline(level)
        writer.function(level)
    if rng.random() < 0.4:
        writer.put("\n")
        writer.newline(0)
        writer.put("print", FUNCTION)
        writer.open("(")
        writer.put(rng.choice(lex.FUNCTIONS), FUNCTION)
        writer.open("(")
        for j in range(rng.randint(1, 2)):
            if j:
                writer.put(",")
                writer.put(" ")
            writer.put(str(rng.randint(0, 20)), NUMBER)
        writer.close(")")
        writer.close(")")
