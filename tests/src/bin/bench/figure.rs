//! Names of figures, each with its unit. They are the vocabulary between the measurements and the table.
/// Gbit/s of payload, in the direction of the test; of both together where there are two.
pub(crate) const THROUGHPUT: &str = "gbit_per_second";
/// Gbit/s from client to server, where there are two directions.
pub(crate) const FORWARD: &str = "gbit_per_second_forward";
/// Gbit/s from server to client, where there are two directions.
pub(crate) const BACKWARD: &str = "gbit_per_second_backward";
/// TCP segments sent again.
pub(crate) const RETRANSMITS: &str = "retransmits";
/// Datagrams per second delivered at the highest rate that loses less than 1 %.
pub(crate) const DATAGRAMS: &str = "datagrams_per_second";
/// Datagrams per second delivered while the sender sends what it can.
pub(crate) const FLOOD_DELIVERED: &str = "flood_delivered_per_second";
/// Datagrams per second sent meanwhile.
pub(crate) const FLOOD_SENT: &str = "flood_sent_per_second";
/// Processor time of both daemons per datagram delivered, in microseconds.
pub(crate) const DAEMON_US_PER_DATAGRAM: &str = "daemon_us_per_datagram";
/// Processor seconds of both daemons per 10⁹ bytes of payload.
pub(crate) const DAEMON_SECONDS_PER_GB: &str = "daemon_seconds_per_gb";
/// Processor seconds of the whole machine per 10⁹ bytes of payload.
pub(crate) const MACHINE_SECONDS_PER_GB: &str = "machine_seconds_per_gb";
/// Round-trip time, microseconds, median.
pub(crate) const PING_P50: &str = "ping_p50_us";
/// Round-trip time, microseconds, 99th percentile.
pub(crate) const PING_P99: &str = "ping_p99_us";
/// Share of echo requests without an answer, 0 to 1.
pub(crate) const PING_LOST: &str = "ping_lost";
/// TCP connections per second.
pub(crate) const CONNECTIONS: &str = "connections_per_second";
/// Connections that failed.
pub(crate) const CONNECTIONS_FAILED: &str = "connections_failed";
/// Processor time of both daemons per connection, in microseconds.
pub(crate) const DAEMON_US_PER_CONNECTION: &str = "daemon_us_per_connection";
/// Entries of the gateway's connection tracking when the test ended.
pub(crate) const CONNTRACK_ENTRIES: &str = "conntrack_entries";
/// Most entries that it may have.
pub(crate) const CONNTRACK_MAX: &str = "conntrack_max";
/// Handshakes per second that got a response.
pub(crate) const HANDSHAKES: &str = "handshakes_per_second";
/// Initiations that got none in time.
pub(crate) const HANDSHAKES_LOST: &str = "handshakes_lost";
/// Cookie replies.
pub(crate) const COOKIES: &str = "cookie_replies";
/// Processor time of the gateway's daemon per handshake, in microseconds.
pub(crate) const DAEMON_US_PER_HANDSHAKE: &str = "daemon_us_per_handshake";
/// Greatest resident memory of both daemons together since they were started, in bytes.
pub(crate) const PEAK_MEMORY: &str = "peak_memory_bytes";
/// Processor seconds of both daemons.
pub(crate) const CPU_DAEMONS: &str = "cpu_daemons_seconds";
/// Processor seconds of kernel threads.
pub(crate) const CPU_KERNEL_THREADS: &str = "cpu_kernel_threads_seconds";
/// Processor seconds of the whole machine.
pub(crate) const CPU_MACHINE: &str = "cpu_machine_seconds";
/// Processor seconds of processes that are not part of the benchmark.
pub(crate) const CPU_FOREIGN: &str = "cpu_foreign_seconds";
/// Processor seconds that the hypervisor gave to others.
pub(crate) const CPU_STOLEN: &str = "cpu_stolen_seconds";
/// Seconds that the measurement took.
pub(crate) const SECONDS: &str = "seconds";
/// Load average of one minute at its end.
pub(crate) const LOAD: &str = "load_average";

/// A count as a figure.
#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
pub(crate) const fn count(count: u64) -> f64 {
    count as f64
}

/// A part of a whole; 0 of nothing.
pub(crate) fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        return 0.0;
    }
    count(part) / count(whole)
}

/// The value that `percent` of the values do not exceed; 50 is the median. `None` of nothing.
pub(crate) fn quantile(values: &[f64], percent: usize) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let index = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(index).copied()
}

/// The middle value, or the mean of the two in the middle. `None` of nothing.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = *sorted.get(sorted.len() / 2)?;
    let lower = *sorted.get(sorted.len().checked_sub(1)? / 2)?;
    Some(f64::midpoint(lower, upper))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_of_an_even_number_is_the_mean_of_the_middle() {
        assert_eq!(median(&[3.0, 1.0]), Some(2.0));
        assert_eq!(median(&[3.0, 9.0, 1.0]), Some(3.0));
        assert_eq!(median(&[]), None);
    }

    #[test]
    fn quantile_is_one_of_the_values() {
        let hundred: Vec<f64> = (1..=100_u8).map(f64::from).collect();
        assert_eq!(quantile(&hundred, 50), Some(50.0));
        assert_eq!(quantile(&hundred, 99), Some(99.0));
        assert_eq!(quantile(&[7.0], 99), Some(7.0));
    }
}
