//! Random operations on names: few names in few directories, so that they meet.

use rand::Rng;
use rand::rngs::StdRng;
use sateen_types::op::RenameMode;
use sateen_types::{Fid, FileType};

use super::{Answer, Label, Op, Seen, Stat};

/// Names that are used.
const LABELS: Label = 4;
/// Directories that are remembered beside the top: the newest.
const DIRS_MAX: usize = 5;
/// Files, and links, that are remembered.
const FILES_MAX: usize = 6;

/// Inodes that clients have seen, and have told each other of.
#[derive(Debug, Clone)]
pub struct Known {
    top: Fid,
    dirs: Vec<Fid>,
    files: Vec<Fid>,
    links: Vec<Fid>,
}

impl Known {
    /// The directory in which everything happens.
    pub fn new(top: Fid) -> Known {
        Known { top, dirs: Vec::new(), files: Vec::new(), links: Vec::new() }
    }

    /// Takes in what an operation has answered.
    pub fn learn(&mut self, answer: &Answer) {
        let Ok(Seen::Inode(Stat { id, kind, .. }, _)) = answer else { return };
        let (list, most) = match kind {
            FileType::Directory => (&mut self.dirs, DIRS_MAX),
            FileType::Symlink => (&mut self.links, FILES_MAX),
            _ => (&mut self.files, FILES_MAX),
        };
        if !list.contains(id) {
            list.push(*id);
        }
        if list.len() > most {
            list.remove(0);
        }
    }

    /// Every directory that is remembered.
    pub fn dirs(&self) -> impl Iterator<Item = Fid> + '_ {
        self.dirs.iter().copied().chain([self.top])
    }

    fn dir(&self, rng: &mut StdRng) -> Fid {
        match self.dirs.len() {
            0 => self.top,
            _ if rng.random_bool(0.2) => self.top,
            dirs => self.dirs[rng.random_range(0..dirs)],
        }
    }

    fn file(&self, rng: &mut StdRng) -> Option<Fid> {
        (!self.files.is_empty()).then(|| self.files[rng.random_range(0..self.files.len())])
    }

    /// An operation: in the directory `own`, if there is one.
    pub fn any_op(&self, rng: &mut StdRng, serial: u32, own: Option<Fid>) -> Op {
        let at = |rng: &mut StdRng| (own.unwrap_or_else(|| self.dir(rng)), rng.random_range(0..LABELS));
        let place = at(rng);
        match rng.random_range(0..100) {
            0..12 => Op::Create { at: place, exclusive: true, serial },
            12..15 => Op::Create { at: place, exclusive: false, serial },
            15..27 => Op::Mkdir { at: place, serial },
            27..30 => Op::Symlink { at: place, serial },
            30..36 => self.file(rng).map_or(Op::Lookup { at: place }, |fid| Op::Link { fid, at: place }),
            36..44 => Op::Unlink { at: place },
            44..50 => Op::Rmdir { at: place },
            50..66 => {
                let mode = match rng.random_range(0..6) {
                    0 => RenameMode::NoReplace,
                    1 => RenameMode::Exchange,
                    _ => RenameMode::Replace,
                };
                let to = at(rng);
                Op::Rename { from: place, to, mode }
            }
            66..70 => {
                let fid = self.file(rng).filter(|_| rng.random()).unwrap_or(place.0);
                // The top keeps its mode: what its owner may do does not depend on it.
                if fid == self.top {
                    Op::Stat { fid }
                } else {
                    Op::Chmod { fid, mode: rng.random_range(0o700..=0o777) }
                }
            }
            70..84 => Op::Lookup { at: place },
            84..89 => Op::Stat { fid: self.file(rng).filter(|_| rng.random()).unwrap_or(place.0) },
            89..91 => match self.links.last() {
                Some(fid) => Op::Readlink { fid: *fid },
                None => Op::Lookup { at: place },
            },
            91..93 if place.0 != self.top => Op::Parent { dir: place.0 },
            _ => Op::List { dir: place.0 },
        }
    }
}
