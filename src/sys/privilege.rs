//! Identity and capabilities, set by raw system calls on the one thread there is.
//!
//! The functions allocate nothing: they run between fork and exec.

#![allow(unsafe_code, reason = "sys holds the unsafe code; see the contract in its module doc")]

use rustix::process::{Gid, Uid};
use rustix::thread::{CapabilitiesSecureBits, CapabilitySet, CapabilitySets};

use super::Errno;

/// The highest capability that this code knows; higher ones are dropped by number until the kernel says EINVAL.
const CAPABILITY_NUMBERS: u32 = 64;

/// Drops every capability outside `keep` from the bounding set (capabilities(7)).
///
/// # Errors
/// As prctl(2), `PR_CAPBSET_DROP`.
pub fn limit_bounding_set(keep: CapabilitySet) -> Result<(), Errno> {
    for number in 0..CAPABILITY_NUMBERS {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        if keep.contains(capability) {
            continue;
        }
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            // The kernel's last capability is behind us.
            Err(Errno::INVAL) => break,
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Sets the permitted and effective sets to exactly `keep`, and empties the inheritable and ambient sets
/// (CVE-2022-24769 was a forgotten inheritable one).
///
/// # Errors
/// As capset(2) and prctl(2).
pub fn set_capabilities(keep: CapabilitySet) -> Result<(), Errno> {
    rustix::thread::clear_ambient_capability_set()?;
    let sets = CapabilitySets { effective: keep, permitted: keep, inheritable: CapabilitySet::empty() };
    rustix::thread::set_capabilities(None, sets)
}

/// Takes from uid 0 its special meaning for good: neither exec nor a change of uid gives capabilities
/// (capabilities(7), "The securebits flags").
///
/// # Errors
/// As prctl(2), `PR_SET_SECUREBITS`.
pub fn lock_root_powerless() -> Result<(), Errno> {
    let bits = CapabilitiesSecureBits::NO_ROOT
        | CapabilitiesSecureBits::NO_ROOT_LOCKED
        | CapabilitiesSecureBits::NO_SETUID_FIXUP
        | CapabilitiesSecureBits::NO_SETUID_FIXUP_LOCKED
        | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE
        | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE_LOCKED;
    rustix::thread::set_capabilities_secure_bits(bits)
}

/// Becomes this user and group, real, effective and saved, with exactly these supplementary groups.
///
/// # Errors
/// As setresuid(2), setresgid(2) and setgroups(2).
pub fn become_user(uid: u32, gid: u32, groups: &[Gid]) -> Result<(), Errno> {
    // The order matters: once the uid is another, the groups can no longer be changed.
    rustix::thread::set_thread_groups(groups)?;
    let gid = Gid::from_raw(gid);
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    let uid = Uid::from_raw(uid);
    rustix::thread::set_thread_res_uid(uid, uid, uid)
}

/// Changes the effective uid and leaves file access to the real one. A user namespace that is made now belongs to
/// `uid`, and its kernel objects count against that uid's limits instead of root's (user_namespaces(7)).
///
/// # Errors
/// As setresuid(2).
pub fn act_for(uid: u32) -> Result<(), Errno> {
    let root = Uid::ROOT;
    rustix::thread::set_thread_res_uid(root, Uid::from_raw(uid), root)?;
    set_file_system_ids(0);
    Ok(())
}

/// Gives this process and its children a session key ring of their own, with nothing in it (keyctl(2),
/// `KEYCTL_JOIN_SESSION_KEYRING`). A kernel without key rings has none to leave.
///
/// # Errors
/// As keyctl(2).
pub fn join_empty_key_ring() -> Result<(), Errno> {
    /// linux/keyctl.h
    const JOIN_SESSION_KEYRING: libc::c_long = 1;
    let anonymous: *const libc::c_char = std::ptr::null();
    // SAFETY: keyctl(2) with this operation takes a name, or null for an anonymous key ring.
    let result = unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, anonymous) };
    match (result < 0).then(super::process::last_errno) {
        None | Some(Errno::NOSYS) => Ok(()),
        Some(errno) => Err(errno),
    }
}

/// Sets the uid and gid that the kernel uses for file access, and with them those that a mount made now acts under.
pub fn set_file_system_ids(id: u32) {
    // SAFETY: setfsgid(2) takes an integer. It cannot fail for a privileged caller; with the old gid a mount whose
    // ids are mapped could make nothing.
    unsafe { libc::setfsgid(id) };
    // SAFETY: setfsuid(2) takes an integer. It cannot fail for a privileged caller; a failure leaves the old
    // uid, whose effects here are those of the gid and a less strict accounting of reserved disk blocks.
    unsafe { libc::setfsuid(id) };
}
