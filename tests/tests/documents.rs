//! The documents of the project tell the truth about its tree: every path that they name exists.

use std::fs;
use std::path::{Path, PathBuf};

const DOCUMENTS: [&str; 4] = ["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "queue/FORMAT.md"];

/// What looks like a path of the tree without being one: written at run time, or an example.
const NOT_IN_THE_TREE: [&str; 2] = ["target/", "sluice-demo/"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

/// The paths named in a text: targets of links, and words in backticks that begin with an entry of the top
/// directory.
fn paths(text: &str, top: &[String]) -> Vec<String> {
    let links = text.match_indices("](").filter_map(|(at, _)| text[at + 2..].split(')').next());
    let links = links.filter(|target| !target.contains("://") && !target.starts_with(['#', '<']));
    let links = links.map(|target| target.split('#').next().expect("a part").to_owned());
    let words = text.split('`').skip(1).step_by(2).filter(|word| !word.contains('\n'));
    let words = words.filter_map(|word| {
        let word = word.split(' ').next()?.trim_start_matches("./");
        let first = word.split('/').next()?;
        let is_path = top.iter().any(|name| name == first) && (word.contains('/') || word.contains('.'));
        let is_plain =
            !word.contains(['*', '{', '<', '…', '$']) && !word.contains("::") && !word.contains("NN");
        (is_path && is_plain).then(|| word.to_owned())
    });
    links.chain(words).filter(|path| !NOT_IN_THE_TREE.iter().any(|other| path.starts_with(other))).collect()
}

#[test]
fn paths_named_in_the_documents_exist() {
    let root = root();
    let entries = fs::read_dir(&root).expect("the workspace");
    let top: Vec<String> =
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    let (mut missing, mut named) = (Vec::new(), 0);
    for document in DOCUMENTS {
        let file = root.join(document);
        let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{document}: {error}"));
        let beside = file.parent().expect("a directory").to_owned();
        for path in paths(&text, &top) {
            named += 1;
            let path = path.split(':').next().expect("a part");
            if !root.join(path).exists() && !beside.join(path).exists() {
                missing.push(format!("{document}: {path}"));
            }
        }
    }
    println!("{named} paths are named");
    assert!(named > 0);
    assert!(missing.is_empty(), "named and missing: {missing:#?}");
}

#[test]
fn paths_are_found_in_links_and_in_backticks() {
    let top = ["engine".to_owned(), "README.md".to_owned()];
    let text = "See [x](engine/a.rs#l1), `engine/src/b.rs`, `cargo run`, `engine`, `README.md`, `a/b`, \
                `engine/{x,y}`, [web](https://x.test/y), `./engine/run --fast`.";
    assert_eq!(paths(text, &top), ["engine/a.rs", "engine/src/b.rs", "README.md", "engine/run"]);
}
