//! The least HTTP/1.1 that there is: the caller must not be what is measured.
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection to a gateway's admin socket, used again and again.
pub(crate) struct Client {
    stream: BufReader<UnixStream>,
    request: Vec<u8>,
    answer: Vec<u8>,
}

impl Client {
    pub(crate) fn connect(socket: &Path) -> Result<Self> {
        let stream = UnixStream::connect(socket)
            .with_context(|| format!("can't connect to {}", socket.display()))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self {
            stream: BufReader::with_capacity(64 << 10, stream),
            request: Vec::new(),
            answer: Vec::new(),
        })
    }

    /// One request; the body of its answer, which has to have this status.
    pub(crate) fn call(
        &mut self,
        method: &str,
        path: &str,
        body: &str,
        status: u16,
    ) -> Result<&[u8]> {
        self.request.clear();
        write!(
            self.request,
            "{method} {path} HTTP/1.1\r\nhost: gateway\r\nif-match: *\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        )?;
        self.stream.get_mut().write_all(&self.request)?;
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        let is: u16 = line
            .get(9..12)
            .and_then(|code| code.parse().ok())
            .with_context(|| format!("not a status line: {line:?}"))?;
        let mut length = 0;
        loop {
            line.clear();
            self.stream.read_line(&mut line)?;
            let header = line.trim_end();
            if header.is_empty() {
                break;
            }
            if let Some((name, value)) = header.split_once(':') {
                if name.eq_ignore_ascii_case("content-length") {
                    length = value.trim().parse()?;
                }
            }
        }
        self.answer.resize(length, 0);
        self.stream.read_exact(&mut self.answer)?;
        let text = String::from_utf8_lossy(&self.answer);
        ensure!(is == status, "{method} {path}: {is} {text}");
        Ok(&self.answer)
    }

    /// Make a peer; its identifier.
    pub(crate) fn add(&mut self, name: &str, public_key: &str, more: &str) -> Result<String> {
        let body = format!(
            r#"{{"name":"{name}","public_key":"{public_key}","preshared_key":"none"{more}}}"#
        );
        let answer = self.call("POST", "/v1/peers", &body, 201)?;
        let answer: Value = serde_json::from_slice(answer)?;
        let id = answer.pointer("/peer/id").and_then(Value::as_str);
        Ok(id.context("an answer without an identifier")?.to_owned())
    }
}
