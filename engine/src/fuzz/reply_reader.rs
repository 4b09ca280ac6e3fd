//! The reader of a peer's replies: the same replies whole and in pieces, and nothing in their texts that
//! could change a log line or a DSN. The first octet says where the stream is cut.

use super::cuts::Cuts;
use crate::delivery::reply::Reply;
use crate::delivery::reply_reader::{BadReply, REPLY_BYTES_MAX, ReplyReader};

pub fn check(input: &[u8]) {
    let Some((&way, stream)) = input.split_first() else { return };
    let whole = read([stream].into_iter());
    let cut = read(Cuts::new(way).pieces(stream));
    assert_eq!(whole, cut);
    for reply in &whole.0 {
        assert!((200..600).contains(&reply.code) && reply.text.len() <= 3 * REPLY_BYTES_MAX);
        assert!(!reply.text.chars().any(|c| c.is_control() && c != '\n'), "{reply:?}");
        assert!(reply.enhanced.is_none_or(|(class, ..)| u16::from(class) == reply.code / 100), "{reply:?}");
    }
}

/// The replies, and why it could not go on.
fn read<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<Reply>, Option<BadReply>) {
    let (mut reader, mut replies) = (ReplyReader::default(), Vec::new());
    for mut piece in pieces {
        while !piece.is_empty() {
            match reader.read(piece) {
                Ok((taken, reply)) => {
                    assert!(reply.is_some() || taken == piece.len());
                    replies.extend(reply);
                    piece = &piece[taken..];
                }
                Err(bad) => return (replies, Some(bad)),
            }
        }
    }
    (replies, None)
}
