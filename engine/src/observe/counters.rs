//! Counters of one shard, read by the admin page.
//!
//! Each shard writes its own (no cache line is shared between shards) and everybody may read.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A number that only its shard changes.
#[derive(Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, n: u64) {
        self.0.store(self.get().wrapping_add(n), Relaxed);
    }

    pub fn set(&self, n: u64) {
        self.0.store(n, Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

macro_rules! counters {
    ($(#[$doc:meta])* $name:ident { $($(#[$help:meta])* $field:ident: $kind:literal, $text:literal;)* }) => {
        $(#[$doc])*
        #[derive(Default)]
        #[repr(align(128))]
        pub struct $name {
            $(#[doc = $text] pub $field: Counter,)*
        }

        impl $name {
            /// Name (without the prefix `sluice_`), kind, help text and the sum over all shards.
            pub fn sums(all: &[std::sync::Arc<Self>]) -> Vec<(&'static str, &'static str, &'static str, u64)> {
                vec![$((stringify!($field), $kind, $text, all.iter().map(|c| c.$field.get()).sum()),)*]
            }
        }
    };
}

counters! {
    /// The receiving side.
    Ingest {
        connections_total: "counter", "Connections accepted.";
        sessions: "gauge", "Sessions open now.";
        connections_refused_total: "counter", "Connections refused because sessions_max was reached.";
        connections_refused_concurrent_total: "counter", "Connections refused because the client's address or network had too many.";
        connections_refused_rate_total: "counter", "Connections refused because the client's address or network connects too often.";
        connections_refused_overloaded_total: "counter", "Connections refused because the relay was overloaded.";
        proxy_headers_failed_total: "counter", "Connections of load balancers closed for want of a sound PROXY header.";
        xclients_total: "counter", "XCLIENT commands taken.";
        early_talkers_total: "counter", "Sessions refused because the client talked before the greeting.";
        commands_limited_total: "counter", "MAIL and RCPT refused with 450 4.7.1 because there were too many of late.";
        replies_held_back_total: "counter", "Replies to errors that were held back.";
        junk_commands_total: "counter", "Commands without progress.";
        invalid_recipients_total: "counter", "Recipients refused for good.";
        sessions_abusive_total: "counter", "Sessions ended for too many errors or invalid recipients.";
        sessions_slow_total: "counter", "Sessions ended because octets came too slowly.";
        sessions_overlong_total: "counter", "Sessions ended after limits.session_time_max.";
        messages_accepted_total: "counter", "Messages acknowledged with 250 after they were durable.";
        message_bytes_accepted_total: "counter", "Octets of accepted messages.";
        refusals_total: "counter", "Replies of the 4yz and 5yz kind.";
        messages_failed_total: "counter", "Messages refused because the spool could not take them.";
        tls_handshakes_total: "counter", "TLS handshakes with clients.";
        tls_resumed_total: "counter", "Those of them that resumed an earlier session.";
        tls_failed_total: "counter", "TLS handshakes with clients that failed.";
        auth_accepted_total: "counter", "Logins accepted.";
        auth_failed_total: "counter", "Logins refused: wrong password, unknown login.";
        auth_locked_out_total: "counter", "Logins refused because of too many failures before.";
        auth_unavailable_total: "counter", "Logins that nobody could verify.";
        session_panics_total: "counter", "Sessions ended by a fault of the program.";
        messages_queued: "gauge", "Messages in the spool that are not finished.";
        recipients_deferred: "gauge", "Recipients in the queue that were tried before and are not held.";
        recipients_held: "gauge", "Recipients in the queue that are held.";
        batches_total: "counter", "Durable writes to the spool; one covers all messages that were ready.";
        spool_bytes_written_total: "counter", "Bytes written to the spool's segments.";
        messages_moved_total: "counter", "Waiting messages moved on so that their segments can be used again.";
        dsns_total: "counter", "DSNs made.";
        notifications_discarded_total: "counter", "Notifications that could not be delivered themselves.";
        spool_full: "gauge", "Ingest shards that refuse new mail for want of space.";
        spool_bytes: "gauge", "Bytes of segment files.";
        spool_idle_bytes: "gauge", "Bytes of segment files that can be used again at once.";
        spool_live_bytes: "gauge", "Bytes of segment files that waiting messages need.";
        spool_reserved_bytes: "gauge", "Bytes promised to messages that are arriving.";
        spools_short: "gauge", "Spools that found no room for another segment.";
        spools_failed: "gauge", "Spools that take nothing until a restart because a write failed.";
        spools_hanging: "gauge", "Spools with a write that has not come back within spool.write_wait.";
    }
}

counters! {
    /// The sending side.
    Delivery {
        connections_out_total: "counter", "Attempts to connect to next hops.";
        connections_out: "gauge", "Connections to next hops open now.";
        connects_failed_total: "counter", "Attempts at which a next hop could not be reached at any address.";
        tls_out_handshakes_total: "counter", "TLS handshakes with next hops.";
        tls_out_resumed_total: "counter", "Those of them that resumed an earlier session.";
        tls_out_failed_total: "counter", "TLS handshakes with next hops that failed, and certificates that were not enough.";
        recipients_delivered_total: "counter", "Recipients accepted by their next hop.";
        recipients_deferred_total: "counter", "Attempts put off, by recipient.";
        recipients_bounced_total: "counter", "Recipients refused for good.";
        recipients_expired_total: "counter", "Recipients given up after retry.expire.";
        delivery_panics_total: "counter", "Delivery attempts ended by a fault of the program.";
        messages_waiting: "gauge", "Messages in the schedule, ready or waiting for their time.";
        next_hops: "gauge", "Next hops known.";
        next_hops_down: "gauge", "Next hops that answer at no address.";
    }
}
