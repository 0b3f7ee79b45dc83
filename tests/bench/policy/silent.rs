//! Whether senders whose name server never answers make others wait: the same first contacts with and without them.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Result, anyhow};
use outrider_tests::dns_server::DnsServer;

use super::GREYLISTED;
use super::case::{Case, silent_senders};
use crate::load::{Load, Phase, measure};
use crate::options::Plan;
use crate::table::Table;
use crate::wire::{Peer, talk};

/// Connections that ask about the silent domain all the time.
pub(crate) const WAITING: usize = 16;

/// The rows of the table.
pub(crate) const WITHOUT: &str = "policyd, all name servers answer";
pub(crate) const WITH: &str = "policyd, beside 16 connections about a silent domain";

/// Measures both at every number of connections, in turn, so that they have the same moment of the machine.
pub(crate) fn measure_both(
    plan: &Plan,
    dns: &DnsServer,
    address: SocketAddr,
    process: Option<u32>,
    table: &mut Table<'_>,
) -> Result<()> {
    dns.be_silent_about("silent.example");
    let peer = Peer::policy(address, GREYLISTED);
    let dialogue = |connection| Case::SilentDns.dialogue(peer, connection);
    let load = Load::Dialogues(&dialogue);
    for &connections in &plan.connections {
        table.add(WITHOUT, connections, measure(connections, plan.seconds, process, &load)?);
        let phase = Arc::new(Phase::default());
        let figure = std::thread::scope(|scope| {
            let waiting =
                scope.spawn(|| talk(WAITING, &|connection| silent_senders(peer, connection), &phase));
            let figure = measure(connections, plan.seconds, process, &load);
            phase.end();
            waiting.join().map_err(|_| anyhow!("a load thread panicked"))??;
            figure
        })?;
        table.add(WITH, connections, figure);
    }
    Ok(())
}
