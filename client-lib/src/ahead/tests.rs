//! Whatever is answered from memory is what the MDS would have answered, as far as this client could know.

use proptest::prelude::*;
use sateen_types::Timestamp;
use sateen_types::op::SetAttr;

use super::*;

const TRUSTED: Duration = Duration::from_secs(1);

fn dir() -> Fid {
    Fid { seq: 1, oid: 1, ver: 0 }
}

fn file(number: u64) -> Fid {
    Fid { seq: 2, oid: number as u32, ver: 0 }
}

fn name(number: u64) -> Name {
    Name::parse(format!("f{number}").as_bytes()).expect("a name")
}

fn attr(number: u64, change: u64) -> Attr {
    let time = Timestamp { seconds: 1, nanos: 0 };
    Attr {
        fid: file(number),
        file_type: FileType::Regular,
        mode: 0o644,
        uid: 0,
        gid: 0,
        nlink: 1,
        size: 0,
        blocks: 0,
        atime: time,
        mtime: time,
        ctime: time,
        btime: time,
        rdev: 0,
        change,
        has_acl: false,
        has_default_acl: false,
        has_capabilities: false,
    }
}

fn entry(number: u64, change: u64) -> DirEntry {
    let attr = attr(number, change);
    DirEntry { name: name(number), fid: attr.fid, file_type: attr.file_type, cookie: number, attr: Some(attr) }
}

/// A directory with entries 1 to `count`.
fn page_of(page: &Page, count: u64) -> Option<(Vec<DirEntry>, bool)> {
    let last = count.min(page.after + u64::from(page.max));
    Some(((page.after + 1..=last).map(|number| entry(number, 0)).collect(), last == count))
}

fn root() -> Credential {
    Credential::ROOT
}

/// A reader that has asked for the first names and been given the page behind them.
fn read_to(ahead: &Ahead, count: u64, now: Instant) {
    for cookie in 1..u64::from(RUN) {
        assert_eq!(ahead.asked_at(&root(), dir(), cookie, now), None);
    }
    let page = ahead.asked_at(&root(), dir(), u64::from(RUN), now).expect("a run");
    assert_eq!((page.after, page.max), (u64::from(RUN), PAGE_MIN));
    ahead.fetched(&page, now, page_of(&page, count));
}

fn found(ahead: &Ahead, number: u64, now: Instant) -> Option<Attr> {
    ahead.find_at(&root(), dir(), &name(number), now).0.map(|(attr, _)| attr)
}

#[test]
fn a_reader_of_a_directory_finds_names_before_it_asks_and_pages_grow() {
    let (ahead, now) = (Ahead::new(TRUSTED), Instant::now());
    read_to(&ahead, 10_000, now);
    let mut pages = Vec::new();
    for number in 4..5000 {
        let (known, page) = ahead.find_at(&root(), dir(), &name(number), now);
        assert_eq!(known.expect("fetched").0.fid, file(number));
        if let Some(page) = page {
            ahead.fetched(&page, now, page_of(&page, 10_000));
            pages.push(page.max);
        }
    }
    assert_eq!(pages, [256, 1024, 1024, 1024, 1024, 1024, 1024]);
}

#[test]
fn a_page_is_asked_for_once_and_none_behind_the_end() {
    let (ahead, now) = (Ahead::new(TRUSTED), Instant::now());
    for cookie in 1..u64::from(RUN) {
        ahead.asked_at(&root(), dir(), cookie, now);
    }
    let page = ahead.asked_at(&root(), dir(), 3, now).expect("a run");
    assert_eq!(ahead.asked_at(&root(), dir(), 4, now), None, "it is on its way");
    ahead.fetched(&page, now, page_of(&page, 20));
    for number in 5..=20 {
        let (known, page) = ahead.find_at(&root(), dir(), &name(number), now);
        assert!(known.is_some() && page.is_none(), "{number}");
    }
    assert!(ahead.asked_at(&root(), dir(), 21, now).is_some(), "it has grown");
}

#[test]
fn names_in_no_order_are_not_fetched_ahead() {
    let (ahead, now) = (Ahead::new(TRUSTED), Instant::now());
    for cookie in [5, 900, 40, 41, 7, 5, 4, 3, 2, 100, 200, 300] {
        assert_eq!(ahead.asked_at(&root(), dir(), cookie, now), None, "{cookie}");
    }
}

#[test]
fn nothing_is_answered_that_is_too_old_or_another_user_asked_for() {
    let (ahead, now) = (Ahead::new(TRUSTED), Instant::now());
    read_to(&ahead, 100, now);
    let later = now + TRUSTED / 2;
    let (known, _) = ahead.find_at(&root(), dir(), &name(4), later);
    assert_eq!(known.expect("trusted").1, TRUSTED / 2, "its age is told");
    assert_eq!(found(&ahead, 4, now + TRUSTED), None);
    let other = Credential { uid: 1, ..Credential::ROOT };
    assert_eq!(ahead.find_at(&other, dir(), &name(4), now).0, None);
    assert_eq!(Ahead::new(Duration::ZERO).asked_at(&root(), dir(), 3, now), None, "switched off");
}

#[test]
fn directories_and_files_with_more_names_or_without_attributes_are_left_out() {
    let (ahead, now) = (Ahead::new(TRUSTED), Instant::now());
    (1..3).for_each(|cookie| drop(ahead.asked_at(&root(), dir(), cookie, now)));
    let page = ahead.asked_at(&root(), dir(), 3, now).expect("a run");
    let mut entries: Vec<_> = (4..8).map(|number| entry(number, 0)).collect();
    entries[0].attr.as_mut().expect("there").file_type = FileType::Directory;
    entries[1].attr.as_mut().expect("there").nlink = 2;
    entries[2].attr = None;
    ahead.fetched(&page, now, Some((entries, true)));
    let known: Vec<u64> = (4..8).filter(|number| found(&ahead, *number, now).is_some()).collect();
    assert_eq!(known, [7]);
}

#[test]
fn a_directory_that_may_not_be_listed_is_left_alone_for_a_while() {
    let (ahead, now) = (Ahead::new(TRUSTED), Instant::now());
    (1..3).for_each(|cookie| drop(ahead.asked_at(&root(), dir(), cookie, now)));
    let page = ahead.asked_at(&root(), dir(), 3, now).expect("a run");
    ahead.fetched(&page, now, None);
    for (cookie, at) in (4..100).zip(0..) {
        let now = now + Duration::from_millis(at * 100);
        assert_eq!(ahead.asked_at(&root(), dir(), cookie, now).is_some(), at * 100 >= 10_000, "{cookie}");
    }
    assert!(ahead.asked_at(&root(), dir(), 100, now + REST).is_some());
}

#[test]
fn memory_is_bounded_however_many_directories_are_read() {
    let (ahead, now) = (Ahead::new(TRUSTED), Instant::now());
    for seq in 0..100 {
        let dir = Fid { seq, oid: 1, ver: 0 };
        for cookie in 1..3000 {
            let page = ahead.asked_at(&root(), dir, cookie, now);
            let entries = |page: &Page| {
                let numbers = page.after + 1..=page.after + u64::from(page.max);
                // Names come again with other files behind them.
                let entry = |number| DirEntry { name: name(number % 500), ..entry(seq * 10_000 + number + cookie, 0) };
                numbers.map(|number| DirEntry { cookie: number, ..entry(number) }).collect()
            };
            if let Some(page) = page {
                ahead.fetched(&page, now, Some((entries(&page), false)));
            }
        }
    }
    let state = ahead.state.lock();
    assert!(state.dirs.len() <= DIRS_MAX);
    assert!(state.dirs.values().all(|dir| dir.known.len() <= NAMES_MAX));
    assert!(state.places.len() > 100, "something is left");
    let known: usize = state.dirs.values().map(|dir| dir.known.len()).sum();
    assert_eq!(state.places.len(), known, "nothing is left of what was forgotten");
}

#[test]
fn clearing_also_drops_what_is_on_its_way() {
    let (ahead, now) = (Ahead::new(TRUSTED), Instant::now());
    (1..3).for_each(|cookie| drop(ahead.asked_at(&root(), dir(), cookie, now)));
    let page = ahead.asked_at(&root(), dir(), 3, now).expect("a run");
    ahead.clear();
    ahead.asked_at(&root(), dir(), 3, now);
    ahead.fetched(&page, now, page_of(&page, 100));
    assert_eq!(found(&ahead, 4, now), None);
}

#[test]
fn each_name_is_answered_once_and_not_when_something_newer_was_told() {
    let (ahead, now) = (Ahead::new(TRUSTED), Instant::now());
    read_to(&ahead, 1000, now);
    assert!(found(&ahead, 4, now).is_some());
    assert_eq!(found(&ahead, 4, now), None, "whoever asks again wants to know better");
    ahead.told(file(5));
    assert_eq!(found(&ahead, 5, now), None);
    // Also while a page is on its way.
    for number in 6..40 {
        let (_, page) = ahead.find_at(&root(), dir(), &name(number), now);
        if let Some(page) = page {
            ahead.told(file(page.after + 1));
            ahead.fetched(&page, now, page_of(&page, 1000));
            assert_eq!(found(&ahead, page.after + 1, now), None);
            assert!(found(&ahead, page.after + 2, now).is_some());
            return;
        }
    }
    panic!("no page was wanted");
}

#[test]
fn a_change_of_the_directory_itself_forgets_its_names() {
    let (ahead, now) = (Ahead::new(TRUSTED), Instant::now());
    read_to(&ahead, 1000, now);
    let chmod = Mutation::SetAttr(SetAttr::new(dir()));
    ahead.changed(&chmod, &crate::writeback::named(&chmod));
    assert_eq!(found(&ahead, 4, now), None);
}

#[derive(Clone, Debug)]
enum Step {
    Look(u64),
    /// The MDS answers a page that was asked for.
    Serve,
    /// The answer arrives.
    Arrive,
    /// The MDS makes a change.
    Make(u64, bool),
    /// Its answer arrives.
    Hear,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1u64..40).prop_map(Step::Look),
        2 => Just(Step::Serve),
        2 => Just(Step::Arrive),
        2 => (1u64..40, any::<bool>()).prop_map(|(number, named)| Step::Make(number, named)),
        2 => Just(Step::Hear),
    ]
}

proptest! {
    /// Names are looked up in order, changes come in between, and every answer arrives late.
    #[test]
    fn what_this_client_has_changed_is_never_answered_as_it_was(steps in prop::collection::vec(step(), 1..400)) {
        let (ahead, now) = (Ahead::new(TRUSTED), Instant::now());
        // Of each file: its version at the MDS, and the version that this client has heard of.
        let (mut made, mut heard) = ([0u64; 41], [0u64; 41]);
        let (mut wanted, mut served, mut unheard) = (Vec::new(), Vec::new(), Vec::new());
        let mut at = 0;
        for step in steps {
            match step {
                Step::Look(jump) => {
                    at = if jump > 35 { jump } else { at % 40 + 1 };
                    let (known, page) = ahead.find_at(&root(), dir(), &name(at), now);
                    wanted.extend(page);
                    match known {
                        Some((attr, _)) => prop_assert!(attr.change >= heard[at as usize], "{at}"),
                        None => wanted.extend(ahead.asked_at(&root(), dir(), at, now)),
                    }
                }
                Step::Serve => if let Some(page) = wanted.pop() {
                    let last = 40.min(page.after + u64::from(page.max));
                    let entries = (page.after + 1..=last).map(|number| entry(number, made[number as usize])).collect();
                    served.push((page, entries, last == 40));
                },
                Step::Arrive => if let Some((page, entries, end)) = served.pop() {
                    ahead.fetched(&page, now, Some((entries, end)));
                },
                Step::Make(number, named) => {
                    made[number as usize] += 1;
                    let op = match named {
                        true => Mutation::Unlink { parent: dir(), name: name(number) },
                        false => Mutation::SetAttr(SetAttr::new(file(number))),
                    };
                    unheard.push((number, made[number as usize], op));
                }
                Step::Hear => if let Some((number, version, op)) = unheard.pop() {
                    ahead.changed(&op, &crate::writeback::named(&op));
                    heard[number as usize] = heard[number as usize].max(version);
                },
            }
        }
    }
}
