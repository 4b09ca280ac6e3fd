//! What the disk holds, and what of it lasts. Pure: the seed decides what a cut takes away.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};

use super::Losses;

/// What reaches the medium whole or not at all.
pub const BLOCK: usize = 4096;

/// A file: its octets as everybody sees them, and those that last.
#[derive(Clone, Default)]
struct File {
    current: Vec<u8>,
    durable: Vec<u8>,
    /// Octets written and not synced, by their place; sizes are in `current`.
    unsynced: Vec<(usize, Vec<u8>)>,
}

#[derive(Clone)]
enum Renaming {
    Made(OsString, u64),
    Removed(OsString),
}

/// The power is gone.
#[derive(Debug, PartialEq, Eq)]
pub struct Cut;

pub struct Blocks {
    files: HashMap<u64, File>,
    names: BTreeMap<OsString, u64>,
    durable_names: BTreeMap<OsString, u64>,
    /// Names made and removed since the directory was synced.
    unsynced_names: Vec<Renaming>,
    next_inode: u64,
    writes_until_cut: Option<u64>,
    is_cut: bool,
    random: u64,
    pub losses: Losses,
}

impl Blocks {
    pub fn new(seed: u64) -> Self {
        Self {
            files: HashMap::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            unsynced_names: Vec::new(),
            next_inode: 2,
            writes_until_cut: None,
            is_cut: false,
            random: seed.wrapping_mul(2).wrapping_add(1),
            losses: Losses::default(),
        }
    }

    pub fn is_cut(&self) -> bool {
        self.is_cut
    }

    pub fn cut_in(&mut self, writes: u64) {
        self.writes_until_cut = Some(writes);
    }

    pub fn names(&self) -> impl Iterator<Item = (&OsString, u64)> {
        self.names.iter().map(|(name, inode)| (name, *inode))
    }

    pub fn find(&self, name: &OsStr) -> Option<u64> {
        self.names.get(name).copied()
    }

    pub fn size(&self, inode: u64) -> Option<u64> {
        self.files.get(&inode).map(|file| file.current.len() as u64)
    }

    pub fn create(&mut self, name: &OsStr) -> Result<u64, Cut> {
        self.powered()?;
        let inode = self.next_inode;
        self.next_inode += 1;
        self.files.insert(inode, File::default());
        self.names.insert(name.to_owned(), inode);
        self.unsynced_names.push(Renaming::Made(name.to_owned(), inode));
        Ok(inode)
    }

    /// `false` when there is no such name.
    pub fn remove(&mut self, name: &OsStr) -> Result<bool, Cut> {
        self.powered()?;
        let found = self.names.remove(name).is_some();
        if found {
            self.unsynced_names.push(Renaming::Removed(name.to_owned()));
        }
        Ok(found)
    }

    pub fn read(&self, inode: u64, at: usize, len: usize) -> Result<&[u8], Cut> {
        self.powered()?;
        let octets = self.files.get(&inode).map_or(&[][..], |file| &file.current);
        let start = at.min(octets.len());
        Ok(&octets[start..(start + len).min(octets.len())])
    }

    /// `synced`: the write itself lasts when this returns.
    pub fn write(&mut self, inode: u64, at: usize, octets: &[u8], synced: bool) -> Result<(), Cut> {
        self.powered()?;
        let last = match &mut self.writes_until_cut {
            Some(left) => {
                *left = left.saturating_sub(1);
                *left == 0
            }
            None => false,
        };
        let Some(file) = self.files.get_mut(&inode) else { return Ok(()) };
        put(&mut file.current, at, octets);
        if synced && !last {
            put(&mut file.durable, at, octets);
        } else {
            file.unsynced.push((at, octets.to_vec()));
        }
        if last {
            self.losses.torn += 1;
            self.cut();
            return Err(Cut);
        }
        Ok(())
    }

    /// Another size; new octets are zero.
    pub fn resize(&mut self, inode: u64, size: usize) -> Result<(), Cut> {
        self.powered()?;
        if let Some(file) = self.files.get_mut(&inode) {
            file.current.resize(size, 0);
        }
        Ok(())
    }

    pub fn sync(&mut self, inode: u64) -> Result<(), Cut> {
        self.powered()?;
        if let Some(file) = self.files.get_mut(&inode) {
            file.durable.clone_from(&file.current);
            file.unsynced.clear();
        }
        Ok(())
    }

    pub fn sync_names(&mut self) -> Result<(), Cut> {
        self.powered()?;
        self.durable_names = self.names.clone();
        self.unsynced_names.clear();
        Ok(())
    }

    fn powered(&self) -> Result<(), Cut> {
        if self.is_cut { Err(Cut) } else { Ok(()) }
    }

    /// The power goes: of what was not synced, chance keeps some blocks and the first few names.
    pub fn cut(&mut self) {
        self.is_cut = true;
        self.writes_until_cut = None;
        self.losses.cuts += 1;
        let mut random = self.random;
        let mut inodes: Vec<u64> = self.files.keys().copied().collect();
        inodes.sort_unstable();
        for inode in inodes {
            let file = self.files.get_mut(&inode).expect("it was listed");
            if file.durable.len() != file.current.len() && coin(&mut random) {
                file.durable.resize(file.current.len(), 0);
            }
            for (at, octets) in std::mem::take(&mut file.unsynced) {
                for (number, block) in octets.chunks(BLOCK).enumerate() {
                    if coin(&mut random) {
                        put(&mut file.durable, at + number * BLOCK, block);
                    } else {
                        self.losses.blocks_lost += 1;
                    }
                }
            }
        }
        let renamings = std::mem::take(&mut self.unsynced_names);
        let kept = renamings.iter().take_while(|_| coin(&mut random)).count();
        self.losses.names_lost += renamings.len() - kept;
        for renaming in renamings.into_iter().take(kept) {
            match renaming {
                Renaming::Made(name, inode) => drop(self.durable_names.insert(name, inode)),
                Renaming::Removed(name) => drop(self.durable_names.remove(&name)),
            }
        }
        self.random = random;
    }

    /// The power is back: everybody sees what lasted. Without a cut before, it is one between two writes.
    pub fn restore(&mut self) {
        if !self.is_cut {
            self.cut();
        }
        self.is_cut = false;
        self.names = self.durable_names.clone();
        let names = &self.names;
        self.files.retain(|inode, _| names.values().any(|named| named == inode));
        self.files.values_mut().for_each(|file| file.current.clone_from(&file.durable));
    }
}

fn put(octets: &mut Vec<u8>, at: usize, new: &[u8]) {
    if octets.len() < at + new.len() {
        octets.resize(at + new.len(), 0);
    }
    octets[at..at + new.len()].copy_from_slice(new);
}

/// xorshift64.
fn coin(random: &mut u64) -> bool {
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    *random & 1 == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "a";

    fn after_a_cut(seed: u64, history: impl FnOnce(&mut Blocks)) -> Blocks {
        let mut blocks = Blocks::new(seed);
        history(&mut blocks);
        blocks.restore();
        blocks
    }

    fn content(blocks: &Blocks, len: usize) -> Vec<u8> {
        let inode = blocks.find(A.as_ref()).expect("the name lasted");
        blocks.read(inode, 0, len).unwrap().to_vec()
    }

    #[test]
    fn what_was_synced_lasts_whatever_the_seed() {
        for seed in 0..100 {
            let blocks = after_a_cut(seed, |blocks| {
                let inode = blocks.create(A.as_ref()).unwrap();
                blocks.sync_names().unwrap();
                blocks.write(inode, 0, &[1; BLOCK], false).unwrap();
                blocks.sync(inode).unwrap();
                blocks.write(inode, BLOCK, &[2; BLOCK], true).unwrap();
            });
            assert_eq!(content(&blocks, 2 * BLOCK), [[1; BLOCK], [2; BLOCK]].concat());
        }
    }

    #[test]
    fn what_was_not_synced_is_lost_by_some_seeds_and_kept_by_others() {
        let survives = |seed| {
            let blocks = after_a_cut(seed, |blocks| {
                let inode = blocks.create(A.as_ref()).unwrap();
                blocks.sync_names().unwrap();
                blocks.write(inode, 0, &[1; BLOCK], false).unwrap();
            });
            content(&blocks, BLOCK) == [1; BLOCK]
        };
        let kept = (0..100).filter(|&seed| survives(seed)).count();
        assert!((20..80).contains(&kept), "{kept}");
        let named = |seed| {
            let blocks = after_a_cut(seed, |blocks| drop(blocks.create(A.as_ref())));
            blocks.find(A.as_ref()).is_some()
        };
        let named = (0..100).filter(|&seed| named(seed)).count();
        assert!((20..80).contains(&named), "{named}");
    }

    #[test]
    fn a_write_is_torn_at_the_cut_and_nothing_answers_after_it() {
        let torn = |seed| {
            let mut blocks = Blocks::new(seed);
            let inode = blocks.create(A.as_ref()).unwrap();
            blocks.sync_names().unwrap();
            blocks.write(inode, 0, &[0; 8 * BLOCK], true).unwrap();
            blocks.cut_in(2);
            blocks.write(inode, 0, &[1; BLOCK], true).unwrap();
            assert_eq!(blocks.write(inode, 0, &[7; 8 * BLOCK], true), Err(Cut));
            assert!(blocks.sync(inode).is_err() && blocks.read(inode, 0, 1).is_err());
            blocks.restore();
            let content = content(&blocks, 8 * BLOCK);
            content.chunks(BLOCK).filter(|block| block[0] == 7).count()
        };
        let counts: Vec<usize> = (0..50).map(torn).collect();
        assert!(counts.iter().any(|&count| count > 0 && count < 8), "{counts:?}");
    }
}
