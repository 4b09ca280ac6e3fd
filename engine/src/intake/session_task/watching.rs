//! What the task of a session tells those who watch it (`trace`).
//!
//! Costs one comparison a read and a write while nobody does.

use super::SessionTask;
use crate::clock;
use std::fmt::Write;

impl SessionTask<'_> {
    /// Looks who watches this session from now on, when that has changed on the shard.
    pub(super) fn look_who_watches(&mut self) {
        if self.watched != self.shard.traces.generation() {
            self.watch();
        }
    }

    pub(super) fn watch(&mut self) {
        self.watched = self.shard.traces.generation();
        let before = self.watchers.len();
        self.watchers = self.shard.traces.of(self.listener, self.session.client());
        self.session.tap(!self.watchers.is_empty());
        if before == 0 && !self.watchers.is_empty() {
            let context = self.session.context();
            self.tell(&format!("-- session on listener {}\n", context.listener_name));
        }
    }

    /// Tells what the client has said, then the replies that are about to be written.
    pub(super) fn tell_dialogue(&mut self) {
        if self.watchers.is_empty() {
            return;
        }
        let mut lines = self.session.take_tapped();
        for reply in self.out.split(|octet| *octet == b'\n').filter(|reply| !reply.is_empty()) {
            // A challenge of AUTH.
            let shown = if reply.starts_with(b"334") { b"334 ****" } else { reply.trim_ascii_end() };
            let _ = writeln!(lines, "S: {}", shown.escape_ascii());
        }
        self.tell(&lines);
    }

    pub(super) fn tell_end(&mut self) {
        self.tell_dialogue();
        self.tell("-- closed\n");
    }

    /// Lines, each with its end.
    fn tell(&self, lines: &str) {
        if self.watchers.is_empty() || lines.is_empty() {
            return;
        }
        let mut head = Vec::new();
        clock::append_log_time(&mut head, clock::wall_micros());
        let head = String::from_utf8_lossy(&head).into_owned();
        let (shard, number, client) = (self.shard.index, self.number, self.session.client());
        let mut text = String::with_capacity(lines.len() + 80);
        for line in lines.lines() {
            let _ = writeln!(text, "{head} {shard}-{number} [{client}] {line}");
        }
        self.watchers.iter().for_each(|trace| trace.tell(&text));
    }
}
