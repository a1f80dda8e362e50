//! The C library's heap, which all of this program allocates from: mallopt(3), malloc_trim(3).

#![allow(unsafe_code, reason = "sys holds the unsafe code; see the contract in its module doc")]

/// Keeps blocks of 64 KiB and more out of the heap, here and in everything that is cloned from here (mallopt(3)). Zeroed
/// memory that comes from mmap(2) takes no page until it is touched; from the heap, a frame's buffer took all its 32 in
/// each agent and each zygote, 256 KiB and 0.15 ms of a sandbox. Left alone, the threshold grows with what is freed.
pub fn keep_large_blocks_apart() {
    let bytes = i32::try_from(LARGE_BYTES).unwrap_or(i32::MAX);
    allocator(libc::M_MMAP_THRESHOLD, bytes);
}

/// Blocks that [`keep_large_blocks_apart`] keeps apart.
const LARGE_BYTES: usize = 64 << 10;

/// Keeps up to 8 MiB of freed memory, in each of the allocator's arenas, for what comes next (mallopt(3)): the buffers of
/// an upload, given back and faulted in again for every batch, cost about a tenth of its time.
///
/// Two arenas and not eight per processor: what one thread freed is then what the next one takes, and not kept beside it.
pub fn keep_freed_memory() {
    allocator(libc::M_ARENA_MAX, 2);
    allocator(libc::M_TRIM_THRESHOLD, 8 << 20);
    // Setting one of them alone would fix the other where it is (malloc/malloc.c, `no_dyn_threshold`).
    allocator(libc::M_MMAP_THRESHOLD, 1 << 20);
}

fn allocator(parameter: libc::c_int, value: libc::c_int) {
    // SAFETY: mallopt(3) has no preconditions beyond its parameter's name; it takes the allocator's own locks.
    unsafe { libc::mallopt(parameter, value) };
}

/// Gives freed memory back to the kernel (malloc_trim(3)).
pub fn trim() {
    // SAFETY: malloc_trim(3) has no preconditions; it takes the allocator's own locks.
    unsafe { libc::malloc_trim(0) };
}

/// Gives freed memory back to the kernel, and has what is allocated from now on lie together, beyond what there is: for
/// a process that has started and is cloned from often, with one thread.
///
/// Starting leaves free pieces all over the heap. A clone that allocates takes them one after the other, and each page
/// that it writes to is a fault and a copy: 80 in each agent, as many in the launcher after each clone. So the pieces
/// are taken, once, and never used.
pub fn settle() {
    trim();
    // SAFETY: sbrk(3) with 0 changes nothing.
    let end = unsafe { libc::sbrk(0) }.addr();
    let mut size = LARGE_BYTES - HEAD_BYTES;
    while size >= SMALL_BYTES {
        take_all(size, end);
        size -= size / 8;
    }
    // Pieces this small are kept by their size (malloc/malloc.c, `tcache_entry`).
    for size in (HEAD_BYTES * 3..SMALL_BYTES).step_by(HEAD_BYTES * 2).rev() {
        take_all(size, end);
    }
}

/// A piece's own head (malloc/malloc.c, `SIZE_SZ`); pieces differ by twice as much.
const HEAD_BYTES: usize = 8;
/// Beyond what the allocator keeps by size.
const SMALL_BYTES: usize = 1048;

/// Takes every free piece below `end` from which a block of this size can be cut, and the first one beyond.
fn take_all(size: usize, end: usize) {
    loop {
        let block = Vec::<u8>::with_capacity(size);
        let beyond = block.as_ptr().addr() + size > end;
        if !beyond || size < SMALL_BYTES {
            // One that is given back would be the next to be used.
            std::mem::forget(block);
        }
        if beyond {
            return;
        }
    }
}
