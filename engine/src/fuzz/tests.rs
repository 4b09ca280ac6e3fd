//! The corpus of the fuzz targets (`tests/fuzz/corpus`), replayed: each input once came to a place in the code
//! that no other one did, or made something fail that works now.

use std::fs;
use std::path::Path;

/// Replays what lies in the directory of one target.
fn replay(target: &str, check: fn(&[u8])) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/corpus").join(target);
    let inputs = fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
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

/// One test a target, named like its corpus.
macro_rules! targets {
    ($($name:ident)*) => {$(
        #[test]
        fn $name() {
            replay(stringify!($name), super::$name::check);
        }
    )*};
}

targets! { command config content original path peer proxy reply_reader sasl session }
