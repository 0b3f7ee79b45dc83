"""Entry of tests/conformance/run: reads the command line, lays the ground, lets a service play its vectors."""
import argparse
import os
import signal
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from daemon import NotReady                      # noqa: E402
from ground import Ground, SetupError            # noqa: E402
from services import SERVICES                    # noqa: E402


def arguments(argv):
    parser = argparse.ArgumentParser(prog="tests/conformance/run",
                                     usage="%(prog)s SERVICE [--db mysql|postgres|sqlite] FILE...")
    parser.add_argument("service", choices=sorted(SERVICES), metavar="SERVICE")
    parser.add_argument("--db", choices=["mysql", "postgres", "sqlite"], default="sqlite")
    parser.add_argument("--only", help="passed on to the player: play these cases only")
    parser.add_argument("--profile", action="append", help="play this profile only (srs, quota-status); repeatable")
    parser.add_argument("--sections", help="compare these parts only (contentfilter): replies,deliveries,sql,log")
    parser.add_argument("--keep", action="store_true", help="leave the folder with settings and logs behind")
    parser.add_argument("files", nargs="+", metavar="FILE")
    return parser.parse_intermixed_args(argv)


def main(argv):
    options = arguments(argv)
    # A terminated run tidies up like one that ends by itself.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(2))
    try:
        with Ground(options) as ground:
            SERVICES[options.service](ground)
            # Nothing is printed behind the closing line.
            ground.close()
            print("%d passed, %d failed" % (ground.passed, ground.failed), flush=True)
            return ground.status
    except (SetupError, NotReady, OSError, ValueError) as error:
        print("tests/conformance/run: %s" % error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
