//! The kernel log: records of `/dev/kmsg` (`Documentation/ABI/testing/dev-kmsg`).

use serde::Serialize;
use std::fmt::Write;

/// One record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Message {
    /// Level, from 0 (emergency) to 7 (debug).
    pub level: u8,
    /// Facility that wrote the record: 0 for the kernel, others as for syslog(3).
    pub facility: u32,
    /// Number of the record; a gap means that records are missing.
    pub sequence: u64,
    /// Microseconds since that kernel booted.
    pub time_us: u64,
    /// The text.
    pub text: String,
    /// Lines of `KEY=value` that belong to it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub properties: Vec<String>,
}

/// Reads records of `/dev/kmsg`, one after the other. Lines that are not records are left out.
pub fn parse(bytes: &[u8]) -> Vec<Message> {
    let text = String::from_utf8_lossy(bytes);
    let mut messages: Vec<Message> = Vec::new();
    for line in text.lines() {
        if let Some(property) = line.strip_prefix(' ') {
            if let Some(last) = messages.last_mut() {
                last.properties.push(unescape(property));
            }
            continue;
        }
        messages.extend(message(line));
    }
    messages
}

fn message(line: &str) -> Option<Message> {
    let (head, text) = line.split_once(';')?;
    let mut numbers = head.split(',');
    let priority: u32 = numbers.next()?.parse().ok()?;
    let sequence = numbers.next()?.parse().ok()?;
    let time_us = numbers.next()?.parse().ok()?;
    Some(Message {
        level: u8::try_from(priority & 7).ok()?,
        facility: priority >> 3,
        sequence,
        time_us,
        text: unescape(text),
        properties: Vec::new(),
    })
}

/// Replaces escapes such as `\x0a` by the bytes that they encode.
fn unescape(text: &str) -> String {
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        if *byte == b'\\'
            && let [b'x', a, b, tail @ ..] = after
            && let Some(value) = std::str::from_utf8(&[*a, *b])
                .ok()
                .and_then(|digits| u8::from_str_radix(digits, 16).ok())
        {
            out.push(value);
            rest = tail;
            continue;
        }
        out.push(*byte);
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The newest whole records of at most `limit` bytes.
pub fn newest(bytes: &[u8], limit: usize) -> &[u8] {
    let Some(skip) = bytes.len().checked_sub(limit) else {
        return bytes;
    };
    // A record begins at a line that does not begin with a space.
    let mut at = skip;
    while let Some(rest) = bytes.get(at..) {
        let starts = at == 0 || bytes.get(at - 1) == Some(&b'\n');
        if starts && rest.first().is_some_and(|first| *first != b' ') {
            return rest;
        }
        match rest.iter().position(|byte| *byte == b'\n') {
            Some(end) => at += end + 1,
            None => break,
        }
    }
    &[]
}

impl Message {
    /// The record as dmesg(1) shows it.
    pub fn line(&self) -> String {
        let mut out = String::new();
        let (seconds, us) = (self.time_us / 1_000_000, self.time_us % 1_000_000);
        let mut text = String::new();
        crate::printf::push_safe(&mut text, &self.text);
        for (index, part) in text.split('\n').enumerate() {
            let end = if index > 0 { "\n" } else { "" };
            let _ = write!(out, "{end}[{seconds:>5}.{us:06}] {part}");
        }
        out
    }
}
