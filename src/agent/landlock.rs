//! Landlock: a second opinion on what commands may do, independent of mounts and ids (landlock(7)).
//!
//! The zygote restricts itself once, and every command is forked from it. Commands that restricted themselves one
//! by one would be in sibling domains and could neither see nor signal each other (measured, with hidepid).
//!
//! Inside the domain nobody can mount, pivot, make device nodes, send ioctls to devices outside /dev, or signal,
//! trace or reach by abstract socket anything that is not in the sandbox.

use landlock::{
    ABI, Access, AccessFs, LandlockStatus, PathBeneath, PathFd, PathFdError, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};

/// Why commands could not be restricted.
#[derive(Debug, thiserror::Error)]
pub(super) enum LandlockError {
    /// `/` or `/dev` cannot be opened, which the launcher has just mounted.
    #[error("open a directory for a rule")]
    Path(#[from] PathFdError),
    /// The kernel has Landlock and refused.
    #[error("restrict commands")]
    Ruleset(#[from] RulesetError),
    /// The kernel has Landlock and did not enforce it.
    #[error("the rules are not enforced")]
    NotEnforced,
}

/// Restricts this process and all its future children with all that this kernel knows, up to ABI 6. Returns the
/// ABI that is enforced, 0 where the kernel has none: that is reported, and what to do about it is decided
/// outside.
///
/// # Errors
/// When the kernel has Landlock and does not enforce the rules.
pub(super) fn restrict_commands() -> Result<u32, LandlockError> {
    let all = AccessFs::from_all(ABI::V6);
    let device_rights = AccessFs::MakeChar | AccessFs::MakeBlock | AccessFs::IoctlDev;
    let status = Ruleset::default()
        .handle_access(all)?
        .scope(Scope::from_all(ABI::V6))?
        .create()?
        .add_rule(PathBeneath::new(PathFd::new("/")?, all & !device_rights))?
        .add_rule(PathBeneath::new(PathFd::new("/dev")?, AccessFs::IoctlDev))?
        .restrict_self()?;
    match (status.landlock, status.ruleset) {
        (LandlockStatus::Available { .. }, RulesetStatus::NotEnforced) => Err(LandlockError::NotEnforced),
        (LandlockStatus::Available { effective_abi, .. }, _) => {
            Ok((effective_abi as u32).min(ABI::V6 as u32))
        }
        _ => Ok(0),
    }
}
