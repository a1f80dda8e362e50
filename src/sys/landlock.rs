//! Which Landlock the kernel has: the landlock crate enforces rules, and does not tell before.

#![allow(unsafe_code, reason = "sys holds the unsafe code; see the contract in its module doc")]

/// The kernel's Landlock ABI, 0 for none (landlock_create_ruleset(2), `LANDLOCK_CREATE_RULESET_VERSION`).
pub fn abi() -> u32 {
    /// linux/landlock.h
    const LANDLOCK_CREATE_RULESET_VERSION: u32 = 1;
    let nothing: *const libc::c_void = std::ptr::null();
    // SAFETY: with the version flag the kernel wants a null pointer and size 0, and touches no memory.
    let version = unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, nothing, 0_usize, LANDLOCK_CREATE_RULESET_VERSION)
    };
    u32::try_from(version).unwrap_or(0)
}
