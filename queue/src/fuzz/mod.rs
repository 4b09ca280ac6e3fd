//! What the fuzz targets of the spool check: one function each, from octets to nothing, which panics when
//! something is wrong. Built only for tests, which replay the corpus (`tests/fuzz/corpus`), and with
//! `--cfg fuzzing`.

pub mod recovery;

pub use crate::record::fuzz as record;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    fn replay(target: &str, check: fn(&[u8])) {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/corpus").join(target);
        let inputs =
            fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
        let mut count = 0;
        for input in inputs {
            let path = input.expect("an entry").path();
            let octets = fs::read(&path).expect("an input");
            let replayed = std::panic::catch_unwind(|| check(&octets));
            assert!(replayed.is_ok(), "{}: {}", path.display(), octets.escape_ascii());
            count += 1;
        }
        assert!(count > 0, "{} is empty", directory.display());
    }

    #[test]
    fn record() {
        replay("record", super::record::check);
    }

    #[test]
    fn recovery() {
        replay("recovery", super::recovery::check);
    }
}
