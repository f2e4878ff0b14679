"""Files of predictions to read and score."""

import gzip

ROW = {"source": "s", "target": "no", "prediction": "yes"}


def written(tmp_path, name, content):
    """The path of a file of this content, compressed if its name ends with .gz."""
    data = content if isinstance(content, bytes) else content.encode()
    path = tmp_path / name
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return path
