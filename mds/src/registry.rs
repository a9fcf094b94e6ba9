//! OSTs of the cluster: who they are for ever (index by uuid, durable elsewhere) and how they are now. Sans-IO: it is
//! told the time and what OSSs say.
//!
//! ```text
//! (known from disk) DOWN --register--> UP --silence for the timeout--> DOWN
//!                                       \--reports a failed store--> FAILED --register anew--> UP
//! ```
//!
//! If there are writers that an OSS must refuse, its OSTs stay DOWN after they have registered until a heartbeat has
//! confirmed it: an OSS that was serving all along may not have the answer yet, and nobody is to write beside those writers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sateen_types::limits::OST_COUNT_MAX;
use sateen_types::{ClusterId, FsCode, FsError, FsResult, OstIndex, OstUuid, Space};

use crate::placement::Candidate;

/// How an OST is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OstState {
    /// Heard of within the timeout.
    Up,
    /// Not heard of.
    Down,
    /// Its store has failed: reads may work, writes do not.
    Failed,
}

/// What an OSS says about one of its OSTs.
#[derive(Clone, Debug)]
pub struct Report {
    /// Identity of the directory.
    pub uuid: OstUuid,
    /// Index from its superblock; `None` for a new directory.
    pub index: Option<OstIndex>,
    /// Its space.
    pub space: Space,
    /// Its store has failed.
    pub failed: bool,
    /// Changes of writers that it refuses are still being made.
    pub draining: bool,
}

/// One OST as others see it.
#[derive(Clone, Debug)]
pub struct OstInfo {
    /// Which.
    pub index: OstIndex,
    /// Identity of its directory.
    pub uuid: OstUuid,
    /// HOST:PORT of its OSS; empty if it never registered since the server started.
    pub address: String,
    /// How it is.
    pub state: OstState,
    /// Its space as last reported.
    pub space: Space,
    /// Since the last word from it; `None` if there was none.
    pub silent: Option<Duration>,
}

/// What a registration comes to.
#[derive(Clone, Debug)]
pub struct Admission {
    /// Index of each OST, in the order of the reports.
    pub indexes: Vec<OstIndex>,
    /// Those that are new: to be made durable before [`Registry::register`].
    pub new: Vec<(OstIndex, OstUuid)>,
}

#[derive(Debug)]
struct Ost {
    uuid: OstUuid,
    address: String,
    space: Space,
    failed: bool,
    heard: Option<Instant>,
    /// Number of its last registration, and whether it refuses whom it was told to.
    registration: u64,
    confirmed: bool,
    /// State others were told; a change raises the version.
    published: OstState,
}

/// See the module.
#[derive(Debug)]
pub struct Registry {
    cluster: ClusterId,
    timeout: Duration,
    started: Instant,
    osts: BTreeMap<OstIndex, Ost>,
    version: u64,
    /// Number of the last registration of any OSS.
    registration: u64,
    candidates: Arc<Vec<Candidate>>,
}

impl Registry {
    /// `known` from disk. `first_version` must be above any version an earlier life told.
    pub fn new(
        cluster: ClusterId,
        timeout: Duration,
        known: impl IntoIterator<Item = (OstIndex, OstUuid)>,
        first_version: u64,
    ) -> Registry {
        let started = Instant::now();
        let osts = known.into_iter().map(|(index, uuid)| (index, Ost::new(uuid))).collect();
        let mut registry = Registry {
            cluster,
            timeout,
            started,
            osts,
            version: first_version,
            registration: first_version,
            candidates: Arc::default(),
        };
        registry.publish(started);
        registry
    }

    /// OSSs are answered from now on: the time to register begins.
    pub fn begin(&mut self, now: Instant) {
        self.started = now;
    }

    /// Rises when an OST, an address or a state changes.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The cluster.
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// Silence after which an OST is down.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Whether an OSS may join, and with which indexes. Changes nothing.
    ///
    /// `WrongCluster`: the OSS belongs to another cluster. `Busy`: an OST with this uuid is up at another address.
    /// `Invalid`: superblock and registry disagree.
    pub fn plan(
        &self,
        cluster: Option<ClusterId>,
        address: &str,
        reports: &[Report],
        now: Instant,
    ) -> FsResult<Admission> {
        if let Some(theirs) = cluster.filter(|c| *c != self.cluster) {
            return Err(FsError::new(
                FsCode::WrongCluster,
                format!("the OSS at {address} belongs to cluster {theirs}, this is cluster {}", self.cluster),
            )
            .with_hint("point the OSS to its own MDS, or give it new, empty OST directories"));
        }
        let mut indexes = Vec::new();
        let mut new: Vec<(OstIndex, OstUuid)> = Vec::new();
        for report in reports {
            if reports.iter().filter(|r| r.uuid == report.uuid).count() > 1 {
                return Err(FsError::new(FsCode::Invalid, format!("OST {} is reported twice", report.uuid)));
            }
            let index = match self.find(report.uuid) {
                Some((index, ost)) => {
                    self.check_known(index, ost, report, address, now)?;
                    index
                }
                None => {
                    let index = self.new_index(cluster, report, &new)?;
                    new.push((index, report.uuid));
                    index
                }
            };
            indexes.push(index);
        }
        Ok(Admission { indexes, new })
    }

    fn check_known(&self, index: OstIndex, ost: &Ost, report: &Report, address: &str, now: Instant) -> FsResult<()> {
        if report.index.is_some_and(|i| i != index) {
            return Err(FsError::new(
                FsCode::Invalid,
                format!("OST {} is number {index} here, its superblock says {:?}", report.uuid, report.index),
            )
            .with_hint("the directory is a copy of another OST, or its superblock is not its own"));
        }
        if ost.address != address && ost.is_heard(now, self.timeout) {
            return Err(FsError::new(
                FsCode::Busy,
                format!("OST {index} ({}) is up at {}, and {address} claims it too", report.uuid, ost.address),
            )
            .with_hint(
                "one of the two directories is a copy; if the OSS moved, it is let in when the old one has been silent",
            ));
        }
        Ok(())
    }

    fn new_index(
        &self,
        cluster: Option<ClusterId>,
        report: &Report,
        new: &[(OstIndex, OstUuid)],
    ) -> FsResult<OstIndex> {
        let taken = |i: OstIndex| self.osts.contains_key(&i) || new.iter().any(|(n, _)| *n == i);
        if let Some(index) = report.index {
            if cluster.is_none() || taken(index) {
                return Err(FsError::new(
                    FsCode::Invalid,
                    format!("OST {} says it is number {index}, which this cluster did not give it", report.uuid),
                )
                .with_hint("give the OSS a new, empty directory"));
            }
            tracing::warn!(uuid = %report.uuid, %index, "an OST of this cluster was unknown and is taken in again");
            return Ok(index);
        }
        let highest = self.osts.keys().chain(new.iter().map(|(i, _)| i)).max().map_or(0, |i| u32::from(i.0) + 1);
        if highest >= OST_COUNT_MAX {
            return Err(FsError::new(
                FsCode::NoSpace,
                format!("the cluster has {OST_COUNT_MAX} OSTs, the most it takes"),
            ));
        }
        Ok(OstIndex(highest as u16))
    }

    fn find(&self, uuid: OstUuid) -> Option<(OstIndex, &Ost)> {
        self.osts.iter().find(|(_, o)| o.uuid == uuid).map(|(i, o)| (*i, o))
    }

    /// Takes in what [`Registry::plan`] allowed; gives the number of the registration. The OSTs count from now on if they are
    /// `confirmed`, that is if there is nobody whom they must refuse; otherwise when they have said this number.
    pub fn register(
        &mut self,
        address: &str,
        reports: &[Report],
        indexes: &[OstIndex],
        confirmed: bool,
        now: Instant,
    ) -> u64 {
        self.registration += 1;
        for (report, index) in reports.iter().zip(indexes) {
            let ost = self.osts.entry(*index).or_insert_with(|| {
                self.version += 1;
                Ost::new(report.uuid)
            });
            if ost.address != address {
                ost.address = address.to_owned();
                self.version += 1;
            }
            (ost.registration, ost.confirmed) = (self.registration, confirmed);
            ost.hear(report, now);
        }
        self.publish(now);
        self.registration
    }

    /// False if the OSS must register first. `registration`: the last one of which it has the answer.
    pub fn heartbeat(&mut self, address: &str, registration: u64, reports: &[Report], now: Instant) -> bool {
        let known = |r: &Report| {
            self.find(r.uuid).is_some_and(|(_, o)| {
                let told = o.confirmed || o.registration == registration;
                o.address == address && told && o.is_heard(now, self.timeout)
            })
        };
        if !reports.iter().all(known) {
            return false;
        }
        for report in reports {
            if let Some(ost) = self.osts.values_mut().find(|o| o.uuid == report.uuid) {
                ost.confirmed |= !report.draining;
                ost.hear(report, now);
            }
        }
        self.publish(now);
        true
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Instant) {
        self.publish(now);
    }

    fn publish(&mut self, now: Instant) {
        for (index, ost) in &mut self.osts {
            let state = ost.state(now, self.timeout);
            if state != ost.published {
                match state {
                    OstState::Up => tracing::info!(ost = %index, address = ost.address, "OST is up"),
                    OstState::Down if ost.is_heard(now, self.timeout) => {
                        tracing::info!(ost = %index, address = ost.address, "OST is to confirm whom it refuses")
                    }
                    OstState::Down => tracing::warn!(ost = %index, address = ost.address, "OST is down"),
                    OstState::Failed => {
                        tracing::error!(ost = %index, address = ost.address, "OST reports a failed store")
                    }
                }
                ost.published = state;
                self.version += 1;
            }
        }
        let candidate = |(index, ost): (&OstIndex, &Ost)| Candidate {
            index: *index,
            up: ost.published == OstState::Up,
            available: ost.space.available,
        };
        self.candidates = Arc::new(self.osts.iter().map(candidate).collect());
    }

    /// OSTs to place stripes on.
    pub fn candidates(&self) -> Arc<Vec<Candidate>> {
        self.candidates.clone()
    }

    /// Every OST, in the order of indexes.
    pub fn list(&self, now: Instant) -> Vec<OstInfo> {
        let info = |(index, ost): (&OstIndex, &Ost)| OstInfo {
            index: *index,
            uuid: ost.uuid,
            address: ost.address.clone(),
            state: ost.published,
            space: ost.space,
            silent: ost.heard.map(|h| now.saturating_duration_since(h)),
        };
        self.osts.iter().map(info).collect()
    }

    /// Whether an OST that may be serving clients has had no time yet to register since the server answers.
    pub fn is_gathering(&self, now: Instant) -> bool {
        let waits = now.saturating_duration_since(self.started) < self.timeout;
        waits && self.osts.values().any(|ost| ost.heard.is_none())
    }

    /// Where OSTs are, or were when they were last heard of.
    pub fn addresses(&self) -> BTreeSet<String> {
        self.osts.values().map(|ost| ost.address.clone()).filter(|address| !address.is_empty()).collect()
    }

    /// Whether an OST at this address was heard of within the timeout, confirmed or not.
    pub fn is_heard_at(&self, address: &str, now: Instant) -> bool {
        self.osts.values().any(|ost| ost.address == address && ost.is_heard(now, self.timeout))
    }

    /// Where to reach an OST that is up (also with a failed store).
    pub fn address(&self, index: OstIndex) -> Option<String> {
        self.osts.get(&index).filter(|o| o.published != OstState::Down).map(|o| o.address.clone())
    }
}

impl Ost {
    fn new(uuid: OstUuid) -> Ost {
        Ost {
            uuid,
            address: String::new(),
            space: Space::default(),
            failed: false,
            heard: None,
            registration: 0,
            confirmed: false,
            published: OstState::Down,
        }
    }

    fn hear(&mut self, report: &Report, now: Instant) {
        self.heard = Some(now);
        self.space = report.space;
        self.failed = report.failed;
    }

    fn is_heard(&self, now: Instant, timeout: Duration) -> bool {
        self.heard.is_some_and(|heard| now.saturating_duration_since(heard) <= timeout)
    }

    fn state(&self, now: Instant, timeout: Duration) -> OstState {
        match self.confirmed && self.is_heard(now, timeout) {
            true if self.failed => OstState::Failed,
            true => OstState::Up,
            false => OstState::Down,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(10);
    const CLUSTER: ClusterId = ClusterId([7; 16]);

    fn report(n: u8, index: Option<u16>) -> Report {
        let space = Space { total: 100, used: 0, available: 100, objects: 0 };
        Report { uuid: OstUuid([n; 16]), index: index.map(OstIndex), space, failed: false, draining: false }
    }

    fn join(r: &mut Registry, address: &str, reports: &[Report], now: Instant) -> FsResult<Vec<u16>> {
        let Admission { indexes, .. } = r.plan(Some(CLUSTER), address, reports, now)?;
        r.register(address, reports, &indexes, true, now);
        Ok(indexes.into_iter().map(|i| i.0).collect())
    }

    #[test]
    fn new_osts_get_the_next_indexes_and_keep_them() {
        let now = Instant::now();
        let mut r = Registry::new(CLUSTER, TIMEOUT, [(OstIndex(4), OstUuid([9; 16]))], 1);
        assert_eq!(join(&mut r, "a:1", &[report(1, None), report(2, None)], now).expect("joins"), [5, 6]);
        assert_eq!(join(&mut r, "a:1", &[report(2, Some(6)), report(1, None)], now).expect("joins"), [6, 5]);
        assert_eq!(join(&mut r, "b:1", &[report(9, Some(4))], now).expect("joins"), [4]);
    }

    #[test]
    fn strangers_and_copies_are_refused() {
        let now = Instant::now();
        let mut r = Registry::new(CLUSTER, TIMEOUT, [], 1);
        let other = Some(ClusterId([8; 16]));
        let err = r.plan(other, "a:1", &[report(1, Some(0))], now).expect_err("other cluster");
        assert_eq!(err.code, FsCode::WrongCluster);
        assert!(err.hint.is_some());
        join(&mut r, "a:1", &[report(1, None)], now).expect("joins");
        assert_eq!(join(&mut r, "b:1", &[report(1, Some(0))], now).expect_err("a copy").code, FsCode::Busy);
        assert_eq!(join(&mut r, "a:1", &[report(1, Some(3))], now).expect_err("liar").code, FsCode::Invalid);
        assert_eq!(join(&mut r, "c:1", &[report(5, Some(0))], now).expect_err("index taken").code, FsCode::Invalid);
        assert_eq!(r.plan(None, "d:1", &[report(6, Some(2))], now).expect_err("no cluster").code, FsCode::Invalid);
        let twice = [report(7, None), report(7, None)];
        assert_eq!(r.plan(None, "d:1", &twice, now).expect_err("twice").code, FsCode::Invalid);
        let later = now + TIMEOUT + Duration::from_secs(1);
        r.tick(later);
        assert_eq!(join(&mut r, "b:1", &[report(1, Some(0))], later).expect("moved"), [0]);
    }

    #[test]
    fn silence_means_down_and_every_change_raises_the_version() {
        let now = Instant::now();
        let mut r = Registry::new(CLUSTER, TIMEOUT, [], 1);
        let state = |r: &Registry| r.list(now)[0].state;
        join(&mut r, "a:1", &[report(1, None)], now).expect("joins");
        let up = r.version();
        assert_eq!(state(&r), OstState::Up);
        assert!(r.heartbeat("a:1", 0, &[report(1, Some(0))], now + Duration::from_secs(9)));
        r.tick(now + Duration::from_secs(18));
        assert_eq!((state(&r), r.version()), (OstState::Up, up), "a heartbeat changes nothing");
        let late = now + Duration::from_secs(20);
        r.tick(late);
        assert_eq!(state(&r), OstState::Down);
        assert!(r.version() > up && r.address(OstIndex(0)).is_none());
        assert!(!r.heartbeat("a:1", 0, &[report(1, Some(0))], late), "it must register again");
        join(&mut r, "a:1", &[report(1, Some(0))], late).expect("joins");
        let failed = Report { failed: true, ..report(1, Some(0)) };
        assert!(r.heartbeat("a:1", 0, &[failed], late));
        assert_eq!(state(&r), OstState::Failed);
        assert!(!r.candidates()[0].up);
        assert!(!r.heartbeat("x:1", 0, &[report(1, Some(0))], late));
    }

    #[test]
    fn there_is_time_to_register_from_when_the_server_answers() {
        let mut r = Registry::new(CLUSTER, TIMEOUT, [(OstIndex(0), OstUuid([1; 16]))], 1);
        let now = r.started + 5 * TIMEOUT;
        assert!(!r.is_gathering(now));
        r.begin(now);
        assert!(r.is_gathering(now) && !r.is_gathering(now + TIMEOUT) && r.addresses().is_empty());
        join(&mut r, "a:1", &[report(1, Some(0))], now).expect("joins");
        assert!(!r.is_gathering(now) && r.is_heard_at("a:1", now) && r.addresses().contains("a:1"));
        assert!(!r.is_heard_at("a:1", now + 2 * TIMEOUT) && !r.is_heard_at("b:1", now));
    }

    #[test]
    fn an_ost_that_must_refuse_somebody_is_up_when_it_has_confirmed_it() {
        let (now, reports) = (Instant::now(), [report(1, None), report(2, None)]);
        let mut r = Registry::new(CLUSTER, TIMEOUT, [], 1);
        let Admission { indexes, .. } = r.plan(None, "a:1", &reports, now).expect("joins");
        let first = r.register("a:1", &reports, &indexes, false, now);
        let last = r.register("a:1", &reports, &indexes, false, now);
        let ups = |r: &Registry| r.candidates().iter().filter(|c| c.up).map(|c| c.index.0).collect::<Vec<_>>();
        assert!(ups(&r).is_empty() && r.is_heard_at("a:1", now), "it is asked all the same");
        assert_eq!(r.plan(None, "b:1", &reports, now).expect_err("a copy").code, FsCode::Busy);
        assert!(!r.heartbeat("a:1", first, &reports, now), "it has missed an answer");
        let busy = Report { draining: true, ..report(2, Some(1)) };
        for (report, up) in [(busy, vec![0]), (report(2, Some(1)), vec![0, 1])] {
            assert!(r.heartbeat("a:1", last, &[reports[0].clone(), report], now));
            assert_eq!(ups(&r), up);
        }
        assert!(r.heartbeat("a:1", last, &[Report { draining: true, ..reports[0].clone() }], now));
        assert_eq!(ups(&r), [0, 1], "who ends later is shut out by a call");
    }
}
