//! What of this program's own file lies in memory only because it was needed once.

#![allow(unsafe_code, reason = "sys holds the unsafe code; see the contract in its module doc")]

use std::ptr;

/// Has this process let go of the pages of its own instructions and constants (madvise(2), `MADV_DONTNEED`). Those that it
/// goes on using come back with the next use of them, 64 KiB with one fault, from the file, which is in memory; those
/// that only its start needed do not.
pub fn give_back_program() {
    // SAFETY: dl_iterate_phdr(3) calls `give_back` with a valid description of each loaded object, here one.
    unsafe { libc::dl_iterate_phdr(Some(give_back), ptr::null_mut()) };
}

/// Lets go of the segments of a loaded object that nothing writes to.
unsafe extern "C" fn give_back(
    object: *mut libc::dl_phdr_info,
    _: usize,
    _: *mut libc::c_void,
) -> libc::c_int {
    // SAFETY: dl_iterate_phdr(3) gives a valid object, which lives until this returns.
    let object = unsafe { &*object };
    // SAFETY: the same page: `dlpi_phnum` headers lie at `dlpi_phdr`, as long as the object is loaded.
    let headers = unsafe { std::slice::from_raw_parts(object.dlpi_phdr, usize::from(object.dlpi_phnum)) };
    // Not rustix's: that reads a file or asks by prctl(2), and a role that is confined can do neither.
    // SAFETY: sysconf(3) has no preconditions.
    let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096);
    for header in headers {
        if header.p_type != libc::PT_LOAD || header.p_flags & libc::PF_W != 0 {
            continue;
        }
        let (Ok(start), Ok(length)) =
            (usize::try_from(object.dlpi_addr + header.p_vaddr), usize::try_from(header.p_memsz))
        else {
            continue;
        };
        // Whole pages of this segment: what shares a page with the next one stays.
        let (first, end) = (start.next_multiple_of(page), (start + length) / page * page);
        if first < end {
            // SAFETY: the segment is a private mapping of a file that nothing has written to, neither the loader, whose
            // relocations are in segments that can be written, nor anybody else: the program runs from a sealed memfd, or
            // from a file that is executed (ETXTBSY). Each page reads the same when it is faulted in again (madvise(2)).
            unsafe {
                libc::madvise(ptr::with_exposed_provenance_mut(first), end - first, libc::MADV_DONTNEED);
            }
        }
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// KiB of file pages that this process has, of its executable mappings (proc_pid_smaps(5)).
    fn code_kib() -> u64 {
        let smaps = std::fs::read_to_string("/proc/self/smaps").expect("smaps");
        let (mut inside, mut kib) = (false, 0);
        for line in smaps.lines() {
            if line.contains(" r-xp ") {
                inside = line.contains('/');
            } else if let (true, Some(size)) = (inside, line.strip_prefix("Rss:")) {
                kib += size.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0);
                inside = false;
            }
        }
        kib
    }

    #[test]
    fn code_is_given_back_and_goes_on_working() {
        let before = code_kib();
        give_back_program();
        let after = code_kib();
        // What it takes to look is there again.
        assert!(after < before * 3 / 4, "{before} KiB before, {after} after");
    }
}
