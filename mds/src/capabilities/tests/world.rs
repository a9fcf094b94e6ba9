//! A few clients of one file, the network between, and the server's shell around the table, as one value that can be
//! cloned. Every message is a thing in it, so that a test decides what arrives when, twice, or never.
//!
//! What a client may do is judged from what *it* believes, never from the table.

use std::collections::VecDeque;

use super::*;

/// The one file.
pub const FID: Fid = Fid { seq: Fid::SEQ_FIRST, oid: 1, ver: 0 };

/// Session of a client.
pub fn session(client: usize) -> SessionId {
    SessionId([client as u8 + 1; 16])
}

/// How a client takes a grant that meets others on the way. Both keep to the rule of the protocol: a grant with a lower
/// number than a recall that was seen does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Keeps the most of all grants since the last recall.
    Most,
    /// Of grants and recalls only the one with the highest number counts.
    Latest,
}

/// What may still happen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Left {
    /// Opens of each client.
    pub opens: u8,
    pub changes: u8,
    /// Replies to opens that are lost: the client sends the open again.
    pub lost_replies: u8,
    /// Answers that are lost, with the stream.
    pub lost_answers: u8,
    pub repeated_answers: u8,
    /// Streams that break.
    pub relistens: u8,
    /// Opens that the server gives up.
    pub give_ups: u8,
    /// Opens that a client forgets; their replies come to nobody.
    pub abandons: u8,
    pub ends: u8,
    pub restarts: u8,
    pub asks: u8,
    pub writes: u8,
}

#[derive(Clone, Debug)]
pub struct Client {
    pub live: bool,
    /// It is a client that listens, sooner or later.
    pub listens: bool,
    pub stream: Option<u64>,
    /// Recalls on their way, in order.
    pub inbox: VecDeque<Recall>,
    pub readers: u8,
    pub writers: u8,
    /// What it believes it may do.
    pub capability: Capability,
    /// Highest recall seen, and highest grant.
    pub recalled: u64,
    pub granted: u64,
    /// Size it has not reported; 0 if there is none.
    pub unreported: u64,
    pub opens_left: u8,
    /// Closes on their way.
    pub closes: u8,
    /// Opens that the server counts.
    pub counted: u8,
    /// The server knows what it has open.
    pub restated: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum At {
    Coming,
    Waiting,
    Answered(Capability, u64),
}

#[derive(Clone, Copy, Debug)]
pub struct Open {
    pub client: usize,
    pub using: Using,
    pub at: At,
    pub abandoned: bool,
}

#[derive(Clone, Copy, Debug)]
pub struct Answer {
    pub client: usize,
    pub number: u64,
    pub using: Using,
    pub size: u64,
}

#[derive(Clone, Copy, Debug)]
pub struct Change {
    pub client: usize,
    pub begun: bool,
}

/// Somebody wants the size, and must learn at least `need`.
#[derive(Clone, Copy, Debug)]
pub struct Ask {
    pub client: usize,
    pub need: u64,
    pub asked: Option<(SessionId, u64)>,
}

/// One thing that happens. Numbers are clients, or places in the lists of the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Open(usize, Using),
    OpenArrives(usize),
    Look(usize),
    GiveUp(usize),
    Reply(usize),
    LoseReply(usize),
    Abandon(usize),
    Close(usize, Using),
    CloseArrives(usize),
    Carry(usize),
    Recall(usize),
    Answer(usize),
    RepeatAnswer(usize),
    LoseAnswer(usize),
    Listen(usize),
    End(usize),
    Change(usize),
    LookChange(usize),
    EndChange(usize),
    Write(usize),
    Ask(usize),
    LookAsk(usize),
    Restart,
    Restate(usize),
}

#[derive(Clone, Debug)]
pub struct World {
    pub table: CapabilityTable,
    pub policy: Policy,
    pub left: Left,
    pub clients: Vec<Client>,
    pub opens: Vec<Open>,
    pub answers: Vec<Answer>,
    pub changes: Vec<Change>,
    pub asks: Vec<Ask>,
    /// Size that the MDS knows, and the last that anybody wrote.
    pub reported: u64,
    pub written: u64,
}

impl Client {
    fn handles(&self) -> Using {
        match (self.readers, self.writers) {
            (0, 0) => Using::Nothing,
            (_, 0) => Using::Reading,
            _ => Using::Writing,
        }
    }
}

impl World {
    /// `listens`: for each client, whether it is one that listens; those do from the beginning if `at_once`.
    pub fn new(policy: Policy, left: Left, listens: &[bool], at_once: bool) -> World {
        let mut table = CapabilityTable::new(100);
        let client = |(c, listens): (usize, &bool)| Client {
            live: true,
            listens: *listens,
            stream: (*listens && at_once).then(|| table.listen(session(c))),
            inbox: VecDeque::new(),
            readers: 0,
            writers: 0,
            capability: Capability::None,
            recalled: 0,
            granted: 0,
            unreported: 0,
            opens_left: left.opens,
            closes: 0,
            counted: 0,
            restated: true,
        };
        let clients = listens.iter().enumerate().map(client).collect();
        let (opens, answers, changes, asks) = Default::default();
        World { table, policy, left, clients, opens, answers, changes, asks, reported: 0, written: 0 }
    }

    /// All that can happen now.
    pub fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        let mut may = |is: bool, step: Step| {
            if is {
                steps.push(step);
            }
        };
        let (left, recovered) = (&self.left, self.is_recovered());
        for (c, client) in self.clients.iter().enumerate().filter(|(_, client)| client.live) {
            may(client.opens_left > 0, Step::Open(c, Using::Reading));
            may(client.opens_left > 0, Step::Open(c, Using::Writing));
            may(client.readers > 0, Step::Close(c, Using::Reading));
            may(client.writers > 0, Step::Close(c, Using::Writing));
            may(client.closes > 0, Step::CloseArrives(c));
            may(client.stream.is_some() && self.has_recalls(c), Step::Carry(c));
            may(!client.inbox.is_empty(), Step::Recall(c));
            may(client.listens && (client.stream.is_none() || left.relistens > 0), Step::Listen(c));
            may(left.ends > 0, Step::End(c));
            may(!client.restated, Step::Restate(c));
            may(left.changes > 0 && client.restated, Step::Change(c));
            may(left.writes > 0 && client.writers > 0, Step::Write(c));
            may(left.asks > 0, Step::Ask(c));
        }
        for (i, open) in self.opens.iter().enumerate() {
            match open.at {
                At::Coming => may(self.clients[open.client].restated, Step::OpenArrives(i)),
                At::Waiting => {
                    may(recovered, Step::Look(i));
                    may(left.give_ups > 0, Step::GiveUp(i));
                }
                At::Answered(..) => {
                    may(true, Step::Reply(i));
                    may(left.lost_replies > 0 && !open.abandoned, Step::LoseReply(i));
                }
            }
            may(left.abandons > 0 && !open.abandoned, Step::Abandon(i));
        }
        for i in 0..self.answers.len() {
            may(true, Step::Answer(i));
            may(left.repeated_answers > 0, Step::RepeatAnswer(i));
            may(left.lost_answers > 0, Step::LoseAnswer(i));
        }
        for (i, change) in self.changes.iter().enumerate() {
            may(!change.begun && recovered, Step::LookChange(i));
            may(change.begun, Step::EndChange(i));
        }
        (0..self.asks.len()).for_each(|i| may(recovered, Step::LookAsk(i)));
        may(left.restarts > 0, Step::Restart);
        steps
    }

    /// Does one of [`World::steps`].
    pub fn step(&mut self, step: Step) {
        match step {
            Step::Open(c, using) => {
                self.clients[c].opens_left -= 1;
                self.opens.push(Open { client: c, using, at: At::Coming, abandoned: false });
            }
            Step::OpenArrives(i) => {
                let Open { client, using, .. } = self.opens[i];
                self.clients[client].counted += 1;
                self.table.open(session(client), FID, using);
                self.opens[i].at = At::Waiting;
            }
            Step::Look(i) => match self.table.grant(session(self.opens[i].client), FID) {
                Ok(Ok(grant)) => self.opens[i].at = At::Answered(grant.capability, grant.number),
                Ok(Err(_)) => {}
                Err(_) => self.refuse(i),
            },
            Step::GiveUp(i) => {
                self.left.give_ups -= 1;
                self.refuse(i);
            }
            Step::Reply(i) => self.reply(i),
            Step::LoseReply(i) => {
                self.left.lost_replies -= 1;
                self.opens[i].at = At::Coming;
            }
            Step::Abandon(i) => {
                self.left.abandons -= 1;
                self.opens[i].abandoned = true;
                self.forget_if_idle(self.opens[i].client);
            }
            Step::Close(c, using) => self.close(c, using),
            Step::CloseArrives(c) => {
                self.clients[c].closes -= 1;
                self.count_closed(c);
            }
            Step::Carry(c) => {
                let stream = self.clients[c].stream.expect("listens");
                let recalls = self.table.take_recalls(session(c), stream).expect("the stream is its own");
                self.clients[c].inbox.extend(recalls.iter().map(|(_, recall)| *recall));
            }
            Step::Recall(c) => self.recall(c),
            Step::Answer(i) => {
                let answer = self.answers.swap_remove(i);
                self.answer(answer);
            }
            Step::RepeatAnswer(i) => {
                self.left.repeated_answers -= 1;
                self.answer(self.answers[i]);
            }
            Step::LoseAnswer(i) => {
                self.left.lost_answers -= 1;
                let c = self.answers.swap_remove(i).client;
                self.listen(c);
            }
            Step::Listen(c) => {
                if self.clients[c].stream.is_some() {
                    self.left.relistens -= 1;
                }
                self.listen(c);
            }
            Step::End(c) => self.end(c),
            Step::Change(c) => {
                self.left.changes -= 1;
                self.changes.push(Change { client: c, begun: false });
            }
            Step::LookChange(i) => {
                let begun = self.table.begin_change(session(self.changes[i].client), FID);
                self.changes[i].begun = begun.is_ok();
            }
            Step::EndChange(i) => {
                self.changes.swap_remove(i);
                self.table.end_change(FID);
            }
            Step::Write(c) => self.write(c),
            Step::Ask(c) => {
                self.left.asks -= 1;
                self.asks.push(Ask { client: c, need: self.size(), asked: None });
            }
            Step::LookAsk(i) => self.look_ask(i),
            Step::Restart => self.restart(),
            Step::Restate(c) => self.restate(c),
        }
    }

    /// The invariants, from what clients believe.
    pub fn check(&self) {
        let live = || self.clients.iter().enumerate().filter(|(_, client)| client.live);
        for (c, client) in live().filter(|(_, client)| client.handles() > Using::Nothing) {
            for (o, _) in live().filter(|(o, _)| *o != c) {
                let allowed = match self.established(o) {
                    Using::Nothing => Capability::Write,
                    Using::Reading => Capability::Read,
                    Using::Writing => Capability::None,
                };
                let has = client.capability;
                assert!(has <= allowed, "{c} believes it has {has:?}, {o} is {:?}", self.established(o));
            }
            let changes = self.changes.iter().any(|change| change.begun && change.client != c);
            let has = client.capability;
            assert!(!changes || has == Capability::None, "{c} believes it has {has:?} during the change of another");
        }
        for known in self.table.sessions.values() {
            assert!(known.queue.len() <= known.files.len(), "the queue of a client that does not read grows");
        }
    }

    /// Delivers everything until nobody waits; panics if somebody does after many rounds.
    pub fn settle(&mut self) {
        const ROUNDS_MAX: usize = 40;
        for _round in 0..ROUNDS_MAX {
            let waits = !(self.opens.is_empty() && self.changes.is_empty() && self.asks.is_empty());
            if !waits && self.answers.is_empty() && self.clients.iter().all(|c| c.closes == 0 && c.restated) {
                return;
            }
            self.round();
        }
        panic!("somebody waits for ever: {self:#?}");
    }

    /// Everything that can be delivered is, once; nothing new begins.
    fn round(&mut self) {
        for c in 0..self.clients.len() {
            let mine = |step: &Step| match step {
                Step::Restate(at) | Step::Carry(at) | Step::Recall(at) | Step::CloseArrives(at) => *at == c,
                Step::Listen(at) => *at == c && self.clients[c].stream.is_none(),
                _ => false,
            };
            for step in self.steps().into_iter().filter(mine).collect::<Vec<_>>() {
                self.do_if_possible(step);
            }
        }
        let general = |step: &Step| {
            use Step::*;
            matches!(step, OpenArrives(_) | Look(_) | Reply(_) | Answer(_) | LookChange(_) | EndChange(_) | LookAsk(_))
        };
        // Places move when something goes: the last first.
        for step in self.steps().into_iter().rev().filter(general) {
            self.do_if_possible(step);
        }
    }

    fn do_if_possible(&mut self, step: Step) {
        if self.steps().contains(&step) {
            self.step(step);
            self.check();
        }
    }

    /// Every client has said again what it has open since the server started.
    fn is_recovered(&self) -> bool {
        self.clients.iter().all(|client| !client.live || client.restated)
    }

    fn has_recalls(&self, c: usize) -> bool {
        self.table.sessions.get(&session(c)).is_some_and(|known| !known.queue.is_empty())
    }

    /// What a client does with the file, opens on their way included.
    fn using(&self, c: usize) -> Using {
        let opens = self.opens.iter().filter(|open| open.client == c && !open.abandoned);
        opens.map(|open| open.using).max().unwrap_or_default().max(self.clients[c].handles())
    }

    /// What a client does with the file as far as the server has answered.
    fn established(&self, c: usize) -> Using {
        let answered = |open: &&Open| open.client == c && !open.abandoned && matches!(open.at, At::Answered(..));
        let opens = self.opens.iter().filter(answered);
        opens.map(|open| open.using).max().unwrap_or_default().max(self.clients[c].handles())
    }

    fn size(&self) -> u64 {
        self.clients.iter().map(|client| client.unreported).max().unwrap_or_default().max(self.reported)
    }

    fn forget_if_idle(&mut self, c: usize) {
        if self.using(c) == Using::Nothing {
            (self.clients[c].recalled, self.clients[c].granted) = (0, 0);
        }
    }

    /// Stores and reports what was written.
    fn report(&mut self, c: usize) {
        self.reported = self.reported.max(std::mem::take(&mut self.clients[c].unreported));
    }

    /// The server takes an open back.
    fn refuse(&mut self, i: usize) {
        let c = self.opens.swap_remove(i).client;
        self.count_closed(c);
        self.forget_if_idle(c);
    }

    fn count_closed(&mut self, c: usize) {
        self.clients[c].counted = self.clients[c].counted.saturating_sub(1);
        if self.clients[c].counted == 0 {
            self.table.closed(session(c), FID);
        }
    }

    fn reply(&mut self, i: usize) {
        let open = self.opens.swap_remove(i);
        let At::Answered(capability, number) = open.at else { panic!("it is not answered") };
        if open.abandoned {
            return;
        }
        let client = &mut self.clients[open.client];
        match open.using {
            Using::Writing => client.writers += 1,
            _ => client.readers += 1,
        }
        if number < client.recalled {
            return;
        }
        match self.policy {
            Policy::Most => client.capability = client.capability.max(capability),
            Policy::Latest if number > client.granted => (client.capability, client.granted) = (capability, number),
            Policy::Latest => {}
        }
        if client.capability < Capability::Write {
            self.report(open.client);
        }
    }

    fn recall(&mut self, c: usize) {
        let recall = self.clients[c].inbox.pop_front().expect("one is there");
        let client = &mut self.clients[c];
        client.recalled = client.recalled.max(recall.number);
        if self.policy == Policy::Most || recall.number > client.granted {
            client.capability = client.capability.min(recall.keep);
        }
        if client.capability < Capability::Write {
            self.report(c);
        }
        let (using, size) = (self.using(c), self.clients[c].unreported);
        self.answers.push(Answer { client: c, number: recall.number, using, size });
        self.forget_if_idle(c);
    }

    fn answer(&mut self, answer: Answer) {
        let unreported = Unreported { size: answer.size, mtime: None };
        self.table.answer(session(answer.client), FID, answer.number, answer.using, unreported);
    }

    fn close(&mut self, c: usize, using: Using) {
        let client = &mut self.clients[c];
        match using {
            Using::Writing => client.writers -= 1,
            _ => client.readers -= 1,
        }
        // Otherwise what it will say again is without this one.
        client.closes += u8::from(client.restated);
        if client.handles() == Using::Nothing {
            client.capability = Capability::None;
            self.report(c);
        }
        self.forget_if_idle(c);
    }

    fn listen(&mut self, c: usize) {
        self.clients[c].inbox.clear();
        self.clients[c].stream = Some(self.table.listen(session(c)));
    }

    fn end(&mut self, c: usize) {
        self.left.ends -= 1;
        self.table.end_session(session(c));
        self.answers.retain(|answer| answer.client != c);
        self.asks.retain(|ask| ask.client != c);
        // The server goes on with what it has begun.
        self.opens.retain(|open| open.client != c || open.at == At::Waiting);
        let client = &mut self.clients[c];
        (client.live, client.restated, client.unreported, client.counted, client.closes) = (false, true, 0, 0, 0);
        (client.readers, client.writers, client.opens_left, client.stream) = (0, 0, 0, None);
        client.capability = Capability::None;
        client.inbox.clear();
        let size = self.size();
        self.asks.iter_mut().for_each(|ask| ask.need = ask.need.min(size));
    }

    fn write(&mut self, c: usize) {
        self.left.writes -= 1;
        self.written += 1;
        self.clients[c].unreported = self.written;
        if self.clients[c].capability < Capability::Write {
            self.report(c);
        }
    }

    fn look_ask(&mut self, i: usize) {
        let Ask { client, need, asked } = self.asks[i];
        let asked = asked.or_else(|| self.table.ask_writer(session(client), FID));
        self.asks[i].asked = asked;
        let told = asked.map_or(Some(None), |(writer, number)| self.table.told(writer, FID, number));
        if let Some(told) = told {
            let size = self.reported.max(told.map_or(0, |told| told.size));
            // What the asker itself has not reported it knows without asking.
            let size = size.max(self.clients[client].unreported);
            assert!(size >= need, "{need} was written before somebody asked, who was told {size}");
            self.asks.swap_remove(i);
        }
    }

    fn restart(&mut self) {
        self.left.restarts -= 1;
        self.table = CapabilityTable::new(self.table.number + 1);
        self.answers.clear();
        let live = |c: usize| self.clients[c].live;
        self.opens.retain(|open| live(open.client) && !open.abandoned);
        self.changes.retain(|change| live(change.client));
        self.opens.iter_mut().for_each(|open| open.at = At::Coming);
        self.changes.iter_mut().for_each(|change| change.begun = false);
        self.asks.iter_mut().for_each(|ask| ask.asked = None);
        for client in self.clients.iter_mut().filter(|client| client.live) {
            (client.stream, client.closes, client.counted, client.restated) = (None, 0, 0, false);
            client.inbox.clear();
        }
    }

    fn restate(&mut self, c: usize) {
        let client = &mut self.clients[c];
        (client.restated, client.counted) = (true, client.readers + client.writers);
        if client.counted > 0 {
            self.table.restate(session(c), FID, client.handles(), client.capability);
        }
    }
}
