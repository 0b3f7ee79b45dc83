"""SRS: one start of srsd a profile, with the test clock at the time of the recording."""
import contextlib
import json
import os
import sqlite3

from . import vectors

NOW = 1742040000

SECRETS = {"secrets": ["secretOne", "secretOld"], "srs_domain": "srs.example.net",
           # A name that is no domain of any case; only the profile of iRedAPD has one that counts.
           "myhostname": "conformance.host.invalid"}
# Domains come from the settings only.
NO_DATABASE = {"directory_domains": False, "exclude_table": False}
PLUS8 = {"separator": "+", "hash_length": 8, "hash_minimum": 4}
POSTSRSD1 = dict(NO_DATABASE, exclude_style="postsrsd1", keep_own_addresses=True)
POSTSRSD2 = dict(NO_DATABASE, hash_alphabet="base64url", domains=["local.example", "alias.example"])

PROFILES = {
    "iredapd": {"address_check": "iredapd", "myhostname": "mail.example.net"},
    "postsrsd1": dict(POSTSRSD1, exclude=["local.example", ".dotted.example", "excluded.example"]),
    "postsrsd1-plus8": dict(POSTSRSD1, **PLUS8),
    "postsrsd1-always": dict(POSTSRSD1, always_rewrite=True),
    "postsrsd2": POSTSRSD2,
    "postsrsd2-always": dict(POSTSRSD2, always_rewrite=True),
    "postsrsd2-plus8": dict(POSTSRSD2, **PLUS8),
    "postsrsd2-dash": dict(POSTSRSD2, separator="-"),
    # Recorded with a database that took no writes, hence "defer": PostSRSd knows no other answer.
    "postsrsd2-db": dict(POSTSRSD2, original_envelope="database", on_failure="defer"),
}

# README-srs.md, profile iredapd.
ROWS = {
    "vmail": ["INSERT INTO domain (domain, backupmx, active) VALUES ('local.example', 0, 1)",
              "INSERT INTO domain (domain, backupmx, active) VALUES ('backup.example', 1, 1)",
              "INSERT INTO domain (domain, backupmx, active) VALUES ('disabled.example', 0, 0)",
              "INSERT INTO alias_domain (alias_domain, target_domain, active)"
              " VALUES ('alias.example', 'local.example', 1)",
              "INSERT INTO alias_domain (alias_domain, target_domain, active)"
              " VALUES ('inactive-alias.example', 'local.example', 0)",
              "INSERT INTO alias_domain (alias_domain, target_domain, active)"
              " VALUES ('alias-of-disabled.example', 'disabled.example', 1)"],
    "iredapd": ["INSERT INTO srs_exclude_domains (domain) VALUES ('excluded.example')",
                "INSERT INTO srs_exclude_domains (domain) VALUES ('.dotted.example')",
                "INSERT INTO srs_exclude_domains (domain) VALUES ('tld-all')"],
}


def read_only_envelopes(ground):
    """An envelope database, without a sender in it, that can be read and takes no writes."""
    path = os.path.join(ground.folder, "envelopes.db")
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE kv (k TEXT UNIQUE ON CONFLICT REPLACE, v TEXT, lt INTEGER)")
        database.execute("CREATE TRIGGER closed BEFORE INSERT ON kv BEGIN SELECT RAISE(ABORT, 'read only'); END")
        database.commit()
    return "sqlite://" + path


def completed(ground):
    """The vector files with whole lines as wanted replies.

    Replies of tcp_table are lines. The player counts line ends, and some cases name the reply wanted of us
    (`ours`) without one: as they stand they want silence.
    """
    path = os.path.join(ground.folder, "vectors.jsonl")
    with open(path, "w", encoding="utf-8") as file:
        for case in vectors.cases(ground.files):
            reply = case.get("ours", {}).get("reply")
            if case.get("wire") == "tcp_table" and isinstance(reply, str) and reply and not reply.endswith("\n"):
                case["ours"]["reply"] = reply + "\n"
            file.write(json.dumps(case, ensure_ascii=False) + "\n")
    return path


def run(ground):
    used = vectors.profiles(ground, PROFILES, lambda case: case.get("wire") != "api")
    if "iredapd" in used:
        ground.prepare_player(driver=True)
        ground.start_database()
        ground.execute(ROWS)
    daemon = ground.daemon("srsd", "outrider-srsd", ["--test-clock", str(NOW)])
    # Files with cases for libraries only have nothing to play; the player says 0 passed then.
    for profile in used or ["postsrsd2"]:
        if profile not in PROFILES:
            print("FAIL profile %s is not known here" % profile, flush=True)
        settings = dict(SECRETS, listen_forward=["127.0.0.1:0"], listen_reverse=["127.0.0.1:0"],
                        **PROFILES.get(profile, POSTSRSD2))
        if profile == "iredapd":
            settings["database"] = ground.database_settings()
        if profile == "postsrsd2-db":
            settings["envelope_database"] = read_only_envelopes(ground)
        addresses = daemon.start(settings)
        ground.play("srs_player.py", ["--profile", profile, "--forward", addresses["forward"],
                                      "--reverse", addresses["reverse"], "--vectors", completed(ground)],
                    label="profile " + profile)
