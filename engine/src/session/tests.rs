//! Dialogues.

use super::*;
use crate::policy::tests::config;
use sluice_queue::SpoolNumber;

#[test]
fn a_message_is_taken() {
    let context = Arc::new(Context::new(&config(), 0));
    let mut out = Vec::new();
    let mut session = Session::new(context, "192.0.2.9:4711".parse().unwrap(), 0, &mut out);
    let input = b"EHLO c.example\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<joe@Winery.Example>\r\nDATA\r\n";
    assert_eq!(session.advance(1, input, &mut out), (input.len(), Step::Open));
    let id = QueueId::new(1, SpoolNumber::new(0).unwrap());
    let received = session.opened(id, "Sun, 22 Nov 2026 01:41:40 +0000", &mut out);
    assert_eq!(
        String::from_utf8(received).unwrap(),
        format!(
            "Received: from c.example ([192.0.2.9])\r\n\tby relay.winery.example with ESMTP id {id}\r\n\tfor \
             <joe@winery.example>; Sun, 22 Nov 2026 01:41:40 +0000\r\n"
        )
    );
    let input = b"Subject: x\r\n\r\n..\r\n.\r\nQUIT\r\n";
    assert_eq!(session.advance(2, input, &mut out), (14, Step::Content(0..14)));
    assert_eq!(session.advance(2, &input[14..], &mut out), (4, Step::Content(1..4)));
    assert_eq!(session.advance(2, &input[18..], &mut out), (3, Step::Commit));
    assert_eq!(session.take_envelope(5).recipients[0].address, "joe@winery.example");
    session.committed(Ok(()), &mut out);
    assert_eq!(session.advance(2, &input[21..], &mut out), (6, Step::Close));
    assert_eq!(
        String::from_utf8(out).unwrap(),
        format!(
            "220 relay.winery.example ESMTP\r\n250-relay.winery.example\r\n250-PIPELINING\r\n250-SIZE \
             67108864\r\n250-8BITMIME\r\n250 ENHANCEDSTATUSCODES\r\n250 2.1.0 Sender ok\r\n250 2.1.5 Recipient \
             ok\r\n354 End data with <CR><LF>.<CR><LF>\r\n250 2.0.0 Ok: queued as {id}\r\n221 2.0.0 \
             relay.winery.example closing connection\r\n"
        )
    );
}
