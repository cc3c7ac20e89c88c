//! What the server knows of itself beside its cache, and the text of INFO.

use super::cache::Cache;
use super::compaction::Compaction;
use super::histogram::Histogram;
use super::store::Store;
use std::fmt::Write;
use std::time::Instant;

/// Counters and durations of a server.
pub struct Server {
    /// When it started.
    pub began: Instant,
    /// Requests that were carried out.
    pub requests: u64,
    /// Connections now.
    pub clients: usize,
    /// Wall time of each batch: all that one connection had sent, from reading it until its replies were handed over.
    pub batches: Histogram,
    /// The policy of compaction with its account.
    pub compaction: Compaction,
}

impl Server {
    /// Begins the durations anew; counters stay.
    pub fn reset(&mut self) {
        self.batches = Histogram::default();
        self.compaction.reset();
    }
}

/// The text of INFO: `name:value` lines in sections. Durations are in nanoseconds.
///
/// `resident_over_live` leaves out the index, which is the same under every allocator and outside of all of them:
/// (resident - index) / live. The process itself (code, stacks, buffers) counts.
pub fn text<S: Store>(cache: &Cache<S>, server: &Server) -> String {
    let (live, index) = (cache.live_bytes(), cache.index_bytes());
    let resident = server.compaction.resident_bytes();
    let over = |bytes: u64, of: u64| {
        if of == 0 {
            0.0
        } else {
            bytes as f64 / of as f64
        }
    };
    let counts = cache.counts();
    let mut out = String::new();
    let mut section = |name: &str, rows: &[(&str, &dyn std::fmt::Display)]| {
        let _ = write!(out, "# {name}\r\n");
        for (name, value) in rows {
            let _ = write!(out, "{name}:{value}\r\n");
        }
        out.push_str("\r\n");
    };
    section(
        "Server",
        &[
            ("allocator", &S::NAME),
            ("process_id", &std::process::id()),
            ("uptime_in_seconds", &server.began.elapsed().as_secs()),
            ("connected_clients", &server.clients),
        ],
    );
    section(
        "Memory",
        &[
            ("live_bytes", &live),
            ("live_bytes_max", &cache.limit_bytes()),
            ("index_bytes", &index),
            ("resident_bytes", &resident),
            ("resident_bytes_at_start", &server.compaction.base_bytes()),
            (
                "resident_over_live",
                &format_args!("{:.4}", over(resident.saturating_sub(index), live)),
            ),
            (
                "resident_over_live_and_index",
                &format_args!("{:.4}", over(resident, live + index)),
            ),
        ],
    );
    section(
        "Stats",
        &[
            ("total_commands_processed", &server.requests),
            ("stored_values", &counts.stored),
            ("keyspace_hits", &counts.hits),
            ("keyspace_misses", &counts.misses),
            ("evicted_keys", &counts.evictions),
        ],
    );
    if let Some(figures) = cache.figures() {
        section(
            "Allocator",
            &[
                ("allocator_usable_bytes", &figures.usable_bytes),
                ("allocator_table_bytes", &figures.table_bytes),
                ("allocator_resident_bytes", &figures.resident_bytes),
            ],
        );
    }
    let compaction = &server.compaction;
    section(
        "Compaction",
        &[
            ("compaction_steps", &compaction.steps.count()),
            ("moved_bytes", &compaction.moved_bytes),
            ("moved_blocks", &compaction.moved_blocks),
            ("returned_bytes", &compaction.returned_bytes),
            ("handle_renewals", &compaction.renewals),
        ],
    );
    let durations = [
        ("batch", &server.batches),
        ("compaction_step", &compaction.steps),
        ("compaction_step_cpu", &compaction.steps_cpu),
    ];
    let _ = write!(out, "# Durations\r\n");
    for (name, of) in durations {
        for (part, ns) in [
            ("p50", of.percentile_ns(0.5)),
            ("p99", of.percentile_ns(0.99)),
            ("p999", of.percentile_ns(0.999)),
            ("max", of.max_ns()),
        ] {
            let _ = write!(out, "{name}_ns_{part}:{ns}\r\n");
        }
    }
    let longest = server.batches.max_ns().max(compaction.steps.max_ns());
    let _ = write!(out, "longest_pause_ns:{longest}\r\n");
    let _ = write!(out, "\r\n# Keyspace\r\ndb0:keys={}\r\n", cache.entries());
    out
}
