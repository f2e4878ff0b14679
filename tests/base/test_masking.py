"""Secrets that must not reach a run's records, and words that are not secrets. All are made up."""

from __future__ import annotations

import pytest

from bigchem.base.masking import MASK, is_secret_name, mask, mask_values, mask_words

WORD = "Zx" * 12
SECRETS = [
    f"export HF_TOKEN={WORD}",
    f'WANDB_API_KEY="{WORD}"',
    f"AWS_SECRET_ACCESS_KEY: {WORD}",
    f'+    "DB_PASSWORD": "{WORD}",',
    f'-password = "{WORD}"',
    f"api_key='{WORD}'",
    f"--token {WORD}",
    f"--hub-token={WORD}",
    f"token is hf_{WORD}, said the log",
    f"ghp_{WORD}",
    f"github_pat_{WORD}",
    f"xoxb-{WORD}",
    f"https://hooks.slack.com/services/T0/B0/{WORD}",
    f"postgresql://ada:{WORD}@db.example/x",
    f"git+https://{'x-access-token'}:{WORD}@github.com/a/b",
    f"Authorization: Bearer {WORD}",
    f"-----BEGIN RSA PRIVATE KEY-----\n{WORD}\n-----END RSA PRIVATE KEY-----",
    f"-----BEGIN PRIVATE KEY-----\n{WORD}\n",
]


@pytest.mark.parametrize("text", SECRETS)
def test_a_secret_is_masked(text: str) -> None:
    assert WORD not in mask(f"before\n{text}\nafter")
    assert MASK in mask(text)
    assert mask(f"before {text}").startswith("before ")


def test_a_key_of_amazon_is_masked() -> None:
    assert mask("id AKIA" + "Z" * 16) == f"id {MASK}"


@pytest.mark.parametrize(
    "text",
    [
        "micro_tokens = 4096",
        "FIRST_TOKENS = 32",
        "max_source_tokens: 512",
        "token = self._next()",
        "def secret(self) -> str:",
        "CC(=O)Oc1ccccc1C(=O)O",
        "https://example.org:8080/a@b",
        "tokens/s",
        "--set data.micro_tokens=4096",
        "EOS_TOKEN_ID = 1",
        "commit 0123456789abcdef0123456789abcdef01234567",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert mask(text) == text


@pytest.mark.parametrize(
    "name", ["HF_TOKEN", "WANDB_API_KEY", "AWS_ACCESS_KEY_ID", "MY_SECRET", "PGPASSWORD", "--token"]
)
def test_names_of_secrets(name: str) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize("name", ["micro_tokens", "TOKENIZERS_PARALLELISM", "KEY", "NCCL_DEBUG", "EOS_TOKEN_ID", ""])
def test_names_of_other_things(name: str) -> None:
    assert not is_secret_name(name)


def test_a_command_line_and_plain_data_are_masked() -> None:
    words = ["bigchem", "submit", "--token", "abc", "--set", "runs=/x", "HF_TOKEN=abcd"]
    assert mask_words(words) == ["bigchem", "submit", "--token", MASK, "--set", "runs=/x", f"HF_TOKEN={MASK}"]
    table = {"env": {"HF_TOKEN": "x", "NCCL_DEBUG": "WARN"}, "setup": ["export PGPASSWORD=abcd"], "nodes": 2}
    assert mask_values(table) == {
        "env": {"HF_TOKEN": MASK, "NCCL_DEBUG": "WARN"},
        "setup": [f"export PGPASSWORD={MASK}"],
        "nodes": 2,
    }
