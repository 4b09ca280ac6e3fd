//! The system calls that the standard library does not wrap. The only module of the crate with `unsafe`.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

/// A resource limit of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    pub soft: u64,
    pub hard: u64,
}

/// Which resource; the kernel's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// Bytes of locked memory: glommio asks for it, old kernels count the rings in it.
    Memlock,
    /// Open files.
    Nofile,
}

impl Resource {
    fn number(self) -> libc::__rlimit_resource_t {
        match self {
            Resource::Memlock => libc::RLIMIT_MEMLOCK,
            Resource::Nofile => libc::RLIMIT_NOFILE,
        }
    }
}

pub fn limit(resource: Resource) -> io::Result<Limit> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to a live, writable rlimit, and the kernel keeps nothing of it.
    let result = unsafe { libc::getrlimit(resource.number(), &mut limit) };
    if result == 0 {
        Ok(Limit { soft: limit.rlim_cur, hard: limit.rlim_max })
    } else {
        Err(io::Error::last_os_error())
    }
}

pub fn set_limit(resource: Resource, limit: Limit) -> io::Result<()> {
    let limit = libc::rlimit { rlim_cur: limit.soft, rlim_max: limit.hard };
    // SAFETY: the pointer is to a live rlimit that the kernel only reads.
    let result = unsafe { libc::setrlimit(resource.number(), &limit) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The CPUs that this process may run on, ascending.
pub fn affinity() -> io::Result<Vec<usize>> {
    const WORDS: usize = crate::CPUS_MAX / 64;
    let mut mask = [0_u64; WORDS];
    // SAFETY: the pointer is to WORDS * 8 writable bytes, and that size is what the call is told. Any size
    // that is a multiple of a word is allowed, larger than cpu_set_t too.
    let result = unsafe { libc::sched_getaffinity(0, size_of_val(&mask), mask.as_mut_ptr().cast()) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok((0..crate::CPUS_MAX).filter(|cpu| mask[cpu / 64] & (1 << (cpu % 64)) != 0).collect())
}

/// The CPUs that this process can give itself, ascending: those of its cpuset. A thread of its own asks for all of
/// them, so that the caller's mask stays as it is.
pub fn affinity_widest() -> io::Result<Vec<usize>> {
    let widened = std::thread::Builder::new().name("affinity".into()).spawn(|| {
        set_affinity(&(0..crate::CPUS_MAX).collect::<Vec<_>>())?;
        affinity()
    })?;
    widened.join().expect("setting a mask does not panic")
}

/// Lets the calling thread run on these CPUs only. Those past [`crate::CPUS_MAX`] are left out.
pub fn set_affinity(cpus: &[usize]) -> io::Result<()> {
    const WORDS: usize = crate::CPUS_MAX / 64;
    let mut mask = [0_u64; WORDS];
    for cpu in cpus.iter().filter(|cpu| **cpu < crate::CPUS_MAX) {
        mask[cpu / 64] |= 1 << (cpu % 64);
    }
    // SAFETY: the pointer is to WORDS * 8 readable bytes, and that size is what the call is told.
    let result = unsafe { libc::sched_setaffinity(0, size_of_val(&mask), mask.as_ptr().cast()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Keeps the kernel from giving this process huge pages, whether it asks for them or not.
pub fn refuse_huge_pages() -> io::Result<()> {
    // SAFETY: this call takes numbers only.
    let result = unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Opens a ring of `entries` and closes it.
pub fn io_uring_setup(entries: u32) -> io::Result<()> {
    /// struct io_uring_params of linux/io_uring.h is 120 bytes of 32-bit and 64-bit fields.
    const PARAMS_WORDS: usize = 15;
    let mut params = [0_u64; PARAMS_WORDS];
    // SAFETY: the pointer is to a zeroed, writable, aligned io_uring_params that outlives the call.
    let fd = unsafe { libc::syscall(libc::SYS_io_uring_setup, entries, params.as_mut_ptr()) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    let fd = i32::try_from(fd).expect("the kernel's file descriptors fit an int");
    // SAFETY: the call succeeded, so this is a descriptor that nobody else owns.
    drop(unsafe { OwnedFd::from_raw_fd(fd) });
    Ok(())
}
