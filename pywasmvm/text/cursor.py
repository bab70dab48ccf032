"""A cursor over tokens: what every part of the parser reads with. Errors carry line and column."""

from __future__ import annotations

from pywasmvm.errors import MalformedError
from pywasmvm.isa import BY_NAME
from pywasmvm.text import literals
from pywasmvm.text.lexer import ID, LEFT, RESERVED, RIGHT, STRING, WORD, Tokens
from pywasmvm.types import BY_NAME as VALUE_TYPES
from pywasmvm.types import HeapType

#: Words that have a meaning in the format, though perhaps not where they were found.
KEYWORDS = frozenset(BY_NAME).union(
    VALUE_TYPES,
    (heap.value for heap in HeapType if heap is not HeapType.BOT),
    *(
        words.split()
        for words in (
            "module type rec sub final func struct array field mut param result local",
            "import export table memory global tag elem data start item offset declare then",
            "catch catch_ref catch_all catch_all_ref ref null definition binary quote",
            "nan:canonical nan:arithmetic",
        )
    ),
)


class Cursor:
    """Reads `tokens[pos:end]`; `pos` moves forward."""

    __slots__ = ("end", "ends", "kinds", "pos", "source", "starts", "tokens")

    def __init__(self, tokens: Tokens, pos: int, end: int) -> None:
        self.tokens, self.pos, self.end = tokens, pos, end
        self.source, self.kinds = tokens.source, tokens.kinds
        self.starts, self.ends = tokens.starts, tokens.ends

    # -- errors --------------------------------------------------------------------------------------

    def fail(self, message: str, at: int | None = None) -> MalformedError:
        """The error to raise at a token (by default the next one)."""
        return self.tokens.error(message, self.pos if at is None else at)

    def unexpected(self, wanted: str = "") -> MalformedError:
        """The error for a token that cannot stand here."""
        hint = f": expected {wanted}" if wanted else ""
        if self.pos >= self.end:
            return self.fail(f"unexpected token: the end{hint}")
        text = self.tokens.text(self.pos).decode("utf-8", "replace")
        kind = self.kinds[self.pos]
        known = kind not in (WORD, RESERVED) or text in KEYWORDS or literals.is_number(text)
        word = "unexpected token" if known else "unknown operator"
        return self.fail(f"{word} {text[:50]}{hint}")

    # -- looking ---------------------------------------------------------------------------------------

    @property
    def kind(self) -> int:
        """The kind of the next token; -1 at the end."""
        return self.kinds[self.pos] if self.pos < self.end else -1

    @property
    def text(self) -> bytes:
        """The next token as it is written."""
        return self.source[self.starts[self.pos] : self.ends[self.pos]]

    def at_word(self, word: bytes) -> bool:
        """Whether this keyword comes next."""
        return self.kind == WORD and self.text == word

    def at_form(self, *words: bytes) -> bytes | None:
        """The keyword, if a parenthesis and one of these keywords come next."""
        pos = self.pos
        if pos + 1 >= self.end or self.kinds[pos] != LEFT or self.kinds[pos + 1] != WORD:
            return None
        word = self.source[self.starts[pos + 1] : self.ends[pos + 1]]
        return word if word in words else None

    # -- taking ----------------------------------------------------------------------------------------

    def left(self) -> None:
        """An opening parenthesis."""
        if self.kind != LEFT:
            raise self.unexpected("(")
        self.pos += 1

    def right(self) -> None:
        """A closing parenthesis."""
        if self.kind != RIGHT:
            raise self.unexpected(")")
        self.pos += 1

    def word(self, *wanted: bytes) -> bytes:
        """A keyword, one of those wanted."""
        if self.kind != WORD or self.text not in wanted:
            raise self.unexpected(" or ".join(w.decode() for w in wanted))
        found = self.text
        self.pos += 1
        return found

    def take_word(self, word: bytes) -> bool:
        """Take a keyword if it comes next; whether it did."""
        if self.kind == WORD and self.text == word:
            self.pos += 1
            return True
        return False

    def take_form(self, *words: bytes) -> bytes | None:
        """Take a parenthesis and one of these keywords if they come next; which it was."""
        found = self.at_form(*words)
        if found is not None:
            self.pos += 2
        return found

    def take_id(self) -> bytes | None:
        """Take an identifier if one comes next, without its `$`."""
        if self.kind != ID:
            return None
        found = self.tokens.identifier(self.pos)
        self.pos += 1
        return found

    def string(self) -> bytes:
        """A string."""
        if self.kind != STRING:
            raise self.unexpected("a string")
        found = self.tokens.string(self.pos)
        self.pos += 1
        return found

    def strings(self) -> bytes:
        """Any number of strings, joined."""
        found = bytearray()
        while self.kind == STRING:
            found += self.string()
        return bytes(found)

    def name(self) -> str:
        """A string that is UTF-8."""
        at = self.pos
        data = self.string()
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError:
            raise self.fail("malformed UTF-8 encoding", at) from None

    # -- numbers -----------------------------------------------------------------------------------------

    def at_number(self) -> bool:
        """Whether an unsigned number comes next."""
        return self.kind == WORD and self.source[self.starts[self.pos]] in b"0123456789"

    def at_index(self) -> bool:
        """Whether an index comes next, as a number or an identifier."""
        return self.kind == ID or self.at_number()

    def literal(self, what: str) -> str:
        """A word that must be a number, as text."""
        if self.kind != WORD:
            raise self.unexpected(what)
        return self.text.decode()

    def unsigned(self, bits: int = 32) -> int:
        """An unsigned number."""
        try:
            value = literals.unsigned(self.literal("a number"), bits)
        except ValueError as error:
            raise self.fail(str(error)) from None
        self.pos += 1
        return value

    def integer(self, bits: int) -> int:
        """An integer constant, canonical."""
        try:
            value = literals.integer(self.literal("an integer"), bits)
        except ValueError as error:
            raise self.fail(str(error)) from None
        self.pos += 1
        return value

    def float(self, bits: int) -> float:
        """A float constant."""
        read = literals.float32 if bits == 32 else literals.float64
        try:
            value = read(self.literal("a number"))
        except ValueError as error:
            raise self.fail(str(error)) from None
        self.pos += 1
        return value
