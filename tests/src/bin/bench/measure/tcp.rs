//! Throughput of TCP, by iperf3. The congestion control is named: the machine's default would be one more difference
//! between machines.
use anyhow::{Context as _, Result, anyhow};
use serde_json::Value;
use tests::world::addresses::{IPERF_PORT, VPS};

use crate::case::Streams;
use crate::figure;
use crate::meter::Meter;
use crate::options::Pace;
use crate::record::Sample;
use crate::site::Site;

pub(super) fn measure(site: &Site, streams: Streams, pace: Pace) -> Result<Sample> {
    let direction: &[&str] = match streams {
        Streams::One => &[],
        Streams::Four => &["-P", "4"],
        Streams::Reverse => &["-R"],
        Streams::Both => &["--bidir"],
    };
    let meter = Meter::start()?;
    let result = iperf(site, pace.seconds, direction)?;
    let usage = meter.stop(&site.sessions())?;

    let mut sample = Sample::default();
    let (mut bytes, mut rate) = received(&result, "sum_received")?;
    if streams == Streams::Both {
        let (back_bytes, back) = received(&result, "sum_received_bidir_reverse")?;
        sample.note(figure::FORWARD, rate);
        sample.note(figure::BACKWARD, back);
        bytes += back_bytes;
        rate += back;
    }
    sample.note(figure::THROUGHPUT, rate);
    let retransmits = result.pointer("/end/sum_sent/retransmits");
    if let Some(retransmits) = retransmits.and_then(Value::as_f64) {
        sample.note(figure::RETRANSMITS, retransmits);
    }
    usage.note_with_bytes(&mut sample, bytes);
    Ok(sample)
}

/// One run of iperf3 from the client to the gateway's public address; what it printed.
pub(super) fn iperf(site: &Site, seconds: u32, arguments: &[&str]) -> Result<Value> {
    let (to, port, seconds) = (VPS.to_string(), IPERF_PORT.to_string(), seconds.to_string());
    let mut command = vec!["iperf3", "-J", "-c", &to, "-p", &port];
    command.extend(["-C", "cubic", "-t", &seconds, "--connect-timeout", "3000"]);
    command.extend(arguments);
    let output = site.client.output(&command)?;
    let result: Value = serde_json::from_slice(&output.stdout).context("iperf3 printed no JSON")?;
    match result.get("error").and_then(Value::as_str) {
        Some(error) => Err(anyhow!("iperf3: {error}")),
        None => Ok(result),
    }
}

/// Bytes of payload that arrived, and Gbit/s.
pub(super) fn received(result: &Value, direction: &str) -> Result<(u64, f64)> {
    let field = |name| {
        result
            .pointer(&format!("/end/{direction}/{name}"))
            .with_context(|| format!("iperf3 tells no {name} of {direction}"))
    };
    let bytes = field("bytes")?.as_u64().context("bytes are no number")?;
    let seconds = field("seconds")?
        .as_f64()
        .context("seconds are no number")?;
    Ok((bytes, figure::count(bytes) * 8e-9 / seconds))
}
