//! Bytes of a connection → requests, however the bytes are cut.
use std::mem;

use zeroize::Zeroizing;

use super::set::SetParser;
use super::{MAX_LINE_BYTES, MAX_REQUEST_BYTES, RequestError};
use crate::wg::DeviceChange;

/// Looks up the index of a link by its name, for the zone of an endpoint.
pub type ZoneIndex = fn(&str) -> Option<u32>;

/// One request of a client.
#[derive(Debug, Clone)]
pub enum Request {
    /// `get=1`: wants the status.
    Get,
    /// `set=1`: wants this change.
    Set(DeviceChange),
}

/// Where in a request we are.
#[derive(Debug)]
enum State {
    /// Before the first line.
    Operation,
    /// After `get=1`.
    Get,
    /// After `set=1`.
    Set(SetParser),
    /// After a bad line of a `set`. The rest is read and ignored, so that the client finds its answer and the next
    /// request its beginning.
    Skip(RequestError),
    /// After a fatal error.
    Ended,
}

/// The reading half of a connection. Text that may hold keys is erased.
#[derive(Debug)]
pub struct Decoder {
    zone_index: ZoneIndex,
    state: State,
    /// The line that waits for its end. Its memory never moves, so no copy of a key is left behind, and is erased at the
    /// end of the connection: erasing all of it for each line would cost more than everything else here.
    line: Zeroizing<Vec<u8>>,
    /// Lines of this request so far.
    lines: usize,
    /// Bytes of this request so far.
    bytes: usize,
}

impl Decoder {
    /// At the beginning of a connection.
    pub fn new(zone_index: ZoneIndex) -> Self {
        Self {
            zone_index,
            state: State::Operation,
            line: Zeroizing::new(Vec::with_capacity(MAX_LINE_BYTES)),
            lines: 0,
            bytes: 0,
        }
    }

    /// Take bytes from the front of `input` until a request is complete, which is returned, or `input` is empty.
    ///
    /// After an error that [is fatal](RequestError::is_fatal) all input is ignored; after any other the next request is
    /// looked for.
    pub fn handle_input(&mut self, input: &mut &[u8]) -> Option<Result<Request, RequestError>> {
        while !input.is_empty() {
            if let Some(outcome) = self.take_line(input).transpose() {
                let outcome = outcome.and_then(|()| self.handle_line());
                self.line.clear();
                if let Some(outcome) = outcome.transpose() {
                    self.end_request(&outcome);
                    return Some(outcome);
                }
            }
        }
        None
    }

    /// The client sends no more: an error if that is in the middle of a request.
    pub fn handle_end(&self) -> Result<(), RequestError> {
        match self.state {
            State::Operation if self.bytes == 0 => Ok(()),
            State::Ended => Ok(()),
            State::Operation | State::Get | State::Set(_) | State::Skip(_) => {
                Err(RequestError::Truncated)
            }
        }
    }

    /// Move bytes into `line` up to its line feed; `Some` when that was found.
    fn take_line(&mut self, input: &mut &[u8]) -> Result<Option<()>, RequestError> {
        if let State::Ended = self.state {
            *input = &[];
            return Ok(None);
        }
        let end = input.iter().position(|&byte| byte == b'\n');
        let (part, rest) = input.split_at(end.unwrap_or(input.len()));
        *input = rest.get(1..).unwrap_or_default();
        self.bytes += part.len() + usize::from(end.is_some());
        if self.bytes > MAX_REQUEST_BYTES {
            return Err(RequestError::TooLarge);
        }
        if self.line.len() + part.len() > MAX_LINE_BYTES {
            let line = self.lines + 1;
            return Err(RequestError::LineTooLong { line });
        }
        self.line.extend_from_slice(part);
        self.lines += usize::from(end.is_some());
        Ok(end.map(|_| ()))
    }

    /// Understand the whole line in `line`; `Some` when it completes a request.
    fn handle_line(&mut self) -> Result<Option<Request>, RequestError> {
        let line = self.line.as_slice();
        match &mut self.state {
            State::Operation => {
                self.state = match line {
                    b"get=1" => State::Get,
                    b"set=1" => State::Set(SetParser::default()),
                    _ => return Err(RequestError::UnknownOperation),
                };
            }
            State::Get if line.is_empty() => return Ok(Some(Request::Get)),
            State::Get => return Err(RequestError::TrailingAfterGet),
            State::Set(parser) if line.is_empty() => {
                let change = mem::take(parser).finish();
                return Ok(Some(Request::Set(change)));
            }
            State::Set(parser) => {
                if let Err(error) = parser.handle_line(line, self.lines, self.zone_index) {
                    self.state = State::Skip(error);
                }
            }
            State::Skip(error) if line.is_empty() => return Err(error.clone()),
            State::Skip(_) | State::Ended => {}
        }
        Ok(None)
    }

    fn end_request(&mut self, outcome: &Result<Request, RequestError>) {
        self.state = match outcome {
            Err(error) if error.is_fatal() => State::Ended,
            Ok(_) | Err(_) => State::Operation,
        };
        self.lines = 0;
        self.bytes = 0;
    }
}

/// Body of a fuzz target: whatever the bytes are, nothing panics, and how they are cut makes no difference.
pub fn check_any_bytes(bytes: &[u8]) {
    let no_zones: ZoneIndex = |_| None;
    let decode = |chunk: usize| {
        let mut decoder = Decoder::new(no_zones);
        let mut outcomes = Vec::new();
        for mut input in bytes.chunks(chunk) {
            while let Some(outcome) = decoder.handle_input(&mut input) {
                outcomes.push(format!("{outcome:?}"));
            }
        }
        (outcomes, decoder.handle_end())
    };
    let whole = decode(bytes.len().max(1));
    for chunk in [1, 7] {
        assert!(decode(chunk) == whole, "chunks of {chunk} differ");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::uapi::Errno;

    fn decode(text: impl AsRef<[u8]>) -> Vec<Result<Request, RequestError>> {
        let mut input = text.as_ref();
        let mut decoder = Decoder::new(|_| None);
        let mut outcomes = Vec::new();
        while let Some(outcome) = decoder.handle_input(&mut input) {
            outcomes.push(outcome);
        }
        outcomes.extend(decoder.handle_end().map_err(Err).err());
        outcomes
    }

    #[test]
    fn several_requests_follow_each_other() {
        let outcomes = decode("get=1\n\nset=1\nlisten_port=7\n\nget=1\n\n");
        let [Ok(Request::Get), Ok(Request::Set(change)), Ok(Request::Get)] = &outcomes[..] else {
            panic!("{outcomes:?}")
        };
        assert_eq!(change.listen_port, Some(7));
    }

    #[test]
    fn a_bad_line_spoils_its_request_and_not_the_next() {
        let outcomes = decode("set=1\nfwmark=x\nlisten_port=1\nrubbish\n\nget=1\n\n");
        let [
            Err(RequestError::Value {
                line: 2,
                key: "fwmark",
                ..
            }),
            Ok(Request::Get),
        ] = &outcomes[..]
        else {
            panic!("{outcomes:?}")
        };
    }

    #[test]
    fn what_is_no_request_ends_the_connection() {
        let fatal = |text: &str| match &decode(text)[..] {
            [Err(error)] => error.clone(),
            other => panic!("{other:?}"),
        };
        for text in ["set=2\n\n", "\n", "get=1 \n\n", "GET / HTTP/1.1\r\n\r\n"] {
            assert_eq!(fatal(text), RequestError::UnknownOperation, "{text:?}");
        }
        assert_eq!(fatal("get=1\nx\n\n"), RequestError::TrailingAfterGet);
        assert_eq!(fatal("get=2\n\nget=1\n\n"), RequestError::UnknownOperation);
    }

    #[test]
    fn an_end_before_the_empty_line_is_truncation() {
        for text in ["g", "get=1", "get=1\n", "set=1\n", "set=1\nlisten_port=1\n"] {
            let outcomes = decode(text);
            assert!(
                matches!(outcomes[..], [Err(RequestError::Truncated)]),
                "{text:?}: {outcomes:?}"
            );
        }
        assert!(decode("").is_empty());
    }

    #[test]
    fn lines_and_requests_are_bounded() {
        let long = "a".repeat(MAX_LINE_BYTES);
        let outcomes = decode(format!("set=1\n{long}\n\n"));
        assert!(matches!(
            outcomes[..],
            [Err(RequestError::NotKeyValue { line: 2 })]
        ));
        let outcomes = decode(format!("set=1\na{long}\n\n"));
        assert!(matches!(
            outcomes[..],
            [Err(RequestError::LineTooLong { line: 2 })]
        ));

        let line = "listen_port=1\n";
        let text = format!("set=1\n{}\n", line.repeat(MAX_REQUEST_BYTES / line.len()));
        let outcomes = decode(text);
        assert!(matches!(outcomes[..], [Err(RequestError::TooLarge)]));
        assert_eq!(RequestError::TooLarge.errno(), Errno::TooBig);
    }

    #[test]
    fn sixty_five_thousand_allowed_ips_fit() {
        use std::fmt::Write as _;
        let mut text = format!("set=1\npublic_key={}\n", "ab".repeat(32));
        for n in 0..=u16::MAX {
            writeln!(
                text,
                "allowed_ip=ffff:ffff:ffff:ffff:ffff:ffff:ffff:{n:04x}/128"
            )
            .unwrap();
        }
        text.push('\n');
        let outcomes = decode(text);
        let [Ok(Request::Set(change))] = &outcomes[..] else {
            panic!("refused")
        };
        assert_eq!(change.peers[0].allowed_ips.len(), 65_536);
    }

    #[test]
    fn the_memory_of_a_line_never_moves() {
        let mut decoder = Decoder::new(|_| None);
        let before = decoder.line.as_ptr();
        for _ in 0..3 {
            let text = format!("set=1\n{}\n\n", "a".repeat(MAX_LINE_BYTES));
            decoder.handle_input(&mut text.as_bytes());
        }
        assert_eq!(decoder.line.as_ptr(), before);
    }

    /// Lines that are nearly right reach deeper than arbitrary bytes.
    fn nearly_a_request() -> impl Strategy<Value = Vec<u8>> {
        let key = prop::sample::select(vec![
            "get=1",
            "set=1",
            "",
            "private_key=",
            "listen_port=",
            "fwmark=",
            "replace_peers=true",
            "public_key=",
            "preshared_key=",
            "endpoint=",
            "allowed_ip=",
            "allowed_ip=-",
            "persistent_keepalive_interval=",
            "remove=true",
            "protocol_version=1",
        ]);
        let value = prop_oneof![
            "[0-9]{0,12}",
            "[0-9a-fA-F]{64}",
            "[0-9.:/%\\[\\]a-f]{0,30}",
            Just(String::new()),
            ".{0,8}",
        ];
        let line = (key, value, prop::sample::select(vec!["\n", "\n\n", ""]));
        prop::collection::vec(line, 0..20).prop_map(|lines| {
            lines
                .into_iter()
                .flat_map(|(key, value, end)| [key.to_owned(), value, end.to_owned()])
                .collect::<String>()
                .into_bytes()
        })
    }

    proptest! {
        #[test]
        fn any_bytes_however_cut_never_panic(bytes: Vec<u8>) {
            check_any_bytes(&bytes);
        }

        #[test]
        fn nearly_right_requests_however_cut_never_panic(bytes in nearly_a_request()) {
            check_any_bytes(&bytes);
        }
    }
}
