"""What a response answers, so that answers can be compared: a letter, a number, a text, a program."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Callable, Iterable

import regex

from pools.errors import UserError, shown

WORD = "word"
"""The kind that is used if nothing else is known: the last word or number."""
SECONDS = 0.1
"""Of processor time that a regular expression of a user's gets for a response. Those here take microseconds."""
MAX_PROGRAM = 50_000
"""Characters of a program that is parsed; of a longer one the text is compared."""

_LAST_WORD = re.compile(r"-?\w+")
_NUMBER = r"(?<![\w.])[-−]?[$£€]?[-−]?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|(?<![\w.])[-−]?[$£€]?\.\d+"
_LAST_NUMBER = re.compile(_NUMBER)
_ENDS_IN_NUMBER = re.compile(r"\d[\s.)}$*%]{0,9}\Z")
_MARKED_NUMBER = re.compile(rf"(?:(?<!#)####|\\boxed\{{|\banswer(?: is\b|:| =))\W{{0,10}}?({_NUMBER})", re.IGNORECASE)
# "A" and "I" are words, too: "A) ..." and "A" alone are letters, "A good answer" and "I cannot" are none.
_LETTER = r"(?:[B-HJ-Z]\b|[AI]\b(?!\s+\w))(?!['’])"
_FIRST_LETTER = re.compile(rf"[\W_]{{0,4}}?(?:({_LETTER})|([a-z])(?:[).:]|\s*\Z))")
_MARKED_LETTER = re.compile(
    r"(?i:\banswer(?: is\b|:)|\\boxed\{)[\W_]{0,6}?(?i:option |choice |\\text\{)?\W?([A-Z])(?!\w)"
)
_LAST_LETTER = re.compile(rf"\b(?!I)({_LETTER})")
_BLOCK = re.compile(r"```[\w+-]*[ \t]*\r?\n(.*?)(?:```|\Z)|\[PYTHON\](.*?)(?:\[/PYTHON\]|\Z)", re.DOTALL)


def _word(response: str) -> str:
    return next(iter(_LAST_WORD.findall(response)[-1:]), "")


def _letter(response: str) -> str:
    """The letter that a response begins with, or says to be its answer, the last time; else the last that stands alone.

    Which of the words "A" and "I" is a letter is told by what follows.
    """
    if first := _FIRST_LETTER.match(response):
        return (first[1] or first[2]).upper()
    found = _MARKED_LETTER.findall(response) or _LAST_LETTER.findall(response)
    return found[-1] if found else ""


def _number(response: str) -> str:
    """The number that a response marks as its answer, else its last one; `1,000.0` and `$1000` are `1000`."""
    found = _MARKED_NUMBER.findall(response) or _LAST_NUMBER.findall(response)
    if not found:
        return ""
    digits = re.sub(r"[,$£€]", "", found[-1]).replace("−", "-")
    sign, whole, fraction = digits[:1] * (digits[0] == "-"), *digits.lstrip("-").partition(".")[::2]
    whole, fraction = whole.lstrip("0") or "0", fraction.rstrip("0")
    number = f"{whole}.{fraction}" if fraction else whole
    return number if number == "0" else sign + number


def _text(response: str) -> str:
    """Its words in small letters, without punctuation."""
    return " ".join(re.findall(r"\w+", response.casefold()))


def _code(response: str) -> str:
    """The first program in it, or else all of it: functions, classes and imports, with names of its own in order.

    So two programs agree if they differ in names, comments, annotations, layout and examples of use alone. What is no
    Python is compared without comments, with white space as one space.
    """
    found = _BLOCK.search(response)
    program = (found[1] or found[2] or "") if found else response
    try:
        if len(program) <= MAX_PROGRAM:
            return _canonical(program)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        pass
    return " ".join(re.sub(r"#.*", "", program).split())


def _canonical(program: str) -> str:
    """A program with its own names as `v0`, `v1`, ... Raises an error of `ast.parse` if it is none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of escapes such as "\d"
        module = ast.parse(program.strip("\r\n"))
    defined = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    imports = (ast.Import, ast.ImportFrom)
    if any(isinstance(statement, defined) for statement in module.body):
        module.body = [statement for statement in module.body if isinstance(statement, defined + imports)]
    own: dict[str, str] = {}
    for node in ast.walk(module):
        if isinstance(node, defined):
            if ast.get_docstring(node, clean=False) is not None:
                node.body = node.body[1:] or [ast.Pass()]
            own.setdefault(node.name, f"v{len(own)}")
        elif isinstance(node, ast.arg):
            own.setdefault(node.arg, f"v{len(own)}")
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            own.setdefault(node.id, f"v{len(own)}")
    for node in ast.walk(module):
        for field in ("name", "arg", "id"):
            if isinstance(name := getattr(node, field, None), str):
                setattr(node, field, own.get(name, name))
        for field in ("annotation", "returns"):
            if hasattr(node, field):
                setattr(node, field, None)
    return ast.dump(module)


_KINDS: dict[str, Callable[[str], str]] = {
    "letter": _letter,
    "number": _number,
    "text": _text,
    "code": _code,
    WORD: _word,
}
KINDS = tuple(_KINDS)


def answer_reader(kind: str) -> Callable[[str], str]:
    """The answer that a response gives, as a text; empty if it gives none.

    kind: `letter`, `number`, `text`, `code`, `word`, or a regular expression: its last match, or the first group of
    that. Raises UserError for an invalid expression; the reader does so if one takes too long for a response.
    """
    if kind in _KINDS:
        return _KINDS[kind]
    try:
        pattern = regex.compile(kind)
    except (regex.error, RecursionError, OverflowError, ValueError) as error:
        known = ", ".join(KINDS)
        raise UserError(f"answers {shown(kind)}: expected {known}, or a regular expression ({error})") from None

    def read(response: str) -> str:
        try:
            found = list(pattern.finditer(response, timeout=SECONDS))[-1:]
        except TimeoutError:
            raise UserError(
                f"answers {shown(kind)}: the regular expression takes more than {SECONDS:g} seconds for a response of "
                f"{len(response):,} characters; write it without ways to match the same text twice, as in (a|aa)+"
            ) from None
        return "".join((each[1] or "") if pattern.groups else each[0] for each in found)

    return read


def guess_answers(responses: Iterable[str]) -> str:
    """The kind that most of the responses are of: a letter, a program, or what ends in a number; else a text."""
    some = list(responses)
    signs: dict[str, Callable[[str], object]] = {
        "letter": lambda text: len(text) <= 100 and "\n" not in text.strip() and _FIRST_LETTER.match(text),
        "code": lambda text: re.search(r"```|\bdef \w+\(|\[PYTHON\]", text),
        "number": lambda text: _MARKED_NUMBER.search(text) or _ENDS_IN_NUMBER.search(text),
    }
    for kind, sign in signs.items():
        if sum(bool(sign(response)) for response in some) > len(some) / 2:
            return kind
    return "text"
