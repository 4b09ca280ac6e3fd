//! Latencies and how figures are printed. Pure.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Durations from 1 µs to 10 min with three digits; longer ones count as 10 min.
#[derive(Clone)]
pub struct Latency(Histogram<u64>);

const NANOS_MAX: u64 = 600_000_000_000;

impl Default for Latency {
    fn default() -> Self {
        Latency(Histogram::new_with_bounds(1_000, NANOS_MAX, 3).expect("constant bounds are valid"))
    }
}

impl Latency {
    pub fn record(&mut self, took: Duration) {
        self.0.saturating_record(took.as_nanos().min(u128::from(NANOS_MAX)) as u64);
    }

    pub fn add(&mut self, other: &Latency) {
        self.0.add(&other.0).expect("both have the same bounds");
    }

    pub fn summary(&self) -> Summary {
        let ms = |nanos: u64| nanos as f64 / 1e6;
        let at = |quantile| ms(self.0.value_at_quantile(quantile));
        Summary {
            count: self.0.len(),
            mean_ms: self.0.mean() / 1e6,
            p50_ms: at(0.5),
            p90_ms: at(0.9),
            p99_ms: at(0.99),
            p999_ms: at(0.999),
            max_ms: ms(self.0.max()),
        }
    }
}

/// Percentiles in milliseconds.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Summary {
    pub count: u64,
    pub mean_ms: f64,
    pub p50_ms: f64,
    pub p90_ms: f64,
    pub p99_ms: f64,
    pub p999_ms: f64,
    pub max_ms: f64,
}

/// A percentile of fewer samples above it than this is chance.
const SAMPLES_ABOVE_MIN: f64 = 10.0;

impl Summary {
    pub fn p50(&self) -> Option<f64> {
        self.if_certain(self.p50_ms, 0.5)
    }

    pub fn p99(&self) -> Option<f64> {
        self.if_certain(self.p99_ms, 0.01)
    }

    pub fn p999(&self) -> Option<f64> {
        self.if_certain(self.p999_ms, 0.001)
    }

    fn if_certain(&self, value: f64, share_above: f64) -> Option<f64> {
        // Rounded, for 1000 × 0.01 is a little less than 10.
        let above = (self.count as f64 * share_above * 1e6).round() / 1e6;
        (above >= SAMPLES_ABOVE_MIN).then_some(value)
    }
}

/// A table: the first column flush left, the others flush right.
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width =
        |at: usize| rows.iter().filter_map(|r| r.get(at)).map(|c| c.chars().count()).max().unwrap_or(0);
    let widths: Vec<_> = (0..columns).map(width).collect();
    let mut out = String::new();
    for row in rows {
        for (at, cell) in row.iter().enumerate() {
            let pad = " ".repeat(widths[at] - cell.chars().count());
            match at {
                0 => out.extend([cell, pad.as_str()]),
                _ => out.extend(["  ", pad.as_str(), cell]),
            }
        }
        out.truncate(out.trim_end().len());
        out.push('\n');
    }
    out
}

/// Three significant places for small figures, none behind the point for large ones.
pub fn short(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        v if v >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// The middle one; of two middle ones their mean. `None` of nothing.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        n if n % 2 == 1 => Some(sorted[middle]),
        _ => Some((sorted[middle - 1] + sorted[middle]) / 2.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_in_milliseconds() {
        let mut latency = Latency::default();
        for ms in 1..=1000 {
            latency.record(Duration::from_millis(ms));
        }
        latency.record(Duration::from_secs(100_000));
        let summary = latency.summary();
        assert_eq!(summary.count, 1001);
        assert!((summary.p50_ms - 501.0).abs() < 1.0, "{summary:?}");
        assert!((summary.p99_ms - 991.0).abs() < 1.0, "{summary:?}");
        assert!((summary.max_ms - 600_000.0).abs() < 1_000.0, "{summary:?}");
    }

    #[test]
    fn percentiles_of_too_few_samples_are_not_given() {
        let summary = |count| Summary { count, p50_ms: 1.0, p99_ms: 2.0, p999_ms: 3.0, ..Summary::default() };
        let all = |count: u64| (summary(count).p50(), summary(count).p99(), summary(count).p999());
        assert_eq!(all(19), (None, None, None));
        assert_eq!(all(20), (Some(1.0), None, None));
        assert_eq!(all(1_000), (Some(1.0), Some(2.0), None));
        assert_eq!(all(10_000), (Some(1.0), Some(2.0), Some(3.0)));
    }

    #[test]
    fn medians_of_odd_even_and_none() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0]), Some(2.5));
        assert_eq!(median(&[]), None);
    }

    #[test]
    fn tables_align_their_columns() {
        let rows = [vec!["a".to_owned(), "1".to_owned()], vec!["bcd".to_owned(), "22".to_owned()]];
        assert_eq!(table(&rows), "a     1\nbcd  22\n");
    }
}
