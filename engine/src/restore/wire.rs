//! The frames in which a copy travels from the command to the relay. Pure.
//!
//! A frame: octets of its payload 4 (little-endian), kind 1, payload. The first is `Begin`; ids rise.
//!
//! | kind | payload |
//! |---:|---|
//! | 0 begin | JSON |
//! | 1 message | JSON; `octets` and one `end` follow |
//! | 2 octets | of the content |
//! | 3 end | of the message |
//! | 4 look | id 8, and when it has one its origin: lineage 16, id 8 |
//! | 5 unreadable | id 8 |
//! | 6 finish | id 8, ancestry |

use super::parameters;
use serde::{Deserialize, Serialize};
use sluice_queue::{
    Ancestry, Body, ContentFlags, Envelope, Incoming, Lineage, Origin, OutcomeKind, QueueId, Reason,
    Recipient, RecipientState, RecipientStatus,
};

/// Octets of content in one frame.
pub const OCTETS_MAX: usize = 256 << 10;
/// Octets of a frame. Prevents: memory by a length that somebody made up.
const FRAME_BYTES_MAX: usize = 64 << 20;
const HEAD: usize = 5;

/// Where the copy comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begin {
    /// 32 hex digits.
    pub lineage: String,
    /// Ids that were open drafts at the instant of the copy.
    pub drafts: Vec<u64>,
    /// Bring in again what was here and is finished.
    pub again: bool,
    /// Count only.
    pub dry_run: bool,
    /// Nothing is learnt about the lineage: it is one made up for a spool that has none.
    pub unnamed: bool,
}

/// What a frame says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    Begin(Begin),
    Message(Box<Incoming>),
    Octets(Vec<u8>),
    End,
    /// A message that the relay knows, or that is only counted.
    Look {
        id: QueueId,
        origin: Option<Origin>,
    },
    Unreadable(QueueId),
    Finish {
        through: QueueId,
        ancestry: Ancestry,
    },
}

/// Bytes that are no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

pub fn lineage_of(hex: &str) -> Option<Lineage> {
    let bits = u128::from_str_radix(hex, 16).ok().filter(|_| hex.len() == 32)?;
    Lineage::from_octets(bits.to_be_bytes())
}

impl Item {
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[0; HEAD]);
        let json = "plain data has a JSON form";
        let kind = match self {
            Self::Begin(begin) => {
                serde_json::to_writer(&mut *out, begin).expect(json);
                0
            }
            Self::Message(incoming) => {
                serde_json::to_writer(&mut *out, &Meta::of(incoming)).expect(json);
                1
            }
            Self::Octets(octets) => {
                out.extend_from_slice(octets);
                2
            }
            Self::End => 3,
            Self::Look { id, origin } => {
                out.extend_from_slice(&id.bits().to_le_bytes());
                if let Some(origin) = origin {
                    out.extend_from_slice(&origin.lineage.octets());
                    out.extend_from_slice(&origin.id.bits().to_le_bytes());
                }
                4
            }
            Self::Unreadable(id) => {
                out.extend_from_slice(&id.bits().to_le_bytes());
                5
            }
            Self::Finish { through, ancestry } => {
                out.extend_from_slice(&through.bits().to_le_bytes());
                out.extend_from_slice(&ancestry.encode());
                6
            }
        };
        let bytes = (out.len() - start - HEAD) as u32;
        out[start..start + 4].copy_from_slice(&bytes.to_le_bytes());
        out[start + 4] = kind;
    }

    /// Takes one frame off the front of `bytes`: the item and the octets it took, `None` when there is not a
    /// whole one yet.
    ///
    /// # Errors
    /// What is there is no frame.
    pub fn decode(bytes: &[u8]) -> Result<Option<(Self, usize)>, Malformed> {
        let Some((head, rest)) = bytes.split_first_chunk::<HEAD>() else { return Ok(None) };
        let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
        if length > FRAME_BYTES_MAX {
            return Err(Malformed);
        }
        let Some(payload) = rest.get(..length) else { return Ok(None) };
        let item = Self::of(head[4], payload).ok_or(Malformed)?;
        Ok(Some((item, HEAD + length)))
    }

    fn of(kind: u8, payload: &[u8]) -> Option<Self> {
        Some(match kind {
            0 => Self::Begin(serde_json::from_slice(payload).ok()?),
            1 => Self::Message(Box::new(serde_json::from_slice::<Meta>(payload).ok()?.incoming()?)),
            2 => Self::Octets(payload.to_vec()),
            3 if payload.is_empty() => Self::End,
            4 => {
                let (id, rest) = id_of(payload)?;
                let origin = match rest.split_first_chunk::<16>() {
                    Some((lineage, id)) => {
                        let (id, []) = id_of(id)? else { return None };
                        Some(Origin { lineage: Lineage::from_octets(*lineage)?, id })
                    }
                    None if rest.is_empty() => None,
                    None => return None,
                };
                Self::Look { id, origin }
            }
            5 => {
                let (id, []) = id_of(payload)? else { return None };
                Self::Unreadable(id)
            }
            6 => {
                let (through, rest) = id_of(payload)?;
                Self::Finish { through, ancestry: Ancestry::decode(rest)? }
            }
            _ => return None,
        })
    }
}

fn id_of(bytes: &[u8]) -> Option<(QueueId, &[u8])> {
    let (id, rest) = bytes.split_first_chunk()?;
    Some((QueueId::from_bits(u64::from_le_bytes(*id)), rest))
}

/// A message without its content, as JSON.
#[derive(Serialize, Deserialize)]
struct Meta {
    id: u64,
    arrived_micros: u64,
    content_bytes: u64,
    eight_bit: bool,
    dot_lines: bool,
    body_8bit: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    body_binary: bool,
    sender: String,
    listener: String,
    helo: String,
    client: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    origin: Option<(String, u64)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    parameters: Option<parameters::Mail>,
    recipients: Vec<Person>,
}

#[derive(Serialize, Deserialize)]
struct Person {
    address: String,
    /// As in `STATUSES`.
    status: u8,
    attempts: u16,
    notified: bool,
    held: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    via: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    parameters: Option<parameters::Rcpt>,
    /// Kind as in `KINDS`, time, text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<(u8, u64, String)>,
}

const STATUSES: [RecipientStatus; 6] = [
    RecipientStatus::Waiting,
    RecipientStatus::Delivered,
    RecipientStatus::Bounced,
    RecipientStatus::Expired,
    RecipientStatus::Deleted,
    RecipientStatus::Moved,
];
const KINDS: [OutcomeKind; 9] = [
    OutcomeKind::Delivered,
    OutcomeKind::Deferred,
    OutcomeKind::Bounced,
    OutcomeKind::Expired,
    OutcomeKind::Held,
    OutcomeKind::Released,
    OutcomeKind::Rerouted,
    OutcomeKind::Deleted,
    OutcomeKind::Moved,
];

fn place<T: PartialEq>(among: &[T], of: &T) -> u8 {
    among.iter().position(|one| one == of).expect("all are listed") as u8
}

impl Meta {
    fn of(incoming: &Incoming) -> Self {
        let envelope = &incoming.envelope;
        let via = |at: u32| incoming.vias.iter().find(|(of, _)| *of == at).map(|(_, via)| via.to_string());
        let people = envelope.recipients.iter().zip(&incoming.states).zip(&incoming.reasons).zip(0..);
        let recipients = people.map(|(((recipient, state), reason), at)| Person {
            address: recipient.address.clone(),
            status: place(&STATUSES, &state.status),
            attempts: state.attempts,
            notified: state.notified,
            held: state.held,
            via: via(at),
            parameters: recipient.parameters.as_deref().map(parameters::Rcpt::of),
            reason: reason.as_ref().map(|of| (place(&KINDS, &of.kind), of.at_micros, of.text.clone())),
        });
        Self {
            id: incoming.id.bits(),
            arrived_micros: envelope.arrived_micros,
            content_bytes: incoming.content_bytes,
            eight_bit: incoming.flags.eight_bit,
            dot_lines: incoming.flags.dot_lines,
            body_8bit: envelope.body == Body::EightBit,
            body_binary: envelope.body == Body::Binary,
            sender: envelope.sender.clone(),
            listener: envelope.listener.clone(),
            helo: envelope.helo.clone(),
            client: envelope.client.clone(),
            origin: envelope.origin.map(|origin| (origin.lineage.to_string(), origin.id.bits())),
            parameters: envelope.parameters.as_deref().map(parameters::Mail::of),
            recipients: recipients.collect(),
        }
    }

    fn incoming(self) -> Option<Incoming> {
        let origin = match self.origin {
            Some((lineage, id)) => {
                Some(Origin { lineage: lineage_of(&lineage)?, id: QueueId::from_bits(id) })
            }
            None => None,
        };
        let (mut recipients, mut states, mut reasons, mut vias) = (vec![], vec![], vec![], vec![]);
        for (person, at) in self.recipients.into_iter().zip(0..) {
            let status = *STATUSES.get(usize::from(person.status))?;
            let Person { attempts, notified, held, .. } = person;
            states.push(RecipientState { status, attempts, notified, held });
            reasons.push(match person.reason {
                Some((kind, at_micros, text)) => {
                    Some(Reason { kind: *KINDS.get(usize::from(kind))?, at_micros, text })
                }
                None => None,
            });
            vias.extend(person.via.map(|via| (at, via.into_boxed_str())));
            let parameters = person.parameters.map(|of| Box::new(of.parameters()));
            recipients.push(Recipient { address: person.address, parameters });
        }
        Some(Incoming {
            id: QueueId::from_bits(self.id),
            envelope: Envelope {
                sender: self.sender,
                recipients,
                body: match (self.body_binary, self.body_8bit) {
                    (true, _) => Body::Binary,
                    (false, true) => Body::EightBit,
                    (false, false) => Body::SevenBit,
                },
                arrived_micros: self.arrived_micros,
                listener: self.listener,
                helo: self.helo,
                client: self.client,
                origin,
                parameters: self.parameters.map(|of| Box::new(of.parameters())),
            },
            states,
            reasons,
            vias,
            content_bytes: self.content_bytes,
            flags: ContentFlags { eight_bit: self.eight_bit, dot_lines: self.dot_lines },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_queue::{ByMode, DeliverBy, MailParameters, Notify, RcptParameters, Ret, Schedule};

    fn items() -> Vec<Item> {
        let id = QueueId::from_bits;
        let lineage = lineage_of(&"1f".repeat(16)).unwrap();
        let origin = Some(Origin { lineage, id: id(u64::MAX) });
        let mut ancestry = Ancestry::default();
        ancestry.advance(lineage, id(9), [id(4)]);
        let people = STATUSES.into_iter().zip(KINDS);
        let notify = Some(Notify { success: true, failure: false, delay: true });
        let by = DeliverBy { deadline_micros: 5, mode: ByMode::Return, trace: true };
        let parameters = MailParameters {
            ret: Some(Ret::Headers),
            envid: "QQ+2B".into(),
            smtputf8: true,
            require_tls: true,
            schedule: Schedule { priority: -4, deliver_by: Some(by), release_micros: Some(9) },
        };
        let mut recipients: Vec<_> = STATUSES.iter().map(|_| Recipient::new("ü@y.example")).collect();
        recipients[1].parameters = Some(Box::new(RcptParameters { notify, orcpt: "rfc822;o@x".into() }));
        let envelope = Envelope {
            sender: "a@x.example".into(),
            recipients,
            parameters: Some(Box::new(parameters)),
            body: Body::EightBit,
            arrived_micros: 3,
            listener: "outside".into(),
            helo: "h".into(),
            client: String::new(),
            origin,
        };
        let state = |(status, _)| RecipientState { status, attempts: 7, notified: true, held: true };
        let reason =
            |(_, kind)| Some(Reason { kind, at_micros: u64::MAX, text: "451 4.3.0 \"later\"".into() });
        let incoming = Incoming {
            id: id(77),
            envelope,
            states: people.clone().map(state).collect(),
            reasons: people.map(reason).collect(),
            vias: vec![(2, "192.0.2.1:25".into())],
            content_bytes: 5,
            flags: ContentFlags { eight_bit: true, dot_lines: true },
        };
        let begin = Begin {
            lineage: lineage.to_string(),
            drafts: vec![1, 2],
            again: true,
            dry_run: false,
            unnamed: false,
        };
        vec![
            Item::Begin(begin),
            Item::Message(Box::new(incoming)),
            Item::Octets(vec![0, 255, 7]),
            Item::End,
            Item::Look { id: id(1), origin: None },
            Item::Look { id: id(1), origin },
            Item::Unreadable(id(2)),
            Item::Finish { through: id(3), ancestry },
        ]
    }

    #[test]
    fn the_body_survives_the_way_and_old_copies_have_no_binary_one() {
        let Item::Message(mut incoming) = items().remove(1) else { panic!("a message") };
        for body in [Body::SevenBit, Body::EightBit, Body::Binary] {
            incoming.envelope.body = body;
            let text = serde_json::to_string(&Meta::of(&incoming)).unwrap();
            assert_eq!(text.contains("body_binary"), body == Body::Binary, "{text}");
            let back = serde_json::from_str::<Meta>(&text).unwrap().incoming().unwrap();
            assert_eq!(back.envelope.body, body);
        }
    }

    #[test]
    fn items_survive_the_way_cut_at_every_octet() {
        let mut bytes = Vec::new();
        items().iter().for_each(|item| item.encode(&mut bytes));
        for cut in 0..=bytes.len() {
            let (mut found, mut held) = (Vec::new(), Vec::new());
            for part in [&bytes[..cut], &bytes[cut..]] {
                held.extend_from_slice(part);
                while let Some((item, taken)) = Item::decode(&held).unwrap() {
                    held.drain(..taken);
                    found.push(item);
                }
            }
            assert_eq!(found, items());
            assert!(held.is_empty());
        }
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        for bytes in [
            &[0xff, 0xff, 0xff, 0xff, 2][..],
            &[0, 0, 0, 0, 9],
            &[1, 0, 0, 0, 3, 0],
            &[2, 0, 0, 0, 0, b'{', b'}'],
            &[9, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            &[12, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4],
            &[4, 0, 0, 0, 1, b'n', b'u', b'l', b'l'],
        ] {
            assert_eq!(Item::decode(bytes), Err(Malformed), "{bytes:?}");
        }
    }
}
