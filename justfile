# The daily commands. `just` without an argument lists them.

_list:
    @just --list --unsorted

# Format, lints, documentation, licences and unit tests: what a commit must pass.
check: fmt clippy doc deny test

fmt:
    cargo fmt --all --check

clippy:
    cargo clippy --workspace --features outrider-tests/e2e --all-targets -- -D warnings

doc:
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --document-private-items

deny:
    cargo deny check bans licenses sources

# Unit and in-process tests of the whole workspace.
test:
    cargo nextest run --workspace

# The same for one crate: `just test-crate outrider-srsd`.
test-crate NAME:
    cargo nextest run -p {{NAME}}

# Everything, with real Postfix, Dovecot and databases (installs Debian packages).
test-all:
    tests/run

# Recorded answers of the original programs: `just conformance srs --db sqlite FILE...`.
conformance SERVICE *ARGS:
    tests/conformance/run {{SERVICE}} {{ARGS}}

# Ours against the incumbent in one run: policyd, srs, contentfilter or quota-status.
bench SERVICE *ARGS:
    tests/bench/run {{SERVICE}} {{ARGS}}

# Every fuzz target for SECONDS seconds (needs cargo-fuzz and a nightly toolchain).
fuzz SECONDS="300" *TARGETS="":
    tests/fuzz/run {{SECONDS}} {{TARGETS}}

# The .deb packages, into packaging/out.
package:
    packaging/deb/build

# The story of the README on free ports, with nothing installed.
demo:
    cargo run --release -- demo
