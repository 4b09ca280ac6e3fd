//! io_uring: is it there, and may this process use it? A ring is opened to find out.

use std::io;

use crate::{EX_OSERR, Finding, fatal, sys};

const SWITCH: &str = "/proc/sys/kernel/io_uring_disabled";

/// The kernel's own refusal, `kernel.io_uring_disabled`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Switch {
    /// 0, or a kernel before 6.6, which has no switch.
    Open,
    /// 1: only with CAP_SYS_ADMIN, or in the group `kernel.io_uring_group`.
    Privileged,
    /// 2: for nobody.
    Closed,
}

pub fn check() -> Option<Finding> {
    let error = sys::io_uring_setup(8).err()?;
    judge(&error, switch(std::fs::read_to_string(SWITCH).ok().as_deref()))
}

fn switch(content: Option<&str>) -> Switch {
    match content.map(str::trim) {
        Some("1") => Switch::Privileged,
        Some("2") => Switch::Closed,
        _ => Switch::Open,
    }
}

fn judge(error: &io::Error, switch: Switch) -> Option<Finding> {
    let sentence = match (error.raw_os_error(), switch) {
        (Some(libc::ENOSYS), _) => {
            "this kernel has no io_uring (io_uring_setup: ENOSYS): boot a kernel 5.8 or newer that was built with CONFIG_IO_URING, \
             or, in a container, use a runtime that passes it on (gVisor does not)"
                .to_owned()
        }
        (Some(libc::EPERM), Switch::Closed) => {
            "io_uring is switched off for everybody (kernel.io_uring_disabled = 2): run `sysctl -w kernel.io_uring_disabled=0` \
             and keep it in a file of /etc/sysctl.d"
                .to_owned()
        }
        (Some(libc::EPERM), Switch::Privileged) => {
            "io_uring is reserved for privileged processes (kernel.io_uring_disabled = 1): set kernel.io_uring_group to the \
             number of the relay's group, or run `sysctl -w kernel.io_uring_disabled=0`; keep it in a file of /etc/sysctl.d"
                .to_owned()
        }
        (Some(libc::EPERM | libc::EACCES), _) => {
            "io_uring is forbidden to this process by a seccomp filter or security module: under systemd allow it with \
             `SystemCallFilter=@system-service io_uring_setup io_uring_enter io_uring_register`, under Docker or Podman give a \
             profile that allows these three calls with `--security-opt seccomp=PROFILE.json` (the default profiles forbid them)"
                .to_owned()
        }
        (Some(libc::ENOMEM), _) => {
            "a ring does not fit the locked memory that is left to this user (io_uring_setup: ENOMEM): raise it with \
             `LimitMEMLOCK=infinity` in the unit, or `ulimit -l unlimited` before the start"
                .to_owned()
        }
        (Some(libc::EMFILE | libc::ENFILE), _) => {
            "a ring cannot be opened, no file descriptor is left: raise `LimitNOFILE=` in the unit, or `ulimit -n`".to_owned()
        }
        _ => format!("io_uring does not work on this host (io_uring_setup: {error}): boot a kernel 5.8 or newer"),
    };
    fatal("io_uring", EX_OSERR, sentence)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_names_its_own_remedy() {
        let table = [
            (libc::ENOSYS, Switch::Open, "CONFIG_IO_URING"),
            (libc::EPERM, Switch::Closed, "kernel.io_uring_disabled = 2"),
            (libc::EPERM, Switch::Privileged, "kernel.io_uring_group"),
            (libc::EPERM, Switch::Open, "SystemCallFilter="),
            (libc::EACCES, Switch::Open, "--security-opt seccomp="),
            (libc::ENOMEM, Switch::Open, "LimitMEMLOCK="),
            (libc::EMFILE, Switch::Open, "LimitNOFILE="),
            (libc::EINVAL, Switch::Open, "Invalid argument"),
        ];
        for (errno, switch, remedy) in table {
            let finding = judge(&io::Error::from_raw_os_error(errno), switch).expect("a refusal");
            assert!(finding.sentence.contains(remedy), "{errno} {switch:?}: {}", finding.sentence);
            assert!(!finding.sentence.contains('\n'), "one line: {}", finding.sentence);
            assert_eq!(finding.exit, EX_OSERR);
        }
    }

    #[test]
    fn the_switch_is_open_unless_it_says_1_or_2() {
        let table = [
            (None, Switch::Open),
            (Some("0\n"), Switch::Open),
            (Some("1\n"), Switch::Privileged),
            (Some("2\n"), Switch::Closed),
            (Some("?"), Switch::Open),
        ];
        for (content, expected) in table {
            assert_eq!(switch(content), expected, "{content:?}");
        }
    }
}
