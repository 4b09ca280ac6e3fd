//! Texts that many messages have in common, kept once: reasons, and where rerouted recipients go.
//!
//! Pure data; part of the index of a spool. Counted by use: the last one to let go of a text frees it.

use std::collections::HashMap;
use std::rc::Rc;

/// Octets of texts, with their overhead. Prevents: memory by the inventiveness of peers, whose replies are
/// reasons. What finds no room stays on disk and is read when it is asked for.
const TEXTS_BYTES_MAX: usize = 8 << 20;
/// What a text costs beside its octets: its places in the table and the list, and their slack.
const TEXT_OVERHEAD: usize = 96;

/// The name of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Symbol(pub u32);

impl Symbol {
    /// The empty text, which takes no room.
    pub const EMPTY: Self = Self(0);
}

#[derive(Debug)]
pub(super) struct Texts {
    symbols: HashMap<Rc<str>, u32>,
    /// By symbol, from 1: the text and how many use it.
    texts: Vec<(Rc<str>, u32)>,
    free: Vec<u32>,
    bytes: usize,
    bytes_max: usize,
}

impl Default for Texts {
    fn default() -> Self {
        let (symbols, texts, free) = Default::default();
        Self { symbols, texts, free, bytes: 0, bytes_max: TEXTS_BYTES_MAX }
    }
}

impl Texts {
    /// One more use of `text`; `None` when there is no room for another one.
    pub fn take(&mut self, text: &str) -> Option<Symbol> {
        let known = text.is_empty() || self.symbols.contains_key(text);
        let room = self.bytes + text.len() + TEXT_OVERHEAD <= self.bytes_max;
        (known || room).then(|| self.take_anyhow(text))
    }

    /// The same for what must not be lost.
    pub fn take_anyhow(&mut self, text: &str) -> Symbol {
        if text.is_empty() {
            return Symbol::EMPTY;
        }
        if let Some(&symbol) = self.symbols.get(text) {
            self.texts[symbol as usize - 1].1 += 1;
            return Symbol(symbol);
        }
        let text: Rc<str> = text.into();
        self.bytes += text.len() + TEXT_OVERHEAD;
        let symbol = match self.free.pop() {
            Some(symbol) => {
                self.texts[symbol as usize - 1] = (text.clone(), 1);
                symbol
            }
            None => {
                self.texts.push((text.clone(), 1));
                self.texts.len() as u32
            }
        };
        self.symbols.insert(text, symbol);
        Symbol(symbol)
    }

    /// One use less.
    pub fn release(&mut self, symbol: Symbol) {
        let Some(at) = (symbol.0 as usize).checked_sub(1) else { return };
        let (text, uses) = &mut self.texts[at];
        *uses -= 1;
        if *uses == 0 {
            self.bytes -= text.len() + TEXT_OVERHEAD;
            let text = std::mem::take(text);
            self.symbols.remove(&text);
            self.free.push(symbol.0);
        }
    }

    #[cfg(test)]
    pub fn limit(&mut self, bytes_max: usize) {
        self.bytes_max = bytes_max;
    }

    pub fn get(&self, symbol: Symbol) -> &str {
        match (symbol.0 as usize).checked_sub(1) {
            None => "",
            Some(at) => &self.texts[at].0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_kept_once_and_as_long_as_it_is_used() {
        let mut texts = Texts::default();
        let [a, b] = ["450 busy", "450 busy"].map(|text| texts.take(text).unwrap());
        let other = texts.take("no route").unwrap();
        assert!(a == b && a != other && texts.take("") == Some(Symbol::EMPTY));
        texts.release(a);
        assert_eq!((texts.get(b), texts.get(other), texts.get(Symbol::EMPTY)), ("450 busy", "no route", ""));
        texts.release(b);
        let again = texts.take("another").unwrap();
        assert_eq!((again, texts.get(again)), (a, "another"), "its place is used again");
        texts.release(again);
        texts.release(other);
        assert_eq!((texts.bytes, texts.symbols.len()), (0, 0));
    }

    #[test]
    fn texts_are_bounded_but_what_must_be_kept_is() {
        let mut texts = Texts::default();
        let kept = (0..100_000).filter(|number| texts.take(&format!("{number:400}")).is_some()).count();
        assert!((10_000..20_000).contains(&kept) && texts.bytes <= TEXTS_BYTES_MAX);
        assert!(texts.take(&format!("{:400}", 0)).is_some(), "known already");
        let via = texts.take_anyhow("mx:elsewhere.example");
        assert_eq!(texts.get(via), "mx:elsewhere.example");
    }
}
