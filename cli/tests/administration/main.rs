//! The administrator's verbs as the real binary, on SQLite, MariaDB and PostgreSQL.
//!
//! One test a server, so that each is started once; a failing check says its name.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on is a failed test")]

mod greylist;
mod ground;
mod lists;
mod maintenance;
mod throttle;
mod valkey;
mod wrapper;

use ground::Ground;
use outrider_tests::mariadb::MariaDb;
use outrider_tests::postgres::Postgres;
use outrider_tests::valkey::Valkey;

fn run_everywhere(ground: &Ground) {
    greylist::rules_are_made_listed_and_removed(ground);
    greylist::whitelists_take_the_good_and_name_the_bad(ground);
    greylist::domains_are_looked_up(ground);
    greylist::capitals_of_other_programs_are_no_obstacle(ground);
    greylist::networks_too_wide_are_counted(ground);
    greylist::a_silent_name_server_changes_nothing(ground);
    greylist::hosts_that_refresh_at_once_end_with_the_right_rows(ground);
    greylist::contacts_are_found_by_whoever_had_them(ground);
    lists::adding_replaces_the_opposite_entry(ground);
    lists::outbound_lists_are_others(ground);
    lists::reverse_names(ground);
    throttle::limits_are_set_piece_by_piece(ground);
    throttle::show_says_where_a_limit_comes_from(ground);
    throttle::priorities_and_counters_are_put_right(ground);
    maintenance::scores(ground);
    maintenance::old_rows_go(ground);
    wrapper::old_names_do_what_they_did(ground);
}

#[test]
fn sqlite() {
    run_everywhere(&Ground::sqlite());
}

#[test]
fn mariadb() {
    if !MariaDb::is_installed() {
        return;
    }
    run_everywhere(&Ground::server(Box::new(MariaDb::start().unwrap())));
}

#[test]
fn postgres() {
    if !Postgres::is_installed() {
        return;
    }
    run_everywhere(&Ground::server(Box::new(Postgres::start().unwrap())));
}

#[test]
fn valkey_server() {
    if !Valkey::is_installed() {
        return;
    }
    let mut server = Valkey::start().unwrap();
    let ground = Ground::with_valkey(&server);
    valkey::counters_are_shown_and_forgotten(&ground, &server);
    valkey::contacts_are_shown_as_far_as_they_are_kept(&ground, &server);
    valkey::a_server_that_is_away_is_named(&ground, &mut server);
}

#[test]
fn without_tables_the_way_out_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().to_str().unwrap();
    for (settings, code, named) in [
        (None, 66, "policyd.toml"),
        (Some(""), 66, "--state-directory"),
        (Some("[cleanup]\nbatch = 1\n"), 78, "cleanup.batch"),
        (
            Some(
                "[database]\nvmail = \"mysql://u@127.0.0.1:1/vmail\"\namavisd = \"mysql://u@127.0.0.1:1/amavisd\"\n\
                 iredapd = \"mysql://u@127.0.0.1:1/iredapd\"\n",
            ),
            69,
            "cannot reach",
        ),
    ] {
        if let Some(settings) = settings {
            std::fs::write(folder.path().join("policyd.toml"), settings).unwrap();
        }
        let output = ground::command(&["greylist", "list", "--config", config, "--state-directory", config]);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{text}");
        assert!(text.contains(named), "{text}");
    }
    assert!(!folder.path().join("iredapd.db").exists(), "no database is made by looking for it");
}
