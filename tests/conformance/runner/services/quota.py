"""quota-status: one start a profile (quota-status.md section 8)."""
from . import vectors

IREDMAIL = {"quota_status_success": "DUNNO", "quota_status_nouser": "DUNNO",
            "quota_status_overquota": "552 5.2.2 Mailbox is full", "quota_grace": "10%"}

PROFILES = {
    "iredmail": IREDMAIL,
    "replies": {"quota_status_success": "OK", "quota_status_nouser": "REJECT no such user",
                "quota_status_overquota": "552 5.2.2 over", "quota_status_toolarge": "552 5.3.4 toolarge",
                "quota_grace": "10%"},
    "defaults": {"quota_status_success": "OK", "quota_status_nouser": "REJECT Unknown user",
                 "quota_status_overquota": "554 5.2.2 Quota exceeded (mailbox for user is full)",
                 "quota_grace": "10%"},
    "resolve": dict(IREDMAIL, resolve_aliases=True),
    "limits": {"quota_status_success": "DUNNO", "quota_status_nouser": "DUNNO",
               "quota_status_overquota": "552 5.2.2 over", "quota_status_toolarge": "552 5.3.4 toolarge",
               "quota_grace": "0%", "quota_max_mail_size": 512000},
}


def run(ground):
    ground.prepare_player(driver=True)
    ground.start_database()
    daemon = ground.daemon("quota-status", "outrider-quota-status")
    only = ["--only", ground.options.only] if ground.options.only else []
    # Cases of profile "any" are played with each; with nothing else in the files, with the first.
    for profile in [name for name in vectors.profiles(ground, PROFILES) if name != "any"] or ["iredmail"]:
        if profile not in PROFILES:
            print("FAIL profile %s is not known here" % profile, flush=True)
        settings = dict(PROFILES.get(profile, IREDMAIL), listen=["127.0.0.1:0"], cache_life="0s",
                        database=ground.database_settings())
        port = daemon.start(settings)["quota"].rsplit(":", 1)[1]
        ground.play("quota_player.py", ["--port", port, "--profile", profile, "--db-url", ground.url, "--improved",
                                        *only, *ground.files], label="profile " + profile)
