"""Text to token ids and back without loss: T5's vocabulary with chemistry in its free rows, or one trained on a corpus.

Both are T5's kind of tokenizer: a Unigram model over words that carry the space before them as `▁`; pad 0, eos 1,
unk 2; embedding rows padded to a multiple of 64. What happens to a text:

- **T5's vocabulary** normalises as T5 does (SentencePiece's nmt_nfkc): ˜ ½ ″ ™ and U+212B become other characters;
  tabs, newlines and zero-width non-joiners become spaces. Published checkpoints were trained so, and T5 cannot spell
  these characters either. A trained vocabulary normalises nothing.
- **Spaces** are kept as they are, also at the ends and in runs, where stock T5 keeps one of a run and none at the ends.
  On texts without such spaces, which is every text of the public corpora, the ids are stock T5's.
- `▁` itself (U+2581) comes back as a space.

`round_trips` counts what that costs. Measured on distinct texts, as the readers give them: share that comes back
exactly, and number that holds an `<unk>`.

| texts | number | stock T5 | `<unk>` | ours | `<unk>` |
|---|---|---|---|---|---|
| ChEBI-20 SMILES | 6,601 | 85.06 % | 986 | 100 % | 0 |
| ChEBI-20 captions | 6,596 | 98.12 % | 113 | 99.83 % | 0 |
| Lowe precursors (fragments joined by `~`) | 196,300 | 52.89 % | 92,475 | 100 % | 0 |
| Lowe products | 181,807 | 98.77 % | 2,243 | 100 % | 0 |
| USPTO-50k reactants | 49,653 | 99.32 % | 338 | 100 % | 0 |
| USPTO-50k products | 49,673 | 99.12 % | 439 | 100 % | 0 |
| USPTO-MIT, 15k: all | 167,767 | 100 % | 0 | 100 % | 0 |
| sentences | 60,000 | 89.99 % | 5,985 | 99.75 % | 41 |
| their actions | 56,761 | 95.38 % | 2,621 | 99.89 % | 11 |
| paragraphs | 30,000 | 69.50 % | 9,118 | 98.90 % | 113 |
| their actions | 29,246 | 88.29 % | 3,405 | 99.69 % | 14 |
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import Regex, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE, Unigram
from tokenizers.trainers import BpeTrainer

from bigchem.errors import UserError
from bigchem.strict import write_atomically

PAD, EOS, UNK = 0, 1, 2
SPECIAL = ("<pad>", "</s>", "<unk>")
ROW_MULTIPLE = 64
"""Embedding rows are a multiple of this: 32,128 for T5's 32,100 pieces, and a GEMM of full tiles for any vocabulary."""

CHEMISTRY = tuple("\\~{}^<×δαμβ−±\u0303→γν·ελ⁄Åυ≈═≤φΔ")
"""Characters that T5 cannot spell, one for each of its 28 free rows: those of SMILES and captions first, then those in
the most rows of the procedures (× in 6,781 of 190,000 down to Δ in 22), counted after NFKC, which turns ˜ into U+0303
and ½ into 1⁄2. `^` is in none of these corpora; it is there for superscripts (`m^2`) and CXSMILES radicals."""

_SPACE = "▁"
_MAX_PIECE = 16
"""Longest trained piece, as in SentencePiece: else a frequent molecule becomes one token, and nothing is learnt of
it."""


class Tokenizer:
    """Ids of texts, and texts of ids. Equal tokenizers have equal fingerprints."""

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        self._backend = backend

    @classmethod
    def load(cls, folder: Path | str) -> Tokenizer:
        """Reads what `save` wrote."""
        return cls(_read(Path(folder)))

    @classmethod
    def from_t5(cls, folder: Path | str) -> Tokenizer:
        """T5's own vocabulary (tokenizer.json), with CHEMISTRY in its free rows."""
        backend = _read(Path(folder))
        model = json.loads(backend.to_str())["model"]
        pieces = [(piece, score) for piece, score in model.get("vocab", [])] if model["type"] == "Unigram" else []
        if [piece for piece, _ in pieces[:3]] != list(SPECIAL):
            raise UserError("not a T5 vocabulary: a Unigram model with pad, eos and unk first is expected", str(folder))
        known = {piece for piece, _ in pieces}
        # As unlikely as the least likely piece. No other piece holds these characters: any score above unk's would do.
        lowest = min(score for _, score in pieces)
        pieces += [(char, lowest) for char in CHEMISTRY if char not in known]
        charsmap = _precompiled(backend.normalizer)
        return cls(_assemble(pieces, charsmap, sentinels=[p for p, _ in pieces if p.startswith("<extra_id_")]))

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int) -> Tokenizer:
        """A vocabulary of at most `vocab_size` pieces in which every one of the texts round-trips.

        The same texts give the same tokenizer.json, byte for byte. For that the pieces come from BPE, which counts in
        integers, and their scores are log frequencies: tokenizers' own Unigram training sums floats in the order of a
        hash map, and no two of seven runs agreed (tokenizers 0.23, also with one thread).
        """
        corpus = list(texts)
        learner = tokenizers.Tokenizer(BPE(unk_token=SPECIAL[UNK]))
        _split_words(learner, charsmap=None)
        trainer = BpeTrainer(
            vocab_size=vocab_size, special_tokens=list(SPECIAL), max_token_length=_MAX_PIECE, show_progress=False
        )
        learner.train_from_iterator(corpus, trainer)
        if learner.get_vocab_size() > vocab_size:
            raise UserError(
                f"the corpus has {learner.get_vocab_size() - len(SPECIAL)} different characters, more than fit",
                "tokenizer.vocab_size",
                f"raise it from {vocab_size} to {2 * learner.get_vocab_size()}",
            )
        counts: Counter[int] = Counter()
        for encoding in learner.encode_batch_fast(corpus):
            counts.update(encoding.ids)
        total = counts.total()
        ordered = sorted(learner.get_vocab().items(), key=lambda item: item[1])[len(SPECIAL) :]
        scored = [(piece, round(math.log((counts[i] or 0.5) / total), 6)) for piece, i in ordered]
        return cls(_assemble([(name, 0.0) for name in SPECIAL] + scored, charsmap=None, sentinels=[]))

    def save(self, folder: Path | str) -> None:
        """Writes tokenizer.json and tokenizer_config.json, which transformers' AutoTokenizer reads to the same ids."""
        sentinels = [t for t in self._backend.get_vocab() if t.startswith("<extra_id_")]
        config = {
            # The generic class takes tokenizer.json as it is; T5TokenizerFast would rebuild T5's handling of spaces.
            "tokenizer_class": "PreTrainedTokenizerFast",
            "pad_token": SPECIAL[PAD],
            "eos_token": SPECIAL[EOS],
            "unk_token": SPECIAL[UNK],
            "extra_ids": len(sentinels),
            "clean_up_tokenization_spaces": False,
        }
        write_atomically(Path(folder) / "tokenizer.json", self._backend.to_str(pretty=True) + "\n")
        write_atomically(Path(folder) / "tokenizer_config.json", json.dumps(config, indent=2) + "\n")

    @property
    def vocab_size(self) -> int:
        """Rows of the embedding: the pieces, padded to a multiple of ROW_MULTIPLE."""
        return math.ceil(self._backend.get_vocab_size() / ROW_MULTIPLE) * ROW_MULTIPLE

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of what determines ids: pieces with their scores, and how text is normalised and split."""
        state = json.loads(self._backend.to_str())
        parts = {
            name: state[name] for name in ("model", "added_tokens", "normalizer", "pre_tokenizer", "post_processor")
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, with eos at the end."""
        return [encoding.ids for encoding in self._backend.encode_batch_fast(list(texts))]

    def decode_batch(self, ids: Sequence[Sequence[int]]) -> list[str]:
        """Texts of ids; pad and eos are dropped, wherever they stand, and so are ids of the padding rows."""
        kept = [[int(i) for i in row if i not in (PAD, EOS)] for row in ids]
        decoded: list[str] = self._backend.decode_batch(kept, skip_special_tokens=False)
        return decoded

    def round_trips(self, texts: Sequence[str]) -> list[bool]:
        """For each text, whether decoding its ids gives exactly the same string."""
        decoded = self.decode_batch(self.encode_batch(texts))
        return [before == after for before, after in zip(texts, decoded, strict=True)]


def _read(folder: Path) -> tokenizers.Tokenizer:
    file = folder / "tokenizer.json"
    if not file.is_file():
        raise UserError("no tokenizer here: no such file", str(file), "give a folder that holds a tokenizer.json")
    try:
        return tokenizers.Tokenizer.from_str(file.read_text(encoding="utf-8"))
    except Exception as error:  # tokenizers raises bare Exception for whatever it cannot parse
        raise UserError(f"cannot read: {error}", str(file)) from error


def _assemble(pieces: list[tuple[str, float]], charsmap: Any | None, sentinels: list[str]) -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(Unigram(pieces, unk_id=UNK, byte_fallback=False))
    backend.add_special_tokens([*SPECIAL, *sentinels])
    _split_words(backend, charsmap)
    eos = SPECIAL[EOS]
    backend.post_processor = processors.TemplateProcessing(
        single=["$A", eos], pair=["$A", eos, "$B", eos], special_tokens=[(eos, EOS)]
    )
    return backend


def _split_words(backend: tokenizers.Tokenizer, charsmap: Any | None) -> None:
    """Each space goes to the word after it: "a  b" is `▁a`, `▁`, `▁b`. T5's Metaspace, without its loss of spaces."""
    spaces = [normalizers.Prepend(_SPACE), normalizers.Replace(" ", _SPACE)]
    # A space after those is one that the charsmap made (˜ becomes a space and U+0303). As in T5, it merges with others.
    made = [] if charsmap is None else [charsmap, normalizers.Replace(Regex(f"{_SPACE}? +{_SPACE}?"), _SPACE)]
    backend.normalizer = normalizers.Sequence(spaces + made)
    backend.pre_tokenizer = pre_tokenizers.Split(_SPACE, "merged_with_next")
    backend.decoder = decoders.Sequence([decoders.Replace(_SPACE, " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])


def _precompiled(normalizer: Any | None) -> Any | None:
    """The charsmap in a T5 normalizer, alone or in a sequence."""
    parts: Any = normalizer if isinstance(normalizer, normalizers.Sequence) else [normalizer]
    return next((part for part in parts if isinstance(part, normalizers.Precompiled)), None)
