//! Random walks through the world. After each step nobody believes it may do what it may not; at the end, when all
//! messages have arrived, nobody waits, and nothing is left of what was closed.

use proptest::prelude::*;

use super::world::{Left, Policy, Step, World, session};
use super::*;

/// Of 256: how often a step is taken that takes much of the world with it.
const RARE: u8 = 40;

fn plenty() -> Left {
    Left {
        opens: 12,
        changes: 4,
        lost_replies: 3,
        lost_answers: 3,
        repeated_answers: 6,
        relistens: 4,
        give_ups: 3,
        abandons: 3,
        ends: 2,
        restarts: 2,
        asks: 8,
        writes: 20,
    }
}

fn is_rare(step: Step) -> bool {
    use Step::*;
    matches!(step, Restart | End(_) | Listen(_) | GiveUp(_) | Abandon(_) | LoseReply(_) | LoseAnswer(_))
}

/// Goes on by what was drawn.
fn walk(world: &mut World, (pick, rare): (u16, u8)) {
    let steps = world.steps();
    let Some(step) = steps.get(pick as usize % steps.len().max(1)) else { return };
    if !is_rare(*step) || rare < RARE {
        world.step(*step);
        world.check();
    }
}

/// All is closed, and a client that opens the file alone has it alone.
fn nothing_is_left(world: &mut World) {
    for c in 0..world.clients.len() {
        while let Some(close) = world.steps().into_iter().find(|s| matches!(s, Step::Close(at, _) if *at == c)) {
            world.step(close);
            world.check();
        }
    }
    world.settle();
    if world.clients.iter().all(|client| client.counted == 0) {
        assert_eq!(world.table.counts(), (0, 0), "all have closed it: {:#?}", world.table);
    }
    let Some(c) = world.clients.iter().position(|client| client.live && client.stream.is_some()) else { return };
    let leaked = world.clients.iter().enumerate().any(|(o, client)| o != c && client.counted > 0);
    world.clients[c].opens_left = 1;
    world.step(Step::Open(c, Using::Writing));
    world.settle();
    assert!(leaked || world.clients[c].capability == Capability::Write, "{} is alone", session(c));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nobody_believes_it_may_do_what_it_may_not_and_nobody_waits_for_ever(
        latest in any::<bool>(),
        listens in proptest::collection::vec(proptest::bool::weighted(0.85), 2..=4),
        at_once in any::<bool>(),
        picks in proptest::collection::vec(any::<(u16, u8)>(), 0..250),
    ) {
        let policy = if latest { Policy::Latest } else { Policy::Most };
        let mut world = World::new(policy, plenty(), &listens, at_once);
        for pick in picks {
            walk(&mut world, pick);
        }
        world.settle();
        nothing_is_left(&mut world);
    }
}
