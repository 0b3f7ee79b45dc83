//! From what became of each recipient to the replies the client gets (contentfilter sections 3.3 and 3.4).
//!
//! The one rule above all others: a client hears 2xx only when every recipient has been accepted by the next hop, or
//! refused by it and reported to the sender.

use crate::hop::NextHop;
use crate::relay::{Fate, Stage, Trouble};
use outrider_core::codec::smtp::reply::{Enhanced, NextHopReply, Reply};

/// What became of one recipient, with the reply that is his alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The reply for this recipient.
    pub reply: Reply,
    /// What the next hop said, if it said anything.
    pub next_hop: Option<NextHopReply>,
}

impl Outcome {
    /// The outcome of a delivery.
    pub fn of(fate: Fate, hop: &NextHop, log_id: &str) -> Outcome {
        match fate {
            Fate::Accepted(answer) => {
                let enhanced = answer.enhanced().unwrap_or(Enhanced(2, 0, 0));
                let text = format!("from MTA({hop}): {}", answer.one_line());
                Outcome::answered(answer, enhanced, text)
            }
            Fate::Refused(answer, stage) => {
                let derived = match stage {
                    Stage::Envelope => Enhanced(5, 1, 0),
                    Stage::Data => Enhanced(5, 6, 0),
                };
                let enhanced = answer.enhanced().unwrap_or(derived);
                let text = format!(
                    "id={log_id} - Rejected by next-hop MTA on relaying, from MTA({hop}): {}",
                    answer.one_line()
                );
                Outcome::answered(answer, enhanced, text)
            }
            Fate::Deferred(answer) => {
                let enhanced = answer.enhanced().unwrap_or(Enhanced(4, 5, 0));
                let text = format!(
                    "id={log_id} - Temporary MTA failure on relaying, from MTA({hop}): {}",
                    answer.one_line()
                );
                Outcome::answered(answer, enhanced, text)
            }
            Fate::Trouble(trouble) => Outcome::trouble(&trouble, hop, log_id),
        }
    }

    fn answered(answer: NextHopReply, enhanced: Enhanced, text: String) -> Outcome {
        let reply = Reply { code: answer.code, enhanced: Some(enhanced), text };
        Outcome { reply, next_hop: Some(answer) }
    }

    fn trouble(trouble: &Trouble, hop: &NextHop, log_id: &str) -> Outcome {
        let what = match trouble {
            Trouble::Connect(_) => {
                format!("From MTA() during fwd-connect (All attempts (1) failed connecting to {hop})")
            }
            Trouble::Abandoned => {
                format!("From MTA({hop}) during fwd-rundown (Bail out, some recipients deferred)")
            }
            other => format!("From MTA({hop}) during fwd-data ({other})"),
        };
        let text = format!("id={log_id} - Temporary MTA failure on relaying, {what}: id={log_id}");
        Outcome { reply: Reply::new(451, (4, 5, 0), text), next_hop: None }
    }

    /// Refused because of too many Received fields: a mail that goes round in circles.
    pub fn too_many_hops(received: usize, log_id: &str) -> Outcome {
        let text = format!(
            "id={log_id} - Rejected by next-hop MTA on relaying, Reject: Too many hops: {received} 'Received:' header \
             fields, id={log_id}"
        );
        Outcome { reply: Reply::new(554, (5, 4, 6), text), next_hop: None }
    }

    /// Something of ours failed.
    pub fn own_fault(section: &str, reason: &str, log_id: &str) -> Outcome {
        Outcome { reply: processing_failed(section, reason, log_id), next_hop: None }
    }

    /// True when the next hop is responsible.
    pub fn delivered(&self) -> bool {
        self.reply.class() == 2
    }

    /// True when the recipient will never get the mail.
    pub fn refused(&self) -> bool {
        self.reply.class() == 5
    }

    /// True when the client has to try again.
    pub fn deferred(&self) -> bool {
        !self.delivered() && !self.refused()
    }
}

/// `451 4.5.0 Error in processing, ...`: our own trouble before the final dot is answered.
pub fn processing_failed(section: &str, reason: &str, log_id: &str) -> Reply {
    Reply::new(451, (4, 5, 0), format!("Error in processing, id={log_id}, {section} FAILED: {reason}"))
}

/// True when an SMTP client would hear 2xx although some recipients were refused: the sender then needs a report.
pub fn needs_report(outcomes: &[Outcome]) -> bool {
    outcomes.iter().any(Outcome::delivered)
        && outcomes.iter().any(Outcome::refused)
        && !outcomes.iter().any(Outcome::deferred)
}

/// The one reply of SMTP for all recipients.
pub fn merged(outcomes: &[Outcome], log_id: &str) -> Reply {
    let first = |wanted: fn(&Outcome) -> bool| outcomes.iter().find(|outcome| wanted(outcome));
    if let Some(deferred) = first(Outcome::deferred) {
        return deferred.reply.clone();
    }
    let Some(delivered) = first(Outcome::delivered) else {
        return match first(Outcome::refused) {
            Some(refused) => refused.reply.clone(),
            None => processing_failed("forward", "no recipients", log_id),
        };
    };
    let refused = outcomes.iter().filter(|outcome| outcome.refused()).count();
    let mut reply = delivered.reply.clone();
    if refused > 0 {
        reply.text.push_str(&format!(", but {refused} REJECT"));
    }
    reply
}

/// For the log: one entry for each distinct reply of the next hop, the queue id where the reply names one.
pub fn queued_as(outcomes: &[Outcome]) -> String {
    let mut entries: Vec<String> = Vec::new();
    for answer in outcomes.iter().filter_map(|outcome| outcome.next_hop.as_ref()) {
        let text = answer.one_line();
        let id =
            text.rsplit_once("queued as ").map(|(_, id)| id).filter(|id| !id.is_empty() && !id.contains(' '));
        let entry = id.map_or_else(|| text.clone(), str::to_owned);
        if !entries.contains(&entry) {
            entries.push(entry);
        }
    }
    entries.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BytesMut;
    use outrider_core::codec::smtp::reply;

    fn answer(text: &str) -> NextHopReply {
        let mut wire = BytesMut::from(text);
        wire.extend_from_slice(b"\r\n");
        reply::decode(&mut wire).expect("well-formed").expect("complete")
    }

    fn outcome(fate: Fate) -> Outcome {
        Outcome::of(fate, &NextHop::local(10025), "00077-01")
    }

    fn accepted() -> Outcome {
        outcome(Fate::Accepted(answer("250 2.0.0 Ok: queued as 4bXYZ")))
    }

    fn refused() -> Outcome {
        outcome(Fate::Refused(answer("550 5.1.1 <bob@example.com>: unknown"), Stage::Envelope))
    }

    fn deferred() -> Outcome {
        outcome(Fate::Deferred(answer("450 4.2.0 later")))
    }

    #[test]
    fn replies_for_one_recipient() {
        let mta = "MTA(smtp:[127.0.0.1]:10025)";
        let rejected = "id=00077-01 - Rejected by next-hop MTA on relaying, from";
        let temporary = "id=00077-01 - Temporary MTA failure on relaying,";
        let table = [
            (accepted(), format!("250 2.0.0 from {mta}: 250 2.0.0 Ok: queued as 4bXYZ")),
            (outcome(Fate::Accepted(answer("250 fine"))), format!("250 2.0.0 from {mta}: 250 fine")),
            (refused(), format!("550 5.1.1 {rejected} {mta}: 550 5.1.1 <bob@example.com>: unknown")),
            (
                outcome(Fate::Refused(answer("550 no"), Stage::Data)),
                format!("550 5.6.0 {rejected} {mta}: 550 no"),
            ),
            (deferred(), format!("450 4.2.0 {temporary} from {mta}: 450 4.2.0 later")),
            (
                outcome(Fate::Trouble(Trouble::Connect("refused".to_owned()))),
                format!(
                    "451 4.5.0 {temporary} From MTA() during fwd-connect (All attempts (1) failed connecting to \
                     smtp:[127.0.0.1]:10025): id=00077-01"
                ),
            ),
            (
                Outcome::too_many_hops(111, "00077-01"),
                "554 5.4.6 id=00077-01 - Rejected by next-hop MTA on relaying, Reject: Too many hops: 111 \
                 'Received:' header fields, id=00077-01"
                    .to_owned(),
            ),
        ];
        for (outcome, expected) in table {
            assert_eq!(outcome.reply.to_string(), expected);
        }
    }

    #[test]
    fn one_reply_for_several_recipients() {
        let trouble = || outcome(Fate::Trouble(Trouble::Timeout));
        let table: [(Vec<Outcome>, &str, bool); 8] = [
            (vec![accepted(), accepted()], "queued as 4bXYZ", false),
            (vec![accepted(), refused()], "queued as 4bXYZ, but 1 REJECT", true),
            (vec![refused(), accepted(), refused()], "queued as 4bXYZ, but 2 REJECT", true),
            (vec![refused(), refused()], "unknown", false),
            (vec![accepted(), deferred()], "later", false),
            (vec![refused(), deferred(), accepted()], "later", false),
            (vec![accepted(), trouble()], "id=00077-01", false),
            (vec![], "no recipients", false),
        ];
        for (outcomes, end, report) in table {
            let reply = merged(&outcomes, "00077-01");
            assert!(reply.text.ends_with(end), "{reply}");
            assert_eq!(needs_report(&outcomes), report);
            let all_served =
                !outcomes.is_empty() && outcomes.iter().all(|o| o.delivered() || o.refused() && report);
            assert_eq!(reply.class() == 2, all_served, "{reply}");
        }
    }

    #[test]
    fn queue_ids_for_the_log() {
        assert_eq!(queued_as(&[accepted(), accepted()]), "4bXYZ");
        assert_eq!(queued_as(&[refused(), accepted()]), "550 5.1.1 <bob@example.com>: unknown/4bXYZ");
        assert_eq!(queued_as(&[outcome(Fate::Trouble(Trouble::Timeout))]), "");
    }
}
