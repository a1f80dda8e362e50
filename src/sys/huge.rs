//! This program's own instructions on huge pages, for a process that is cloned from often.
//!
//! A clone gets no page table entries for a file's pages: agent, zygote and command each take a fault for every 64 KiB
//! of code that they touch, and give every page back when they end. A huge page takes one fault, and no page table.
//!
//! The program runs from a memfd, and huge pages for those are off nearly everywhere (`shmem_enabled`), but
//! MADV_COLLAPSE (Linux 6.1) makes them whatever that says. The file's own pages do not lie as huge ones must; so the
//! instructions are copied: those that the launcher and its clones run, which the linker has laid side by side
//! (`launch.ld`). All of them would be five times as much memory, and time at each start. Not to anonymous memory: the
//! kernel keeps a page table of 4 KiB in reserve for every anonymous huge page of every process, and copies the entries
//! with each clone.

#![allow(unsafe_code, reason = "sys holds the unsafe code; see the contract in its module doc")]

use std::io::{self, Write as _};
use std::os::fd::AsRawFd as _;
use std::ptr;

use rustix::fs::{MemfdFlags, SealFlags};

use super::process::last_errno;

/// Of x86-64, and of arm64 with pages of 4 KiB. Where it is another, the kernel makes no huge page, which is noticed.
const HUGE: usize = 2 << 20;

// The first of what is moved, so that it begins where a huge page can: a segment is loaded as its sections are aligned
// (fs/binfmt_elf.c, `maximum_alignment`).
std::arch::global_asm!(
    ".pushsection .text.stockade_launch_first, \"ax\"",
    ".balign 0x200000",
    ".byte 0",
    ".popsection",
);

unsafe extern "C" {
    /// Where the linker has laid what the launcher and its clones run.
    #[link_name = "stockade_launch_start"]
    static START: u8;
    /// Where that ends.
    #[link_name = "stockade_launch_end"]
    static END: u8;
}

/// Moves the instructions of the launcher and its clones into huge pages, with what fills the last of these. Returns
/// how many bytes were moved: 0 where the kernel has none to give.
///
/// # Errors
/// As memfd_create(2), write(2) and mmap(2); then everything is as before. mremap(2) can fail only where the process is out of
/// mappings, before it has touched the target.
pub fn move_text() -> io::Result<usize> {
    let (start, end) = ((&raw const START).expose_provenance(), (&raw const END).expose_provenance());
    let maps = std::fs::read_to_string("/proc/self/maps")?;
    let Some((_, limit)) = mapping_of(start, &maps) else { return Ok(0) };
    let first = start.next_multiple_of(HUGE);
    let end = end.next_multiple_of(HUGE).min(limit / HUGE * HUGE);
    if first >= end {
        return Ok(0);
    }
    let copy = Region::aligned(end - first)?;
    copy.fill_from(first)?;
    let smaps = std::fs::read_to_string("/proc/self/smaps")?;
    if huge_bytes(copy.start, &smaps) < copy.length {
        // Small pages are as good where they are.
        return Ok(0);
    }
    copy.move_to(first)
}

/// Bounds of the executable mapping around an address (proc_pid_maps(5)).
fn mapping_of(address: usize, maps: &str) -> Option<(usize, usize)> {
    maps.lines().find_map(|line| {
        let (range, rest) = line.split_once(' ')?;
        let (start, end) = range.split_once('-')?;
        let (start, end) = (usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?);
        (rest.starts_with("r-x") && (start..end).contains(&address)).then_some((start, end))
    })
}

/// `ShmemPmdMapped` of the mapping that holds this address, in bytes (proc_pid_smaps(5)).
fn huge_bytes(address: usize, smaps: &str) -> usize {
    let mut inside = false;
    for line in smaps.lines() {
        let range = line.split_once(' ').and_then(|(range, _)| range.split_once('-'));
        if let Some((start, end)) = range
            && let (Ok(start), Ok(end)) = (usize::from_str_radix(start, 16), usize::from_str_radix(end, 16))
        {
            inside = (start..end).contains(&address);
        } else if let (true, Some(size)) = (inside, line.strip_prefix("ShmemPmdMapped:")) {
            let kib: usize = size.split_whitespace().next().and_then(|kib| kib.parse().ok()).unwrap_or(0);
            return kib << 10;
        }
    }
    0
}

/// A place in memory, unmapped when dropped.
struct Region {
    start: usize,
    length: usize,
    /// The whole mapping, larger by what alignment cost.
    mapped: (usize, usize),
}

impl Region {
    fn aligned(length: usize) -> io::Result<Self> {
        let mapped = length + HUGE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: mmap(2) of new anonymous memory at a place of the kernel's choice touches nothing that exists.
        let address = unsafe { libc::mmap(ptr::null_mut(), mapped, libc::PROT_NONE, flags, -1, 0) };
        if address == libc::MAP_FAILED {
            return Err(last_errno().into());
        }
        let address = address.expose_provenance();
        Ok(Self { start: address.next_multiple_of(HUGE), length, mapped: (address, mapped) })
    }

    fn pointer(&self) -> *mut libc::c_void {
        ptr::with_exposed_provenance_mut(self.start)
    }

    /// Copies instructions here, into a file in memory that nobody can change, and makes its pages huge.
    fn fill_from(&self, first: usize) -> io::Result<()> {
        let source = ptr::with_exposed_provenance::<u8>(first);
        // SAFETY: these bytes are inside a readable mapping, as /proc/self/maps just said, and nobody changes them.
        let instructions = unsafe { std::slice::from_raw_parts(source, self.length) };
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let mut file = std::fs::File::from(rustix::fs::memfd_create("stockade-text", flags)?);
        file.write_all(instructions)?;
        rustix::fs::fchmod(&file, rustix::fs::Mode::empty())?;
        let seals = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
        rustix::fs::fcntl_add_seals(&file, seals)?;
        let (protection, flags) = (libc::PROT_READ | libc::PROT_EXEC, libc::MAP_SHARED | libc::MAP_FIXED);
        // SAFETY: mmap(2) in the place of a part of our own mapping, to which no reference exists.
        let mapped =
            unsafe { libc::mmap(self.pointer(), self.length, protection, flags, file.as_raw_fd(), 0) };
        if mapped == libc::MAP_FAILED {
            return Err(last_errno().into());
        }
        // Ignored where there are no huge pages: the result is looked at.
        // SAFETY: madvise(2) with MADV_COLLAPSE changes no content; the range is our own mapping's.
        unsafe { libc::madvise(self.pointer(), self.length, libc::MADV_COLLAPSE) };
        Ok(())
    }

    /// Puts this region in the place of what it is a copy of.
    fn move_to(self, first: usize) -> io::Result<usize> {
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        let target: *mut libc::c_void = ptr::with_exposed_provenance_mut(first);
        // SAFETY: mremap(2) replaces the mapping at `first` by one of the same length with the same bytes and the
        // same protection, at once as far as this process can see, and it has one thread. This very function may be
        // among what is replaced: it goes on in the copy.
        let moved = unsafe { libc::mremap(self.pointer(), self.length, self.length, flags, target) };
        if moved == libc::MAP_FAILED { Err(last_errno().into()) } else { Ok(self.length) }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        let (address, length) = self.mapped;
        // SAFETY: munmap(2) of our own mapping, or of the hole that `move_to` has left in it: one thread, and
        // nothing was mapped in between.
        unsafe { libc::munmap(ptr::with_exposed_provenance_mut(address), length) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_linker_lays_the_launchers_instructions_side_by_side() {
        let (start, end) = ((&raw const START).expose_provenance(), (&raw const END).expose_provenance());
        let here = (move_text as fn() -> io::Result<usize>) as usize;
        assert!((start..end).contains(&here), "{here:x} is not in {start:x}..{end:x}");
        assert_eq!(start % HUGE, 0);
    }

    #[test]
    fn mappings_are_found_by_an_address_inside() {
        let maps = "1000-2000 r--p 0 00:01 1 /x\n2000-5000 r-xp 0 00:01 1 /x\n5000-6000 rw-p 0 00:00 0 \n";
        assert_eq!(mapping_of(0x3fff, maps), Some((0x2000, 0x5000)));
        assert_eq!(mapping_of(0x5000, maps), None, "not executable");
        let smaps = "1000-2000 r-xp 0 00:00 0 \nRss: 4 kB\nShmemPmdMapped:    2048 kB\n\
                     2000-3000 rw-p 0 00:00 0 \nShmemPmdMapped:       0 kB\n";
        assert_eq!(huge_bytes(0x1000, smaps), 2 << 20);
        assert_eq!(huge_bytes(0x2000, smaps), 0);
        assert_eq!(huge_bytes(0x9000, smaps), 0);
    }
}
