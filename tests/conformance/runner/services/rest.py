"""The two HTTP services of admin-api: mailing lists (7790) with both kinds of storage, accounts (7791)."""
import os

TOKEN = "0123456789abcdef0123456789abcdef"


def run_lists(ground):
    """mlmmjadmin: one run without a database, one with."""
    daemon = prepare(ground)
    for backend in ("none", "sql"):
        spool, archive = (os.path.join(ground.folder, backend, name) for name in ("mlmmj", "mlmmj-archive"))
        os.makedirs(spool)
        os.makedirs(archive)
        addresses = daemon.start(settings(ground, backend, spool, archive))
        play(ground, ["--url", "http://" + addresses["lists"], "--spool", spool, "--archive", archive,
                      "--backend", backend], "backend " + backend)


def run_accounts(ground):
    """iRedAdmin's API."""
    daemon = prepare(ground)
    spool, archive = (os.path.join(ground.folder, name) for name in ("mlmmj", "mlmmj-archive"))
    os.makedirs(spool)
    os.makedirs(archive)
    addresses = daemon.start(settings(ground, "sql", spool, archive))
    play(ground, ["--url", "http://" + addresses["accounts"], "--auth", "session", "--backend", "sql"], None)


def prepare(ground):
    ground.prepare_player(driver=True)
    ground.start_database()
    return ground.daemon("admin-api", "outrider-admin-api")


def settings(ground, backend, spool, archive):
    return {
        "listen_lists": ["127.0.0.1:0"],
        "listen_accounts": ["127.0.0.1:0"],
        "database": ground.database_settings(),
        "lists": {"backend": backend, "api_auth_tokens": [TOKEN], "spool_directory": spool,
                  "archive_directory": archive},
        "accounts": {"enable_restful_api": True},
    }


def play(ground, arguments, label):
    only = ["--only", ground.options.only] if ground.options.only else []
    ground.play("rest_player.py", [*arguments, "--db-url", ground.url, "--improved", *only, *ground.files], label)
