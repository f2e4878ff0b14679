"""Text to token ids and back without loss: T5's vocabulary with chemistry in its free rows, or one trained on a corpus.

Both are tokenizers of T5's kind: a Unigram model over words that carry the preceding space as `▁`; pad 0, eos 1,
unk 2; embedding rows padded to a multiple of 64. How a text is tokenized:

- **T5's vocabulary**: characters that T5 cannot spell, or that its normalisation (SentencePiece's nmt_nfkc) changes,
  are in CHEMISTRY, each with its own id, or in escapes.ESCAPED, spelled in hexadecimal: ½ is `␛00bd`. Wherever stock
  T5 reproduces a text, the ids are stock T5's, so published checkpoints can be used. Characters in neither list are
  normalised by T5 if it knows them; the rest are `<unk>`.
- **A trained vocabulary** normalises nothing and spells every character of its corpus.
- **Spaces** are preserved, also at the ends and in runs; stock T5 strips the ends and collapses runs. With T5's
  vocabulary so are tabs, line ends and the other spaces of ESCAPED, which stock T5 turns into spaces, and `▁` (U+2581)
  itself, which a trained vocabulary decodes to a space.
- **Names of special tokens** (`</s>`, `<extra_id_0>`) in a text become those tokens, as in T5.
- **SMILES** are split by the vocabulary alone (smiles = "pieces"), as in T5, or words that are SMILES are first split
  at atoms (smiles = "atoms": chemistry.tokens.atoms_of_words), so no token spans two. Other words get the same ids
  either way.

Exact round trips of the public corpora's rows, from
`bigchem data audit public-data --set root=FOLDER --set tokenizer.t5=T5`, and with `--tokenizer T5` for the stock
tokenizer. All valid and test rows (191,738 texts) are exact, too.

| training rows of | texts | stock T5: exact | with `<unk>` | ours: exact | with `<unk>` |
|---|---|---|---|---|---|
| captioning source | 3,303 | 84.77 % | 503 | 100 % | 0 |
| captioning target | 3,303 | 98.03 % | 61 | 100 % | 0 |
| generation source | 3,303 | 98.03 % | 61 | 100 % | 0 |
| generation target | 3,303 | 84.77 % | 503 | 100 % | 0 |
| forward source | 208,068 | 55.29 % | 93,020 | 100 % | 0 |
| forward target | 208,068 | 98.83 % | 2,432 | 100 % | 0 |
| retrosynthesis source | 248,097 | 98.88 % | 2,784 | 100 % | 0 |
| retrosynthesis target | 248,097 | 62.40 % | 93,285 | 100 % | 0 |
| actions source | 90,082 | 83.16 % | 15,118 | 100 % | 0 |
| actions target | 90,082 | 93.20 % | 6,100 | 100 % | 0 |
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import tokenizers
from tokenizers import Regex, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE, Unigram
from tokenizers.trainers import BpeTrainer

from bigchem.base import git_lfs
from bigchem.base.atomic import write_atomically
from bigchem.base.errors import UserError
from bigchem.chemistry.tokens import atoms_of_words
from bigchem.data.text import escapes
from bigchem.model.weights import hub

PAD, EOS, UNK = 0, 1, 2
SPECIAL = ("<pad>", "</s>", "<unk>")
ROW_MULTIPLE = 64
"""Embedding rows are a multiple of this: 32,128 for T5's 32,100 pieces, and a GEMM of full tiles for any vocabulary."""

Smiles = Literal["pieces", "atoms"]
"""How a word that is SMILES is split: by the vocabulary alone, or at its atoms first."""

CHEMISTRY = (*"\\~{}^<×δαμβ−±→γν·ελÅυ≈═≤φΔω", escapes.ESCAPE)
"""Characters that T5 cannot spell, one for each of its 28 free rows: those of SMILES and captions first, then those in
the most rows of the procedures (× in 6,779 of 97,000 down to ω in 18) that T5's normalisation leaves alone. `^` occurs
in none of these corpora; it serves superscripts (`m^2`) and CXSMILES radicals. The last one escapes all others."""

_SPACE = "▁"
_MAX_PIECE = 16
"""Longest trained piece, as in SentencePiece. Otherwise a frequent molecule becomes one token that teaches nothing."""


class Tokenizer:
    """Text to ids and back. Equal tokenizers have equal fingerprints."""

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        self._backend = backend

    @classmethod
    def load(cls, folder: Path | str) -> Tokenizer:
        """Reads what `save` wrote."""
        return cls(read_file(Path(folder)))

    @classmethod
    def from_t5(cls, folder: Path | str, smiles: Smiles = "pieces") -> Tokenizer:
        """T5's own vocabulary, with CHEMISTRY in its free rows.

        folder: a folder with a tokenizer.json, or a model's name at huggingface.co (t5-base), fetched once.
        """
        backend = read_file(hub.fetched(str(folder), weights=False))
        model = json.loads(backend.to_str())["model"]
        pieces = [(piece, score) for piece, score in model.get("vocab", [])] if model["type"] == "Unigram" else []
        if [piece for piece, _ in pieces[:3]] != list(SPECIAL):
            raise UserError("not a T5 vocabulary: a Unigram model with pad, eos and unk first is expected", str(folder))
        known = {piece for piece, _ in pieces}
        # The lowest score of any piece. No other piece contains these characters: any score above unk's would do.
        lowest = min(score for _, score in pieces)
        pieces += [(char, lowest) for char in CHEMISTRY if char not in known]
        made = cls(_assemble(pieces, [p for p, _ in pieces if p.startswith("<extra_id_")]))
        _split_words(made._backend, smiles, _t5_charsmap(backend.normalizer, str(folder)))
        return made

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int, smiles: Smiles = "pieces", sentinels: int = 0) -> Tokenizer:
        """A vocabulary of at most `vocab_size` pieces in which all of the texts round-trip.

        sentinels: number of <extra_id_0>, <extra_id_1>, ... that follow the pieces in this order, beyond vocab_size.

        The same texts give the same tokenizer.json, byte for byte. To that end the pieces come from BPE, which counts
        integers, and their scores are log frequencies: tokenizers' own Unigram training sums floats in the order of a
        hash map, and no two of seven runs agreed (tokenizers 0.23, also with one thread).
        """
        corpus = list(texts)
        learner = tokenizers.Tokenizer(BPE(unk_token=SPECIAL[UNK]))
        _split_words(learner, smiles, charsmap=None)
        trainer = BpeTrainer(
            vocab_size=vocab_size, special_tokens=list(SPECIAL), max_token_length=_MAX_PIECE, show_progress=False
        )
        learner.train_from_iterator(corpus, trainer)
        if learner.get_vocab_size() > vocab_size:
            raise UserError(
                f"the corpus has {learner.get_vocab_size() - len(SPECIAL)} distinct characters, more than fit",
                "tokenizer.vocab_size",
                f"raise it from {vocab_size} to {2 * learner.get_vocab_size()}",
            )
        counts: Counter[int] = Counter()
        for encoding in learner.encode_batch_fast(corpus):
            counts.update(encoding.ids)
        total = counts.total()
        ordered = sorted(learner.get_vocab().items(), key=lambda item: item[1])[len(SPECIAL) :]
        scored = [(piece, round(math.log((counts[i] or 0.5) / total), 6)) for piece, i in ordered]
        names = [f"<extra_id_{number}>" for number in range(sentinels)]
        made = cls(_assemble([(name, 0.0) for name in SPECIAL] + scored, names))
        _split_words(made._backend, smiles, charsmap=None)
        return made

    def save(self, folder: Path | str) -> None:
        """Writes tokenizer.json and tokenizer_config.json, which transformers' AutoTokenizer reads to the same ids."""
        config = {
            # The generic class uses tokenizer.json unchanged; T5TokenizerFast would rebuild T5's handling of spaces.
            "tokenizer_class": "PreTrainedTokenizerFast",
            "pad_token": SPECIAL[PAD],
            "eos_token": SPECIAL[EOS],
            "unk_token": SPECIAL[UNK],
            "extra_ids": len(self.sentinels),
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
        """sha256 of everything that determines ids: pieces with their scores, and how text is normalised and split."""
        state = json.loads(self._backend.to_str())
        parts = {
            name: state[name] for name in ("model", "added_tokens", "normalizer", "pre_tokenizer", "post_processor")
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    @cached_property
    def sentinels(self) -> list[int]:
        """Ids of <extra_id_0>, <extra_id_1>, ...: 32099 downwards in T5's vocabulary."""
        found: list[int] = []
        while (token := self._backend.token_to_id(f"<extra_id_{len(found)}>")) is not None:
            found.append(token)
        return found

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, with eos at the end."""
        return [encoding.ids for encoding in self._backend.encode_batch_fast(list(texts))]

    def encode_with_starts(self, texts: Sequence[str]) -> tuple[list[list[int]], list[list[int]]]:
        """Ids as from encode_batch, and for each id the character offset in its text at which it starts.

        Starts never descend. A space belongs to the token after it; tokens of one escaped character all start at it;
        eos starts at the text's end.
        """
        encodings = self._backend.encode_batch(list(texts))
        ids = [encoding.ids for encoding in encodings]
        starts = [
            [*(start for start, _ in encoding.offsets[:-1]), len(text)]
            for text, encoding in zip(texts, encodings, strict=True)
        ]
        return ids, starts

    def decode_batch(self, ids: Sequence[Sequence[int]]) -> list[str]:
        """Texts of ids. pad and eos are dropped anywhere, and so are ids of the padding rows."""
        bare = [[int(i) for i in row if i not in (PAD, EOS)] for row in ids]
        decoded: list[str] = self._backend.decode_batch(bare, skip_special_tokens=False)
        return decoded

    def round_trips(self, texts: Sequence[str]) -> list[bool]:
        """For each text, whether decoding its ids gives exactly the same string."""
        decoded = self.decode_batch(self.encode_batch(texts))
        return [before == after for before, after in zip(texts, decoded, strict=True)]


def _assemble(pieces: list[tuple[str, float]], sentinels: list[str]) -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(Unigram(pieces, unk_id=UNK, byte_fallback=False))
    backend.add_special_tokens([*SPECIAL, *sentinels])
    eos = SPECIAL[EOS]
    backend.post_processor = processors.TemplateProcessing(
        single=["$A", eos], pair=["$A", eos, "$B", eos], special_tokens=[(eos, EOS)]
    )
    return backend


def _split_words(backend: tokenizers.Tokenizer, smiles: Smiles, charsmap: Any | None) -> None:
    """Each space joins the word after it: "a  b" is `▁a`, `▁`, `▁b`. T5's Metaspace, without its loss of spaces.

    charsmap: T5's, applied after escaping. None: nothing is normalised.
    """
    steps = [normalizers.Prepend(_SPACE), normalizers.Replace(" ", _SPACE)]
    back = [decoders.Replace(_SPACE, " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    if charsmap is not None:
        # T5's charsmap turns ▁ into a space: it must come first, or runs of spaces are lost.
        steps = [*escapes.escaping(), charsmap, *steps]
        back += escapes.unescaping()
    words = [pre_tokenizers.Split(_SPACE, "merged_with_next")]
    if smiles == "atoms":
        words.append(pre_tokenizers.Split(Regex(atoms_of_words(_SPACE)), "isolated"))
    backend.normalizer = normalizers.Sequence(steps)
    backend.pre_tokenizer = words[0] if len(words) == 1 else pre_tokenizers.Sequence(words)
    backend.decoder = decoders.Sequence(back)


def _t5_charsmap(normalizer: Any | None, where: str) -> Any:
    """The last charsmap in a T5 normalizer, alone or in a sequence; in our own files ours comes before it."""
    parts: Any = normalizer if isinstance(normalizer, normalizers.Sequence) else [normalizer]
    found = [part for part in parts if isinstance(part, normalizers.Precompiled)]
    if not found:
        raise UserError("not a T5 vocabulary: its normalizer has no charsmap", where)
    return found[-1]


def read_file(folder: Path) -> tokenizers.Tokenizer:
    """The tokenizer in a folder's tokenizer.json. UserError if there is none or it cannot be parsed."""
    file = folder / "tokenizer.json"
    if not file.is_file():
        raise UserError("no tokenizer here: no such file", str(file), "give a folder with a tokenizer.json")
    git_lfs.refuse_pointer(file)
    try:
        return tokenizers.Tokenizer.from_str(file.read_text(encoding="utf-8"))
    except Exception as error:  # tokenizers raises bare Exception when it cannot parse
        raise UserError(f"cannot read: {error}", str(file)) from error
