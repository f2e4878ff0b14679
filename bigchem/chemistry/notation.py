"""What a text of each domain may look like, and how deviations are repaired. Pure.

Data, inputs and answers follow the same rules:

1. White space around a text is dropped. So are special tokens at its ends and a pair of tags around it, plus whatever
   else `strip` names.
2. SMILES contain no white space. If every piece between spaces is one token or one character, the text was split for a
   tokenizer and is joined. A CXSMILES extension (`|...|`) after a space is cut. A name after a space is cut with
   `names`, for formats that often have one; otherwise the text is not SMILES.
3. SELFIES and InChI are recognised by their syntax and converted (molecules.py). Texts that could be either SELFIES
   or SMILES are SMILES, unless the caller knows that they are SELFIES.
4. Every repair is named, so it can be counted. Text that is still not SMILES raises NotationError.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass

from bigchem.chemistry.tokens import ATOM

MAX_CHARACTERS = 10_000
"""Longest SMILES, in characters. ChEBI-20's longest has 1,598."""
MAX_ATOMS = 1_000
"""Maximum atoms, as written, in one SMILES. ChEBI-20's largest molecule has 574. RDKit's SMILES writer recurses: a
chain of 20,000 atoms overflows the stack and kills the process."""
MAX_CLOSURES = 200
"""Maximum ring closures in one SMILES: InChI of a lattice of 400 atoms takes 13 s. ChEBI-20 has at most 69."""

REPAIRS: dict[str, str] = {
    "special_tokens": "special tokens at the ends stripped",
    "tags": "a pair of tags around the text stripped",
    "fences": "a code fence around the text stripped",
    "prose": "prose around one SMILES stripped",
    "joined": "token-spaced SMILES joined",
    "extension": "a CXSMILES extension cut",
    "name": "a name after the SMILES cut",
    "backslashes": "doubled backslashes made single",
    "maps": "atom maps removed",
    "reagents": "reagents after a > joined to the reactants",
    "selfies": "SELFIES decoded",
    "doubtful": "brackets such as [C], SMILES of a radical or SELFIES: read as SMILES",
    "inchi": "InChI converted",
    "label": "a label in another spelling (1.0 for 1)",
    "minus": "a number's minus sign U+2212 written as a hyphen",
    "lost": "characters lost to an encoding or a tokenizer (<unk>, U+FFFD), left as they are",
}
"""Repairs of a text, and defects noticed in it, by the key under which they are counted."""

STRIP = ("special", "tags", "fences", "prose")
"""What can be stripped from around a text."""
STRIPPED: frozenset[str] = frozenset({"special", "tags"})
"""What is stripped by default."""


class NotationError(ValueError):
    """The text is not valid in its domain; the message says why."""


@dataclass(frozen=True)
class Reading:
    """A repaired text. repairs: keys of REPAIRS, each once, in the order in which they were made."""

    text: str
    repairs: tuple[str, ...] = ()


_SPECIAL = r"(?:</?s>|<pad>|<eos>|<bos>|<extra_id_\d{1,3}>|<\|[a-z_]{1,20}\|>|\[(?:PAD|CLS|SEP|BOS|EOS)\])"
_ENDS = re.compile(rf"\A(?:\s|{_SPECIAL})+|(?:\s|{_SPECIAL})+\Z")
_TAGS = re.compile(r"<([A-Za-z]\w{0,19})>(.*)</\1>|<bom>(.*)<eom>|\[START_(\w{1,9})\](.*)\[END_\4\]", re.DOTALL)
_FENCE = re.compile(r"(`{3,})(?:[A-Za-z]{0,9}[ \t]*\n)?(.*?)\1|(`)([^`\n]+)`", re.DOTALL)
_WORD_OF_PROSE = re.compile(r"[^A-Za-z0-9]*[A-Z]?[a-z]*[^A-Za-z0-9]*")

_PIECE = re.compile(rf"{ATOM}|[A-Za-z0-9\[\]%]")
_WHOLE = re.compile(rf"{ATOM}+")
_ATOM = re.compile(r"\[[^\[\]]*\]|Br|Cl|[BCNOPSFIbcnops*]")
_CLOSURE = re.compile(r"%\(\d+\)|%\d\d|\d")
_BRACKETS = re.compile(r"\[[^\[\]]*\]")
_MAP = re.compile(r":\d+(?=\])")
_BRACKETED = re.compile(r"\[[^\[\]]*\](?:\.?\[[^\[\]]*\])+")
_ALL_BRACKETS = re.compile(r"\[[^\[\]]*\](?:\.?\[[^\[\]]*\])*")
_BARE = re.compile(r"\[(?:[BCNOPSFI]|Cl|Br)\]")
_SMILES_ATOM = re.compile(
    r"\[\d*(?:[A-Z][a-z]?|b|c|n|o|p|s|se|te|as|\*)(?:@{1,2}(?:[A-Z]{2}\d+)?)?(?:H\d*)?(?:\++\d*|-+\d*)?(?::\d+)?\]"
)
_LOST = re.compile("<unk>|\ufffd|⁇")
_MISSING_WORDS = frozenset({"nan", "<na>", "n/a", "#n/a", "none", "null"})
"""What tables and programs write for a missing value, in lower case."""


def is_missing_word(text: str) -> bool:
    """Whether a text stands for a missing value: one that programs write, or R's NA, in capitals as Na is sodium."""
    bare = text.strip()
    return bare == "NA" or bare.lower() in _MISSING_WORDS


def is_missing(text: str) -> bool:
    """Whether a text holds nothing: empty, NaN, N/A, -, ... A + alone is a result."""
    return is_missing_word(text) or not any(char.isalnum() or char == "+" for char in text)


def without_maps(smiles: str) -> str:
    """The SMILES without its atom maps. Removed from the text, before parsing: a map makes a centre look chiral."""
    return _MAP.sub("", smiles) if ":" in smiles else smiles


def atom_maps(smiles: str) -> frozenset[str]:
    """The atom map numbers in the SMILES, as text."""
    return frozenset(match.group()[1:] for match in _MAP.finditer(smiles))


def strip_around(text: str, strip: Collection[str] = STRIPPED) -> tuple[str, list[str]]:
    """(stripped text, repairs). Stripping white space is not counted as a repair."""
    repairs: list[str] = []
    before = None
    while before != text:
        before = text = text.strip()
        if "special" in strip and text and (text[0] in "<[" or text[-1] in ">]"):
            bare = _ENDS.sub("", text)
            if bare != text:
                text = bare
                repairs.append("special_tokens")
        if "tags" in strip and (match := _TAGS.fullmatch(text)):
            text = _inside(match, 2, 3, 5)
            repairs.append("tags")
        if "fences" in strip and (match := _FENCE.fullmatch(text)):
            text = _inside(match, 2, 4)
            repairs.append("fences")
    return text, repairs


def out_of_prose(text: str) -> str | None:
    """The one SMILES in a piece of prose: the content of the only pair of tags or code fence, or the only word that is
    SMILES and not a word of the language. None if there is not exactly one."""
    for marked, groups in ((_TAGS, (2, 3, 5)), (_FENCE, (2, 4))):
        if len(found := list(marked.finditer(text))) == 1:
            return _inside(found[0], *groups).strip()
    words = [word.strip("\"'`,;:!") for word in text.split()]
    words = [word[:-1] if word.endswith(".") else word for word in words]
    found_words = {word for word in words if _WHOLE.fullmatch(word) and _is_no_word(word)}
    return found_words.pop() if len(found_words) == 1 else None


def joined(text: str) -> str | None:
    """A SMILES that was split for a tokenizer, without its spaces; None for any other text."""
    pieces = text.split()
    if len(pieces) < 2 or not all(map(_PIECE.fullmatch, pieces)):
        return None
    whole = "".join(pieces)
    return whole if _closed(whole) else None


def is_selfies(text: str) -> bool:
    """Whether the text is SELFIES: several brackets and nothing else, with either a symbol that is not a SMILES atom
    ([=C], [Ring1]) or a carbon without hydrogen bonded to a neighbour ([C][C][O]), which no real molecule has."""
    if not text.startswith("[") or not _BRACKETED.fullmatch(text):
        return False
    if "[C][" in text or "][C]" in text:
        return True
    return not all(map(_SMILES_ATOM.fullmatch, _BRACKETS.findall(text)))


def may_be_selfies(text: str) -> bool:
    """Whether SMILES could as well be SELFIES of another molecule: brackets alone, one of them a bare atom, such as
    [C] or [O][O]. As SMILES these are radicals."""
    return text.startswith("[") and bool(_ALL_BRACKETS.fullmatch(text) and _BARE.search(text))


def check_size(smiles: str) -> None:
    """NotationError for a text over one of the three limits, which must not reach RDKit."""
    if len(smiles) > MAX_CHARACTERS:
        raise NotationError(f"longer than {MAX_CHARACTERS:,} characters")
    if len(smiles) <= 2 * MAX_CLOSURES:  # a closure takes two characters, and an atom one
        return
    if len(_ATOM.findall(smiles)) > MAX_ATOMS:
        raise NotationError(f"more than {MAX_ATOMS:,} atoms")
    if len(_CLOSURE.findall(_BRACKETS.sub("", smiles))) > 2 * MAX_CLOSURES:
        raise NotationError(f"more than {MAX_CLOSURES} ring closures")


def is_lost(text: str, *, chemistry: bool) -> bool:
    """Whether the text has lost characters: <unk> or U+FFFD; in SMILES also `?`, an encoding's substitute."""
    if chemistry and "?" in text and not text.startswith("InChI="):
        return True
    return _LOST.search(text) is not None


def read_text(text: str, strip: Collection[str] = STRIPPED) -> Reading:
    """A text of natural language. NotationError if it is empty or holds nothing."""
    text, repairs = strip_around(text, strip)
    if not text:
        raise NotationError("empty text")
    if is_missing(text):
        raise NotationError(f"a missing text: '{text}'")
    if is_lost(text, chemistry=False):
        repairs.append("lost")
    return Reading(text, tuple(dict.fromkeys(repairs)))


def smiles_of(text: str, *, names: bool = False, strip: Collection[str] = STRIPPED) -> Reading:
    """The one word of a text that should be SMILES, SELFIES or InChI, by rules 1 and 2 above; not parsed.

    NotationError for an empty text, lost characters, or white space that no rule explains.
    """
    text, repairs = strip_around(text, strip)
    if not text:
        raise NotationError("empty text")
    if is_lost(text, chemistry=True):
        raise NotationError(f"characters were lost in '{text[:60]}'")
    if len(text.split(maxsplit=1)) > 1:
        text, done = _one_word(text, names, "prose" in strip)
        repairs.append(done)
    return Reading(text, tuple(dict.fromkeys(repairs)))


def _one_word(text: str, names: bool, prose: bool) -> tuple[str, str]:
    if (whole := joined(text)) is not None:
        return whole, "joined"
    first, rest = text.split(maxsplit=1)
    if rest.startswith("|") and (end := rest.rfind("|")) > 0 and (names or not rest[end + 1 :].strip()):
        return first, "extension"
    if names:
        return first, "name"
    if prose and (found := out_of_prose(text)) is not None:
        return found, "prose"
    raise NotationError(f"a space in SMILES: '{text[:60]}'")


def _inside(match: re.Match[str], *groups: int) -> str:
    """The group that took part in the match."""
    return next(match[group] for group in groups if match[group] is not None)


def _closed(smiles: str) -> bool:
    """Whether every ring closure has its other end."""
    open_ends: set[str] = set()
    for closure in _CLOSURE.findall(_BRACKETS.sub("", smiles)):
        open_ends ^= {closure.strip("%()").lstrip("0") or "0"}
    return not open_ends


def _is_no_word(text: str) -> bool:
    return any(map(str.isalpha, text)) and (text == "C" or not _WORD_OF_PROSE.fullmatch(text))
