//! What is in a directory: getdents64(2).

use super::fd::Fd;
use super::syscall;
use crate::errno::Errno;
use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::RawFd;

/// Where some of a directory's entries fit, aligned as the kernel's are.
pub(crate) struct Room([u64; 256]);

impl Room {
    pub fn new() -> Self {
        Self([0; 256])
    }
}

/// An entry of a directory.
#[derive(Clone, Copy)]
pub(crate) struct Entry<'a> {
    pub name: &'a [u8],
    /// A DT constant, or DT_UNKNOWN.
    kind: u8,
}

/// Opens a directory to read it; `follow`: a symbolic link may be one.
pub(crate) fn open(path: &CStr, follow: bool) -> Result<Fd, Errno> {
    let link = if follow { 0 } else { libc::O_NOFOLLOW };
    let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC | link;
    // SAFETY: the path is NUL-terminated.
    let fd = unsafe { syscall!(SYS_openat, libc::AT_FDCWD, path.as_ptr(), flags) }?;
    Fd::brief(fd)
}

/// Some entries, to be taken off with [`split`]; empty: there are no more.
pub(crate) fn read<'a>(directory: &Fd, room: &'a mut Room) -> Result<&'a [u8], Errno> {
    let (start, size) = (room.0.as_mut_ptr(), size_of_val(&room.0));
    // SAFETY: as many writable bytes as said.
    let len = unsafe { syscall!(SYS_getdents64, directory.raw(), start, size) }?;
    // SAFETY: the room's bytes, all of them initialised.
    Ok(unsafe { std::slice::from_raw_parts(start.cast::<u8>(), len.min(size)) })
}

/// Takes the first entry off; it, and the rest.
pub(crate) fn split(entries: &[u8]) -> Option<(Entry<'_>, &[u8])> {
    const LENGTH: usize = 16;
    const KIND: usize = 18;
    const NAME: usize = 19;
    let length = entries.get(LENGTH..LENGTH + 2)?.try_into().ok()?;
    let (entry, rest) = entries.split_at_checked(usize::from(u16::from_ne_bytes(length)))?;
    let name = entry.get(NAME..)?.split(|byte| *byte == 0).next()?;
    Some((Entry { name, kind: *entry.get(KIND)? }, rest))
}

impl Entry<'_> {
    /// Whether it is the directory itself, or the one that it lies in.
    pub fn is_dots(&self) -> bool {
        matches!(self.name, b"." | b"..")
    }

    /// Whether it is a directory, as the directory that was read has it.
    pub fn is_directory(&self, directory: &Fd) -> bool {
        if self.kind != libc::DT_UNKNOWN {
            return self.kind == libc::DT_DIR;
        }
        let mut stat = MaybeUninit::<libc::stat>::uninit();
        // The name ends with a NUL byte where it was read.
        let (fd, name, flags) = (directory.raw(), self.name.as_ptr(), libc::AT_SYMLINK_NOFOLLOW);
        // SAFETY: a NUL-terminated name, room for what the kernel fills in.
        let asked = unsafe { syscall!(SYS_newfstatat, fd, name, stat.as_mut_ptr(), flags) };
        // SAFETY: it was filled in.
        asked.is_ok() && unsafe { stat.assume_init() }.st_mode & libc::S_IFMT == libc::S_IFDIR
    }
}

/// The path of the current directory, with the NUL byte behind it.
pub(crate) fn current(room: &mut [u8]) -> Result<&[u8], Errno> {
    // SAFETY: as many writable bytes as said.
    let len = unsafe { syscall!(SYS_getcwd, room.as_mut_ptr(), room.len()) }?;
    room.get(..len).filter(|path| path.starts_with(b"/")).ok_or(Errno::ENOENT)
}

/// The first open descriptor that is what is looked for, as /proc lists them.
pub(crate) fn find_descriptor(is_it: impl Fn(RawFd) -> bool) -> Option<RawFd> {
    let directory = open(c"/proc/self/fd", false).ok()?;
    let mut room = Room::new();
    loop {
        let mut rest = read(&directory, &mut room).ok()?;
        if rest.is_empty() {
            return None;
        }
        while let Some((entry, after)) = split(rest) {
            rest = after;
            let number = str::from_utf8(entry.name).ok().and_then(|name| name.parse().ok());
            if let Some(number) = number.filter(|number| is_it(*number)) {
                return Some(number);
            }
        }
    }
}
