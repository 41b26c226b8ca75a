//! How the admin API reaches the one who applies.
use std::path::PathBuf;
use std::time::{Duration, Instant};

use shared::api::apply::Apply;
use tokio::sync::{mpsc, oneshot};

use crate::error::Failure;

/// Requests that wait; each is a matter of milliseconds, and few send any.
const QUEUE: usize = 16;

/// The API's end.
#[derive(Debug, Clone)]
pub struct Desk(mpsc::Sender<Request>);

/// The other end.
pub type Requests = mpsc::Receiver<Request>;

/// What is asked, and where the answer goes.
#[derive(Debug)]
pub struct Request {
    /// What.
    pub ask: Ask,
    /// Who, for the log.
    pub by: String,
    /// Where to.
    pub answer: oneshot::Sender<Result<Apply, Refusal>>,
}

/// What is asked.
#[derive(Debug)]
pub enum Ask {
    /// Take the configuration file on trial.
    Apply {
        /// The file, if one is named.
        file: Option<PathBuf>,
        /// For how long.
        within: Duration,
    },
    /// What became of the latest one.
    Show,
    /// Keep it.
    Confirm {
        /// Which.
        id: String,
        /// When the connection was opened that this came by.
        opened: Instant,
    },
    /// Go back at once.
    RollBack {
        /// Which.
        id: String,
    },
}

/// Why it was not done.
#[derive(Debug)]
pub enum Refusal {
    /// Nothing was applied since the start.
    Nothing,
    /// There is no such apply.
    Unknown,
    /// Another one is on trial.
    Pending(String),
    /// It is not on trial any more.
    Over(Box<Apply>),
    /// The connection is older than the configuration on trial, and so proves nothing.
    OldConnection,
    /// The daemon runs with another file.
    OtherFile(PathBuf),
    /// It failed; what ran before runs.
    Failed(Failure),
}

/// Both ends.
pub fn desk() -> (Desk, Requests) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    (Desk(sender), receiver)
}

impl Desk {
    /// Ask, and wait for the answer.
    ///
    /// # Errors
    /// As [`Refusal`] says.
    pub async fn ask(&self, ask: Ask, by: String) -> Result<Apply, Refusal> {
        let gone = || Refusal::Failed(Failure::Other("the daemon ends".to_owned()));
        let (answer, answered) = oneshot::channel();
        let request = Request { ask, by, answer };
        self.0.send(request).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }
}
