//! Which figures of a test are shown, and how.
use crate::case::{Case, Streams, Work};
use crate::figure;

/// A figure in the table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    /// What it is, behind the name of the test.
    pub(crate) title: &'static str,
    /// Its unit as shown.
    pub(crate) unit: &'static str,
    /// Its name in the results.
    pub(crate) figure: &'static str,
    /// What is shown is the figure divided by this.
    divisor: f64,
    digits: usize,
    pub(crate) better: Better,
    /// Whether it is compared with a baseline: one figure tells whether a test went better or worse, or two.
    pub(crate) compared: bool,
}

/// What an improvement is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Better {
    Higher,
    Lower,
}

impl Row {
    const fn higher(title: &'static str, unit: &'static str, figure: &'static str) -> Self {
        Self {
            title,
            unit,
            figure,
            divisor: 1.0,
            digits: 2,
            better: Better::Higher,
            compared: false,
        }
    }

    const fn lower(title: &'static str, unit: &'static str, figure: &'static str) -> Self {
        Self {
            better: Better::Lower,
            ..Self::higher(title, unit, figure)
        }
    }

    const fn in_units_of(mut self, divisor: f64, digits: usize) -> Self {
        self.divisor = divisor;
        self.digits = digits;
        self
    }

    const fn compared(mut self) -> Self {
        self.compared = true;
        self
    }

    /// The value as shown.
    pub(crate) fn cell(&self, value: f64, with_unit: bool) -> String {
        let shown = value / self.divisor;
        let digits = self.digits;
        if with_unit {
            format!("{shown:.digits$} {}", self.unit)
        } else {
            format!("{shown:.digits$}")
        }
    }
}

/// The greatest memory, of which there is one for all tests of a world.
pub(crate) const MEMORY: Row =
    Row::lower("peak memory, both ends", "MB", figure::PEAK_MEMORY).in_units_of(1e6, 1);

/// The rows of a test.
pub(crate) fn of(case: Case) -> Vec<Row> {
    let throughput = Row::higher("", "Gbit/s", figure::THROUGHPUT).compared();
    let ping = |unit, divisor, digits| {
        vec![
            Row::lower("p50", unit, figure::PING_P50)
                .in_units_of(divisor, digits)
                .compared(),
            Row::lower("p99", unit, figure::PING_P99).in_units_of(divisor, digits),
        ]
    };
    match case.work {
        Work::Tcp(streams) => {
            let mut rows = vec![throughput];
            if streams == Streams::Both {
                rows.push(Row::higher("to the server", "Gbit/s", figure::FORWARD));
                rows.push(Row::higher("to the client", "Gbit/s", figure::BACKWARD));
            }
            rows.push(Row::lower("daemons", "CPU s/GB", figure::DAEMON_SECONDS_PER_GB).compared());
            rows.push(Row::lower(
                "machine",
                "CPU s/GB",
                figure::MACHINE_SECONDS_PER_GB,
            ));
            rows
        }
        Work::Udp { .. } => vec![
            Row::higher("loss < 1 %", "1000/s", figure::DATAGRAMS)
                .in_units_of(1e3, 1)
                .compared(),
            Row::higher("flooded", "1000/s", figure::FLOOD_DELIVERED).in_units_of(1e3, 1),
            Row::lower("daemons", "CPU µs/datagram", figure::DAEMON_US_PER_DATAGRAM)
                .in_units_of(1.0, 1),
        ],
        Work::Ping { loaded: false } => ping("µs", 1.0, 0),
        Work::Ping { loaded: true } => {
            let mut rows = ping("ms", 1e3, 2);
            rows.push(Row::higher("the stream", "Gbit/s", figure::THROUGHPUT));
            rows
        }
        Work::Connects => vec![
            Row::higher("", "1/s", figure::CONNECTIONS)
                .in_units_of(1.0, 0)
                .compared(),
            Row::lower("failed", "", figure::CONNECTIONS_FAILED).in_units_of(1.0, 0),
            Row::lower("daemons", "CPU µs each", figure::DAEMON_US_PER_CONNECTION)
                .in_units_of(1.0, 0),
        ],
        Work::Handshakes => vec![
            Row::higher("", "1/s", figure::HANDSHAKES)
                .in_units_of(1.0, 0)
                .compared(),
            Row::lower("lost", "", figure::HANDSHAKES_LOST).in_units_of(1.0, 0),
            Row::lower("gateway", "CPU µs each", figure::DAEMON_US_PER_HANDSHAKE)
                .in_units_of(1.0, 0),
        ],
    }
}
