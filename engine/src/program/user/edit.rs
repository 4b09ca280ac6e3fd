//! The password file, changed line by line and replaced whole.

use crate::auth::users::{self, FILE_OCTETS_MAX, User, read_line};
use crate::program::{DATA_ERROR, Failed};
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::Path;

const MODE: u32 = 0o640;

fn text(path: &Path) -> Result<String, Failed> {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(FILE_OCTETS_MAX + 1).read_to_string(&mut text));
    match read {
        Ok(octets) if octets as u64 > FILE_OCTETS_MAX => {
            Err(Failed::new(DATA_ERROR, format_args!("{} is too long to be a password file", path.display())))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(text),
        Err(error) => Err(Failed::io(path.display(), &error)),
        Ok(_) => Ok(text),
    }
}

pub(super) fn all(path: &Path) -> Result<HashMap<String, User>, Failed> {
    users::read(&text(path)?)
        .map_err(|wrong| Failed::new(DATA_ERROR, format_args!("{}: {wrong}", path.display())))
}

pub(super) fn find(path: &Path, login: &str) -> Result<Option<User>, Failed> {
    Ok(all(path)?.remove(login))
}

/// Replaces what the file says of a login by what `change` makes of it; `None` removes it.
pub(super) fn change(
    path: &Path,
    login: &str,
    change: impl FnOnce(Option<User>) -> Result<Option<User>, Failed>,
) -> Result<(), Failed> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let failed =
        |error: &std::io::Error| Failed::io(format_args!("{} cannot be changed", path.display()), error);
    let turn = File::open(directory).map_err(|error| failed(&error))?;
    turn.lock().map_err(|error| failed(&error))?;
    let before = text(path)?;
    let changed = change(find(path, login)?)?;
    let after = replace(&before, login, changed.map(|user| user.write(login)).as_deref());
    replace_file(path, directory, &after).map_err(|error| failed(&error))?;
    turn.sync_all().map_err(|error| failed(&error))
}

/// The text with the login's line replaced, removed, or put behind the others.
fn replace(text: &str, login: &str, line: Option<&str>) -> String {
    let mut out = String::with_capacity(text.len() + 256);
    let mut line = line;
    for old in text.lines() {
        let its = matches!(read_line(old), Ok(Some((of, _))) if of == login);
        if let Some(kept) = if its { line.take() } else { Some(old) } {
            out.push_str(kept);
            out.push('\n');
        }
    }
    if let Some(line) = line {
        out.push_str(line);
        out.push('\n');
    }
    out
}

fn replace_file(path: &Path, directory: &Path, text: &str) -> std::io::Result<()> {
    // The relay must be able to read it: as before, else whoever may read the directory.
    let (owner, group) = match std::fs::metadata(path) {
        Ok(metadata) => (Some(metadata.uid()), Some(metadata.gid())),
        Err(_) => (None, Some(std::fs::metadata(directory)?.gid())),
    };
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let beside = path.with_file_name(name);
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(MODE).open(&beside)?;
        file.set_permissions(std::fs::Permissions::from_mode(MODE))?;
        // Without the right to give it away it stays ours, and the next line says whether that matters.
        let given = fchown(&file, owner, group);
        if owner.is_some() {
            given?;
        }
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&beside, path)
    })();
    if written.is_err() {
        let _ = std::fs::remove_file(&beside);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::hash::Hash;

    #[test]
    fn a_change_keeps_comments_order_and_other_lines() {
        let directory = std::env::temp_dir().join(format!("sluice-edit-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join("users");
        let user = || User { hash: Hash::make("password", &[1; 16]), scram: None, locked: false };
        for login in ["bob", "ann"] {
            change(&path, login, |found| {
                assert!(found.is_none());
                Ok(Some(user()))
            })
            .unwrap();
        }
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("# people\n\n{text}# end\n")).unwrap();
        change(&path, "bob", |found| Ok(Some(User { locked: true, ..found.unwrap() }))).unwrap();
        let line = user().write("ann");
        let locked = User { locked: true, ..user() }.write("bob");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("# people\n\n{locked}\n{line}\n# end\n"));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, MODE);
        change(&path, "bob", |_| Ok(None)).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("# people\n\n{line}\n# end\n"));
        assert!(change(&path, "bob", |_| Err(Failed::new(1, "no"))).is_err());
        assert_eq!(all(&path).unwrap().len(), 1);
        assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 1, "nothing is left behind");
        std::fs::remove_dir_all(directory).unwrap();
    }
}
