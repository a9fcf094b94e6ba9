//! A store in trouble: an HTTP proxy between workers and an S3 server, whose faults the test chooses.
//!
//! Faults are seeded: see [`Rule`]. Everything that happened is counted, so that a test can say that its faults really happened.

mod operation;
mod rule;
mod serve;
mod sign;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::watch;

use crate::ports::Port;

pub use operation::Operation;
pub use rule::{Fault, Rule};

/// What connections share.
#[derive(Debug)]
struct State {
    upstream: SocketAddr,
    seed: u64,
    rules: Mutex<Rules>,
    /// How often something happened to an operation, and how often nothing.
    counts: Mutex<BTreeMap<(Operation, Option<Fault>), u64>>,
    /// Tells those who are kept waiting that the faults are over.
    cleared: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct Rules {
    live: Vec<rule::Live>,
    /// How many there have been.
    made: u64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl State {
    /// What happens to a request: what the first rule says that says something.
    fn judge(&self, operation: Operation, path: &str, token: Option<&str>) -> Option<Fault> {
        let fault = lock(&self.rules).live.iter_mut().find_map(|rule| rule.judge(operation, path, token));
        *lock(&self.counts).entry((operation, fault)).or_default() += 1;
        fault
    }
}

/// The proxy. Dropping it ends it; if the test fails, it says what it did.
#[derive(Debug)]
pub struct Proxy {
    state: Arc<State>,
    port: Port,
    runtime: Option<Runtime>,
}

impl Proxy {
    /// Starts one in front of `endpoint` (`http://HOST:PORT`), without faults. Prints the seed.
    #[track_caller]
    pub fn start(endpoint: &str, seed: u64) -> Proxy {
        let upstream = endpoint.trim_start_matches("http://").parse().expect("an endpoint is an address");
        let state = Arc::new(State {
            upstream,
            seed,
            rules: Mutex::default(),
            counts: Mutex::default(),
            cleared: watch::Sender::new(()),
        });
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime can be built");
        let port = Port::free();
        let listener = runtime.block_on(TcpListener::bind(port.address())).expect("the port is ours");
        runtime.spawn(serve::run(listener, Arc::clone(&state)));
        Proxy { state, port, runtime: Some(runtime) }
    }

    /// Where it answers.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.port.address())
    }

    /// From now on this happens as well. Rules that were made before come first.
    pub fn rule(&self, rule: Rule) {
        let mut rules = lock(&self.state.rules);
        rules.made += 1;
        let seed = self.state.seed.wrapping_add(rules.made.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        rules.live.push(rule::Live::new(rule, seed));
    }

    /// The faults are over; who is kept waiting gets an end of the connection.
    pub fn clear(&self) {
        lock(&self.state.rules).live.clear();
        self.state.cleared.send_replace(());
    }

    /// How often a fault has happened.
    pub fn happened(&self, fault: Fault) -> u64 {
        self.sum(|_, what| what == Some(fault))
    }

    /// How often a fault has happened to an operation.
    pub fn happened_to(&self, fault: Fault, operation: Operation) -> u64 {
        self.sum(|op, what| op == operation && what == Some(fault))
    }

    /// How many requests for an operation came.
    pub fn asked(&self, operation: Operation) -> u64 {
        self.sum(|op, _| op == operation)
    }

    /// How many requests something happened to.
    pub fn faults(&self) -> u64 {
        self.sum(|_, what| what.is_some())
    }

    fn sum(&self, which: impl Fn(Operation, Option<Fault>) -> bool) -> u64 {
        lock(&self.state.counts).iter().filter(|((op, what), _)| which(*op, *what)).map(|(_, count)| count).sum()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("S3 proxy, seed {}: {:#?}", self.state.seed, lock(&self.state.counts));
        }
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
