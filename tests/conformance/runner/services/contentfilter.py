"""Content filter: the player is next hop, scanners and name server; the daemon starts anew for each set of settings."""
import os
import re
import shutil
import subprocess

from control import Control

# Amavisd's names for what we call otherwise.
RENAMED = {"log_template": "log_templ"}
# Roles in settings that name the player's ports.
NEXT_HOPS = {"10025": "reinject", "10028": "reinject-mlmmj"}
# Banks that iRedMail's file defines and settings refer to by name.
BYPASSES = {"FULL_WHITELIST": ("spam", "virus", "banned", "header"), "NO_SPAM_CHECK": ("spam",),
            "NO_VIRUS_CHECK": ("virus",), "NO_BANNED_CHECK": ("banned",), "NO_BAD_HEADER_CHECK": ("header",)}


def run(ground):
    ground.prepare_player(driver=True)
    ground.start_database()
    roles = ("inbound", "originating", "mlmmj", "pdp", "reinject", "reinject-mlmmj", "clamd", "spamd", "dns")
    ports = {role: ground.port() for role in roles}
    daemon = ground.daemon("contentfilter", "outrider-contentfilter")
    log = os.path.join(daemon.folder, "filter.log")
    open(log, "wb").close()
    known = known_keys(daemon.program)
    database = ground.url if ground.url.startswith("sqlite:") else ground.url.rstrip("/") + "/amavisd"

    def apply(request):
        daemon.start(settings(request, known, ports, log, daemon.folder, ground.database_settings()))

    control = Control(ground.folder, apply)
    ground.free_ports()
    addresses = [word for role in roles for word in ("--" + role, "127.0.0.1:%d" % ports[role])]
    only = ["--only", ground.options.only] if ground.options.only else []
    only += ["--sections", ground.options.sections] if ground.options.sections else []
    ground.play("filter_player.py", [*addresses, "--db", database, "--log-file", log,
                                     "--apply-settings", control.command(), *only, *ground.files])


def known_keys(program):
    """The keys our settings file may hold, as the daemon's own reference lists them: {section: {key}}."""
    text = subprocess.run([program, "--config-docs"], stdout=subprocess.PIPE, text=True, check=True).stdout
    keys, section = {"": set()}, ""
    for line in text.splitlines():
        found = re.match(r"#?\[([\w.]+)\]", line)
        if found:
            section = found[1]
            keys.setdefault(section, set())
            keys[""].add(section.split(".")[0])
        found = re.match(r"#?(\w+) =", line)
        if found:
            keys[section].add(found[1])
    return keys


def settings(request, known, ports, log, folder, database):
    """Amavisd's variables in our words. What we have no key for (yet) is left out: its cases then fail by themselves."""
    theirs = request["settings"]
    ours = {RENAMED.get(name, name.lower()): value for name, value in theirs.items()}
    ours = {name: value for name, value in ours.items() if name in known[""] and value is not None}
    ours["myproduct_name"] = "amavis"
    # Amavisd leaves the size to Postfix unless told otherwise.
    ours.setdefault("smtpd_message_size_limit", 0)
    if theirs.get("local_domains") == "ALL":
        ours["local_domains"] = ["."]
    ours["mynetworks"] = [network if "/" in network else network + ("/128" if ":" in network else "/32")
                          for network in theirs.get("mynetworks", [])]
    for name in ("forward_method", "notify_method"):
        if name in ours:
            ours[name] = next_hop(ours[name], ports)
    ours["dkim"] = dkim(theirs, request["folder"], folder)
    ours["policy_bank"] = banks(theirs, known, ports)
    ours["client_ipaddr_policy"] = [
        {"networks": ours["mynetworks"] if networks == "mynetworks" else networks_of(networks), "bank": bank}
        for networks, bank in theirs.get("client_ipaddr_policy") or []]
    for role, key in (("inbound", "listen_inbound"), ("originating", "listen_originating"),
                      ("mlmmj", "listen_lists"), ("pdp", "listen_release")):
        if key in known[""]:
            ours[key] = ["127.0.0.1:%d" % ports[role]]
    ours["dns"] = {"servers": ["127.0.0.1:%d" % ports["dns"]], "cache_size": 0}
    ours["log"] = {"style": "amavis", "target": "file", "path": log}
    if "database" in known:
        ours["database"] = database
    return ours


def next_hop(method, ports):
    for role_port, role in NEXT_HOPS.items():
        method = re.sub(r":%s$" % role_port, ":%d" % ports[role], method)
    return method


def networks_of(entries):
    return [entry if "/" in entry else entry + ("/128" if ":" in entry else "/32") for entry in entries]


def banks(theirs, known, ports):
    """Policy banks, with the next hop of list posts on the player's second port."""
    banks = {name: {key: value for key, value in bank.items() if value is not None and key in bank_keys(known)}
             for name, bank in (theirs.get("policy_bank") or {}).items()}
    for name, checks in BYPASSES.items():
        keys = ["bypass_%s_checks" % check for check in checks]
        banks.setdefault(name, {key: True for key in keys if key in bank_keys(known)})
    banks.setdefault("MLMMJ", {}).setdefault("forward_method", "smtp:[127.0.0.1]:10028")
    for bank in banks.values():
        if "forward_method" in bank:
            bank["forward_method"] = next_hop(bank["forward_method"], ports)
    if theirs.get("enable_dkim_signing") is False and "policy_bank" not in theirs:
        banks.setdefault("MYNETS", {})
    return banks


def bank_keys(known):
    named = {key for section, keys in known.items() if section.startswith("policy_bank.") for key in keys}
    return named or {"originating", "enable_dkim_signing", "enable_dkim_verification", "forward_method",
                     "smtpd_discard_ehlo_keywords", "bypass_virus_checks"}


def dkim(theirs, source, folder):
    """Keys and signing rules. Key files are copied: ours may not be readable for everybody."""
    keys = []
    for number, key in enumerate(theirs.get("dkim_keys") or []):
        copy = os.path.join(folder, "key%d.pem" % number)
        if os.path.exists(copy):
            os.remove(copy)
        shutil.copyfile(os.path.join(source, key["file"]), copy)
        os.chmod(copy, 0o600)
        keys.append({"domain": key["domain"], "selector": key["selector"], "file": copy})
    options = {}
    for sender, tags in (theirs.get("dkim_signature_options_bysender") or {}).items():
        known = {tag: value for tag, value in tags.items() if tag in ("d", "s", "a", "c", "i", "ttl")}
        extra = {tag: str(value) for tag, value in tags.items() if tag not in known}
        options[sender] = dict(known, **({"extra": extra} if extra else {}))
    fields = {name: int(count) for name, count in (theirs.get("signed_header_fields_delta") or {}).items()}
    return {"key": keys, "signature_options_bysender": options, "signed_header_fields": fields,
            # The recordings are Amavisd's; what RFC 8301 wants is a setting of ours.
            "accept_weak_signatures": True, "sign_several_from": True}
