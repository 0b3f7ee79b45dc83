//! The policy service as a whole, over its wire protocol and on real databases.
//!
//! What depends on the database runs on SQLite, MariaDB and PostgreSQL alike, one test a server so that each is
//! started once; a failing check says its name.

mod administration;
mod cleanup;
mod conversation;
mod database_threats;
mod dns_threats;
mod failure;
mod fixes;
mod forward;
mod forward_threats;
mod greylisting;
mod ldap;
mod ldap_threats;
mod log;
mod memory;
mod metrics;
mod reload;
mod threats;
mod throttle;
mod valkey;
mod valkey_threats;
mod whitelist_domains;
mod world;

use outrider_tests::mariadb::MariaDb;
use outrider_tests::postgres::Postgres;
use outrider_tests::valkey::Valkey;
use world::World;

/// The checks of the stores.
async fn run_everywhere(world: &World) {
    throttle::follows_a_sequential_model(world).await;
    throttle::many_at_once_never_exceed_a_limit(world).await;
    throttle::two_counters_move_together_or_not_at_all(world).await;
    throttle::every_user_has_its_own_limit(world).await;
    throttle::first_messages_make_one_row(world).await;
    throttle::notifies_once_a_period(world).await;
    throttle::too_many_messages_count_before_too_many_bytes(world).await;
    throttle::narrow_columns_saturate(world).await;
    greylisting::first_contacts_make_one_row(world).await;
    greylisting::old_triplets_go_on_where_they_were(world).await;
    greylisting::accounts_are_what_the_database_finds(world).await;
    greylisting::a_block_of_no_time_puts_off_once(world).await;
    greylisting::contacts_of_one_moment_are_told_apart(world).await;
    greylisting::contacts_that_go_on_and_on_are_told_apart(world).await;
    greylisting::a_row_that_is_held_stops_its_own_contact_only(world).await;
    greylisting::retries_at_once_all_pass(world).await;
    greylisting::all_rows_of_a_known_client_get_the_same_end(world).await;
    greylisting::a_retry_from_the_same_pool_counts(world).await;
    greylisting::known_addresses_stay_known_when_organizations_count(world).await;
    greylisting::what_spf_lists_is_one_pool(world).await;
    greylisting::threat_t15_floods_fill_no_table(world).await;
    administration::counters_are_shown_and_forgotten(world).await;
    Box::pin(administration::contacts_are_found(world)).await;
    administration::contacts_of_pools_are_found(world).await;
    Box::pin(administration::whitelisted_clients_are_forgotten(world)).await;
    cleanup::old_rows_go_and_others_stay(world).await;
    Box::pin(whitelist_domains::daemons_look_them_up_at_once(world)).await;
    Box::pin(whitelist_domains::one_of_several_hosts_wins(world)).await;
    memory::lists_are_read_anew_for_each_pair(world).await;
    memory::known_clients_are_looked_up_anew(world).await;
    fixes::everything_upstream_gets_wrong_in_tables(world).await;
    metrics::have_the_names_that_alerts_know(world).await;
    threats::threat_t13_values_are_never_code(world).await;
    threats::threat_t14_odd_clocks_and_rows(world).await;
    threats::threat_t34_rows_with_nulls_and_nonsense(world).await;
    database_threats::threat_t34_a_missing_column_costs_one_rule(world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite() {
    let world = World::sqlite().await;
    run_everywhere(&world).await;
    throttle::two_processes_share_a_file(&world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb() {
    if !MariaDb::is_installed() {
        return;
    }
    let mut world = World::server(Box::new(MariaDb::start().expect("started"))).await;
    run_everywhere(&world).await;
    throttle::three_daemons_share_a_limit(&world).await;
    database_threats::threat_t34_a_deadlock_loses_no_count(&world).await;
    database_threats::threat_t34_who_waits_for_a_lock_waits_alone(&world).await;
    database_threats::threat_t34_texts_in_latin1(&world).await;
    failure::a_stopped_database_is_what_the_settings_say(&mut world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres() {
    if !Postgres::is_installed() {
        return;
    }
    let mut world = World::server(Box::new(Postgres::start().expect("started"))).await;
    run_everywhere(&world).await;
    throttle::doubles_of_other_programs_do_no_harm(&world).await;
    throttle::three_daemons_share_a_limit(&world).await;
    database_threats::threat_t34_a_deadlock_loses_no_count(&world).await;
    database_threats::threat_t34_who_waits_for_a_lock_waits_alone(&world).await;
    database_threats::threat_t34_a_server_that_takes_no_writes(&world).await;
    failure::a_stopped_database_is_what_the_settings_say(&mut world).await;
}

/// Counters and triplets beside the database.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn valkey_server() {
    if !Valkey::is_installed() {
        return;
    }
    let mut world = World::valkey(Valkey::start().expect("started")).await;
    throttle::follows_a_sequential_model(&world).await;
    throttle::many_at_once_never_exceed_a_limit(&world).await;
    throttle::two_counters_move_together_or_not_at_all(&world).await;
    throttle::first_messages_make_one_row(&world).await;
    throttle::notifies_once_a_period(&world).await;
    throttle::too_many_messages_count_before_too_many_bytes(&world).await;
    throttle::three_daemons_share_a_limit(&world).await;
    threats::threat_t14_clocks_back_and_forth(&world).await;
    administration::counters_are_shown_and_forgotten(&world).await;
    Box::pin(administration::contacts_are_found(&world)).await;
    administration::contacts_of_pools_are_found(&world).await;
    Box::pin(administration::whitelisted_clients_are_forgotten(&world)).await;
    administration::threat_t37_listings_pass_over_nonsense(&world).await;
    metrics::have_the_names_that_alerts_know(&world).await;
    valkey::counters_go_by_themselves(&world).await;
    valkey::the_life_of_a_client(&world).await;
    valkey::first_contacts_at_once_are_one(&world).await;
    valkey::contacts_that_are_not_written_cost_a_network_nothing(&world).await;
    valkey::triplets_of_one_client_are_bounded(&world).await;
    Box::pin(valkey::greylisting_answers_as_with_sql(&world)).await;
    valkey::a_stopped_server_is_what_the_settings_say(&mut world).await;
}
