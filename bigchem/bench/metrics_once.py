"""One timed run of scoring, straightforward or bigchem's, started by metrics.py. Module-level imports are few, because
worker processes repeat them."""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bigchem.base.errors import UserError
from bigchem.evaluate.metrics import text
from bigchem.evaluate.prediction_files.tables import read_examples
from bigchem.evaluate.protocol.definitions import family_metrics
from bigchem.evaluate.protocol.pairs import Pairs

Values = dict[str, float]


def plain_generation(references: list[str], predictions: list[str]) -> Values:
    """As in MolT5's mol_translation_metrics.py and fingerprint_metrics.py."""
    from nltk.translate.bleu_score import corpus_bleu
    from rapidfuzz.distance import Levenshtein
    from rdkit import Chem, DataStructs, rdBase
    from rdkit.Chem import AllChem, MACCSkeys

    rdBase.DisableLog("rdApp.*")
    pairs = list(zip(references, predictions, strict=True))
    found = {"bleu": corpus_bleu([[list(r)] for r, _ in pairs], [list(p) for _, p in pairs])}
    found["levenshtein"] = float(np.mean([Levenshtein.distance(r, p) for r, p in pairs]))
    exact, bad = 0, 0
    for reference, prediction in pairs:
        try:
            wanted, made = Chem.MolFromSmiles(reference), Chem.MolFromSmiles(prediction)
            exact += Chem.MolToInchi(wanted) == Chem.MolToInchi(made)
        except Exception:
            bad += 1
    found["exact"], found["validity"] = exact / len(pairs), 1 - bad / len(pairs)
    prints: dict[str, Callable[[Any], Any]] = {
        "maccs": MACCSkeys.GenMACCSKeys,  # type: ignore[attr-defined]
        "rdk": Chem.RDKFingerprint,
        "morgan": lambda molecule: AllChem.GetMorganFingerprint(molecule, 2),  # type: ignore[attr-defined]
    }
    for name, fingerprint in prints.items():
        similar = []
        for reference, prediction in pairs:
            wanted, made = Chem.MolFromSmiles(reference), Chem.MolFromSmiles(prediction)
            if wanted is not None and made is not None:
                similar.append(DataStructs.TanimotoSimilarity(fingerprint(wanted), fingerprint(made)))
        found[name] = float(np.mean(similar))
    return found


def plain_captioning(references: list[str], predictions: list[str]) -> Values:
    """As in MolT5's text_translation_metrics.py."""
    from nltk.translate.bleu_score import corpus_bleu
    from nltk.translate.meteor_score import meteor_score
    from rouge_score.rouge_scorer import RougeScorer
    from transformers import BertTokenizerFast

    vocabulary = text.find_scibert()
    if vocabulary is None:
        raise UserError("no SciBERT vocabulary", "BIGCHEM_SCIBERT", "point it at vocab.txt")
    tokenizer = BertTokenizerFast(str(vocabulary), do_lower_case=True)
    wanted, made, meteors = [], [], []
    for reference, prediction in zip(references, predictions, strict=True):
        sides = []
        for side in (reference, prediction):
            tokens = tokenizer.tokenize(side, truncation=True, max_length=512, padding="max_length")
            sides.append([t for t in tokens if t not in ("[PAD]", "[CLS]", "[SEP]")])
        wanted.append([sides[0]])
        made.append(sides[1])
        meteors.append(meteor_score([sides[0]], sides[1]))
    found = {
        "bleu2": corpus_bleu(wanted, made, weights=(0.5, 0.5)),
        "bleu4": corpus_bleu(wanted, made, weights=(0.25, 0.25, 0.25, 0.25)),
        "meteor": float(np.mean(meteors)),
    }
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"])
    scores = [
        scorer.score(prediction, reference) for reference, prediction in zip(references, predictions, strict=True)
    ]
    return found | {kind: float(np.mean([s[kind].fmeasure for s in scores])) for kind in ("rouge1", "rouge2", "rougeL")}


def ours(family: str, names: set[str], file: Path, workers: int) -> Values:
    """The values of these metrics by `bigchem score`."""
    read = read_examples(file)
    pairs = Pairs(read.sources, read.single(str(file)), read.predictions, None, workers)
    found = {metric.name: metric.compute(pairs) for metric in family_metrics(family) if metric.name in names}
    return {name: value if isinstance(value, float) else value.value for name, value in found.items()}


def main(family: str, file: Path, processes: int) -> None:
    """Prints seconds and values of one run. processes: 0 for the straightforward implementation."""
    import transformers  # noqa: F401

    plain = {"molecule": plain_generation, "caption": plain_captioning}[family]
    names = {
        "molecule": {"bleu", "exact", "levenshtein", "maccs", "rdk", "morgan", "validity"},
        "caption": {"bleu2", "bleu4", "rouge1", "rouge2", "rougeL", "meteor"},
    }[family]
    begun = time.perf_counter()
    if processes:
        values = ours(family, names, file, processes)
    else:
        read = read_examples(file)
        values = plain(read.single(str(file)), [ranked[0] for ranked in read.predictions])
    print(json.dumps([time.perf_counter() - begun, values]))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
