"""Policy delegation: one daemon on a fixed port, started anew for each set of settings."""
import json
import subprocess
import sys

from control import Control
from daemon import NotReady

# A name that is no domain of any case.
HOSTNAME = "conformance.host.invalid"


def run(ground):
    ground.prepare_player(driver=True)
    ground.start_database()
    port, dns = ground.port(), ground.port()
    binaries = ground.build("outrider-tests/outrider-test-policyd-settings")
    daemon = ground.daemon("policyd", "outrider-policyd")

    def apply(request):
        try:
            daemon.start(settings(binaries, request, port, dns, ground.database_settings()))
        except (NotReady, ValueError) as error:
            # Settings that we refuse cost the cases with them, not the whole run.
            print("played without its settings: %s" % error, file=sys.stderr, flush=True)
            daemon.start(settings(binaries, {**request, "settings": {}}, port, dns, ground.database_settings()))

    control = Control(ground.folder, apply)
    ground.free_ports()
    only = ["--only", ground.options.only] if ground.options.only else []
    ground.play("policy_player.py", ["--port", str(port), "--db-url", ground.url,
                                     "--dns-listen", "127.0.0.1:%d" % dns,
                                     "--apply-settings", control.command(),
                                     *only, "--vectors", *ground.files])


def settings(binaries, request, port, dns, database):
    """iRedAPD's names in our words; the table of them is the daemon's own."""
    program = binaries + "/outrider-test-policyd-settings"
    answer = subprocess.run([program], input=json.dumps(request["settings"]), text=True, stdout=subprocess.PIPE)
    if answer.returncode:
        raise ValueError("iRedAPD's settings could not be translated")
    ours = json.loads(answer.stdout)
    ours.setdefault("myhostname", HOSTNAME)
    ours.update(listen=["127.0.0.1:%d" % port], plugins=request["plugins"], database=database)
    # Rows and records change between two cases: nothing may be remembered.
    ours.setdefault("cache", {})["lifetime"] = "0s"
    ours.setdefault("spf", {})["lifetime"] = "0s"
    # Cases hold rows that the hourly removal would take away.
    ours.setdefault("cleanup", {})["interval"] = "0s"
    ours.setdefault("dns", {}).update(servers=["127.0.0.1:%d" % dns], cache_size=0)
    # iRedAPD waits for all its look-ups, so cases with a silent name server need more than our five seconds.
    ours.setdefault("limits", {})["request_timeout"] = "30s"
    return ours
