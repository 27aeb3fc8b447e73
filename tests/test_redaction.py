"""Secrets do not show: by the names of keys, by the form of URLs, by their values."""

import re
import time

import pytest

from recsys_spark.redaction import (
    MASK,
    Secrets,
    has_secret,
    is_credential,
    redacted,
    redacted_config,
    restored_config,
)
from recsys_spark.session import EVERYWHERE

OWL = "Hoot-0wl/9+"


CREDENTIALS = [
    "password", "sslpassword", "user.passwd", "passphrase", "PWD", "secretKey", "fs.s3a.secret.key", "clientSecret",
    "fs.azure.account.key.acme.blob.core.windows.net", "fs.azure.sas.logs.acme", "sig", "X-Amz-Signature",
    "X-Amz-Security-Token", "access_token", "refreshToken", "api-key", "apikey", "private_key", "Authorization",
    "fs.s3a.session.token", "spark.authenticate.secret", "credentials", "fs.s3a.encryption.key",
    "fs.s3a.bucket.logs.encryption.key", "fs.s3a.server-side-encryption.key", "fs.gs.encryption.key",
    "fs.azure.encryption.encoded.client-provided-key", "fs.azure.client-provided-encryption-key",
]  # fmt: skip
OTHERS = [
    "", "sep", "encoding", "key", "user", "als.seed", "assignment", "design", "compassion", "max_tokens", "tokenizer",
    "fs.s3a.aws.credentials.provider", "sasquatch", "fs.s3a.encryption.algorithm", "spark.io.encryption.enabled",
    "spark.io.encryption.keySizeBits", "spark.io.encryption.keygen.algorithm",
]  # fmt: skip


@pytest.mark.parametrize("name", CREDENTIALS)
def test_a_key_that_names_a_credential_is_known(name: str) -> None:
    assert is_credential(name)


@pytest.mark.parametrize("name", OTHERS)
def test_a_key_that_names_none_is_left_alone(name: str) -> None:
    assert not is_credential(name)


@pytest.mark.parametrize("name", [name for name in CREDENTIALS if "." in name])
def test_spark_masks_a_property_that_names_a_credential_too(name: str) -> None:
    assert re.search(EVERYWHERE["spark.redaction.regex"], f"spark.hadoop.{name}")


@pytest.mark.parametrize("name", [name for name in OTHERS if "encryption" in name])
def test_spark_shows_how_it_encrypts(name: str) -> None:
    assert not re.search(EVERYWHERE["spark.redaction.regex"], name)


@pytest.mark.parametrize(
    "text",
    [
        f"password={OWL}", f"password = {OWL}", f"password: {OWL}", f"'password': '{OWL}'", f'{{"password": "{OWL}"}}',
        f'{{\\"password\\": \\"{OWL}\\"}}', f"--password {OWL}", f"--db-password={OWL}", f"password: ['{OWL}']",
        f"s3a://key:{OWL}@bucket/log", f"ftp://night:{OWL}@host:21/log.csv", "https://Hoot-0wl@host/log",
        f"https://host/log?X-Amz-Signature={OWL}&part=1", f"https://host/log?part=1&sig={OWL}", f"?token={OWL}",
        f"jdbc:postgresql://host/db?user=night&password={OWL}", f"jdbc:oracle:thin:night/{OWL}@//host:1521/x",
        f"Authorization: Bearer {OWL}", f"authorization=Basic {OWL}", f"a bearer {OWL}",
        f"fs.azure.account.key.acme.blob.core.windows.net={OWL}", f"postgres://u:a@{OWL.replace('/', '')}@host/db",
        f"-----BEGIN RSA PRIVATE KEY-----\n{OWL}\n-----END RSA PRIVATE KEY-----", f"url=ftp://u:{OWL}@h/x and more",
    ],
)  # fmt: skip
def test_a_secret_that_shows_by_its_form_is_masked_and_the_words_around_it_stay(text: str) -> None:
    shown = redacted(f"cannot do it: {text}\nnext line stays")
    assert "Hoot" not in shown and "0wl" not in shown and MASK in shown
    assert shown.startswith("cannot do it: ") and shown.endswith("\nnext line stays")
    assert redacted(shown) == shown, "masking once more changes nothing"


@pytest.mark.parametrize(
    "text",
    [
        "features: 264 pairs of user and item as of 2024-03-01 00:00:00+00:00", "hdfs://namenode:9000/user/a@b/log.csv",
        "abfss://logs@acme.dfs.core.windows.net/2024/*.csv", "spark://127.0.0.1:7077", "s3a://bucket/log?part=1",
        "als.rank: 0: input should be greater than or equal to 1", "topk.k = 10, evaluation.k = [5, 10]",
        "ndcg@10 is not shown to be better: 0.0440 → 0.0484", "report: data/demo/reports/demo/report.html",
    ],
)  # fmt: skip
def test_words_without_a_secret_stay_as_they_are(text: str) -> None:
    assert redacted(text) == text and not has_secret(text)


def test_a_configuration_keeps_everything_but_its_secrets() -> None:
    config = {
        "source": {
            "options": {"sep": ";", "password": OWL, "url": f"jdbc:postgresql://h/db?password={OWL}"},
            "filters": {"token": "length(token) > 3"},
            "columns": {"user": "password_holder"},
            "path": ["a.csv", "s3a://bucket/b.csv"],
        },
        "als": {"rank": 8, "seed": None},
    }
    masked = redacted_config(config)
    assert masked["source"]["options"] == {
        "sep": ";", "password": MASK, "url": f"jdbc:postgresql://h/db?password={MASK}",
    }  # fmt: skip
    del masked["source"]["options"], config["source"]["options"]
    assert masked == config


def test_a_masked_configuration_gets_the_present_secrets_and_nothing_else() -> None:
    then = {"options": {"password": "old owl", "sep": ";", "url": "ftp://u:old@h"}, "als": {"rank": 8}}
    now = {"options": {"password": "new owl", "sep": "|", "url": "ftp://u:new@h"}, "als": {"rank": 9}}
    assert restored_config(redacted_config(then), now) == {
        "options": {"password": "new owl", "sep": ";", "url": "ftp://u:new@h"}, "als": {"rank": 8},
    }  # fmt: skip
    assert restored_config(redacted_config(then), {})["options"]["password"] == MASK


def test_a_known_secret_is_masked_wherever_it_stands_however_it_is_spelt() -> None:
    secrets = Secrets.of({"options": {"password": OWL, "pin_token": 77401}, "path": f"ftp://u:{OWL}@h/x"})
    assert secrets.redacted(f"{OWL} Hoot-0wl%2F9%2B 77401") == f"{MASK} {MASK} {MASK}"
    assert secrets.hidden({"a": [f"x{OWL}y", 3, True, None]}) == {"a": [f"x{MASK}y", 3, True, None]}


def test_names_of_columns_types_and_rules_are_no_secrets() -> None:
    secrets = Secrets.of({"types": {"token": "double"}, "filters": {"secret": "price > 0"}, "options": {"token": "no"}})
    assert secrets.values == (), "and a secret of two letters is looked for by its key alone"


def test_a_long_text_takes_no_long_time() -> None:
    started = time.process_time()
    for text in ("a" * 300_000, "a=" * 150_000, "://" * 100_000, "x://a:" * 50_000, '"password' * 30_000):
        redacted(text)
    assert time.process_time() - started < 5
