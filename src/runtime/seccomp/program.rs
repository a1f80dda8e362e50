//! A table of decisions → a BPF program: architecture, then a binary search over numbers, then arguments.
//!
//! Classic BPF jumps only forward, conditionally by at most 255 instructions. Every subtree ends in returns, so a
//! node is one comparison, its left subtree, its right subtree; nothing is ever patched.

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompRule, sock_filter,
};

use super::SeccompError;
use super::profile::{Call, Condition, Errno, Table, Word};
use super::syscalls;

/// `BPF_LD | BPF_W | BPF_ABS` (linux/bpf_common.h): load a word of `seccomp_data`.
const LOAD: u16 = 0x20;
/// `BPF_JMP | BPF_JA`: jump by `k`.
const JUMP: u16 = 0x05;
/// `BPF_JMP | BPF_JEQ | BPF_K`: jump by `jt` when equal to `k`, else by `jf`.
const JUMP_EQUAL: u16 = 0x15;
/// `BPF_JMP | BPF_JGE | BPF_K`: the same for at least `k`, unsigned.
const JUMP_AT_LEAST: u16 = 0x35;
/// `BPF_RET | BPF_K`: the verdict.
const RETURN: u16 = 0x06;

/// Offsets into `struct seccomp_data` (linux/seccomp.h).
const NUMBER_OFFSET: u32 = 0;
const ARCH_OFFSET: u32 = 4;

/// `BPF_MAXINSNS` (linux/bpf_common.h).
const INSTRUCTIONS_MAX: usize = 4096;

/// A stretch of numbers with one answer: from `first` up to the next segment's.
struct Segment {
    first: u32,
    code: Vec<sock_filter>,
}

/// Compiles a table.
pub(super) fn compile(table: &Table) -> Result<BpfProgram, SeccompError> {
    let mut program = vec![
        instruction(LOAD, 0, 0, ARCH_OFFSET),
        instruction(JUMP_EQUAL, 1, 0, syscalls::AUDIT_ARCH),
        returning(SeccompAction::KillProcess),
        instruction(LOAD, 0, 0, NUMBER_OFFSET),
    ];
    program.extend(search(&segments(table)?));
    if program.len() > INSTRUCTIONS_MAX {
        return Err(SeccompError::TooLong { instructions: program.len() });
    }
    Ok(program)
}

/// Cuts all numbers into stretches; neighbours with the same answer are one.
fn segments(table: &Table) -> Result<Vec<Segment>, SeccompError> {
    let default = vec![returning(table.default.map_or(SeccompAction::Allow, errno))];
    let mut segments = vec![Segment { first: 0, code: default.clone() }];
    let mut push = |first: u32, code: Vec<sock_filter>| match segments.last_mut() {
        Some(last) if last.code == code => {}
        Some(last) if last.first == first => last.code = code,
        _ => segments.push(Segment { first, code }),
    };
    let mut next = 0;
    for (number, call) in &table.calls {
        if *number != next {
            push(next, default.clone());
        }
        push(*number, decide(call, table)?);
        next = number + 1;
    }
    push(next, default);
    Ok(segments)
}

/// The binary search over the accumulator, which holds the number.
fn search(segments: &[Segment]) -> BpfProgram {
    let (left, right) = segments.split_at(segments.len() / 2);
    let (Some(first), false) = (right.first(), left.is_empty()) else {
        return segments.iter().flat_map(|segment| segment.code.clone()).collect();
    };
    let below = search(left);
    let mut program = match u8::try_from(below.len()) {
        Ok(distance) => vec![instruction(JUMP_AT_LEAST, distance, 0, first.first)],
        Err(_) => vec![
            instruction(JUMP_AT_LEAST, 0, 1, first.first),
            instruction(JUMP, 0, 0, u32::try_from(below.len()).unwrap_or(u32::MAX)),
        ],
    };
    program.extend(below);
    program.extend(search(right));
    program
}

/// The code that answers one call: deny rules, allow rules, and what is said otherwise.
fn decide(call: &Call, table: &Table) -> Result<BpfProgram, SeccompError> {
    let mut chain = Chain::default();
    for (conditions, refusal) in &call.deny {
        if conditions.is_empty() {
            return Ok(chain.end(errno(*refusal)));
        }
        chain.append(conditions, &errno(*refusal))?;
    }
    if call.allow.iter().any(Vec::is_empty) {
        return Ok(chain.end(SeccompAction::Allow));
    }
    for conditions in &call.allow {
        chain.append(conditions, &SeccompAction::Allow)?;
    }
    let otherwise = call.otherwise.or(table.default);
    Ok(chain.end(otherwise.map_or(SeccompAction::Allow, errno)))
}

/// Rules one after the other, each falling through to the next when it does not match.
#[derive(Default)]
struct Chain {
    code: BpfProgram,
    /// Offset of the word that the accumulator holds wherever the last rule falls through.
    holds: Option<u32>,
}

impl Chain {
    /// Appends rules that return `action` when all conditions hold.
    ///
    /// The kernel's cost of installing grows with the length, so what seccompiler repeats is left out: the two
    /// jumps that open each rule and lead to its next instruction, and loads of what is loaded already.
    fn append(&mut self, conditions: &[Condition], action: &SeccompAction) -> Result<(), SeccompError> {
        for alternative in alternatives(conditions)? {
            let rule = SeccompRule::new(alternative).map_err(SeccompError::Condition)?;
            let rule = BpfProgram::from(rule);
            let rule = match rule.as_slice() {
                [enter, _, rest @ ..] if *enter == instruction(JUMP, 0, 0, 1) => rest,
                all => all,
            };
            let rest = match rule {
                [load, rest @ ..] if load.code == LOAD && self.holds == Some(load.k) => rest,
                all => all,
            };
            self.code.extend_from_slice(rest);
            self.code.push(returning(action.clone()));
            self.holds = match rule {
                [load, compare] if load.code == LOAD && compare.code != LOAD => Some(load.k),
                _ => None,
            };
        }
        Ok(())
    }

    /// The code, ending in the answer to what no rule matched.
    fn end(mut self, action: SeccompAction) -> BpfProgram {
        self.code.push(returning(action));
        self.code
    }
}

/// Resolves `in`: one list of conditions for each way to choose a value from each list of values.
fn alternatives(conditions: &[Condition]) -> Result<Vec<Vec<SeccompCondition>>, SeccompError> {
    let mut lists = vec![Vec::new()];
    for condition in conditions {
        let choices = choices(condition)?;
        lists = choices
            .iter()
            .flat_map(|choice| {
                lists.iter().map(|list| [list.as_slice(), std::slice::from_ref(choice)].concat())
            })
            .collect();
    }
    Ok(lists)
}

fn choices(condition: &Condition) -> Result<Vec<SeccompCondition>, SeccompError> {
    let (index, op, values) = match condition {
        Condition::Eq { index, value } => (index, SeccompCmpOp::Eq, vec![*value]),
        Condition::Ne { index, value } => (index, SeccompCmpOp::Ne, vec![*value]),
        Condition::Ge { index, value } => (index, SeccompCmpOp::Ge, vec![*value]),
        Condition::In { index, values } => (index, SeccompCmpOp::Eq, values.clone()),
        Condition::MaskedEq { index, mask, value } => {
            (index, SeccompCmpOp::MaskedEq(u64::from(mask.0)), vec![*value])
        }
    };
    let compare = |Word(value)| {
        SeccompCondition::new(*index, SeccompCmpArgLen::Dword, op.clone(), u64::from(value))
            .map_err(SeccompError::Condition)
    };
    values.into_iter().map(compare).collect()
}

fn errno(errno: Errno) -> SeccompAction {
    SeccompAction::Errno(errno.number())
}

fn returning(action: SeccompAction) -> sock_filter {
    instruction(RETURN, 0, 0, u32::from(action))
}

fn instruction(code: u16, jt: u8, jf: u8, k: u32) -> sock_filter {
    sock_filter { code, jt, jf, k }
}
