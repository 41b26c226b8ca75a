//! Hosts of the internet: some with open connections, and one that asks all the time.
use std::io::ErrorKind;
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tests::expect::eventually;
use tests::servers::Conversation;
use tests::world::World;
use tests::world::addresses::{UDP_PORT, public};

/// How often it is asked, and so how exact a time is.
const INTERVAL: Duration = Duration::from_millis(5);
/// Nobody waits longer.
const PATIENCE: Duration = Duration::from_secs(20);

/// All of them.
pub(crate) struct Visitors {
    connections: Vec<Conversation>,
    asker: Asker,
}

impl Visitors {
    /// Open so many connections through the published path, and begin to ask.
    pub(crate) fn come(world: &World, number: usize) -> Result<Self> {
        let connections = (0..number).map(|_| {
            let mut connection = Conversation::open(&world.client, public(80))?;
            connection.set_patience(PATIENCE)?;
            connection.echo("before")?;
            Ok(connection)
        });
        let connections = connections.collect::<Result<_>>()?;
        let asker = Asker::begin(world)?;
        eventually(PATIENCE, "an answer before anything happens", || {
            asker.answers().pop().context("there is none")
        })?;
        Ok(Self { connections, asker })
    }

    /// The longest time without an answer, from just before `since` until now, when somebody is served again.
    pub(crate) fn longest_silence(&self, since: Instant) -> Result<Duration> {
        let now = Instant::now();
        let answers = eventually(PATIENCE, "an answer", || {
            let answers = self.asker.answers();
            let is_served = answers.last().is_some_and(|last| *last > now);
            is_served.then_some(answers).context("nobody is served")
        })?;
        let first = answers.partition_point(|answer| *answer < since);
        let from = first.saturating_sub(1);
        let answers = answers.get(from..).unwrap_or_default();
        let pairs = answers.iter().zip(answers.iter().skip(1));
        let silences = pairs.map(|(before, after)| *after - *before);
        silences.max().context("there were no two answers")
    }

    /// How many of the connections do not go on. They are not counted again.
    pub(crate) fn lost(&mut self) -> usize {
        let before = self.connections.len();
        self.connections
            .retain_mut(|connection| connection.echo("after").is_ok());
        before - self.connections.len()
    }
}

/// Asks the published UDP service every [`INTERVAL`]; no question is repeated.
struct Asker {
    answers: Arc<Mutex<Vec<Instant>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Asker {
    fn begin(world: &World) -> Result<Self> {
        // The set `office` may call it: Cloudflare passes no UDP on.
        let socket = world.road_warrior.enter(|| {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
            socket.connect(public(UDP_PORT))?;
            socket.set_read_timeout(Some(INTERVAL))?;
            Ok(socket)
        })?;
        let answers = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let (heard, stopped) = (Arc::clone(&answers), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            let mut answer = [0; 128];
            while !stopped.load(Ordering::Relaxed) {
                // What can't be sent or is refused is not answered.
                let _unanswered = socket.send(b"who am I");
                match socket.recv(&mut answer) {
                    Ok(_) => heard
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push(Instant::now()),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                    Err(_) => {}
                }
                thread::sleep(INTERVAL);
            }
        });
        Ok(Self {
            answers,
            stop,
            thread: Some(thread),
        })
    }

    /// When there was one.
    fn answers(&self) -> Vec<Instant> {
        let answers = self.answers.lock();
        answers.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Asker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}
