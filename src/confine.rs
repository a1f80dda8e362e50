//! Landlock for the roles that handle strangers' bytes: a few directories, and no file beside them.
//!
//! The kernel's ABI decides what can be restricted; a kernel without Landlock restricts nothing, and `doctor` and
//! `/v1/info` say so. Descriptors that are open already stay usable: that is how a blob gets in.

use std::os::fd::BorrowedFd;

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible as _, PathBeneath, Ruleset,
    RulesetAttr as _, RulesetCreatedAttr as _, Scope, make_bitflags,
};

/// Why the process could not be confined.
#[derive(Debug, thiserror::Error)]
pub enum ConfineError {
    /// The kernel has Landlock and refuses the rules.
    #[error("landlock: {0}")]
    Landlock(#[from] landlock::RulesetError),
    /// no_new_privs could not be set.
    #[error("no_new_privs: {0}")]
    NoNewPrivileges(#[from] rustix::io::Errno),
}

/// Whether TCP connections may be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// None.
    None,
    /// To registries.
    Connect,
}

/// Confines the calling thread, and those it starts from now on, to the trees below `directories`.
///
/// # Errors
/// When the kernel has Landlock and refuses.
pub fn to_directories(directories: &[BorrowedFd<'_>], network: Network) -> Result<(), ConfineError> {
    rustix::thread::set_no_new_privs(true)?;
    let abi = ABI::V6;
    let within: BitFlags<AccessFs> =
        AccessFs::from_all(abi) & !make_bitflags!(AccessFs::{Execute | MakeSock | MakeBlock | IoctlDev});
    let tcp = match network {
        Network::None => AccessNet::from_all(abi),
        Network::Connect => AccessNet::BindTcp.into(),
    };
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(abi))?
        .handle_access(tcp)?
        .scope(Scope::from_all(abi))?
        .create()?;
    for directory in directories {
        ruleset = ruleset.add_rule(PathBeneath::new(directory, within))?;
    }
    ruleset.restrict_self()?;
    Ok(())
}
