//! Running a program where the kernel refuses it io_uring, without a change to the machine: a seccomp
//! filter that answers EPERM to `io_uring_setup`, set by a launcher in Python that then becomes the program.

use std::path::Path;
use std::process::Command;

use crate::process::run;
use crate::wait::SOON;

const LAUNCHER: &str = "\
import ctypes, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
step = lambda code, yes, no, k: struct.pack('HBBI', code, yes, no, k)
program = b''.join([
    step(0x20, 0, 0, 0),             # load the number of the system call
    step(0x15, 0, 1, 425),           # io_uring_setup, on every architecture?
    step(0x06, 0, 0, 0x00050000 | int(sys.argv[1])),
    step(0x06, 0, 0, 0x7fff0000)])   # every other call is allowed
buffer = ctypes.create_string_buffer(program, len(program))
class Program(ctypes.Structure):
    _fields_ = [('len', ctypes.c_ushort), ('filter', ctypes.c_void_p)]
filter = Program(4, ctypes.cast(buffer, ctypes.c_void_p))
prctl = libc.prctl
prctl.argtypes = [ctypes.c_int] + [ctypes.c_void_p] * 4
for arguments in [(38, 1, 0, 0, 0), (22, 2, ctypes.addressof(filter), 0, 0)]:
    if prctl(*arguments) != 0:
        sys.exit('prctl: ' + os.strerror(ctypes.get_errno()))
os.execv(sys.argv[2], sys.argv[2:])
";

const EPERM: u32 = 1;

/// A command that runs `program` without io_uring; add its arguments.
pub fn without_io_uring(program: &Path) -> Command {
    let mut command = Command::new("python3");
    command.args(["-c", LAUNCHER, &EPERM.to_string()]).arg(program);
    command
}

/// Whether such a filter can be set here.
pub fn is_possible() -> bool {
    let mut probe = without_io_uring(&crate::tools::find("true").expect("true"));
    run(&mut probe, SOON).status.success()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filter_forbids_io_uring_and_nothing_else() {
        if !is_possible() {
            return crate::skipped("no seccomp filter can be set here");
        }
        let probe = "import ctypes, sys\n\
             libc = ctypes.CDLL(None, use_errno=True)\n\
             room = ctypes.create_string_buffer(120)\n\
             result = libc.syscall(425, 4, room)\n\
             print(result, ctypes.get_errno())";
        let python = crate::tools::find("python3").expect("python3");
        let output = run(without_io_uring(&python).args(["-c", probe]), SOON);
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "-1 1", "{output:?}");
    }
}
