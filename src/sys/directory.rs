//! Directories: opening them, and what is in them, by getdents64(2).

use super::fd::{self, Fd};
use super::syscall;
use crate::errno::Errno;
use crate::sync::{AtomicBool, Ordering};
use crate::util::alloc::{TryVec, TryVecCopy};
use std::ffi::{CStr, c_int};
use std::mem::MaybeUninit;
use std::ops::ControlFlow;
use std::os::fd::RawFd;

/// What a directory is opened for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum To {
    /// To be found, and nothing else (O_PATH).
    Find,
    Read,
}

impl To {
    fn flags(self) -> c_int {
        let access = if self == Self::Find { libc::O_PATH } else { libc::O_RDONLY };
        access | libc::O_DIRECTORY | libc::O_CLOEXEC
    }
}

/// Opens a directory; `follow`: its path may end with a symbolic link.
pub(crate) fn open(path: &CStr, follow: bool, to: To) -> Result<Fd, Errno> {
    let link = if follow { 0 } else { libc::O_NOFOLLOW };
    open_at(libc::AT_FDCWD, path, to.flags() | link)
}

/// Finds whatever a path leads to; `follow`: a symbolic link at its end, too.
pub(crate) fn open_any(path: &CStr, follow: bool) -> Result<Fd, Errno> {
    let link = if follow { 0 } else { libc::O_NOFOLLOW };
    open_at(libc::AT_FDCWD, path, libc::O_PATH | libc::O_CLOEXEC | link)
}

/// Opens an entry of a directory, unless it is a symbolic link.
pub(crate) fn open_entry(directory: RawFd, name: &CStr, to: To) -> Result<Fd, Errno> {
    open_at(directory, name, to.flags() | libc::O_NOFOLLOW)
}

/// Opens what a path leads to from a directory, where that is below it and
/// nothing on the way is a symbolic link.
pub(crate) fn open_below(directory: RawFd, path: &CStr, to: To) -> Result<Fd, Errno> {
    /// Whether openat2(2) is known not to work here.
    static NO_OPENAT2: AtomicBool = AtomicBool::new(false);
    if !NO_OPENAT2.load(Ordering::Relaxed) {
        match open_at2(directory, path, to.flags() | libc::O_NOFOLLOW) {
            Err(Errno::ENOSYS | Errno::EPERM) => NO_OPENAT2.store(true, Ordering::Relaxed),
            // The kernel was not sure that it stayed below.
            Err(Errno::EAGAIN) => {}
            opened => return opened,
        }
    }
    open_stepwise(directory, path.to_bytes(), to)
}

fn open_at(directory: RawFd, path: &CStr, flags: c_int) -> Result<Fd, Errno> {
    loop {
        // SAFETY: the path is NUL-terminated.
        match unsafe { syscall!(SYS_openat, directory, path.as_ptr(), flags) } {
            Ok(fd) => return opened(fd, flags),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

fn open_at2(directory: RawFd, path: &CStr, flags: c_int) -> Result<Fd, Errno> {
    // The kernel's struct open_how: flags, mode, resolve.
    let open_how = [flags as u64, 0, libc::RESOLVE_BENEATH | libc::RESOLVE_NO_SYMLINKS];
    let (path, start, size) = (path.as_ptr(), open_how.as_ptr(), size_of_val(&open_how));
    loop {
        // SAFETY: the path is NUL-terminated, the structure of the size said.
        match unsafe { syscall!(SYS_openat2, directory, path, start, size) } {
            Ok(fd) => return opened(fd, flags),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// One to be read may be kept for longer than the call, one that was only to be
/// found is not, and cannot be marked.
fn opened(fd: usize, flags: c_int) -> Result<Fd, Errno> {
    if flags & libc::O_PATH == 0 { Fd::made(fd) } else { Fd::brief(fd) }
}

fn open_stepwise(directory: RawFd, path: &[u8], to: To) -> Result<Fd, Errno> {
    let mut names = path.split(|byte| *byte == b'/').peekable();
    let mut reached: Option<Fd> = None;
    let mut buffer = Vec::new();
    while let Some(name) = names.next() {
        buffer.clear();
        buffer.try_copy_from(name)?;
        buffer.try_push(0)?;
        let name = CStr::from_bytes_with_nul(&buffer).map_err(|_| Errno::ENOENT)?;
        let from = reached.as_ref().map_or(directory, Fd::raw);
        let to = if names.peek().is_none() { to } else { To::Find };
        reached = Some(open_entry(from, name, to)?);
    }
    reached.ok_or(Errno::ENOENT)
}

/// Where some of a directory's entries fit, aligned as the kernel's are.
pub(crate) struct DirentBuffer([u64; 256]);

impl DirentBuffer {
    pub fn new() -> Self {
        Self([0; 256])
    }
}

/// An entry of a directory.
#[derive(Clone, Copy)]
pub(crate) struct DirectoryEntry<'a> {
    pub name: &'a CStr,
    /// A DT constant, or DT_UNKNOWN.
    kind: u8,
}

/// Some entries, to be taken off with [`split`]; empty: there are no more.
pub(crate) fn read<'a>(directory: &Fd, buffer: &'a mut DirentBuffer) -> Result<&'a [u8], Errno> {
    let fd = directory.check().ok_or(Errno::EBADF)?;
    let (start, size) = (buffer.0.as_mut_ptr(), size_of_val(&buffer.0));
    // SAFETY: as many writable bytes as said.
    let len = unsafe { syscall!(SYS_getdents64, fd, start, size) }?;
    // SAFETY: within as many bytes, all of them initialised.
    Ok(unsafe { std::slice::from_raw_parts(start.cast::<u8>(), len.min(size)) })
}

/// Takes the first entry off; it, and the rest.
pub(crate) fn split(entries: &[u8]) -> Option<(DirectoryEntry<'_>, &[u8])> {
    const LENGTH: usize = 16;
    const KIND: usize = 18;
    const NAME: usize = 19;
    let length = entries.get(LENGTH..LENGTH + 2)?.try_into().ok()?;
    let (entry, rest) = entries.split_at_checked(usize::from(u16::from_ne_bytes(length)))?;
    let name = CStr::from_bytes_until_nul(entry.get(NAME..)?).ok()?;
    Some((DirectoryEntry { name, kind: *entry.get(KIND)? }, rest))
}

impl DirectoryEntry<'_> {
    /// Whether it is the directory itself, or the one that it lies in.
    pub fn is_dots(&self) -> bool {
        matches!(self.name.to_bytes(), b"." | b"..")
    }

    /// Whether it is a directory, as the directory that was read has it.
    pub fn is_directory(&self, directory: &Fd) -> bool {
        if self.kind != libc::DT_UNKNOWN {
            return self.kind == libc::DT_DIR;
        }
        let mut stat = MaybeUninit::<libc::stat>::uninit();
        let (fd, name, flags) = (directory.raw(), self.name.as_ptr(), libc::AT_SYMLINK_NOFOLLOW);
        // SAFETY: a NUL-terminated name, room for what the kernel fills in.
        let asked = unsafe { syscall!(SYS_newfstatat, fd, name, stat.as_mut_ptr(), flags) };
        // SAFETY: it was filled in.
        asked.is_ok() && unsafe { stat.assume_init() }.st_mode & libc::S_IFMT == libc::S_IFDIR
    }
}

/// The path of the current directory, with the NUL byte behind it.
pub(crate) fn current(buffer: &mut [u8]) -> Result<&[u8], Errno> {
    // SAFETY: as many writable bytes as said.
    let len = unsafe { syscall!(SYS_getcwd, buffer.as_mut_ptr(), buffer.len()) }?;
    buffer.get(..len).filter(|path| path.starts_with(b"/")).ok_or(Errno::ENOENT)
}

/// Visits the open descriptors, until `visit` has seen enough.
pub(crate) fn each_descriptor(mut visit: impl FnMut(RawFd) -> ControlFlow<()>) {
    // Without a descriptor to read /proc by, or without one, it may be any
    // number.
    if visit_listed(&mut visit).is_err() {
        let _ = (0..fd::limit()).try_for_each(visit);
    }
}

fn visit_listed(visit: &mut impl FnMut(RawFd) -> ControlFlow<()>) -> Result<(), Errno> {
    let directory = open(c"/proc/self/fd", false, To::Read)?;
    let mut buffer = DirentBuffer::new();
    loop {
        let mut rest = read(&directory, &mut buffer)?;
        if rest.is_empty() {
            return Ok(());
        }
        while let Some((entry, after)) = split(rest) {
            rest = after;
            let fd = entry.name.to_str().ok().and_then(|name| name.parse().ok());
            if fd.is_some_and(|fd| visit(fd).is_break()) {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::file;
    use std::ffi::CString;

    fn c_path(path: &std::path::Path) -> CString {
        CString::new(path.to_str().unwrap()).unwrap()
    }

    /// A directory with `a/b` in it, and links out of it and inside it.
    fn home() -> std::path::PathBuf {
        let home = std::env::temp_dir().join(format!("evloop-directory-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&home);
        std::fs::create_dir_all(home.join("a/b")).unwrap();
        std::os::unix::fs::symlink("/", home.join("a/root")).unwrap();
        std::os::unix::fs::symlink("a", home.join("link")).unwrap();
        home
    }

    #[test]
    fn both_ways_stay_below_and_follow_no_link() {
        let home = home();
        let root = open(&c_path(&home), false, To::Find).unwrap();
        let flags = To::Find.flags() | libc::O_NOFOLLOW;
        for (path, leads) in [
            (c"a", true),
            (c"a/b", true),
            (c"a/b/c", false),
            (c"a/root", false),
            (c"a/root/etc", false),
            (c"link", false),
            (c"link/b", false),
        ] {
            let opened = [
                open_at2(root.raw(), path, flags),
                open_stepwise(root.raw(), path.to_bytes(), To::Find),
            ];
            let expected = open(&c_path(&home.join(path.to_str().unwrap())), true, To::Find);
            let expected = expected.ok().and_then(|fd| file::identity(fd.raw()));
            for one in opened {
                match one {
                    Err(Errno::ENOSYS | Errno::EPERM) => {}
                    one => {
                        assert_eq!(one.is_ok(), leads, "{path:?}");
                        assert!(!leads || file::identity(one.unwrap().raw()) == expected);
                    }
                }
            }
        }
        std::fs::remove_dir_all(&home).unwrap();
    }
}
