//! Where an input is cut, said by one octet of it.

/// The lengths of pieces, without end.
#[derive(Clone, Debug)]
pub(super) struct Cuts {
    state: u32,
}

impl Cuts {
    /// 0: every octet apart; from 1 on: lengths that follow each other without a rule that a parser knows,
    /// short ones with low numbers.
    pub fn new(way: u8) -> Self {
        Self { state: u32::from(way) }
    }

    pub fn next(&mut self) -> usize {
        if self.state == 0 {
            return 1;
        }
        let spread = 2 + (self.state & 0xff) / 4;
        self.state =
            (self.state & 0xff) | (self.state >> 8).wrapping_mul(1_103_515_245).wrapping_add(12_345) << 8;
        1 + (self.state >> 20) as usize % spread as usize
    }

    /// Cuts the octets into pieces.
    pub fn pieces<'a>(&mut self, mut octets: &'a [u8]) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let mut cuts = self.clone();
        std::iter::from_fn(move || {
            let (piece, rest) = octets.split_at(cuts.next().min(octets.len()));
            octets = rest;
            (!piece.is_empty()).then_some(piece)
        })
    }
}
