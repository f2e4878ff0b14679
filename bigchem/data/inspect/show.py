"""Rows of a data folder, with texts and tokens."""

from pathlib import Path
from typing import Any

from bigchem.base.errors import UserError
from bigchem.data.storage.shards import Data
from bigchem.data.text.tokenizer import Tokenizer


def rows_of(path: str | Path, split: str, task: str | None, count: int) -> list[dict[str, Any]]:
    """The first rows of one task, or of each: text with prompt, tokens, and whether these decode to the same text."""
    data = Data(path)
    tokenizer = Tokenizer.load(data.tokenizer_dir)
    found = []
    if not data.index.rows(split):
        raise UserError(f"no rows in split '{split}'", str(path), f"available: {' '.join(data.index.shards)}")
    if task is not None:
        data.tasks.find(task, "--task")
    for name in [task] if task else data.index.rows(split):
        rows = data.split(split, name)
        for row in range(min(count, len(rows))):
            key, source, target = rows.text(row)
            source_ids, target_ids = (ids.tolist() for ids in rows.tokens(row))
            decoded = tokenizer.decode_batch([source_ids, target_ids])
            # With fields of other columns, which the shard holds as tokens only, there is nothing to compare with.
            asked = decoded[0] if rows.about.fields else rows.about.prompted(source)
            texts = [asked, target]
            found.append(
                {
                    "task": name,
                    "row": row,
                    "key": key,
                    "source": texts[0],
                    "target": texts[1],
                    "source_tokens": source_ids,
                    "target_tokens": target_ids,
                    "round_trips": decoded == texts,
                }
            )
    return found
