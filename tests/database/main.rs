//! Every statement of the core on real servers: MariaDB, PostgreSQL and SQLite run the same checks.
//!
//! One test a server, so that each is started once; a failing check says its name.

mod directory;
mod envelopes;
mod ground;
mod recovery;
mod tls;
mod values;

use ground::Ground;
use outrider_tests::mariadb::MariaDb;
use outrider_tests::postgres::Postgres;
use outrider_tests::prerequisite::has_openssl;
use tls::{Authority, option};

/// The checks that need nothing but a database.
async fn run_everywhere(ground: &Ground) {
    values::columns_of_every_width(ground).await;
    values::bound_text_stays_text(ground).await;
    values::random_text_comes_back(ground).await;
    values::large_values_pass(ground).await;
    values::keys_and_transactions(ground).await;
    directory::answers(ground).await;
    directory::odd_names_find_nothing_and_break_nothing(ground).await;
    directory::rows_with_nulls_are_read(ground).await;
    envelopes::senders_behind_tokens_are_shared(ground).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite() {
    run_everywhere(&Ground::sqlite().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb() {
    if !MariaDb::is_installed() {
        return;
    }
    let mut ground = Ground::server(Box::new(MariaDb::start().expect("started")));
    run_everywhere(&ground).await;
    recovery::tls_that_is_asked_for_is_not_left_out(&ground, None).await;
    recovery::locks_are_temporary(&ground).await;
    recovery::a_slow_statement_is_given_up(&ground).await;
    recovery::a_broken_connection_costs_a_read_nothing(&ground).await;
    recovery::a_stopped_server_is_told_at_once_and_found_again(&mut ground).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres() {
    if !Postgres::is_installed() {
        return;
    }
    let mut ground = Ground::server(Box::new(Postgres::start().expect("started")));
    run_everywhere(&ground).await;
    recovery::tls_that_is_asked_for_is_not_left_out(&ground, None).await;
    recovery::locks_are_temporary(&ground).await;
    recovery::a_slow_statement_is_given_up(&ground).await;
    recovery::a_broken_connection_costs_a_read_nothing(&ground).await;
    recovery::a_stopped_server_is_told_at_once_and_found_again(&mut ground).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb_with_tls() {
    if !MariaDb::is_installed() || !has_openssl() {
        return;
    }
    let authority = Authority::new("mysql").expect("certificates");
    let options = [option("--ssl-cert", &authority.certificate()), option("--ssl-key", &authority.key())];
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let ground = Ground::server(Box::new(MariaDb::start_with(&options).expect("started")));
    recovery::tls_that_is_asked_for_is_not_left_out(&ground, Some(&authority.ca())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_with_tls() {
    if !Postgres::is_installed() || !has_openssl() {
        return;
    }
    let authority = Authority::new("postgres").expect("certificates");
    let options = [
        "fsync=off".to_owned(),
        "ssl=on".to_owned(),
        option("ssl_cert_file", &authority.certificate()),
        option("ssl_key_file", &authority.key()),
    ];
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let ground = Ground::server(Box::new(Postgres::start_with(&options).expect("started")));
    recovery::tls_that_is_asked_for_is_not_left_out(&ground, Some(&authority.ca())).await;
}
