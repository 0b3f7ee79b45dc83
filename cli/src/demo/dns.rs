//! A name server for the demonstration's own zone, so that the DKIM key it publishes can be looked up
//! without a network.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context, Result};
use hickory_resolver::proto::op::{Message, MessageType, ResponseCode};
use hickory_resolver::proto::rr::{RData, Record, RecordType, rdata::TXT};
use tokio::net::UdpSocket;

/// Seconds for which an answer may be kept.
const LIFETIME: u32 = 60;

/// Starts a server on a free loopback port that answers TXT questions from `records` (lower-case names without
/// a final dot) and says "no such name" to everything else. It ends with the runtime.
pub(crate) async fn start(records: HashMap<String, String>) -> Result<SocketAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .context("opening a port for the demo's name server")?;
    let address = socket.local_addr()?;
    tokio::spawn(async move {
        let mut packet = [0u8; 1500];
        while let Ok((length, peer)) = socket.recv_from(&mut packet).await {
            if let Some(reply) = answer(&packet[..length], &records) {
                let _ = socket.send_to(&reply, peer).await;
            }
        }
    });
    Ok(address)
}

/// The reply to one packet; nothing for what is not a question.
fn answer(packet: &[u8], records: &HashMap<String, String>) -> Option<Vec<u8>> {
    let request = Message::from_vec(packet).ok()?;
    let question = request.queries.first()?.clone();
    let name = question.name().to_ascii().trim_end_matches('.').to_ascii_lowercase();
    let mut reply = Message::new(request.metadata.id, MessageType::Response, request.metadata.op_code);
    reply.metadata.recursion_desired = request.metadata.recursion_desired;
    reply.metadata.recursion_available = true;
    match records.get(&name) {
        Some(text) if question.query_type() == RecordType::TXT => {
            // A character string holds at most 255 octets (RFC 1035, 3.3.14); a 2048-bit key needs two.
            let strings = text
                .as_bytes()
                .chunks(255)
                .map(|piece| String::from_utf8_lossy(piece).into_owned())
                .collect();
            reply.add_answer(Record::from_rdata(
                question.name().clone(),
                LIFETIME,
                RData::TXT(TXT::new(strings)),
            ));
        }
        Some(_) => {}
        None => reply.metadata.response_code = ResponseCode::NXDomain,
    }
    reply.add_query(question);
    reply.to_vec().ok()
}
