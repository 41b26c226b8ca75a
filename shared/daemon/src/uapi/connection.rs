//! One client: requests in, answers out, one after the other.
use std::io;
use std::ops::Range;
use std::os::unix::net::UnixDatagram;
use std::time::SystemTime;

use shared::uapi::{Decoder, Errno, Request, RequestError, format_status};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::{ControlError, DeviceControl, REQUEST_TIMEOUT};

/// Bytes read at a time.
const READ_BYTES: usize = 16 << 10;

/// Serve a client until it ends the connection, makes it useless or lets it time out.
pub(super) async fn serve(stream: UnixStream, device: impl DeviceControl) {
    let mut connection = Connection::new(stream);
    match connection.serve(&device).await {
        Ok(()) => {}
        Err(error) => tracing::debug!(%error, "a client of the UAPI socket is gone"),
    }
}

#[derive(Debug)]
struct Connection {
    stream: UnixStream,
    decoder: Decoder,
    /// What was read; holds keys.
    buffer: Zeroizing<Vec<u8>>,
    /// What of it the decoder has not seen.
    unread: Range<usize>,
}

impl Connection {
    fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            decoder: Decoder::new(zone_index),
            buffer: Zeroizing::new(vec![0; READ_BYTES]),
            unread: 0..0,
        }
    }

    async fn serve(&mut self, device: &impl DeviceControl) -> io::Result<()> {
        while let Some(request) = timeout(REQUEST_TIMEOUT, self.read_request()).await?? {
            let fatal = request.as_ref().is_err_and(RequestError::is_fatal);
            let answer = answer(request, device).await;
            timeout(REQUEST_TIMEOUT, self.stream.write_all(answer.as_bytes())).await??;
            if fatal {
                // The client may still be writing, and reads our answer after that only: go on reading.
                self.stream.shutdown().await?;
            }
        }
        Ok(())
    }

    /// The next request, or `None` when the client has ended the connection.
    async fn read_request(&mut self) -> io::Result<Option<Result<Request, RequestError>>> {
        loop {
            let mut input = self.buffer.get(self.unread.clone()).unwrap_or_default();
            let request = self.decoder.handle_input(&mut input);
            self.unread.start = self.unread.end - input.len();
            if request.is_some() {
                return Ok(request);
            }
            let length = self.stream.read(&mut self.buffer).await?;
            if length == 0 {
                return Ok(self.decoder.handle_end().err().map(Err));
            }
            self.unread = 0..length;
        }
    }
}

/// Do what is asked; the answer may hold keys.
async fn answer(
    request: Result<Request, RequestError>,
    device: &impl DeviceControl,
) -> Zeroizing<String> {
    let errno = match request {
        Ok(Request::Get) => match device.status().await {
            Ok(status) => return format_status(&status, SystemTime::now()),
            Err(error) => refused(&error),
        },
        Ok(Request::Set(change)) => match device.apply(change).await {
            Ok(()) => Errno::Success,
            Err(error) => refused(&error),
        },
        Err(error) => {
            tracing::warn!(%error, "a request over the UAPI socket is not understood");
            error.errno()
        }
    };
    Zeroizing::new(errno.answer())
}

fn refused(error: &ControlError) -> Errno {
    let cause = &error.source;
    tracing::warn!(%cause, "a request over the UAPI socket can't be carried out");
    error.errno
}

/// The index of a link by its name. Any socket can be asked (`netdevice(7)`).
fn zone_index(name: &str) -> Option<u32> {
    let socket = UnixDatagram::unbound().ok()?;
    rustix::net::netdevice::name_to_index(&socket, name).ok()
}
