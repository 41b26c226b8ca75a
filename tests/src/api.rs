//! A caller of the admin API, written without any of the product's own code.
use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::edge::Instance;
use crate::node::Node;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(15);

trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

/// A connection, used for one request after the other.
pub struct Api {
    stream: BufReader<Box<dyn Stream>>,
    headers: Vec<String>,
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Api").finish_non_exhaustive()
    }
}

/// What came back.
#[derive(Debug)]
pub struct Reply {
    /// Status code.
    pub status: u16,
    /// Header lines, names in lower case.
    pub headers: Vec<(String, String)>,
    /// JSON, or what else as text; `null` without a body.
    pub body: Value,
}

impl Reply {
    /// Fails, with the answer, unless it has this status.
    pub fn expect(self, status: u16) -> Result<Value> {
        if self.status == status {
            return Ok(self.body);
        }
        bail!("{status} was expected, not {self:?}")
    }

    /// Fails unless it is a problem document with this status and code.
    pub fn expect_problem(&self, status: u16, code: &str) -> Result<()> {
        let is_problem = self.header("content-type") == Some("application/problem+json");
        if (self.status, is_problem) == (status, true)
            && self.body.get("code").is_some_and(|is| is == code)
        {
            return Ok(());
        }
        bail!("the problem {status} {code} was expected, not {self:?}")
    }

    /// A header.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers
            .find(|(n, _)| n == name)
            .map(|(_, value)| value.as_str())
    }
}

impl Api {
    /// Over the unix socket of a daemon.
    pub fn of(instance: &Instance, name: &str) -> Result<Self> {
        let dir = instance.daemon.node().dir();
        Self::unix(&dir.join(format!("run/wg-edge/{name}.sock")))
    }

    /// Over a unix socket.
    pub fn unix(socket: &Path) -> Result<Self> {
        let stream = UnixStream::connect(socket)
            .with_context(|| format!("cannot connect to {}", socket.display()))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self::over(
            Box::new(stream),
            vec!["host: localhost".to_owned()],
        ))
    }

    /// Over TCP from a node, with a token when there is one.
    pub fn tcp(node: &Node, to: SocketAddr, token: Option<&str>) -> Result<Self> {
        let stream = node.enter(|| {
            let stream = TcpStream::connect_timeout(&to, Duration::from_secs(2))?;
            stream.set_read_timeout(Some(PATIENCE))?;
            Ok(stream)
        })?;
        let mut headers = vec![format!("host: {to}")];
        headers.extend(token.map(|token| format!("authorization: Bearer {token}")));
        Ok(Self::over(Box::new(stream), headers))
    }

    fn over(stream: Box<dyn Stream>, headers: Vec<String>) -> Self {
        Self {
            stream: BufReader::new(stream),
            headers,
        }
    }

    /// Send a request; `null` is no body.
    pub fn call(
        &mut self,
        method: &str,
        path: &str,
        headers: &[&str],
        body: &Value,
    ) -> Result<Reply> {
        let text = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let mut request = format!("{method} {path} HTTP/1.1\r\n");
        for header in self
            .headers
            .iter()
            .map(String::as_str)
            .chain(headers.iter().copied())
        {
            request.push_str(header);
            request.push_str("\r\n");
        }
        if !body.is_null() {
            request.push_str("content-type: application/json\r\n");
        }
        let length = text.len().to_string();
        request.extend(["content-length: ", &length, "\r\n\r\n", &text]);
        self.stream.get_mut().write_all(request.as_bytes())?;
        self.reply().with_context(|| format!("{method} {path}"))
    }

    /// `GET`, which must succeed.
    pub fn get(&mut self, path: &str) -> Result<Value> {
        self.call("GET", path, &[], &Value::Null)?.expect(200)
    }

    /// `POST /v1/peers`, which must succeed: the whole answer.
    pub fn create(&mut self, body: &Value) -> Result<Value> {
        self.call("POST", "/v1/peers", &[], body)?.expect(201)
    }

    /// The same: the identifier alone.
    pub fn create_id(&mut self, body: &Value) -> Result<String> {
        id_of(&self.create(body)?)
    }

    /// `PATCH` of a peer, whatever it is now, which must succeed.
    pub fn patch(&mut self, id: &str, body: &Value) -> Result<Value> {
        let path = format!("/v1/peers/{id}");
        self.call("PATCH", &path, &["if-match: *"], body)?
            .expect(200)
    }

    /// `DELETE` of a peer, whatever it is now, which must succeed.
    pub fn delete(&mut self, id: &str) -> Result<()> {
        let path = format!("/v1/peers/{id}");
        self.call("DELETE", &path, &["if-match: *"], &Value::Null)?
            .expect(204)
            .map(drop)
    }

    fn reply(&mut self) -> Result<Reply> {
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        let status = line
            .split(' ')
            .nth(1)
            .with_context(|| format!("no status line: {line:?}"))?;
        let status = status.parse()?;
        let mut headers = Vec::new();
        loop {
            let mut line = String::new();
            self.stream.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(':') else {
                break;
            };
            headers.push((name.to_lowercase(), value.trim().to_owned()));
        }
        let mut reply = Reply {
            status,
            headers,
            body: Value::Null,
        };
        let length = reply.header("content-length").map_or(Ok(0), str::parse)?;
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body)?;
        if length > 0 {
            reply.body = serde_json::from_slice(&body)
                .unwrap_or_else(|_| String::from_utf8_lossy(&body).into_owned().into());
        }
        Ok(reply)
    }
}

/// The identifier of the peer in an answer of `POST /v1/peers`.
pub fn id_of(created: &Value) -> Result<String> {
    let id = created.pointer("/peer/id").and_then(Value::as_str);
    Ok(id
        .with_context(|| format!("no peer in {created}"))?
        .to_owned())
}

/// What is secret of a bearer token, `edge_ID_SECRET`; it may have a `_` of its own.
pub fn secret_of(token: &str) -> Result<&str> {
    token.splitn(3, '_').nth(2).context("no secret part")
}

/// Entries of a page.
pub fn items(page: &Value) -> Result<&Vec<Value>> {
    let items = page.get("items").and_then(Value::as_array);
    items.with_context(|| format!("no items in {page}"))
}

/// Where the next page begins, when there is one.
pub fn next_cursor(page: &Value) -> Option<&str> {
    page.get("next_cursor").and_then(Value::as_str)
}

/// A field that has to be text.
pub fn text<'a>(value: &'a Value, field: &str) -> Result<&'a str> {
    let found = value.get(field).and_then(Value::as_str);
    found.with_context(|| format!("no text {field} in {value}"))
}
