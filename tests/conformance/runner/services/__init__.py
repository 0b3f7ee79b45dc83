"""One module a service: what to start, which settings, which player. SERVICES: name on the command line -> run."""
from . import contentfilter, policyd, quota, rest, srs

SERVICES = {
    "policyd": policyd.run,
    "srs": srs.run,
    "contentfilter": contentfilter.run,
    "quota-status": quota.run,
    "mlmmjadmin": rest.run_lists,
    "admin": rest.run_accounts,
}
