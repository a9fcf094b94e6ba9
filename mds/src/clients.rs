//! Sessions and open files of one file system, as far as they live in memory. A sans-IO table: it is told the time and
//! what happened, and answers; [`crate::fs`] keeps it behind one lock.
//!
//! ```text
//! session:  opened -> renewed ... -> closed
//!                  \-> silent for a lease -> ending (nothing of it is answered) -> removed (its files count as closed)
//! ```
//!
//! Between the last two it is shut out at the OSTs ([`crate::fencing`]).
//!
//! Each open has a number that its client never uses again, so that it counts once however often it is asked for or stated.
//!
//! The invariant: a file is destroyed only if nobody has it open *and nobody can open it any more*. The writer
//! [claims](ClientTable::claim) a file before its last name goes; from then on opening it fails. After a restart no open
//! is known until clients have said again what they have open, so until every session has spoken or was removed (one that
//! has not spoken for one lease ends) every file counts as open.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use sateen_types::{Fid, FsCode, FsError, FsResult, SessionId};

/// Sessions of one file system. Each costs a few hundred bytes and its reply records on disk.
pub const SESSIONS_MAX: usize = 10_000;
/// Opens that one session may have at once. A client says all of them again in one message after a restart.
pub const OPENS_MAX: usize = 190_000;
/// Most bytes of one of them in that message: 12 of the FID, for sequences below 2^35 and objects below 2^21, 9 of its number, below 2^63,
/// and one of its use.
const _: () = assert!(OPENS_MAX * 22 < sateen_types::limits::MESSAGE_BYTES_MAX);

/// See the module.
#[derive(Debug)]
pub struct ClientTable {
    lease: Duration,
    sessions: HashMap<SessionId, Client>,
    /// How many sessions have each file open.
    open: HashMap<Fid, u32>,
    /// Files whose end is being committed.
    claimed: HashSet<Fid>,
    recovery_ends: Instant,
    /// Sessions that have not said what they have open.
    unrestated: usize,
}

#[derive(Debug)]
struct Client {
    name: String,
    /// Under which number it writes to OSTs; 0: unknown.
    writer: u64,
    /// It was silent, and is never heard of again.
    ending: bool,
    renewed: Instant,
    /// Has said what it has open since the server started.
    restated: bool,
    /// Number of the last statement or numbered close: what has a lower one is counted already.
    number: u64,
    /// Opens of each file, by number.
    files: HashMap<Fid, BTreeMap<u64, Open>>,
    /// How many those are.
    opens: usize,
}

/// One open of a file.
#[derive(Clone, Copy, Debug, Default)]
struct Open {
    /// Requests that are being answered.
    trying: u32,
    /// One of them was, or the client has said that it has the file open.
    kept: bool,
}

/// A session of an earlier life of the server.
#[derive(Clone, Debug)]
pub struct Known {
    /// Which.
    pub session: SessionId,
    /// What its client calls itself.
    pub name: String,
    /// Under which number it writes to OSTs; 0: unknown.
    pub writer: u64,
}

/// A session that is being ended.
pub type Ending = Known;

impl Client {
    fn new(name: String, writer: u64, now: Instant, restated: bool) -> Client {
        Client { name, writer, ending: false, renewed: now, restated, number: 0, files: HashMap::new(), opens: 0 }
    }
}

fn unknown(session: SessionId) -> FsError {
    FsError::new(FsCode::Stale, format!("session {session} does not exist any more"))
        .with_hint("it was silent for longer than its lease; open a new one")
}

impl ClientTable {
    /// `known`: sessions that were open when the server stopped.
    pub fn new(lease: Duration, known: Vec<Known>, now: Instant) -> ClientTable {
        let client = |k: Known| (k.session, Client::new(k.name, k.writer, now, false));
        ClientTable {
            lease,
            unrestated: known.len(),
            sessions: known.into_iter().map(client).collect(),
            open: HashMap::new(),
            claimed: HashSet::new(),
            recovery_ends: now + lease,
        }
    }

    /// Clients are answered from now on: before, none could say that it lives.
    pub fn begin(&mut self, now: Instant) {
        self.recovery_ends = now + self.lease;
        self.sessions.values_mut().for_each(|client| client.renewed = now);
    }

    /// Sessions now.
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether nobody is there.
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// Names of the clients, for people.
    pub fn names(&self) -> Vec<String> {
        self.sessions.values().map(|c| c.name.clone()).collect()
    }

    /// Room for another session, or `Busy`; `Invalid` if `writer` is another session's.
    pub fn check_room(&self, writer: u64) -> FsResult<()> {
        if writer != 0 && self.sessions.values().any(|c| c.writer == writer) {
            return Err(FsError::new(FsCode::Invalid, format!("writer: {writer} is another session's"))
                .with_hint("choose a number at random"));
        }
        if self.sessions.len() < SESSIONS_MAX {
            return Ok(());
        }
        Err(FsError::new(FsCode::Busy, format!("the file system has {} sessions, the most it takes", SESSIONS_MAX))
            .with_hint("unmount clients that are not needed"))
    }

    /// A session began.
    pub fn add(&mut self, session: SessionId, name: String, writer: u64, now: Instant) {
        self.sessions.insert(session, Client::new(name, writer, now, true));
    }

    /// The client was heard of.
    pub fn touch(&mut self, session: SessionId, now: Instant) -> FsResult<()> {
        let client = self.sessions.get_mut(&session).filter(|c| !c.ending).ok_or_else(|| unknown(session))?;
        client.renewed = now;
        Ok(())
    }

    /// Whether the client must say again what it has open.
    pub fn wants_restate(&self, session: SessionId) -> bool {
        self.sessions.get(&session).is_some_and(|c| !c.restated)
    }

    /// `Unavailable` while a session has not said what it has open: that replaces what is counted. `Busy` if it may not have more open.
    pub fn check_open(&self, session: SessionId) -> FsResult<()> {
        let client = self.sessions.get(&session).ok_or_else(|| unknown(session))?;
        if !client.restated {
            let what = format!("session {session} has not said what it has open");
            return Err(
                FsError::new(FsCode::Unavailable, what).with_hint("the MDS was restarted; renew the session first")
            );
        }
        if client.opens >= OPENS_MAX { Err(too_many(session)) } else { Ok(()) }
    }

    /// What the client has open replaces what was known; closes up to `number` are not among it. Gives files that are closed now.
    pub fn restate(&mut self, session: SessionId, opens: &[(Fid, u64)], number: u64) -> FsResult<Vec<Fid>> {
        if opens.len() > OPENS_MAX {
            return Err(too_many(session));
        }
        let client = self.sessions.get_mut(&session).ok_or_else(|| unknown(session))?;
        if number < client.number {
            let what = format!("close {} came before statement {number}", client.number);
            return Err(FsError::new(FsCode::Unavailable, what).with_hint("say again what is open"));
        }
        let mut stated: HashMap<Fid, BTreeMap<u64, Open>> = HashMap::new();
        for (fid, open) in opens {
            // A request for it may be under way.
            let trying = client.files.get(fid).and_then(|opens| opens.get(open)).map_or(0, |open| open.trying);
            stated.entry(*fid).or_default().insert(*open, Open { trying, kept: true });
        }
        if !std::mem::replace(&mut client.restated, true) {
            self.unrestated -= 1;
        }
        client.number = number;
        client.opens = stated.values().map(BTreeMap::len).sum();
        stated.keys().for_each(|fid| *self.open.entry(*fid).or_default() += 1);
        let before = std::mem::replace(&mut client.files, stated);
        Ok(self.subtract(before.into_keys()))
    }

    /// What the session has open.
    pub fn files_of(&self, session: SessionId) -> HashSet<Fid> {
        self.sessions.get(&session).into_iter().flat_map(|client| client.files.keys().copied()).collect()
    }

    /// A file is open, or about to be, under this number: counts it, if it does not count yet.
    fn count(&mut self, session: SessionId, (fid, number): (Fid, u64)) -> FsResult<&mut Open> {
        if self.claimed.contains(&fid) {
            // Asking again finds that it is gone, or what has become of it.
            return Err(FsError::new(FsCode::Unavailable, format!("{fid} is just being removed or released")));
        }
        let client = self.sessions.get_mut(&session).ok_or_else(|| unknown(session))?;
        let is_counted = client.files.get(&fid).is_some_and(|opens| opens.contains_key(&number));
        if !is_counted && client.opens >= OPENS_MAX {
            return Err(too_many(session));
        }
        client.opens += usize::from(!is_counted);
        let opens = client.files.entry(fid).or_insert_with(|| {
            *self.open.entry(fid).or_default() += 1;
            BTreeMap::new()
        });
        Ok(opens.entry(number).or_default())
    }

    /// A file is being opened; it counts as open until [`ClientTable::end_open`].
    pub fn begin_open(&mut self, session: SessionId, open: (Fid, u64)) -> FsResult<()> {
        self.count(session, open)?.trying += 1;
        Ok(())
    }

    /// It was, or was not, opened. False if it has been closed meanwhile.
    pub fn end_open(&mut self, session: SessionId, (fid, number): (Fid, u64), opened: bool) -> bool {
        let open = self.sessions.get_mut(&session).and_then(|client| client.files.get_mut(&fid)?.get_mut(&number));
        let Some(open) = open else { return false };
        open.trying = open.trying.saturating_sub(1);
        open.kept |= opened;
        if !open.kept && open.trying == 0 {
            self.end(session, (fid, number));
        }
        true
    }

    /// A file was opened by a change. The same again counts once.
    pub fn opened(&mut self, session: SessionId, open: (Fid, u64)) -> FsResult<()> {
        self.count(session, open)?.kept = true;
        Ok(())
    }

    fn end(&mut self, session: SessionId, (fid, number): (Fid, u64)) {
        let Some(client) = self.sessions.get_mut(&session) else { return };
        let Some(opens) = client.files.get_mut(&fid) else { return };
        client.opens -= usize::from(opens.remove(&number).is_some());
        if opens.is_empty() {
            client.files.remove(&fid);
            self.subtract([fid]);
        }
    }

    /// These opens end; gives those files that nobody has open now. Does nothing if closes of this `number` or a higher
    /// one are counted; 0 is no number.
    pub fn close(&mut self, session: SessionId, opens: &[(Fid, u64)], number: u64) -> FsResult<Vec<Fid>> {
        let client = self.sessions.get_mut(&session).ok_or_else(|| unknown(session))?;
        if number != 0 && number <= client.number {
            return Ok(Vec::new());
        }
        client.number = client.number.max(number);
        opens.iter().for_each(|open| self.end(session, *open));
        Ok(opens.iter().map(|(fid, _)| *fid).filter(|fid| !self.open.contains_key(fid)).collect())
    }

    /// Whether the end of the file, or of its data, is being committed.
    pub fn is_claimed(&self, fid: Fid) -> bool {
        self.claimed.contains(&fid)
    }

    /// Whether the session has the file open.
    pub fn has_open(&self, session: SessionId, fid: Fid) -> bool {
        self.sessions.get(&session).is_some_and(|c| c.files.contains_key(&fid))
    }

    /// Whether anything of the session is answered.
    pub fn is_alive(&self, session: SessionId) -> bool {
        self.sessions.get(&session).is_some_and(|c| !c.ending)
    }

    /// Under which number the session writes to OSTs; 0: none, or no such session.
    pub fn writer(&self, session: SessionId) -> u64 {
        self.sessions.get(&session).map_or(0, |c| c.writer)
    }

    /// Name of a session's client, for people.
    pub fn name(&self, session: SessionId) -> Option<String> {
        self.sessions.get(&session).map(|c| c.name.clone())
    }

    /// Ends a session; gives the files nobody has open now.
    pub fn remove(&mut self, session: SessionId) -> Vec<Fid> {
        match self.sessions.remove(&session) {
            Some(client) => {
                self.unrestated -= usize::from(!client.restated);
                self.subtract(client.files.into_keys())
            }
            None => Vec::new(),
        }
    }

    /// A session has these open no longer. Gives those that none has.
    fn subtract(&mut self, files: impl IntoIterator<Item = Fid>) -> Vec<Fid> {
        let mut closed = Vec::new();
        for fid in files {
            if let Some(open) = self.open.get_mut(&fid) {
                *open = open.saturating_sub(1);
                if *open == 0 {
                    self.open.remove(&fid);
                    closed.push(fid);
                }
            }
        }
        closed
    }

    /// Sessions that were silent for longer than the lease, or have not said in that time what they have open: nothing of them
    /// is answered from here on. Gives all that are ending, until they are removed.
    pub fn begin_ending(&mut self, now: Instant) -> Vec<Ending> {
        let (lease, recovery_ends) = (self.lease, self.recovery_ends);
        for client in self.sessions.values_mut() {
            let silent = now.saturating_duration_since(client.renewed) > lease;
            client.ending |= silent || (!client.restated && now > recovery_ends);
        }
        let ending = self.sessions.iter().filter(|(_, c)| c.ending);
        ending.map(|(id, c)| Ending { session: *id, name: c.name.clone(), writer: c.writer }).collect()
    }

    /// Nothing of this session is answered from here on; `None` if it is not there.
    pub fn begin_ending_of(&mut self, session: SessionId) -> Option<Ending> {
        let client = self.sessions.get_mut(&session)?;
        client.ending = true;
        Some(Ending { session, name: client.name.clone(), writer: client.writer })
    }

    /// Sessions of writers that have ended are ending.
    pub fn end_writers(&mut self, has_ended: impl Fn(u64) -> bool) {
        for client in self.sessions.values_mut() {
            client.ending |= client.writer != 0 && has_ended(client.writer);
        }
    }

    /// Whether sessions of an earlier life have had a lease to say what they have.
    pub fn is_past_recovery(&self, now: Instant) -> bool {
        now > self.recovery_ends
    }

    /// Whether clients of an earlier life may have files open that they have not named yet.
    pub fn is_recovering(&self) -> bool {
        self.unrestated > 0
    }

    /// The same without this session.
    pub fn are_others_recovering(&self, session: SessionId) -> bool {
        self.unrestated > usize::from(self.wants_restate(session))
    }

    /// Whether the file is or may be open.
    pub fn may_be_open(&self, fid: Fid) -> bool {
        self.open.contains_key(&fid) || self.is_recovering()
    }

    /// If the file is not open, nobody opens it until [`ClientTable::release`]. True if it was claimed.
    pub fn claim(&mut self, fid: Fid) -> bool {
        !self.may_be_open(fid) && {
            self.claimed.insert(fid);
            true
        }
    }

    /// The end of these files is committed, or did not happen.
    pub fn release(&mut self, files: &[Fid]) {
        for fid in files {
            self.claimed.remove(fid);
        }
    }
}

fn too_many(session: SessionId) -> FsError {
    FsError::new(FsCode::Busy, format!("session {session} has {OPENS_MAX} opens, the most it may have"))
        .with_hint("close files")
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: SessionId = SessionId([1; 16]);
    const B: SessionId = SessionId([2; 16]);
    const F: Fid = Fid { seq: Fid::SEQ_FIRST, oid: 1, ver: 0 };
    const LEASE: Duration = Duration::from_secs(60);

    fn known(session: SessionId, writer: u64) -> Known {
        Known { session, name: "a".into(), writer }
    }

    fn table(now: Instant) -> ClientTable {
        let mut t = ClientTable::new(LEASE, Vec::new(), now);
        t.add(A, "a".into(), 1, now);
        t.add(B, "b".into(), 2, now);
        t
    }

    #[test]
    fn a_file_is_closed_when_the_last_opener_closes_or_goes() {
        let now = Instant::now();
        let mut t = table(now);
        for (session, number) in [(A, 1), (A, 2), (B, 1)] {
            t.opened(session, (F, number)).expect("opens");
        }
        assert!(t.close(A, &[(F, 2)], 0).expect("closes").is_empty());
        assert!(t.close(B, &[(F, 1)], 0).expect("closes").is_empty());
        assert!(t.may_be_open(F));
        assert_eq!(t.remove(A), [F]);
        assert!(!t.may_be_open(F));
        assert_eq!(t.close(A, &[(F, 1)], 0).expect_err("gone").code, FsCode::Stale);
        assert_eq!(t.close(B, &[(F, 1)], 0).expect("a close too many does nothing"), [F]);
    }

    #[test]
    fn closes_that_come_twice_or_after_a_statement_count_once() {
        let now = Instant::now();
        let mut t = table(now);
        for number in 1..=4 {
            t.opened(A, (F, number)).expect("opens");
        }
        for _sent_again in 0..2 {
            assert!(t.close(A, &[(F, 1), (F, 2)], 1).expect("closes").is_empty());
        }
        assert!(t.may_be_open(F), "two are left");
        t.restate(A, &[(F, 4)], 3).expect("one of them was closed before this was said");
        t.close(A, &[(F, 4)], 2).expect("of before");
        assert!(t.may_be_open(F));
        assert_eq!(t.close(A, &[(F, 4)], 4).expect("closes"), [F]);
        assert_eq!(t.restate(A, &[(F, 4)], 3).expect_err("said before that close").code, FsCode::Unavailable);
        assert!(!t.may_be_open(F));
    }

    #[test]
    fn an_open_that_is_asked_for_again_or_was_stated_already_counts_once() {
        let now = Instant::now();
        let mut t = ClientTable::new(LEASE, vec![known(A, 1)], now);
        // It was under way when the server was restarted.
        assert_eq!(t.check_open(A).expect_err("what it says replaces what is counted").code, FsCode::Unavailable);
        t.restate(A, &[(F, 7)], 1).expect("speaks");
        t.begin_open(A, (F, 7)).expect("counts already");
        assert!(t.end_open(A, (F, 7), true));
        assert_eq!(t.close(A, &[(F, 7)], 2).expect("closes"), [F]);
        // The first answer was lost; and of another one the first request fails when the second was answered.
        for answers in [[true, true], [true, false], [false, true]] {
            t.begin_open(A, (F, 8)).expect("begins");
            t.begin_open(A, (F, 8)).expect("again");
            for opened in answers {
                assert!(t.end_open(A, (F, 8), opened));
            }
            assert!(t.may_be_open(F), "{answers:?}");
            assert_eq!(t.close(A, &[(F, 8)], 0).expect("closes"), [F]);
        }
        t.begin_open(A, (F, 9)).expect("begins");
        assert!(t.end_open(A, (F, 9), false));
        assert!(!t.may_be_open(F), "it was not opened");
        // Whoever asked has given up before the answer.
        t.begin_open(A, (F, 10)).expect("begins");
        t.close(A, &[(F, 10)], 0).expect("closes");
        assert!(!t.end_open(A, (F, 10), true) && !t.may_be_open(F));
    }

    #[test]
    fn opens_of_a_session_have_a_bound() {
        let mut t = table(Instant::now());
        for number in 0..OPENS_MAX as u64 {
            t.opened(A, (F, number)).expect("has room");
        }
        assert_eq!(t.opened(A, (F, u64::MAX)).expect_err("one too many").code, FsCode::Busy);
        assert_eq!(t.check_open(A).expect_err("one too many").code, FsCode::Busy);
        t.opened(A, (F, 0)).expect("counts already");
        t.close(A, &[(F, 1)], 0).expect("closes");
        t.opened(A, (F, u64::MAX)).expect("has room");
    }

    #[test]
    fn a_claimed_file_cannot_be_opened_and_an_open_one_not_claimed() {
        let now = Instant::now();
        let mut t = table(now);
        t.opened(A, (F, 1)).expect("opens");
        assert!(!t.claim(F));
        t.close(A, &[(F, 1)], 0).expect("closes");
        assert!(t.claim(F));
        assert_eq!(t.begin_open(A, (F, 2)).expect_err("claimed").code, FsCode::Unavailable);
        t.release(&[F]);
        t.begin_open(A, (F, 2)).expect("the removal did not happen");
    }

    #[test]
    fn after_a_restart_every_file_counts_as_open_until_all_have_spoken_or_ended() {
        let now = Instant::now();
        let known = || vec![known(A, 1), known(B, 2)];
        let mut t = ClientTable::new(LEASE, known(), now);
        assert!(t.wants_restate(A) && t.may_be_open(F) && !t.claim(F));
        assert!(t.are_others_recovering(A));
        t.restate(A, &[(F, 1), (F, 2)], 0).expect("speaks");
        assert!(t.are_others_recovering(A) && !t.are_others_recovering(B));
        let other = Fid { oid: 2, ..F };
        assert!(t.may_be_open(other), "B has not spoken");
        t.restate(B, &[], 0).expect("speaks");
        assert!(!t.wants_restate(A) && !t.may_be_open(other) && t.may_be_open(F));
        t.close(A, &[(F, 1)], 0).expect("closes");
        assert!(t.may_be_open(F), "it was stated twice");
        assert_eq!(t.restate(A, &[], 0).expect("speaks"), [F]);
        let mut silent = ClientTable::new(LEASE, known(), now);
        let later = now + LEASE + Duration::from_millis(1);
        silent.touch(A, later).expect("known");
        assert_eq!(silent.begin_ending(later).len(), 2, "A lives and has not said what it has");
        assert!(silent.may_be_open(F), "they are not shut out yet");
        assert_eq!(silent.restate(A, &[(F, 1)], 0).err(), None);
        silent.remove(A);
        silent.remove(B);
        assert!(!silent.may_be_open(F));
        assert!(!ClientTable::new(LEASE, Vec::new(), now).may_be_open(F), "nobody to wait for");
    }

    #[test]
    fn the_lease_begins_when_clients_are_answered() {
        let opened = Instant::now();
        let mut t = ClientTable::new(LEASE, vec![known(A, 1)], opened);
        let served = opened + 2 * LEASE;
        t.begin(served);
        assert!(t.begin_ending(served + LEASE).is_empty());
        assert_eq!(t.begin_ending(served + LEASE + Duration::from_millis(1)).len(), 1);
    }

    #[test]
    fn only_silent_sessions_end_and_nothing_of_them_is_answered_from_then_on() {
        let now = Instant::now();
        let mut t = table(now);
        t.opened(B, (F, 1)).expect("opens");
        assert!(t.begin_ending(now + LEASE).is_empty());
        let later = now + LEASE + Duration::from_secs(1);
        t.touch(A, later).expect("known");
        for _asked_again in 0..2 {
            let ending = t.begin_ending(later);
            assert_eq!(ending.iter().map(|e| (e.session, e.writer)).collect::<Vec<_>>(), [(B, 2)]);
            assert_eq!(t.touch(B, later).expect_err("too late").code, FsCode::Stale);
        }
        assert!(t.may_be_open(F), "until it is removed");
        t.remove(B);
        assert!(t.begin_ending(later).is_empty() && !t.may_be_open(F));
        assert!(t.begin_ending_of(B).is_none());
        assert_eq!(t.begin_ending_of(A).map(|e| e.writer), Some(1));
        assert_eq!(t.touch(A, later).expect_err("given up").code, FsCode::Stale);
        assert_eq!(t.begin_ending(later).len(), 1, "whoever was to end it may have gone");
    }

    #[test]
    fn a_session_whose_writer_has_ended_does_not_come_back_after_a_restart() {
        let now = Instant::now();
        let mut t = ClientTable::new(LEASE, vec![known(A, 1), known(B, 0)], now);
        t.end_writers(|writer| writer < 2);
        assert_eq!(t.touch(A, now).expect_err("it was ending").code, FsCode::Stale);
        t.touch(B, now).expect("of no known writer");
        assert_eq!(t.begin_ending(now).len(), 1);
    }

    #[test]
    fn no_two_sessions_have_one_writer() {
        let t = table(Instant::now());
        assert_eq!(t.check_room(2).expect_err("B's").code, FsCode::Invalid);
        assert!(t.check_room(3).is_ok() && t.check_room(0).is_ok());
    }
}
