//! Every state of a small world, breadth first: what random walks do not meet is met here.
//!
//! Two states are the same if they differ in nothing but the values of the numbers, so long as those are in the same
//! order: nobody does more with a number than compare it. Nobody asks for sizes here, so what was told of them is left out.

use std::hash::{DefaultHasher, Hash, Hasher};

use super::world::{At, Client, FID, Left, Policy, World, session};
use super::*;

/// From one state in so many all messages are delivered, too, and nobody may wait then.
const SETTLE_ONE_IN: u128 = 32;

/// Visits every state that can be reached from `world` and checks each; gives how many there are.
fn explore(world: World) -> usize {
    let mut seen = HashSet::from([fingerprint(&world)]);
    let mut next = vec![world];
    let mut depth = 0;
    while !next.is_empty() {
        let mut after = Vec::new();
        for world in next {
            for step in world.steps() {
                let mut world = world.clone();
                world.step(step);
                let print = fingerprint(&world);
                if !seen.insert(print) {
                    continue;
                }
                world.check();
                if print.is_multiple_of(SETTLE_ONE_IN) {
                    world.clone().settle();
                }
                after.push(world);
            }
        }
        next = after;
        depth += 1;
    }
    println!("{} states, the last after {depth} steps", seen.len());
    seen.len()
}

/// The state without the values of its numbers.
fn fingerprint(world: &World) -> u128 {
    let numbers = numbers(world);
    let rank = |number: u64| numbers.binary_search(&number).expect("among them") as u8;
    let mut h = Halves::default();
    h.1.write_u8(1);
    hash(world, rank, &mut h);
    u128::from(h.0.finish()) << 64 | u128::from(h.1.finish())
}

/// Two hashes of the same, so that 64 bits more tell states apart.
#[derive(Default)]
struct Halves(DefaultHasher, DefaultHasher);

impl Hasher for Halves {
    fn write(&mut self, bytes: &[u8]) {
        self.0.write(bytes);
        self.1.write(bytes);
    }

    fn finish(&self) -> u64 {
        self.0.finish()
    }
}

fn numbers(world: &World) -> Vec<u64> {
    let mut numbers = vec![0];
    for holder in world.table.files.values().flat_map(|file| &file.holders) {
        numbers.extend(holder.recall.map(|o| o.recall.number));
    }
    for client in &world.clients {
        numbers.extend([client.recalled, client.granted]);
        numbers.extend(client.inbox.iter().map(|recall| recall.number));
    }
    numbers.extend(world.answers.iter().map(|answer| answer.number));
    numbers.extend(world.opens.iter().filter_map(|open| match open.at {
        At::Answered(_, number) => Some(number),
        _ => None,
    }));
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}

fn hash(world: &World, rank: impl Fn(u64) -> u8, h: &mut Halves) {
    world.left.hash(h);
    for (c, client) in world.clients.iter().enumerate() {
        hash_client(client, &rank, h);
        let known = world.table.sessions.get(&session(c));
        known.map(|known| (known.stream.is_some(), known.queue.len(), known.files.len())).hash(h);
        let holder = world.table.files.get(&FID).and_then(|file| file.holder(session(c)));
        holder.is_some().hash(h);
        let Some(holder) = holder else { continue };
        let outstanding = holder.recall.map(|o| (rank(o.recall.number), o.recall.keep, o.opened_since));
        (holder.using, holder.capability, holder.confirmed, outstanding).hash(h);
    }
    if let Some(file) = world.table.files.get(&FID) {
        file.changes.hash(h);
        let pairs = file.holders.iter().flat_map(|a| file.holders.iter().map(move |b| (a, b)));
        let mut heard: Vec<_> = pairs.map(|(a, b)| (a.session, b.session, a.heard > b.opened)).collect();
        heard.sort_unstable();
        heard.hash(h);
    }
    let mut opens: Vec<_> = world
        .opens
        .iter()
        .map(|open| {
            let at = match open.at {
                At::Answered(capability, number) => At::Answered(capability, rank(number).into()),
                at => at,
            };
            (open.client, open.using, at, open.abandoned)
        })
        .collect();
    opens.sort_unstable();
    opens.hash(h);
    let mut answers: Vec<_> = world.answers.iter().map(|a| (a.client, rank(a.number), a.using)).collect();
    answers.sort_unstable();
    answers.hash(h);
    let mut changes: Vec<_> = world.changes.iter().map(|change| (change.client, change.begun)).collect();
    changes.sort_unstable();
    changes.hash(h);
}

fn hash_client(client: &Client, rank: impl Fn(u64) -> u8, h: &mut Halves) {
    (client.live, client.stream.is_some(), client.readers, client.writers, client.capability).hash(h);
    (rank(client.recalled), rank(client.granted), client.opens_left, client.closes, client.counted).hash(h);
    client.restated.hash(h);
    client.inbox.iter().for_each(|recall| (rank(recall.number), recall.keep).hash(h));
    client.inbox.len().hash(h);
}

/// One client for each of `opens`, which opens the file so often. There must be at least `states`.
fn visit(policies: &[Policy], left: Left, opens: &[u8], states: usize) {
    let visited = policies.iter().map(|policy| {
        let mut world = World::new(*policy, left.clone(), &[true].repeat(opens.len()), true);
        world.clients.iter_mut().zip(opens).for_each(|(client, opens)| client.opens_left = *opens);
        explore(world)
    });
    let visited: usize = visited.sum();
    assert!(visited >= states, "only {visited} states: the world has shrunk");
}

const BOTH: [Policy; 2] = [Policy::Most, Policy::Latest];

#[test]
fn two_clients_and_two_changes_meet_in_every_order() {
    visit(&BOTH, Left { changes: 2, ..Left::default() }, &[1, 1], 80_000);
}

#[test]
fn a_client_that_opens_twice_meets_another_in_every_order() {
    visit(&BOTH, Left::default(), &[2, 1], 70_000);
}

#[test]
fn a_client_that_opens_twice_meets_the_change_of_another_in_every_order() {
    visit(&BOTH, Left { changes: 1, ..Left::default() }, &[2, 0], 1000);
}

#[test]
fn three_clients_meet_in_every_order() {
    visit(&[Policy::Most], Left::default(), &[1, 1, 1], 140_000);
}

#[test]
fn messages_are_lost_and_repeated_at_every_moment() {
    let left = Left { lost_replies: 1, lost_answers: 1, repeated_answers: 1, ..Left::default() };
    visit(&BOTH, left, &[1, 1], 60_000);
}

#[test]
fn opens_are_given_up_by_either_side_at_every_moment() {
    visit(&BOTH, Left { lost_replies: 1, abandons: 1, give_ups: 1, ..Left::default() }, &[1, 1], 50_000);
}

#[test]
fn streams_break_at_every_moment() {
    visit(&BOTH, Left { relistens: 1, changes: 1, ..Left::default() }, &[1, 1], 30_000);
}

#[test]
fn the_server_restarts_at_every_moment() {
    visit(&BOTH, Left { restarts: 1, changes: 1, ..Left::default() }, &[1, 1], 190_000);
}

#[test]
fn sessions_end_at_every_moment() {
    visit(&BOTH, Left { ends: 1, changes: 1, ..Left::default() }, &[1, 1], 30_000);
}
